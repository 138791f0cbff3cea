from __future__ import annotations

import asyncio
import errno
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.routing import Route

from remit.web import tls
from remit.web.authentication import SocketAuth
from remit.web.listen import serve
from tests.broker.world import OPERATOR
from tests.web.test_tls import ASK, Place, ask, listening, shown


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_strangers_who_begin_and_do_not_go_on_are_few_keep_nobody_out_and_not_for_long(
    tmp_path: Path, loop: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "MAX_HANDSHAKES", 3)
    monkeypatch.setattr(tls, "HANDSHAKE", 2.0)

    async def scene() -> None:
        place = Place(tmp_path)
        async with listening(place) as port:
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(5)]
            ends = [asyncio.create_task(reader.read()) for reader, _ in silent]
            ended = asyncio.as_completed(ends)
            for _ in range(2):
                await next(ended)
            waiting = [end for end in ends if not end.done()]
            assert len(waiting) == 3
            assert b"200 OK" in (await ask(port, place.client()))[1]
            assert [end.done() for end in waiting] == [True, False, False]
            await asyncio.wait(waiting, timeout=10)
            assert all(end.done() for end in ends)
            assert b"200 OK" in (await ask(port, place.client()))[1]
            for _, writer in silent:
                writer.close()

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]  # one of two factories
        runner.run(scene())


class Scarce(socket.socket):
    """A listening socket of a process that has no descriptors left, the first times."""

    failures = 2

    def accept(self) -> tuple[socket.socket, Any]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "too many open files")
        return super().accept()


def test_a_process_without_descriptors_accepts_when_it_has_some(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tls, "BREATH", 0.01)

    async def scene() -> None:
        place, sock = Place(tmp_path), Scarce()
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        app = Starlette(routes=[Route("/", shown)])
        listener = await serve(app, sock, SocketAuth(OPERATOR), tls=place.tls.context)
        assert b"200 OK" in (await ask(sock.getsockname()[1], place.client()))[1]
        assert sock.failures == 0
        listener.close()

    asyncio.run(scene())


def test_a_listener_that_waits_for_descriptors_can_be_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tls, "BREATH", 60.0)

    async def scene() -> None:
        sock = Scarce()
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        listener = await serve(Starlette(), sock, SocketAuth(OPERATOR), tls=Place(tmp_path).tls.context)
        _, writer = await asyncio.open_connection("127.0.0.1", sock.getsockname()[1])
        while sock.failures == Scarce.failures:  # noqa: ASYNC110 - the loop has to turn once
            await asyncio.sleep(0)
        listener.close()
        assert sock.fileno() == -1
        writer.close()

    asyncio.run(scene())


def test_a_listener_that_closes_ends_the_handshakes_there_are(tmp_path: Path) -> None:
    async def scene() -> None:
        async with listening(Place(tmp_path)) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"\x16\x03\x01")  # a handshake begins
            await writer.drain()
        with suppress(ConnectionError):
            assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", port)

    asyncio.run(scene())


def test_what_is_no_handshake_ends_alone(tmp_path: Path) -> None:
    async def scene() -> None:
        place = Place(tmp_path)
        async with listening(place) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(ASK)  # plain HTTP
            with suppress(ConnectionError):
                assert b"HTTP" not in await asyncio.wait_for(reader.read(), 5)
            writer.close()
            assert b"200 OK" in (await ask(port, place.client()))[1]

    asyncio.run(scene())
