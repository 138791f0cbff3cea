"""What each worker does in its fork: it serves what its role is, until its link to the authority ends."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import uvloop

from remit.compose import identities, kinds, logs, signals, wiring
from remit.compose.edge import EdgeRole
from remit.compose.rounds import ticking
from remit.compose.targets import serve_targets
from remit.compose.web import WebRole
from remit.config.settings import Settings
from remit.core.audience import Audiences
from remit.errors import RemitError, UnavailableError
from remit.gateway.dialling import Offers
from remit.gateway.intercept import unraisable
from remit.gateway.recorder import Ask
from remit.identity.fetch import HttpFetch
from remit.link.frames import LinkSockets
from remit.link.worker import connect
from remit.ports import Clock
from remit.ports.broker import BrokerPort, Notice
from remit.ports.connections import ConnectionPort
from remit.ports.events import EventPort
from remit.ports.identity import Workloads
from remit.ports.pending import Pending
from remit.ports.reports import ReportPort
from remit.ports.runs import RunPort
from remit.ports.tokens import TokenPort
from remit.ports.trust import CertificatePort, Trust, TrustPort
from remit.process.supervisor import RoleContext
from remit.sessions.transmitter import Transmitter
from remit.web.routes import AppDeps, Identity, Route
from remit.web.verifier import Keys, Verifier

HANDOVER, GATEWAY, API, TLS = "handover", "gateway", "api", "tls"  # listeners


@dataclass(eq=False, slots=True)
class _Hears:
    """Hands on what the authority tells; what comes before there is somebody to act on it is kept for them."""

    role: EdgeRole | WebRole | None = None
    early: list[Notice] = field(default_factory=list)

    def by(self, role: EdgeRole | WebRole) -> None:
        """Have a role act on notices from now on."""
        self.role = role
        for notice in self.early:
            role.noticed(notice)
        self.early.clear()

    def mark(self, grants: frozenset[str]) -> None:
        if isinstance(self.role, EdgeRole):
            self.role.gateway.mark(grants)

    def sever(self, grants: frozenset[str]) -> None:
        if isinstance(self.role, EdgeRole):
            self.role.gateway.sever(grants)

    def noticed(self, notice: Notice) -> None:
        if self.role is None:
            self.early.append(notice)
        else:
            self.role.noticed(notice)


class Remote(
    BrokerPort,
    ConnectionPort,
    Pending,
    TokenPort,
    TrustPort,
    CertificatePort,
    EventPort,
    RunPort,
    ReportPort,
    Workloads,
    Protocol,
):
    """The authority, as a worker knows it."""


@dataclass(frozen=True, slots=True)
class _Joined:
    """A worker that is joined to the authority, until it is ``over``."""

    authority: Remote
    ask: Ask
    hears: _Hears
    over: asyncio.Event
    clock: Clock

    async def deps(self, settings: Settings, identity: Identity, streams: Sequence[Route] = ()) -> AppDeps:
        """Return what the control plane is served from, here."""
        remote, services = self.authority, identity.services
        gateway = None if settings.gateway is None else settings.gateway.url
        known = Audiences(settings.issuer, gateway, services)
        keys, nonces = Keys(await remote.token_keys(), known.by_rsa), await remote.nonces()
        asked = remote, remote, keys, settings.issuer, self.clock, nonces, remote
        verifier = Verifier(*asked, gateway, services)
        trust = Trust(await remote.published_trust())
        return AppDeps(remote, kinds.known(settings), verifier, identity, trust, connections=remote, streams=streams)

    def workloads(self, settings: Settings) -> Workloads | None:
        """Return what verifies workloads: the authority does, as far as anybody is let in."""
        attested = settings.trust_domains or settings.workloads or any(one.keyed for one in settings.clients)
        return self.authority if attested else None


def _worked(context: RoleContext, serve: Callable[[_Joined], Awaitable[None]]) -> int:
    """Serve with a link to the authority until that ends."""

    async def work() -> None:
        over, hears = asyncio.Event(), _Hears()
        link = await connect(LinkSockets(*context.links), hears, over.set)
        remote: Remote = link.authority
        with logs.reported(remote):
            try:
                await serve(_Joined(remote, link.ask, hears, over, wiring.steady()))
            except RemitError as error:
                with suppress(UnavailableError):  # it is gone, and that is why
                    await remote.failed(error)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())
    return 0


def edge(context: RoleContext, settings: Settings, tls: Offers) -> int:
    """Be an edge; ``tls`` is what upstreams are verified by."""
    sys.unraisablehook = unraisable
    return _worked(context, partial(_edge, context, settings, tls))


async def _edge(context: RoleContext, settings: Settings, tls: Offers, joined: _Joined) -> None:
    identity = Identity(
        workloads=joined.workloads(settings),
        methods=identities.methods(settings),
        native=identities.native_clients(settings),
        scopes=identities.scopes(settings),
    )
    role = EdgeRole(await joined.deps(settings, identity), joined.authority, joined.clock, joined.ask, tls)
    joined.hears.by(role)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(role.close)
        await role.take_runs(context.listeners[HANDOVER])
        if GATEWAY in context.listeners:
            await role.gateway.listen(context.listeners[GATEWAY], None)
        await joined.authority.started()
        await joined.over.wait()


def web(context: RoleContext, settings: Settings) -> int:
    """Be what strangers speak to."""
    return _worked(context, partial(_web, context, settings))


async def _web(context: RoleContext, settings: Settings, joined: _Joined) -> None:
    remote, fetch = joined.authority, HttpFetch()
    known = identities.trusted(settings, joined.clock, fetch)
    heard = signals.read(settings, known.sources, joined.clock, fetch)
    workloads, mac = joined.workloads(settings), remote.client_mac
    identity = wiring.identity(settings, known, heard, joined.clock, workloads, mac)
    receivers = heard.receivers
    streams = Transmitter(remote, settings.issuer, receivers).routes() if receivers else ()
    told = signals.rounds(heard, remote, joined.clock, remote if receivers else None)
    deps, shown = await joined.deps(settings, identity, streams), settings.tls is not None
    certificate = (remote, await remote.server_certificate()) if shown else ()
    role = WebRole(deps, settings, told, *certificate)
    joined.hears.by(role)
    async with AsyncExitStack() as stack:
        stack.callback(role.close)
        if API in context.listeners:
            await role.listen(context.listeners[API])
        if TLS in context.listeners:
            await role.listen_tls(context.listeners[TLS])
        stack.enter_context(ticking(role.rounds))
        await remote.started()
        await joined.over.wait()


def targets(context: RoleContext, settings: Settings) -> int:
    """Be what reaches databases, clouds and issuers."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_targets(settings, wiring.steady(), LinkSockets(*context.links)))
    return 0
