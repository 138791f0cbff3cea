"""All roles of a broker in one process, for tests that look into them."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace

from remit.compose import identities, signals
from remit.compose.authority import AuthorityRole, authority
from remit.compose.edge import EdgeRole
from remit.compose.listeners import bind_tcp, bind_unix
from remit.compose.rounds import ticking
from remit.compose.web import WebRole
from remit.compose.wiring import Application
from remit.config.settings import Settings
from remit.ports.broker import Notice
from remit.web.routes import AppDeps
from tests.support.following import following

EDGE = "1"  # the one that there is


class Edges:
    """The roles of one broker."""

    def __init__(self, authority: AuthorityRole) -> None:
        self.authority, app = authority, authority.application
        runs = authority.runs.edge(str(app.settings.places.handover(EDGE)))
        self.edge = EdgeRole(authority.deps, runs, app.clock)
        told = signals.rounds(app.signals, app.broker, app.clock, authority.events)
        files = authority.certificates
        self.web = WebRole(
            _registering(authority), app.settings, told, *(() if files is None else (files, files.read()))
        )

    @property
    def application(self) -> Application:
        return self.authority.application

    def noticed(self, notice: Notice) -> None:
        """Act on what the authority tells."""
        self.edge.noticed(notice)
        self.web.noticed(notice)

    def busy(self) -> bool:
        """Whether a task is open, or one that ended not yet on record, or a lease not yet gone."""
        return self.edge.handover.busy or self.application.broker.busy

    async def close(self) -> None:
        self.authority.runs.close()
        await self.edge.handover.close()
        self.web.close()
        await self.edge.close()


def _registering(authority: AuthorityRole) -> AppDeps:
    """Return what web is served from: there clients register themselves, if any may."""
    app, deps = authority.application, authority.deps
    own = identities.registration(app.settings, app.clock, authority.tokens.client_mac)
    if own is None:
        return deps
    known = identities.clients(app.settings, app.clock, own)
    return replace(deps, identity=replace(deps.identity, clients=known, registration=own.routes()))


@asynccontextmanager
async def served(settings: Settings, *, tcp: bool = True) -> AsyncIterator[Edges]:
    async with AsyncExitStack() as stack:
        edges = Edges(await stack.enter_async_context(authority(settings, tcp=tcp)))
        app = edges.application
        stack.push_async_callback(edges.close)
        stack.enter_context(following(app.broker.notices(), edges.noticed))
        handover = settings.places.handover(EDGE)
        await edges.edge.take_runs(bind_unix(handover, socket.SOCK_SEQPACKET))
        stack.callback(handover.unlink, missing_ok=True)
        if tcp:
            await _listen_tcp(edges)
        stack.enter_context(ticking(edges.web.rounds))
        await app.broker.settle()  # served by now: whoever made it take long can be looked at and ended meanwhile
        yield edges


async def _listen_tcp(edges: Edges) -> None:
    settings = edges.application.settings
    if settings.api is not None:
        await edges.web.listen(bind_tcp(settings.api, "listen.api"))
    if settings.tls is not None:
        await edges.authority.published.refresh()  # whom the first handshake may believe
        await edges.web.listen_tls(bind_tcp(settings.tls.listen, "tls.listen"))
    if settings.gateway is not None:
        await edges.edge.gateway.listen(bind_tcp(settings.gateway, "listen.gateway"), None)
