"""Accepting in a thread, on the loops that a broker runs on."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop

from remit.errors import InvalidRequestError
from remit.run import acceptor as module
from remit.run import handover
from remit.run.acceptor import Acceptor

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


def on(loop: Callable[[], asyncio.AbstractEventLoop], scene: Callable[[], object]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(scene())  # type: ignore[arg-type]  # a coroutine


class Talk:
    """A launcher's end, and the acceptor that hears it."""

    def __init__(self, broken: Callable[[], None] = lambda: None) -> None:
        self.launcher, peer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        peer.setblocking(False)
        self.peer = peer
        self.acceptor = Acceptor(broken, peer)

    async def end(self) -> None:
        self.acceptor.leave()
        async with asyncio.timeout(10):
            await self.acceptor.gone()
        with self.launcher, suppress(ConnectionResetError):  # that is what it gets for what was not read any more
            assert self.launcher.recv(1) == b""


@ON_BOTH
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_UNIX])
def test_connections_are_served_in_the_loop(
    loop: Callable[[], asyncio.AbstractEventLoop], family: int, tmp_path: Path
) -> None:
    async def scene() -> None:
        talk = Talk()
        sock = listening(family, tmp_path)
        await talk.acceptor.serve(Echo, sock)
        assert await echoed(sock) == b"hello"
        await talk.end()
        assert sock.fileno() == -1

    on(loop, scene)


@ON_BOTH
def test_a_lack_of_descriptors_passes(loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path) -> None:
    async def scene() -> None:
        broken: list[bool] = []
        talk = Talk(lambda: broken.append(True))
        sock = Worn(fileno=listening(socket.AF_INET, tmp_path).detach())
        await talk.acceptor.serve(Echo, sock)
        assert (await echoed(sock), broken, sock.failures) == (b"hello", [], 0)
        await talk.end()

    on(loop, scene)


def test_a_socket_that_is_shut_down_is_reported_once_and_the_others_go_on(tmp_path: Path) -> None:
    async def scene() -> None:
        broken: list[bool] = []
        said = asyncio.Event()

        def shut() -> None:
            broken.append(True)
            said.set()

        talk = Talk(shut)
        first, second = listening(socket.AF_INET, tmp_path), listening(socket.AF_UNIX, tmp_path)
        await talk.acceptor.serve(Echo, first)
        await talk.acceptor.serve(Echo, second)
        first.shutdown(socket.SHUT_RDWR)
        async with asyncio.timeout(10):
            await said.wait()
        assert await echoed(second) == b"hello"
        assert broken == [True]
        await talk.end()

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
        talk = Talk()
        sock = listening(socket.AF_INET, tmp_path)
        stubborn = threading.Thread(target=again, args=(sock.dup(),))
        await talk.acceptor.serve(Echo, sock)
        stubborn.start()
        talk.acceptor.close()
        await asyncio.sleep(0)
        over.set()
        stubborn.join()
        await talk.end()
        for thread in threading.enumerate():
            if thread.name == "remit-acceptor":
                thread.join(10)  # it has said that it is gone, and has that much left to do
        assert all(thread.name != "remit-acceptor" for thread in threading.enumerate())

    asyncio.run(scene())


@ON_BOTH
def test_messages_are_heard_one_by_one_and_waiting_holds_up_nobody(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def scene() -> None:
        talk = Talk()
        waiting = asyncio.create_task(talk.acceptor.heard())
        await asyncio.sleep(0)
        for number in range(3):
            handover.send(talk.launcher, {"number": number})
        assert [await waiting, await talk.acceptor.heard(), await talk.acceptor.heard()] == [
            ({"number": number}, []) for number in range(3)
        ]
        talk.launcher.shutdown(socket.SHUT_WR)
        with pytest.raises(InvalidRequestError, match="the launcher went away"):
            await talk.acceptor.heard()
        await talk.end()

    on(loop, scene)


def test_a_message_that_is_none_is_an_error_for_whoever_waits() -> None:
    async def scene() -> None:
        talk = Talk()
        talk.launcher.send(b"{")
        with pytest.raises(InvalidRequestError):
            await talk.acceptor.heard()
        await talk.end()

    asyncio.run(scene())


def test_descriptors_that_nobody_waits_for_any_more_are_closed() -> None:
    async def scene() -> None:
        talk = Talk()
        waiting = asyncio.create_task(talk.acceptor.heard(1))
        await asyncio.sleep(0)
        waiting.cancel()
        reader, writer = os.pipe()
        handover.send(talk.launcher, {}, [writer])
        os.close(writer)
        await talk.end()
        assert os.read(reader, 1) == b""
        os.close(reader)

    asyncio.run(scene())


def test_what_is_put_away_is_closed_while_the_launcher_is_still_there() -> None:
    async def scene() -> None:
        talk = Talk()
        reader, writer = os.pipe()
        talk.acceptor.put_away([writer])
        assert await asyncio.to_thread(os.read, reader, 1) == b""
        os.close(reader)
        await talk.end()

    asyncio.run(scene())


def test_closing_the_doors_leaves_the_launcher_to_be_answered(tmp_path: Path) -> None:
    async def scene() -> None:
        talk = Talk()
        sock = listening(socket.AF_UNIX, tmp_path)
        await talk.acceptor.serve(Echo, sock)
        talk.acceptor.close()
        await asyncio.to_thread(_until_closed, sock)
        handover.send(talk.peer, {"state": "closed"})
        assert handover.receive(talk.launcher) == ({"state": "closed"}, [])
        await talk.end()

    asyncio.run(scene())


def _until_closed(sock: socket.socket) -> None:
    while sock.fileno() != -1:
        threading.Event().wait(0.001)
