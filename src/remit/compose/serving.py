"""The edges, started over one application and stopped with it."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial

import remit.compose.app as control
from remit.broker.pending import PendingMemory
from remit.compose import signals, wiring
from remit.compose.edge import EdgeRole
from remit.compose.key_rings import AUDIT, EVENTS, PRUNE, SPIFFE, TOKEN, KeyRing, KeyRings
from remit.compose.listeners import bind_tcp, bind_unix
from remit.compose.rounds import Round, ticking
from remit.compose.web import WebRole
from remit.compose.wiring import Application
from remit.config.settings import Settings
from remit.errors import RemitError
from remit.jose.proof import Nonces
from remit.link.edge import following
from remit.sessions.transmitter import Transmitter
from remit.web import listen
from remit.web.authentication import ListenerAuth, SocketAuth
from remit.web.listen import Listener
from remit.web.routes import AppDeps
from remit.web.verifier import Keys, Verifier

SWEEP = 0.5  # seconds between sweeps
WITNESS = 2.0  # seconds between two looks at the second place

_LOG = logging.getLogger("remit")


class Edges:
    """What serves: the authority's control plane, an edge, and web."""

    def __init__(self, app: Application) -> None:
        self.application, settings = app, app.settings
        keys = Keys(app.tokens.signer, app.tokens.public_jwks())
        nonces, gateway = Nonces(secrets.token_bytes(32)), settings.gateway.url if settings.gateway else None
        pending = PendingMemory(app.clock)
        self.verifier = Verifier(app.broker, keys, settings.issuer, app.clock, nonces, pending, gateway)
        self.rings = key_rings(app, keys)
        sender = Transmitter(app.ended, settings.issuer, app.events, app.signals.receivers) if app.events else None
        self.deps = AppDeps(
            app.broker,
            app.broker.kinds,
            self.verifier,
            wiring.new_id,
            app.checkpoint,
            app.identity,
            app.authority,
            policies=app.policies,
            rings=self.rings,
            streams=() if sender is None else sender.routes(),
        )
        self.edge = EdgeRole(self.deps, app.clock, app.bundles)
        told = signals.rounds(app.signals, app.broker, app.ended, app.clock, sender)
        self.web = WebRole(self.deps, settings, app.bundles, told)
        self._listeners: list[Listener] = []

    async def control(self, sock: socket.socket, listener: ListenerAuth, uid: int | None = None) -> Listener:
        served = await listen.serve(control.build(self.deps), sock, listener, uid=uid)
        self._listeners.append(served)
        return served

    def busy(self) -> bool:
        """Whether a task is open, or one that ended not yet on record, or a lease not yet gone."""
        return self.edge.launches.busy or self.application.broker.busy

    async def close(self) -> None:
        await self.edge.launches.close()
        for listener in self._listeners:
            listener.close()
        self.web.close()
        await self.edge.close()


@asynccontextmanager
async def served(settings: Settings, *, tcp: bool = True) -> AsyncIterator[Edges]:
    app = wiring.build(settings)

    async def keep_last() -> None:
        """Keep a checkpoint in the second place, if it can be: nobody stays up for it."""
        with suppress(RemitError):
            await app.broker.checkpoints.look()

    async with AsyncExitStack() as stack:
        stack.push_async_callback(app.broker.stop)
        await app.broker.load()
        for one in app.signals.receivers:  # each that is new is told of what ends from now on
            await app.ended.pending(one.name, 1)
        await app.policies.started(app.operator)
        stack.push_async_callback(keep_last)
        edges = Edges(app)
        stack.push_async_callback(edges.close)
        stack.enter_context(following(app.broker.notices(), edges.edge.noticed))
        owner = SocketAuth(app.operator, gateway=edges.verifier.gateway if tcp else None)
        await edges.control(bind_unix(settings.places.control), owner, os.geteuid())
        stack.callback(settings.places.control.unlink, missing_ok=True)
        await app.broker.end_channels()
        edges.edge.launches.listen(bind_unix(settings.places.launch, socket.SOCK_SEQPACKET), app.operator, os.geteuid())
        stack.callback(settings.places.launch.unlink, missing_ok=True)
        if tcp:
            await _listen_tcp(edges)
        stack.enter_context(ticking(_rounds(app, edges), [(SWEEP, app.broker.sweep)]))
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


def _rounds(app: Application, edges: Edges) -> Sequence[tuple[float, Round]]:
    """Return what is done in the background, and how many seconds apart: keep checkpoints, look for new keys."""
    witness = [] if app.witness is None else [(WITNESS, app.broker.checkpoints.look)]
    return [(PRUNE, edges.rings.prune), *witness, *edges.web.rounds]


def key_rings(app: Application, verifying: Keys) -> KeyRings:
    """Return the key rings, with all that has to know when one rotates; ``verifying`` are the keys for tokens."""
    publish = partial(wiring.publish, app.settings.places.state, app.origin, app.notes, app.witness)
    rings = {
        TOKEN: KeyRing(app.tokens, lambda: verifying.replace(app.tokens.signer, app.tokens.public_jwks())),
        AUDIT: KeyRing(app.notes, publish, app.broker.checkpoints.look),
        SPIFFE: KeyRing(app.authority),
    }
    if app.events is not None:
        rings[EVENTS] = KeyRing(app.events)
    return KeyRings(app.broker, rings)


def reloading(app: Application) -> asyncio.Task[None]:
    """Load the policies anew whenever SIGHUP comes, from now on; the log has what came of it."""
    asked = asyncio.Event()
    if app.policies.directory is not None:  # else SIGHUP goes on ending the process whose terminal is gone
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, asked.set)

    async def reload() -> None:
        while True:
            await asked.wait()
            asked.clear()
            try:
                answer = await app.policies.reload(app.operator)
                if answer["reloaded"]:
                    _LOG.info("policies %s hold, %s ended", answer["version"], answer["ended"])
            except RemitError as error:
                _LOG.error("the policies were not loaded: %s", error.detail)
            except Exception:  # noqa: BLE001 - told to the log; the next signal is heard
                _LOG.exception("the policies were not loaded")

    return asyncio.create_task(reload())


async def until_stopped(edges: Edges, stop: asyncio.Event, idle: float | None) -> None:
    """Return when ``stop`` is set, or after ``idle`` seconds in which no task was open."""
    quiet_since = time.monotonic()
    while not stop.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5)
        if idle is None or edges.busy():
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= idle:
            return
