"""The edge: what agents and upstreams speak to. The gateway, the listeners of runs, and the hand-over of these."""

from __future__ import annotations

import resource
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

import remit.compose.app as control
from remit.compose import wiring
from remit.errors import UnavailableError
from remit.gateway.server import Channel, Gateway
from remit.ports import Clock, Start
from remit.ports.broker import Notice
from remit.ports.identity import Federation
from remit.ports.kind import SocketAccess, SocketContext, SocketServer
from remit.ports.runs import RunListener
from remit.run.host import Close, LaunchServer, Run
from remit.web import listen
from remit.web.authentication import SocketAuth
from remit.web.routes import AppDeps

RESERVE = 256  # descriptors that the gateway leaves: for the link, the control plane of runs, listeners


class EdgeRole:
    """What serves agents."""

    def __init__(self, deps: AppDeps, clock: Clock, federation: Federation | None = None) -> None:
        self._app, verifier = control.build(deps), deps.verifier
        self._keys = verifier.keys
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.gateway = Gateway(
            deps.broker,
            deps.kinds,
            wiring.new_id,
            seconds=time.monotonic,
            clock=clock,
            problems=f"{verifier.issuer}/problems/",
            verify=verifier.proven,
            nonce=verifier.nonce,
            descriptors=max(descriptors - RESERVE, descriptors // 2),
        )
        self.sockets = _socket_servers(deps, clock, federation)
        self.launches = LaunchServer(
            deps.broker, deps.kinds, self.serve_run, self.gateway.quota.of, self.sockets, deps.identity.humans
        )

    async def serve_run(self, run: Run, listener: RunListener, sock: socket.socket, start: Start | None) -> Close:
        """Serve one listener as ``run``: identity is the listener."""
        if listener.kind == "gateway":
            channel = Channel(run.holder.grant, run.provisioning.placeholders)
            return (await self.gateway.listen(sock, channel, start=start)).close
        if listener.resource:
            return (await self.gateway.pipe(sock, run.holder.grant, listener.resource, start)).close
        share = self.gateway.quota.of(run.holder.task)
        if listener.kind in self.sockets:
            return await self.sockets[listener.kind].serve(sock, run.holder, start, share)
        ports = {item.resource: int(run.places[item.name]) for item in run.provisioning.listeners if item.resource}
        who = SocketAuth(run.holder, gateway=f"http://127.0.0.1:{run.places['gateway']}", ports=ports)
        return (await listen.serve(self._app, sock, who, start=start, share=share)).close

    def noticed(self, notice: Notice) -> None:
        """Pass on to what serves runs what ended and what changed, and take over keys."""
        self._keys.noticed(notice)
        self.gateway.noticed(notice)
        for server in self.sockets.values():
            server.noticed(notice)

    async def close(self) -> None:
        await self.launches.close()
        await self.gateway.close()


def _socket_servers(deps: AppDeps, clock: Clock, federation: Federation | None) -> Mapping[str, SocketServer]:
    """Return what serves the sockets of kinds, by the names that these give them."""
    if deps.authority is None:
        return {}
    servers: dict[str, SocketServer] = {}
    lent = SocketContext(deps.broker, deps.authority, clock, federation)
    for access in (kind.access for kind in deps.kinds.values()):
        if isinstance(access, SocketAccess) and access.socket not in servers:
            with suppress(UnavailableError):  # the extra that it needs is not installed
                servers[access.socket] = access.server(lent)
    return servers
