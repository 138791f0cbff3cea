"""The processes of a broker: what each is, sees and listens on, and how the authority is joined to the others.

No byte of an agent, a stranger, an upstream or a database is read in the process that decides and revokes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path

import uvloop

from remit import catalog
from remit.compose import kinds, logs, probe, workers
from remit.compose.activation import CONTROL
from remit.compose.authority import authority, reloading, until_stopped
from remit.compose.joined import OWN, Workers
from remit.compose.listeners import bind_tcp, bind_unix, harden
from remit.compose.wiring import Application
from remit.config.settings import Settings
from remit.config.values import Address
from remit.errors import RemitError, UnavailableError
from remit.gateway.dialling import offers
from remit.link import messages
from remit.link.values import failure, raised, read_failure, write_failure
from remit.process import files
from remit.process.confinement import Confinement
from remit.process.orders import Supervision
from remit.process.supervisor import ProcessRole, RoleContext, supervise

SAID = "said"  # the socket on which an authority that cannot serve says why
MAX_SAID = 65_536  # bytes
OLDEST = 2  # the generation of the collector in which what lives long is
DAY = 86_400  # seconds


@dataclass(frozen=True, slots=True)
class Serving:
    """What is to be served: until somebody says stop, or nobody has been there for ``idle`` seconds."""

    settings: Settings
    edges: int = 1
    tcp: bool = True
    idle: float | None = None
    tell: Callable[[str], None] | None = None  # prints a line: the authority's process says who was reached
    passed: Mapping[str, socket.socket] = field(default_factory=dict)  # listeners that systemd has bound

    def bind_tcp(self, name: str, address: Address, setting: str) -> socket.socket:
        """Return a listener that is the caller's to close."""
        return self.passed[name].dup() if name in self.passed else bind_tcp(address, setting)


def run(serving: Serving, ready: Callable[[], None], ending: Callable[[], None] = lambda: None) -> None:
    """Serve; ``ready`` is called when everything listens, ``ending`` when that is to end.

    Raises what keeps the authority from serving.
    """
    settings, tcp = serving.settings, serving.tcp
    harden()
    ours, theirs = socket.socketpair()
    with ours, theirs:
        decide = partial(_decides, serving=serving)
        _warm()
        bound = dict[Path, int]()
        roles = {
            "edge": _edge(serving, bound, tcp=tcp),
            OWN: replace(_edge(serving, bound, tcp=False), name=OWN),
            "web": _web(serving),
            "targets": _targets(settings),
        }
        control = {name: sock.dup() for name, sock in serving.passed.items() if name == CONTROL}
        deciding = ProcessRole("authority", decide, listen=lambda _: {SAID: theirs.dup(), **control})
        status, said = supervise(deciding, roles, ready=ready, ending=ending), b""
        ours.setblocking(False)
        with suppress(BlockingIOError):
            said = ours.recv(MAX_SAID)
        for left, inode in bound.items():
            with suppress(FileNotFoundError):
                if left.stat().st_ino == inode:  # else it is another broker's by now
                    left.unlink()
    if said:
        raise raised(read_failure(said))
    if status:
        raise UnavailableError("the broker died", help=f"see `{settings.places.log}`")


def _warm() -> None:
    """Make what every worker would make for itself: it is shared, and a worker that is started again serves sooner."""
    catalog.load()
    for name in messages.functions():
        messages.method(name)
    kinds.warm()


def _edge(serving: Serving, bound: dict[Path, int], *, tcp: bool) -> ProcessRole:
    """Return what an edge is; the hand-over sockets that it listens on are put down in ``bound``, by their inodes."""
    settings, name = serving.settings, workers.GATEWAY
    address = settings.gateway if tcp else None
    gateway = None if address is None else cache(partial(serving.bind_tcp, name, address, "listen.gateway"))  # of all

    def listen(name: str) -> Mapping[str, socket.socket]:
        path = settings.places.handover(name)
        found = {workers.HANDOVER: bind_unix(path, socket.SOCK_SEQPACKET)}
        bound[path] = path.stat().st_ino
        return found if gateway is None else {**found, workers.GATEWAY: gateway().dup()}

    main = partial(workers.edge, settings=settings, tls=offers())
    return ProcessRole("edge", main, _confined(settings), listen)


