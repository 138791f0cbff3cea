"""A broker that serves runs, in a thread; its gateway answers every connection with the grant that it stands for."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import remit
from remit.broker import Broker
from remit.core.secret import Secret
from remit.gateway.quota import DESCRIPTORS, DescriptorBudget
from remit.ports import Closing, Start
from remit.ports.runs import RunListener
from remit.run.host import LaunchServer, Run
from tests.broker.world import OPERATOR, World, details, search, warehouse
from tests.support.kinds import simulated

HERE = Path(__file__).parent
PATIENCE = 30
READ = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}
TABLE = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["sales.revenue"], "ttl": 600}
T = TypeVar("T")


KINDS = simulated()


class EchoServices:
    """Serves each listener by writing whose it is, and shows which are open."""

    def __init__(self) -> None:
        self.open: list[tuple[str, str]] = []
        self.runs: list[Run] = []
        self.listens = False  # to whoever connects, until it leaves
        self.quota = DescriptorBudget(DESCRIPTORS)

    async def serve(
        self, run: Run, listener: RunListener, sock: socket.socket, start: Start | None
    ) -> Callable[[], None]:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(ConnectionError):
                writer.write(f"{listener.name} {run.holder.grant}\n".encode())
                await writer.drain()
                while self.listens and await reader.read(65_536):
                    pass
            writer.close()

        server: Closing
        if start is not None:
            server = await start(_streams(answer), sock)
        elif listener.path is None:
            server = await asyncio.start_server(answer, sock=sock)
        else:
            server = await asyncio.start_unix_server(answer, sock=sock)
        mine = (listener.name, run.holder.grant)
        self.open.append(mine)
        self.runs.append(run)

        def close() -> None:
            server.close()
            self.open.remove(mine)

        return close


Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]


def _streams(answer: Answer) -> Callable[[], asyncio.StreamReaderProtocol]:
    return lambda: asyncio.StreamReaderProtocol(asyncio.StreamReader(), answer)


class House:
    """The broker in its thread, and everything to look at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.socket = folder / "runtime" / "launch.sock"
        self.world = World(now=datetime.now(UTC))
        self.loop = asyncio.new_event_loop()
        self.broker: Broker
        self.services: EchoServices
        self.server: LaunchServer

    async def start(self) -> None:
        self.broker = self.world.broker()
        await self.broker.start()
        await self.broker.put_resource(OPERATOR, warehouse(), Secret("admin-pw"))
        await self.broker.put_resource(OPERATOR, search(), Secret("api-key"))
        self.services = EchoServices()
        self.server = LaunchServer(self.broker, KINDS, self.services.serve, self.services.quota.of)
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.bind(str(self.socket))
        sock.listen()
        self.server.listen(sock, OPERATOR, os.geteuid())

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
        return json.dumps({"command": command, "socket": str(self.socket), "request": request or opening(), **more})

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
def serving(folder: Path) -> Iterator[House]:
    """Serve runs until the block ends, all that is theirs in ``folder``."""
    built = House(folder)
    built.project.mkdir()
    (folder / "home").mkdir()
    built.socket.parent.mkdir(mode=0o700)
    thread = threading.Thread(target=built.loop.run_forever)
    thread.start()
    try:
        built.call(built.start())
        yield built
        built.call(built.server.close())
    finally:
        built.loop.call_soon_threadsafe(built.loop.stop)
        thread.join(PATIENCE)
        built.loop.close()


__all__ = ["House", "details", "house", "opening", "remit", "serving"]
