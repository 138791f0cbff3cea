"""A broker that serves runs, in a thread: control plane and hand-over are real, and so are the channels of runs.

Gateway and databases answer every connection with the grant that it stands for.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar, cast

from starlette.applications import Starlette
from starlette.routing import Route
from starlette.types import ASGIApp

import remit
from remit.broker import Broker
from remit.broker.pending import PendingMemory
from remit.control.runs import RunRoutes
from remit.control.v1 import V1
from remit.core.principal import Human, IdToken, Operator
from remit.core.secret import Secret
from remit.errors import GrantTokenError
from remit.gateway.quota import DESCRIPTORS, DescriptorBudget
from remit.jose.proof import Nonces
from remit.ports import Closing, Start
from remit.ports.runs import RunListener
from remit.ports.tokens import TokenPort
from remit.process import kernel
from remit.run.host import HandoverServer, Run
from remit.run.registry import EdgeRuns, RunRegistry
from remit.run.spec import STDIO
from remit.web import listen
from remit.web.authentication import SocketAuth
from remit.web.listen import Listener
from remit.web.middleware import Middleware
from remit.web.routes import AppDeps, BeginRun
from remit.web.verifier import Keys, Verifier
from tests.broker.world import OPERATOR, World, details, search, warehouse
from tests.run.relay import Relay
from tests.support.kinds import simulated
from tests.support.link import edge_of

HERE = Path(__file__).parent
PATIENCE = 30
READ = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}
TABLE = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["sales.revenue"], "ttl": 600}
T = TypeVar("T")


KINDS = simulated()


class EchoServices:
    """Serves each listener by writing whose it is, and shows which are open."""

    def __init__(self, app: ASGIApp) -> None:
        self.open: list[tuple[str, str]] = []
        self.runs: list[Run] = []
        self.relays: list[Relay] = []  # of sessions of commands
        self.listens = False  # to whoever connects, until it leaves
        self.quota = DescriptorBudget(DESCRIPTORS)
        self.app = app

    async def serve(
        self, run: Run, listener: RunListener, sock: socket.socket, start: Start | None
    ) -> Callable[[], None]:
        holder = run.redeemed.holder

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                writer.write(f"{listener.name} {holder.grant}\n".encode())
                await writer.drain()
                while self.listens and await reader.read(65_536):
                    pass
            writer.close()

        server: Closing
        if listener.kind == "channel":
            places = run.places.items()
            ports = {name.partition(":")[2]: port for name, port in places if ":" in name and isinstance(port, int)}
            who = SocketAuth(holder, ports=ports, run=run.redeemed.run)
            server = await listen.serve(self.app, sock, who, start=start, share=self.quota.of(holder.task))
        elif listener.kind == STDIO:
            self.relays.append(Relay())
            accepted = self.relays[-1].accepted
            unix, kept = asyncio.get_running_loop().create_unix_server, listen._KEPT  # the next edge has it too
            server = await (start(accepted, sock) if start else unix(accepted, sock=sock, **kept))
        elif start is not None:
            server = await start(_streams(answer), sock)
        elif listener.path is None:
            server = await asyncio.start_server(answer, sock=sock)
        else:
            server = await asyncio.start_unix_server(answer, sock=sock)
        mine = (listener.name, holder.grant)
        self.open.append(mine)
        self.runs.append(run)

        def close() -> None:
            server.close()
            for relay in self.relays if listener.kind == STDIO else ():
                relay.close()
            self.open.remove(mine)

        return close


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def _streams(answer: Answer) -> Callable[[], asyncio.StreamReaderProtocol]:
    return lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(), answer)


class House:
    """The broker in its thread, and everything to look at."""

    def __init__(self, folder: Path, destination: str) -> None:
        self.folder, self.destination = folder, destination
        self.control, self.handover = (folder / "runtime" / name for name in ("control.sock", "handover-1.sock"))
        self.world = World(now=datetime.now(UTC))
        self.loop = asyncio.new_event_loop()
        self.broker: Broker
        self.services: EchoServices
        self.runs: RunRegistry
        self.edge: EdgeRuns
        self.deps: AppDeps
        self.server: HandoverServer
        self.app: ASGIApp
        self.listeners: list[Listener] = []
        self.humans: dict[str, Human] = {}  # by their ID tokens

    async def start(self) -> None:
        await self.begin()
        await self.broker.put_resource(OPERATOR, warehouse(), Secret("admin-pw"))
        await self.broker.put_resource(OPERATOR, search(self.destination), Secret("api-key-0123456789ab"))
        await self.serve()

    async def restart(self) -> None:
        """Stop as at SIGTERM, and start anew on the same state."""
        await self.stop()
        await self.begin()
        await self.serve()

    async def begin(self) -> None:
        """Start a broker on the state, which takes over the runs of the one before, and serves nobody yet."""
        self.broker = self.world.broker()
        await self.broker.start()
        self.runs = RunRegistry(
            self.broker, self.broker.runs, OPERATOR, KINDS, lambda: self.world.now, secrets.token_bytes, new_id
        )
        await self.runs.load()

    async def serve(self) -> None:
        clock = lambda: self.world.now  # noqa: E731 - as the world has it
        there, nobody = edge_of(self.broker), cast("TokenPort", None)  # who shows tokens on sockets of files
        nonces, pending = Nonces(b"k" * 32), PendingMemory(clock)
        verifier = Verifier(there, nobody, Keys(()), "http://remit.test", clock, nonces, pending)
        self.deps = AppDeps(there, KINDS, verifier)
        self.app = application(replace(self.deps, renew_task=self.renew), self.runs.begin_run)
        await self.serve_operator(self.control, OPERATOR)
        await self.start_edge()

    async def renew(self, operator: Operator, task: str, ttl: timedelta, token: IdToken | None = None) -> datetime:
        """Renew a task as the authority does; ``humans`` are those of ID tokens."""
        if token is not None and token.text not in self.humans:
            raise GrantTokenError("it is not one of these tests")
        root = await self.broker.renew_task(operator if token is None else self.humans[token.text], task, ttl)
        await self.runs.renewed(root)
        return root.grant.expires_at

    async def start_edge(self, own: Path | None = None) -> None:
        """Start the one edge, in the place of one that has gone; or one of a task's ``own`` beside it."""
        place = own or self.handover
        self.edge = self.runs.edge(str(place), own=own is not None)
        runs = edge_of(self.edge)
        self.services = EchoServices(application(self.deps, runs.begin_run))
        self.server = HandoverServer(runs, self.services.serve, self.services.quota.of)
        place.unlink(missing_ok=True)
        self.server.listen(listening(place, socket.SOCK_SEQPACKET), os.geteuid())
        await runs.take_runs([])

    async def kill_edge(self) -> None:
        """Have the edge go away, and the authority notice."""
        await self.server.close()
        self.runs.edge_gone(self.edge)

    async def next_edge(self) -> None:
        await self.kill_edge()
        await self.start_edge()

    async def serve_operator(self, path: Path, operator: Operator) -> None:
        """Serve the control plane for an owner of the state."""
        sock = listening(path, socket.SOCK_STREAM)
        self.listeners.append(await listen.serve(self.app, sock, SocketAuth(operator)))

    async def stop(self) -> None:
        self.runs.close()
        await self.server.close()
        for each in self.listeners:
            each.close()
        self.listeners.clear()
        self.control.unlink(missing_ok=True)  # from 3.13 on asyncio has done it

    def call(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the broker's thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(PATIENCE)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait in the broker's thread until something holds."""
        end = time.monotonic() + PATIENCE
        while not self.call(_said(condition)):
            assert time.monotonic() < end

    # -- launching ----------------------------------------------------------------------------------------------

    def told(self, command: list[str], request: Mapping[str, object] | None = None, **more: object) -> str:
        """Return what ``drive.py`` takes."""
        return json.dumps({"command": command, "socket": str(self.control), "request": request or opening(), **more})

    def start_run(
        self, command: list[str], request: Mapping[str, object] | None = None, **more: object
    ) -> subprocess.Popen[bytes]:
        """Start a run; ``environ``, ``cwd``, ``stdin``… go to Popen, the rest to the launcher."""
        given: dict[str, Any] = {
            name: more.pop(name)
            for name in ("stdin", "stdout", "stderr", "cwd", "preexec_fn", "pass_fds")
            if name in more
        }
        environ = more.pop("environ", {})
        assert isinstance(environ, dict)
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        popen: dict[str, Any] = {"cwd": self.project, **streams, **given}
        return subprocess.Popen(
            [sys.executable, str(HERE / "drive.py"), self.told(command, request, **more)],
            env={"PATH": os.environ["PATH"], "HOME": str(self.folder / "home"), **environ},
            **popen,
        )

    def run(
        self, command: list[str], request: Mapping[str, object] | None = None, **more: object
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        told = more.pop("input", None)
        if told is not None:
            more["stdin"] = subprocess.PIPE
        with self.start_run(command, request, **more) as process:
            try:
                out, err = process.communicate(told.encode() if isinstance(told, str) else None, PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return subprocess.CompletedProcess(command, process.returncode, out.decode(), err.decode())

    def python(self, code: str, *arguments: str, **more: Any) -> subprocess.CompletedProcess[str]:
        """Run a Python program in a sandbox."""
        return self.run([sys.executable, "-c", code, *arguments], **more)

    @property
    def project(self) -> Path:
        """The working directory of runs."""
        return self.folder / "project"


def application(deps: AppDeps, begin_run: BeginRun) -> Starlette:
    """Return the routes that a run meets."""
    middleware, routes = Middleware(deps.verifier), (*V1(deps).routes(), *RunRoutes(begin_run).routes())
    return Starlette(routes=[Route(one.path, middleware.endpoint(one), methods=[one.method]) for one in routes])


def listening(path: Path, kind: socket.SocketKind) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX, kind)
    sock.bind(str(path))
    if kind is socket.SOCK_STREAM:
        kernel.refuse_descriptors(sock)
    sock.listen()
    return sock


def new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_urlsafe(16)}"


async def _said(condition: Callable[[], bool]) -> bool:
    return condition()


def opening(*raw: Mapping[str, object], **more: object) -> dict[str, object]:
    """Return a request that opens a task."""
    details = list(raw) or [READ, TABLE]
    request = {"purpose": "try", "ttl": 600, "depth": 3, "fan_out": 8, "authorization_details": details, **more}
    return {"open": request}


@contextmanager
def house() -> Iterator[House]:
    """Serve runs until the block ends, in a folder whose name leaves room for those of sockets (unix(7): 107 bytes)."""
    with tempfile.TemporaryDirectory(prefix="remit-") as folder, serving(Path(folder)) as built:
        yield built


@contextmanager
def serving(folder: Path, destination: str = "http://127.0.0.1:9") -> Iterator[House]:
    """Serve runs until the block ends, all that is theirs in ``folder``; ``destination`` is that of their resource."""
    built = House(folder, destination)
    built.project.mkdir()
    (folder / "home").mkdir()
    built.control.parent.mkdir(mode=0o700)
    thread = threading.Thread(target=built.loop.run_forever)
    thread.start()
    try:
        built.call(built.start())
        yield built
        built.call(built.stop())
    finally:
        built.loop.call_soon_threadsafe(built.loop.stop)
        thread.join(PATIENCE)
        built.loop.close()


__all__ = ["House", "details", "house", "opening", "remit", "serving"]
