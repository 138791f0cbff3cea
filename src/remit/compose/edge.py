"""The edge: what agents and upstreams speak to. The gateway, the listeners of runs, and the hand-over of these."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import remit.compose.app as control
from remit.compose import wiring
from remit.errors import UnavailableError
from remit.gateway.dialling import Offers
from remit.gateway.fronts.discovery import Discovery
from remit.gateway.recorder import Ask
from remit.gateway.server import Channel, Gateway
from remit.ports import Clock, Start
from remit.ports.broker import Notice
from remit.ports.kind import SocketAccess, SocketContext, SocketServer
from remit.ports.runs import RunListener, RunPort
from remit.run.host import Close, HandoverServer, Run
from remit.run.spec import SERVERS, STDIO
from remit.web import listen
from remit.web.authentication import SocketAuth
from remit.web.routes import AppDeps

PROXIES = frozenset({"https", "proxy"})  # listeners of runs
RESERVE = 256  # descriptors that the gateway leaves: for the link, the control plane of runs, listeners


class EdgeRole:
    """What serves agents."""

    def __init__(
        self, deps: AppDeps, runs: RunPort, clock: Clock, ask: Ask | None = None, tls: Offers | None = None
    ) -> None:
        self._app, self._runs, verifier = control.build(replace(deps, begin_run=runs.begin_run)), runs, deps.verifier
        self._verifier, self._trust = verifier, deps.trust
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        self.gateway = Gateway(
            deps.broker,
            deps.kinds,
            wiring.new_id,
            seconds=time.monotonic,
            clock=clock,
            tls=tls,
            problems=f"{verifier.issuer}/problems/",
            verify=verifier.proven,
            nonce=verifier.nonce,
            descriptors=max(descriptors - RESERVE, descriptors // 2),
            ask=ask,
            discovery=Discovery(verifier.issuer, deps.identity.scopes),
        )
        self.sockets = _socket_servers(deps, clock)
        self.handover = HandoverServer(runs, self.serve_run, self.gateway.quota.of)

    async def take_runs(self, sock: socket.socket) -> None:
        """Serve runs from now on: the operator's launchers come to a listening socket."""
        self.handover.listen(sock, os.geteuid())
        await self._runs.take_runs(sorted(self.sockets))

    async def serve_run(self, run: Run, listener: RunListener, sock: socket.socket, start: Start | None) -> Close:
        """Serve one listener as ``run``: identity is the listener."""
        holder, listeners = run.redeemed.holder, run.redeemed.listeners
        channel = Channel(holder.grant, run.redeemed.placeholders)
        if listener.kind == "gateway":
            return (await self.gateway.listen(sock, channel, start=start)).close
        if listener.kind in PROXIES and run.redeemed.reach is not None:
            by_name = listener.kind == "https"
            return (await self.gateway.proxy(sock, channel, run.redeemed.reach, start, by_name=by_name)).close
        if listener.kind == STDIO:
            return (await self.gateway.relay(sock, holder.grant, listener.resource, start)).close
        if listener.kind == SERVERS:
            return (await self.gateway.commands(sock, holder.task, listener.serves, start)).close
        if listener.resource:
            return (await self.gateway.pipe(sock, holder.grant, listener.resource, start)).close
        share = self.gateway.quota.of(holder.task)
        if listener.kind in self.sockets:
            return await self.sockets[listener.kind].serve(sock, holder, start, share)
        ports = {item.resource: int(run.places[item.name]) for item in listeners if item.resource and not item.path}
        gateway = f"http://127.0.0.1:{run.places['gateway']}"
        who = SocketAuth(holder, gateway=gateway, ports=ports, run=run.redeemed.run)
        return (await listen.serve(self._app, sock, who, start=start, share=share)).close

    def noticed(self, notice: Notice) -> None:
        """Pass on to what serves runs what ended and what changed, and take over keys."""
        self._verifier.noticed(notice)
        if self._trust is not None:
            self._trust.noticed(notice)
        self.handover.noticed(notice)
        self.gateway.noticed(notice)
        for server in self.sockets.values():
            server.noticed(notice)

    async def close(self) -> None:
        await self.handover.close()
        await self.gateway.close()


def _socket_servers(deps: AppDeps, clock: Clock) -> Mapping[str, SocketServer]:
    """Return what serves the sockets of kinds, by the names that these give them."""
    if deps.trust is None:
        return {}
    servers: dict[str, SocketServer] = {}
    lent = SocketContext(deps.broker, deps.trust, clock)
    for access in (kind.access for kind in deps.kinds.values()):
        if isinstance(access, SocketAccess) and access.socket not in servers:
            with suppress(UnavailableError):  # the extra that it needs is not installed
                servers[access.socket] = access.server(lent)
    return servers
