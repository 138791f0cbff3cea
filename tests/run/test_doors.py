"""Accepting in a thread, on the loops that a broker runs on."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from remit.run import doors as module
from remit.run.doors import Doors

LOOPS: list[Callable[[], asyncio.AbstractEventLoop]] = [asyncio.new_event_loop, uvloop.new_event_loop]
ON_BOTH = pytest.mark.parametrize("loop", LOOPS, ids=["asyncio", "uvloop"])


class Echo(asyncio.Protocol):
    """Sends back what it gets."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self.transport = transport  # type: ignore[assignment]  # uvloop's are no subclasses

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Worn(socket.socket):
    """A listening socket whose first calls of accept() find no descriptor left."""

    failures = 2

    def accept(self) -> tuple[socket.socket, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return super().accept()


def listening(family: int, folder: Path) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.bind(str(folder / "door") if family == socket.AF_UNIX else ("127.0.0.1", 0))
    sock.listen()
    return sock


async def echoed(sock: socket.socket) -> bytes:
    client = socket.socket(sock.family, sock.type)
    with client:
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, sock.getsockname())
        await loop.sock_sendall(client, b"hello")
        async with asyncio.timeout(10):
            return await loop.sock_recv(client, 100)


async def gone(doors: Doors) -> None:
    doors.close()
    async with asyncio.timeout(10):
        await doors.gone()


def on(loop: Callable[[], asyncio.AbstractEventLoop], scene: Callable[[], object]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scene())  # type: ignore[arg-type]  # a coroutine


@ON_BOTH
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_connections_are_served_in_the_loop(
    loop: Callable[[], asyncio.AbstractEventLoop], family: int, tmp_path: Path
) -> None:
    async def scene() -> None:
        doors = Doors(lambda: None)
        sock = listening(family, tmp_path)
        await doors.serve(Echo, sock)
        assert await echoed(sock) == b"hello"
        await gone(doors)
        assert sock.fileno() == -1

    on(loop, scene)


@ON_BOTH
def test_a_lack_of_descriptors_passes(loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path) -> None:
    async def scene() -> None:
        broken: list[bool] = []
        doors = Doors(lambda: broken.append(True))
        sock = Worn(fileno=listening(socket.AF_INET, tmp_path).detach())
        await doors.serve(Echo, sock)
        assert (await echoed(sock), broken, sock.failures) == (b"hello", [], 0)
        await gone(doors)

    on(loop, scene)


def test_a_socket_that_is_shut_down_is_reported_once_and_the_others_go_on(tmp_path: Path) -> None:
    async def scene() -> None:
        broken: list[bool] = []
        said = asyncio.Event()

        def shut() -> None:
            broken.append(True)
            said.set()

        doors = Doors(shut)
        first, second = listening(socket.AF_INET, tmp_path), listening(socket.AF_UNIX, tmp_path)
        await doors.serve(Echo, first)
        await doors.serve(Echo, second)
        first.shutdown(socket.SHUT_RDWR)
        async with asyncio.timeout(10):
            await said.wait()
        assert await echoed(second) == b"hello"
        assert broken == [True]
        await gone(doors)

    asyncio.run(scene())


def test_a_run_that_listens_again_and_again_keeps_no_thread_when_it_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PRESS", 0.01)
    over = threading.Event()

    def again(kept: socket.socket) -> None:
        while not over.is_set():
            kept.setblocking(True)
            try:
                kept.listen()
            except OSError:
                continue
        kept.close()

    async def scene() -> None:
        doors = Doors(lambda: None)
        sock = listening(socket.AF_INET, tmp_path)
        stubborn = threading.Thread(target=again, args=(sock.dup(),))
        await doors.serve(Echo, sock)
        stubborn.start()
        doors.close()
        await asyncio.sleep(0)
        over.set()
        stubborn.join()
        await gone(doors)
        assert all(thread.name != "remit-doors" for thread in threading.enumerate())

    asyncio.run(scene())
