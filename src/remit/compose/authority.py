"""The authority: state, keys, policy, budgets, the sweep; and the control plane of its operator."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial

import remit.compose.app as control
from remit.broker.pending import PendingMemory
from remit.compose import status, wiring
from remit.compose.bound_grants import BoundGrants
from remit.compose.identities import CertificateFiles
from remit.compose.key_rings import AUDIT, EVENTS, PRUNE, SERVICES, SPIFFE, TOKEN, KeyRing, KeyRings
from remit.compose.listeners import bind_unix, noted
from remit.compose.rounds import ticking
from remit.compose.trust import TrustPublisher
from remit.compose.wiring import Application
from remit.config.settings import Settings
from remit.core.audience import Audiences
from remit.core.principal import IdToken, Operator
from remit.errors import RemitError
from remit.jose.proof import Nonces
from remit.ports.connections import BegunConnection
from remit.ports.targets import TargetsPort
from remit.process.descent import descends
from remit.process.orders import ProcessesState
from remit.run.registry import RunRegistry
from remit.sessions.transmitter import EventSigner, Transmitter
from remit.web import listen
from remit.web.authentication import SocketAuth
from remit.web.listen import Listener
from remit.web.routes import AppDeps
from remit.web.verifier import Keys, Verifier

SWEEP = 0.5  # seconds between sweeps
TRUST = 1.0  # seconds between two looks whether a trust bundle is due
NONCES = 600.0  # seconds for which nonces of proofs are made with one key
WITNESS = 2.0  # seconds between two looks at the second place
LAST_LOOK = 0.05  # seconds for who has found the control socket to be seen
ASIDE = "control.sock.ending"  # its name while nobody is to find it

ProcessesOf = Callable[[], Awaitable[ProcessesState]]  # asks the supervisor

_LOG = logging.getLogger("remit")


class AuthorityRole:
    """What decides."""

    def __init__(self, app: Application, supervisor: int | None = None, state: ProcessesOf | None = None) -> None:
        """``supervisor`` is the process that forked this one, ``state`` asks it; None: all roles are in this one."""
        self.application, self._supervisor, self._state, settings = app, supervisor, state, app.settings
        self._operators: Listener  # on the control socket
        self._visited = False  # since somebody last asked whether we are busy
        gateway, humans, clock = settings.gateway.url if settings.gateway else None, app.identity.humans, app.clock
        self.pending, issuer, key = PendingMemory(clock), settings.issuer, secrets.token_bytes(32)
        known = Audiences(issuer, gateway, app.identity.services)
        minting = app.broker, app.tokens, self.pending, issuer, clock, wiring.new_id, key
        self.tokens = BoundGrants(*minting, known=known, by_rsa=app.by_rsa, client_key=app.client_key, humans=humans)
        keys = Keys(self.tokens.public_jwks(), known.by_rsa)
        asked = app.broker, self.tokens, keys, issuer, clock, Nonces(key), self.pending
        self.verifier = Verifier(*asked, gateway, app.identity.services)
        self.rings = key_rings(app, self.tokens, keys)
        self.published = TrustPublisher(app.broker, app.authority, app.bundles)
        self.certificates = None if settings.tls is None else CertificateFiles(settings.tls)
        told = app.signals.receivers
        self.events = EventSigner(app.ended, issuer, app.events, told) if app.events else None
        self.deps = AppDeps(
            app.broker,
            app.broker.kinds,
            self.verifier,
            app.identity,
            self.published.trust,
            connections=app.broker,
            policies=app.policies,
            rings=self.rings,
            streams=() if self.events is None else Transmitter(self.events, issuer, told).routes(),
        )
        asked_for = app.broker, app.broker.runs, app.operator, app.broker.kinds, clock, secrets.token_bytes
        self.runs = RunRegistry(*asked_for, wiring.new_id, humans)
        witness = [] if app.witness is None else [(WITNESS, app.broker.checkpoints.look)]
        trust = (TRUST, self.published.refresh)
        turning = (NONCES, self.turn_nonces)
        self.rounds = [(PRUNE, self.rings.prune), (SWEEP, self.runs.sweep), turning, trust, *witness]

    async def turn_nonces(self) -> None:
        """Have all who verify proofs make nonces with a new key; those of the one before count until the next turn."""
        self.verifier.nonces = self.tokens.turn_nonces(secrets.token_bytes(32))

    def busy(self) -> bool:
        """Whether a task is open, or one that ended not yet on record, or a lease not yet gone, or a run is there.

        So is a broker that the operator came to since this was last asked: who looked for one is about to use it.
        """
        visited, self._visited = self._visited, False
        return visited or self.runs.count > 0 or self.application.broker.busy

    async def left(self) -> bool:
        """Have nobody find us any more; where somebody has come by then, have us found as before, and return False."""
        path = self.application.settings.places.control
        aside = path.rename(path.with_name(ASIDE))
        await asyncio.sleep(LAST_LOOK)
        if not (self.busy() or self._operators.asked):
            return True
        aside.rename(path)
        return False

    async def control(self, sock: socket.socket, *, tcp: bool) -> Listener:
        """Serve the operator on the control socket."""
        told = partial(self.status, tcp=tcp)
        runs = self.runs
        deps = replace(self.deps, begin_run=runs.begin_run, end_runs=runs.end_all, renew_task=self.renew, status=told)
        deps = replace(deps, begin_connection=self.connect if tcp else None)
        app = control.build(deps)
        owner = SocketAuth(self.application.operator, gateway=self.verifier.gateway if tcp else None)
        self._operators = await listen.serve(app, sock, owner, admits=self._admits)
        return self._operators

    async def renew(self, operator: Operator, task_id: str, ttl: timedelta, token: IdToken | None) -> datetime:
        """Renew a task, and keep the runs that hold it on record as long; return when it ends."""
        by = operator if token is None else await self.tokens.human(token)
        root = await self.application.broker.renew_task(by, task_id, ttl)
        await self.runs.renewed(root)
        return root.grant.expires_at

    async def connect(
        self, operator: Operator, name: str, token: IdToken | None, more: tuple[str, ...]
    ) -> BegunConnection:
        """Begin to connect the owner, or the human of a token that they brought here, to the provider of a resource."""
        by = operator if token is None else await self.tokens.human(token)
        return await self.application.broker.connecting.begin(by, name, brought=True, more=more)

    async def status(self, *, tcp: bool) -> Mapping[str, object]:
        """Describe the broker for its operator; UnavailableError while its supervisor does not answer."""
        app = self.application
        tasks = await app.broker.tasks(app.operator)
        return {
            **status.described(None if self._state is None else await self._state()),
            "listens": status.addresses(app.settings, tcp=tcp),
            "tasks": sum(not head.closed for head in tasks),
            "runs": self.runs.count,
        }

    def _admits(self, pid: int, uid: int) -> bool:
        """Whether a process may speak for the operator: ours do not, those that read what others send above all."""
        admitted = uid == os.geteuid() and (self._supervisor is None or not descends(pid, self._supervisor))
        self._visited = self._visited or admitted
        return admitted


@asynccontextmanager
async def authority(
    settings: Settings,
    *,
    tcp: bool = True,
    targets: TargetsPort | None = None,
    supervisor: int | None = None,
    state: ProcessesOf | None = None,
    control: socket.socket | None = None,
) -> AsyncIterator[AuthorityRole]:
    """Open the state and serve the operator; what agents hold is yet to be decided on (``Broker.settle``).

    ``control`` is the control socket where somebody else has bound it, and is to keep it.
    """
    app = wiring.build(settings, targets)

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
        role = AuthorityRole(app, supervisor, state)
        path = settings.places.control
        stack.callback((await role.control(control or bind_unix(path), tcp=tcp)).close)
        for name in () if control else (path, path.with_name(ASIDE)):
            stack.callback(name.unlink, missing_ok=True)
        stack.enter_context(noted(settings.places))
        stack.callback(role.runs.close)
        await role.runs.load()
        stack.enter_context(ticking(role.rounds, [(SWEEP, app.broker.sweep)]))
        yield role


def key_rings(app: Application, tokens: BoundGrants, verifying: Keys) -> KeyRings:
    """Return the key rings, with all that has to know when one rotates; ``verifying`` are the authority's own."""

    def turned() -> None:
        verifying.replace(tokens.public_jwks())
        tokens.keys_changed()

    publish = partial(wiring.publish, app.settings.places.state, app.origin, app.notes, app.witness)
    rings = {
        TOKEN: KeyRing(app.tokens, turned),
        AUDIT: KeyRing(app.notes, publish, app.broker.checkpoints.look),
        SPIFFE: KeyRing(app.authority),
    }
    if app.by_rsa is not None:
        rings[SERVICES] = KeyRing(app.by_rsa, turned)
    if app.events is not None:
        rings[EVENTS] = KeyRing(app.events)
    return KeyRings(app.broker, rings)


def reloading(app: Application, asked: asyncio.Event) -> asyncio.Task[None]:
    """Load the policies anew whenever that was ``asked`` for; the log has what came of it."""

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


async def until_stopped(
    busy: Callable[[], bool], stop: asyncio.Event, idle: float | None, left: Callable[[], Awaitable[bool]]
) -> None:
    """Return when ``stop`` is set, or when after ``idle`` seconds in which nobody was ``busy`` we have ``left``."""
    quiet_since = time.monotonic()
    while not stop.is_set():
        with suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), 0.5)
        if idle is None or busy():
            quiet_since = time.monotonic()
        elif time.monotonic() - quiet_since >= idle:
            if await left():
                return
            quiet_since = time.monotonic()
