"""All roles in one process, started and stopped together."""

from __future__ import annotations

import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from remit.compose import signals
from remit.compose.authority import AuthorityRole, authority
from remit.compose.edge import EdgeRole
from remit.compose.listeners import bind_tcp, bind_unix
from remit.compose.rounds import ticking
from remit.compose.web import WebRole
from remit.compose.wiring import Application
from remit.config.settings import Settings
from remit.link.edge import following


class Edges:
    """The roles of one broker."""

    def __init__(self, authority: AuthorityRole) -> None:
        self.authority, app = authority, authority.application
        self.edge = EdgeRole(authority.deps, app.clock, app.bundles)
        told = signals.rounds(app.signals, app.broker, app.ended, app.clock, authority.sender)
        self.web = WebRole(authority.deps, app.settings, app.bundles, told)

    @property
    def application(self) -> Application:
        return self.authority.application

    def busy(self) -> bool:
        """Whether a task is open, or one that ended not yet on record, or a lease not yet gone."""
        return self.edge.launches.busy or self.application.broker.busy

    async def close(self) -> None:
        await self.edge.launches.close()
        self.web.close()
        await self.edge.close()


@asynccontextmanager
async def served(settings: Settings, *, tcp: bool = True) -> AsyncIterator[Edges]:
    async with AsyncExitStack() as stack:
        edges = Edges(await stack.enter_async_context(authority(settings, tcp=tcp)))
        app = edges.application
        stack.push_async_callback(edges.close)
        stack.enter_context(following(app.broker.notices(), edges.edge.noticed))
        edges.edge.launches.listen(bind_unix(settings.places.launch, socket.SOCK_SEQPACKET), app.operator, os.geteuid())
        stack.callback(settings.places.launch.unlink, missing_ok=True)
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
        await edges.web.listen_tls(bind_tcp(settings.tls.listen, "tls.listen"))
    if settings.gateway is not None:
        await edges.edge.gateway.listen(bind_tcp(settings.gateway, "listen.gateway"), None)