def _web(serving: Serving) -> ProcessRole:
    settings, tcp = serving.settings, serving.tcp

    def listen(_: str) -> Mapping[str, socket.socket]:
        found = {}
        if tcp and settings.api is not None:
            found[workers.API] = serving.bind_tcp(workers.API, settings.api, "listen.api")
        if tcp and settings.tls is not None:
            found[workers.TLS] = serving.bind_tcp(workers.TLS, settings.tls.listen, "tls.listen")
        return found

    seen = [one.client_secret_file for one in settings.humans] + [one.token_file for one in settings.signals]
    confined = _confined(settings, *(path for path in seen if path is not None))
    return ProcessRole("web", partial(workers.web, settings=settings), confined, listen)


def _targets(settings: Settings) -> ProcessRole:
    named = [each for one in settings.trust_domains for each in (one.ca_file, one.bootstrap_file)]
    seen = [each for each in named if each is not None]
    agents = [one.workload_api for one in settings.trust_domains if one.workload_api is not None]
    # An agent that is started anew makes its socket anew: what is seen is the folder.
    folders = [Path(url.removeprefix("unix://")).parent for url in agents if url.startswith("unix://")]
    confined = _confined(settings, *seen, *folders, unix=bool(folders))
    return ProcessRole("targets", partial(workers.targets, settings=settings), confined)


def _confined(settings: Settings, *more: Path, unix: bool = False) -> Confinement:
    """Let a worker see what Python and the system need, and ``more``, and nothing else that is remit's."""
    where = settings.places
    own = (where.state, where.runtime, where.config, settings.keys.kek, settings.policies, settings.audit.witness)
    trusted = (Path(os.environ[name]) for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if name in os.environ)
    seen = (*files.system(), *files.python(), *trusted, *more)
    return Confinement(seen, tuple(path for path in own if path is not None), unix=unix)


def _decides(context: RoleContext, serving: Serving) -> int:
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_decide(context, serving))
    except RemitError as error:
        context.listeners[SAID].sendall(write_failure(failure(error)))
        return 1
    return 0


def _once_a_day(clock: Callable[[], float]) -> Callable[[str, Mapping[str, int]], None]:
    """Return what has the collector look through what lives long once a day, else only through what is new.

    10,000 open tasks are a tenth of a second in which nothing is ended. They are values, and make no circles; what
    does, and was there when others were looked for, is found a day later. ``clock``: seconds, monotonic.
    """
    since = clock()

    def collected(phase: str, info: Mapping[str, int]) -> None:
        nonlocal since
        if info["generation"] < OLDEST:
            return
        if phase == "stop":
            gc.freeze()
        elif clock() > since + DAY:
            since = clock()
            gc.unfreeze()

    return collected


async def _decide(context: RoleContext, serving: Serving) -> None:
    settings, tcp = serving.settings, serving.tcp
    stop, asked = asyncio.Event(), asyncio.Event()
    reload = stop if settings.policies is None else asked  # of SIGHUP, which may say that a terminal has gone

    def supervision(joined: Workers) -> Supervision:
        return Supervision(
            context.links[0], started=joined.started, ended=joined.ended, stop=stop.set, reload=reload.set
        )

    joined = Workers(supervision)
    targets, state, control = joined.targets.targets, joined.supervision.state, context.listeners.get(CONTROL)
    async with authority(
        settings, tcp=tcp, targets=targets, supervisor=os.getppid(), state=state, control=control
    ) as role:
        joined.serve(role)
        logs.log_to(settings.places.log)
        # Before any worker: a run that is handed over anew must not be told to wait. The operator is served by now, who
        # can look at and end what makes this take long.
        await role.application.broker.settle()
        for _ in range(serving.edges):
            await joined.start("edge")
        role.runs.placed()
        strangers = tcp and (settings.api is not None or settings.tls is not None)
        if strangers or settings.signals:  # it fetches or sends events
            await joined.start("web")
        joined.supervision.ready()
        gc.freeze()  # what was loaded to get here stays: no need to look through it again and again
        gc.callbacks.append(_once_a_day(time.monotonic))
        hup = reloading(role.application, asked)
        telling = asyncio.create_task(_told(role.application, serving.tell))
        await until_stopped(role.busy, stop, serving.idle, role.left)
        hup.cancel()
        telling.cancel()
        await joined.close()


async def _told(app: Application, tell: Callable[[str], None] | None) -> None:
    """Say which issuers and trust domains are loaded: a broker starts, and serves, without them."""
    if tell is not None:
        for line in await probe.lines(app.settings, app.clock, app.targets):
            tell(line)
