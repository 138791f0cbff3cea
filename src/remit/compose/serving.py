"""The edges, started over one application and stopped with it."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import resource
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from functools import partial
from pathlib import Path
from ssl import SSLContext

import remit.compose.app as control
from remit.broker.pending import PendingMemory
from remit.compose import identities, signals, wiring
from remit.compose.key_rings import AUDIT, EVENTS, PRUNE, SPIFFE, TOKEN, KeyRing, KeyRings
from remit.compose.signals import Round
from remit.compose.wiring import Application
from remit.config.settings import Settings
from remit.config.values import Address
from remit.errors import RemitError, UnavailableError
from remit.gateway.server import Channel, Gateway
from remit.jose.proof import Nonces
from remit.link.edge import following
from remit.ports import Start
from remit.ports.broker import Notice
from remit.ports.kind import SocketAccess, SocketContext, SocketServer
from remit.run import handover
from remit.run.environment import RunListener
from remit.run.host import Close, LaunchServer, Run
from remit.sessions.transmitter import Transmitter
from remit.web import listen
from remit.web.authentication import ListenerAuth, SocketAuth, TokenAuth
from remit.web.listen import Listener
from remit.web.routes import AppDeps
from remit.web.verifier import Keys, Verifier

SWEEP = 0.5  # seconds between sweeps
TRUST = 1.0  # seconds between two looks whether a trust bundle is due, or our certificate new
SIGNALS = 1.0  # seconds between two looks whether events are to be fetched or sent
WITNESS = 2.0  # seconds between two looks at the second place
BACKLOG = 128
RESERVE = 256  # descriptors that the gateway leaves: for the control plane, the store, engines, listeners
PR_SET_DUMPABLE = 4  # prctl(2)

_LOG = logging.getLogger("remit")


class Edges:
    """What serves: the control plane, the gateway, and the listeners that runs hand over."""

    def __init__(self, app: Application) -> None:
        self.application, settings = app, app.settings
        keys = Keys(app.tokens.signer, app.tokens.public_jwks())
        nonces, gateway = Nonces(secrets.token_bytes(32)), settings.gateway.url if settings.gateway else None
        pending = PendingMemory(app.clock)
        self.verifier = Verifier(app.broker, keys, settings.issuer, app.clock, nonces, pending, gateway)
        self.rings, descriptors = key_rings(app, keys), resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        sender = Transmitter(app.ended, settings.issuer, app.events, app.signals.receivers) if app.events else None
        self.signals = signals.rounds(app.signals, app.broker, app.ended, app.clock, sender)
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
        self.app = control.build(self.deps)
        self.gateway = Gateway(
            app.broker,
            app.broker.kinds,
            wiring.new_id,
            seconds=time.monotonic,
            clock=app.clock,
            problems=f"{settings.issuer}/problems/",
            verify=self.verifier.proven,
            nonce=self.verifier.nonce,
            descriptors=max(descriptors - RESERVE, descriptors // 2),
        )
        self._listeners: list[Listener] = []
        self.tls = identities.server_tls(settings, app.bundles)
        self.sockets = _socket_servers(app)
        self.launches = LaunchServer(
            app.broker, app.broker.kinds, self.serve_run, self.gateway.quota.of, self.sockets, app.identity.humans
        )

    async def control(
        self, sock: socket.socket, listener: ListenerAuth, uid: int | None = None, tls: SSLContext | None = None
    ) -> Listener:
        served = await listen.serve(self.app, sock, listener, uid=uid, tls=tls)
        self._listeners.append(served)
        return served

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
        return (await listen.serve(self.app, sock, who, start=start, share=share)).close

    def noticed(self, notice: Notice) -> None:
        """Pass on to what serves runs what ended and what changed."""
        self.gateway.noticed(notice)
        for server in self.sockets.values():
            server.noticed(notice)

    async def trust(self) -> None:
        """Look for new trust bundles and a new certificate of ours; TLS handshakes use them from now on."""
        if self.application.bundles is not None:
            await self.application.bundles.refresh()
        if self.tls is not None and self.tls.refresh():
            for listener in self._listeners:
                listener.cut_certified()

    def busy(self) -> bool:
        """Whether a task is open, or one that ended not yet on record, or a lease not yet gone."""
        return self.launches.busy or self.application.broker.busy

    async def close(self) -> None:
        await self.launches.close()
        for listener in self._listeners:
            listener.close()
        await self.gateway.close()


def _socket_servers(app: Application) -> dict[str, SocketServer]:
    """Return what serves the sockets of kinds, by the names that these give them."""
    servers: dict[str, SocketServer] = {}
    lent = SocketContext(app.broker, app.authority, app.clock, app.bundles)
    for access in (kind.access for kind in app.broker.kinds.values()):
        if isinstance(access, SocketAccess) and access.socket not in servers:
            with suppress(UnavailableError):  # the extra that it needs is not installed
                servers[access.socket] = access.server(lent)
    return servers


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
        stack.enter_context(following(app.broker.notices(), edges.noticed))
        owner = SocketAuth(app.operator, gateway=edges.verifier.gateway if tcp else None)
        await edges.control(bind_unix(settings.places.control), owner, os.geteuid())
        stack.callback(settings.places.control.unlink, missing_ok=True)
        await app.broker.end_channels()
        edges.launches.listen(bind_unix(settings.places.launch, socket.SOCK_SEQPACKET), app.operator, os.geteuid())
        stack.callback(settings.places.launch.unlink, missing_ok=True)
        if tcp:
            await _listen_tcp(edges)
        stack.enter_context(_ticking(app, edges))
        await app.broker.settle()  # served by now: whoever made it take long can be looked at and ended meanwhile
        yield edges


async def _listen_tcp(edges: Edges) -> None:
    settings, gateway = edges.application.settings, edges.verifier.gateway
    if settings.api is not None:
        hosts = frozenset({str(settings.api), f"localhost:{settings.api[1]}"})
        web = TokenAuth(hosts, edges.verifier.holder, gateway=gateway)
        await edges.control(bind_tcp(settings.api, "listen.api"), web)
    if settings.tls is not None and edges.tls is not None:
        await edges.trust()
        web = TokenAuth(settings.tls.hosts, edges.verifier.holder, gateway=gateway, scheme="https")
        await edges.control(bind_tcp(settings.tls.listen, "tls.listen"), web, tls=edges.tls.context)
    if settings.gateway is not None:
        await edges.gateway.listen(bind_tcp(settings.gateway, "listen.gateway"), None)


@contextmanager
def _ticking(app: Application, edges: Edges) -> Iterator[None]:
    """Sweep, keep checkpoints in the second place, and look for new trust bundles, in the background."""
    rounds: list[tuple[float, Round]] = [(TRUST, edges.trust), (PRUNE, edges.rings.prune)]
    rounds += [(SIGNALS, what) for what in edges.signals]
    if app.witness is not None:
        rounds.append((WITNESS, app.broker.checkpoints.look))
    tasks = [asyncio.create_task(_every(seconds, what)) for seconds, what in rounds]
    tasks.append(asyncio.create_task(_overlapping(SWEEP, app.broker.sweep)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


async def _every(seconds: float, what: Callable[[], Awaitable[None]]) -> None:
    told = ""  # the same trouble is told once
    while True:
        await asyncio.sleep(seconds)
        told = await _one(what, told)


async def _overlapping(seconds: float, what: Callable[[], Awaitable[None]]) -> None:
    """Begin a round every so often, though one before may still wait for a target."""
    async with asyncio.TaskGroup() as rounds:
        while True:
            await asyncio.sleep(seconds)
            rounds.create_task(_one(what))


async def _one(what: Callable[[], Awaitable[None]], told: str = "") -> str:
    """Do one round; return the trouble it had, which is told unless it was told of the round before."""
    try:
        await what()
    except RemitError as error:
        if told != error.detail:
            _LOG.warning("%s: %s", error.code, error.detail)
        return error.detail
    except Exception:  # noqa: BLE001 - told to the log; the next round comes
        _LOG.exception("a background round failed")
    return ""


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


def bind_unix(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Return a listening socket at ``path``, mode 0600; a stale one is replaced, as the state's lock is ours."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise UnavailableError(f"the socket `{path.name}` cannot be made", help="is its path too long?") from error
    finally:
        os.umask(before)
    if kind == socket.SOCK_STREAM:  # the other kind is for hand-overs
        handover.refuse_descriptors(sock)
    sock.listen(BACKLOG)
    return sock


def bind_tcp(address: Address, setting: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        helps = f'set `{setting}` to another address, or to "off"'
        raise UnavailableError(f"{address} is in use", help=helps) from error
    sock.listen(BACKLOG)
    return sock


def harden() -> None:
    """Keep others out of our memory and of what we make, whatever the umask was; take all descriptors we may have."""
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def stopping() -> asyncio.Event:
    """Return what SIGTERM and SIGINT set from now on, in place of killing this process."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    return stop


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
