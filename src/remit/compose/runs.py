"""What runs are given, and how their listeners are served."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Mapping

from starlette.types import ASGIApp

from remit import catalog
from remit.compose import issuer
from remit.compose.wiring import Application
from remit.core.task import Grant
from remit.gateway.quota import TaskQuota
from remit.gateway.server import Channel, Gateway
from remit.ports import Resource
from remit.run import environment
from remit.run.acceptor import Acceptor
from remit.run.environment import ProviderVariables, RunListener, RunProvisioning
from remit.run.host import Close, Run
from remit.web import listen
from remit.web.authentication import SocketAuth


class RunEdges:
    """Lends the gateway and the control plane to runs."""

    def __init__(self, app: Application, gateway: Gateway, control: ASGIApp) -> None:
        """Serve runs of ``application`` by ``gateway`` and the control plane."""
        self._application, self._gateway, self._control = app, gateway, control
        self._workload = issuer.workload_api(app.broker, app.authority, app.clock, app.bundles)
        self._providers = {name: _provider_variables(name, row) for name, row in catalog.load().items()}

    def provision(self, grant: Grant, folder: str, *, private: bool) -> RunProvisioning:
        """Return what a run under ``grant`` gets."""
        return environment.provision(
            grant,
            self._resources(),
            self._providers,
            _placeholder,
            folder,
            private=private,
            workload=self._workload is not None,
        )

    def variables(self, run: Run) -> Mapping[str, str]:
        """Return the environment variables that tell a run what it has."""
        grant = self._application.broker.check(run.grant)
        return environment.variables(
            grant, self._resources(), self._providers, run.provisioning.placeholders, run.places
        )

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
        if listener.kind == "postgres":
            return (await self._gateway.pipe(sock, run.grant, listener.resource, start)).close
        if listener.kind == "workload" and self._workload is not None:
            return await self._workload.serve(sock, run.holder, start, self.share(run.task))
        ports = {item.resource: int(run.places[item.name]) for item in run.provisioning.listeners if item.resource}
        base = f"http://127.0.0.1:{run.places['gateway']}"
        who = SocketAuth(run.holder, gateway=base, ports=ports)
        return (await listen.serve(self._control, sock, who, start=start, share=self.share(run.task))).close

    def _resources(self) -> dict[str, Resource]:
        return {resource.name: resource for resource in self._application.broker.resources()}


def _provider_variables(name: str, provider: catalog.Provider) -> ProviderVariables:
    base = {} if provider.base is None else {provider.base.variable: provider.base.value.removeprefix("{}")}
    return ProviderVariables(provider.variables, base, name)


def _placeholder(shape: str) -> str:
    provider = catalog.load()[shape or environment.GENERIC]
    return catalog.placeholder(provider, secrets.token_bytes(32))
