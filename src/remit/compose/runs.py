"""What runs are given, and how their listeners are served."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping

from starlette.types import ASGIApp

from remit.compose import issuer
from remit.compose.wiring import Application
from remit.core.task import Grant
from remit.gateway.quota import TaskQuota
from remit.gateway.server import Channel, Gateway
from remit.ports import Resource
from remit.ports.broker import Notice
from remit.run import environment
from remit.run.acceptor import Acceptor
from remit.run.environment import RunListener, RunProvisioning
from remit.run.host import Close, Run
from remit.web import listen
from remit.web.authentication import SocketAuth


class RunEdges:
    """Lends the gateway and the control plane to runs."""

    def __init__(self, app: Application, gateway: Gateway, control: ASGIApp) -> None:
        """Serve runs of ``application`` by ``gateway`` and the control plane."""
        self._application, self._gateway, self._control = app, gateway, control
        workload = issuer.workload_api(app.broker, app.authority, app.clock, app.bundles)
        self._sockets = {} if workload is None else {"workload": workload}  # by the names that their kinds give them

    async def provision(self, grant: Grant, folder: str, *, private: bool) -> RunProvisioning:
        """Return what a run under ``grant`` gets."""
        return environment.provision(
            grant,
            await self._resources(),
            self._application.broker.kinds,
            secrets.token_bytes,
            folder,
            private=private,
            sockets=self._sockets,
        )

    async def variables(self, run: Run) -> Mapping[str, str]:
        """Return the environment variables that tell a run what it has."""
        broker = self._application.broker
        grant, resources = (await broker.grant(run.grant)).grant, await self._resources()
        return environment.variables(grant, resources, broker.kinds, run.provisioning.placeholders, run.places)

    def noticed(self, notice: Notice) -> None:
        """Pass on what ended and what changed."""
        self._gateway.noticed(notice)
        for workload in self._sockets.values():
            workload.noticed(notice)

    def share(self, task: str) -> TaskQuota:
        """Return what a task may have open."""
        return self._gateway.quota.of(task)

    async def serve(
        self, run: Run, listener: RunListener, sock: socket.socket, acceptor: Acceptor | None = None
    ) -> Close:
        """Serve one listener as ``run``: identity is the listener."""
        start = None if acceptor is None else acceptor.serve
        if listener.kind == "gateway":
            return (
                await self._gateway.listen(sock, Channel(run.grant, run.provisioning.placeholders), start=start)
            ).close
        if listener.resource:
            return (await self._gateway.pipe(sock, run.grant, listener.resource, start)).close
        if listener.kind in self._sockets:
            return await self._sockets[listener.kind].serve(sock, run.holder, start, self.share(run.task))
        ports = {item.resource: int(run.places[item.name]) for item in run.provisioning.listeners if item.resource}
        base = f"http://127.0.0.1:{run.places['gateway']}"
        who = SocketAuth(run.holder, gateway=base, ports=ports)
        return (await listen.serve(self._control, sock, who, start=start, share=self.share(run.task))).close

    async def _resources(self) -> dict[str, Resource]:
        return {resource.name: resource for resource in await self._application.broker.resources()}
