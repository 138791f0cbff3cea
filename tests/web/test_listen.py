from __future__ import annotations

import asyncio
import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest
import uvloop
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from remit.compose.app import build
from remit.core.principal import Holder
from remit.web import listen
from remit.web.authentication import SocketAuth
from remit.web.listen import serve
from tests.broker.world import OPERATOR
from tests.oauth.plane import Plane, _tcp, _unix, plane, play


async def exchange(path: Path, data: bytes) -> bytes:
    """Send bytes to a unix socket; return what comes back until it closes."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(data)
    try:
        return await asyncio.wait_for(reader.read(65_536), 5)
    except ConnectionResetError:
        return b""
    finally:
        writer.close()


ASK = b"GET /v1/self HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_both_loops_serve(tmp_path: Path, loop: object) -> None:
    async def scene() -> None:
        async with plane(tmp_path) as made:
            opened = await made.opened()
            assert (await made.control.get(f"/v1/tasks/{opened['task']}")).status_code == 200
            assert (await made.web.get("/oauth/jwks")).status_code == 200

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]  # one of two factories
        runner.run(scene())


def test_a_process_of_another_user_is_cut_off(tmp_path: Path) -> None:
    async def scene(made: Plane) -> None:
        path = tmp_path / "theirs.sock"
        uid = os.geteuid() + 1
        made.listeners.append(
            await serve(build(made.deps), _unix(path), SocketAuth(OPERATOR), admits=lambda _, its: its == uid)
        )
        assert await exchange(path, ASK) == b""
        assert (await exchange(tmp_path / "control.sock", ASK)).startswith(b"HTTP/1.1 200")

    play(tmp_path, scene)


def test_each_listener_stands_for_its_own_grant(tmp_path: Path) -> None:
    async def scene(made: Plane) -> None:
        grants = [await made.opened() for _ in range(3)]
        channels = [await made.channel(Holder(grant["task"], grant["grant"])) for grant in grants]
        told = [(await channel.get("/v1/self")).json()["grant"] for channel in channels]
        assert told == [grant["grant"] for grant in grants]

    play(tmp_path, scene)


def test_closing_a_listener_cuts_its_connections_and_no_others(tmp_path: Path) -> None:
    async def scene(made: Plane) -> None:
        opened = await made.opened()
        channel = await made.channel(Holder(opened["task"], opened["grant"]))
        assert (await channel.get("/v1/self")).status_code == 200
        listener = made.listeners.pop()
        listener.close()
        with pytest.raises((ConnectionRefusedError, FileNotFoundError)):
            await asyncio.open_unix_connection(str(tmp_path / f"{opened['grant']}.sock"))
        assert not [connection for connection in listener.state.connections if not connection.transport.is_closing()]
        assert (await made.control.get("/v1/self")).status_code == 200

    play(tmp_path, scene)


def test_a_request_that_does_not_arrive_is_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listen, "HEAD", 0.05)
    monkeypatch.setattr(listen, "BODY", 0.05)

    async def scene(_: Plane) -> None:
        path = tmp_path / "control.sock"
        assert await exchange(path, b"") == b""
        assert await exchange(path, b"GET /v1/self HT") == b""
        assert await exchange(path, b"POST /v1/tasks/x/close HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{}") == b""

    play(tmp_path, scene)


HALF = b"POST /v1/tasks/x/close HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{}"
ANSWERED = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.attack("DOS-13")
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
@pytest.mark.parametrize("said", [b"", b"GET / HT", HALF, ANSWERED, ANSWERED + HALF])
def test_many_connections_that_wait_for_their_client_keep_nobody_out_and_end_nothing_that_is_under_way(
    loop: object, said: bytes
) -> None:
    going, goes_on = asyncio.Event(), asyncio.Event()

    async def slow(request: Request) -> Response:
        del request
        going.set()
        await goes_on.wait()
        return PlainTextResponse("slow")

    async def quick(request: Request) -> Response:
        del request
        return PlainTextResponse("quick")

    async def scene() -> None:
        sock = _tcp()
        port = sock.getsockname()[1]
        app = Starlette(routes=[Route("/slow", slow), Route("/", quick)])
        listener = await serve(app, sock, SocketAuth(OPERATOR))
        under_way = asyncio.create_task(_asked(port, "/slow"))
        await going.wait()
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2 * listen.MAX_CONNECTIONS)]
        for reader, writer in crowd:
            with suppress(ConnectionError):
                writer.write(said)
                if said.startswith(ANSWERED):
                    await reader.readline()
        for _ in range(3):
            assert (await asyncio.wait_for(_asked(port, "/"), 1)).endswith(b"quick")
        assert len(listener.state.connections) <= listen.MAX_CONNECTIONS
        goes_on.set()
        assert (await under_way).endswith(b"slow")
        listener.close()
        for _, writer in crowd:
            writer.close()

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]  # one of two factories
        runner.run(scene())


@pytest.mark.attack("DOS-13")
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_clients_that_do_not_read_their_answers_keep_nobody_out(loop: object) -> None:
    """Who asks on and reads nothing is being answered for ever, but it is the client that is waited for."""

    async def large(request: Request) -> Response:
        del request
        return PlainTextResponse("x" * 2**20)

    async def scene() -> None:
        sock = _tcp()
        port = sock.getsockname()[1]
        app = Starlette(routes=[Route("/", large)])
        listener = await serve(app, sock, SocketAuth(OPERATOR))
        crowd = [await asyncio.open_connection("127.0.0.1", port) for _ in range(listen.MAX_CONNECTIONS)]
        for _, writer in crowd:
            writer.write((listen.MAX_PIPELINED + 1) * ANSWERED)
        while _stuffed(listener) < listen.MAX_CONNECTIONS:  # noqa: ASYNC110 - nobody says when they are
            await asyncio.sleep(0)
        try:
            for _ in range(3):
                assert len(await asyncio.wait_for(_asked(port, "/"), 5)) > 2**20
            for _ in range(listen.MAX_PIPELINED):
                await crowd[-1][0].readexactly(2**20)  # who reads on is answered to the end
        finally:
            for _, writer in crowd:
                writer.transport.abort()
            listener.close()

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]  # one of two factories
        runner.run(scene())


@pytest.mark.attack("DOS-13")
@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_clients_that_ask_ahead_of_their_answers_keep_nobody_out(loop: object) -> None:
    async def quick(request: Request) -> Response:
        del request
        return PlainTextResponse("quick")

    async def scene() -> None:
        sock = _tcp()
        port = sock.getsockname()[1]
        listener = await serve(Starlette(routes=[Route("/", quick)]), sock, SocketAuth(OPERATOR))
        crowd = [asyncio.create_task(_ahead(port)) for _ in range(listen.MAX_CONNECTIONS)]
        while listener.state.total_requests < 2 * listen.MAX_CONNECTIONS:  # noqa: ASYNC110 - nobody says
            await asyncio.sleep(0)
        try:
            for _ in range(3):
                assert (await asyncio.wait_for(_asked(port, "/"), 30)).endswith(b"quick")
        finally:
            for task in crowd:
                task.cancel()
            await asyncio.gather(*crowd, return_exceptions=True)
            listener.close()
            await asyncio.sleep(0)  # the transports are gone

    with asyncio.Runner(loop_factory=loop) as runner:  # type: ignore[arg-type]  # one of two factories
        runner.run(scene())


async def _ahead(port: int) -> None:
    """Have as many requests under way as the listener takes, for ever."""
    while True:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            writer.write((listen.MAX_PIPELINED + 1) * ANSWERED)
            while True:
                await reader.readuntil(b"quick")
                writer.write(ANSWERED)
        except (ConnectionError, asyncio.IncompleteReadError):
            continue
        finally:
            writer.transport.abort()


@pytest.mark.attack("DOS-13")
@pytest.mark.parametrize("said", [5_000 * ANSWERED, b"GET / HTTP/1.1\r\nHost: x\r\n" + 20_000 * b"a:\r\n"])
def test_one_connection_keeps_little_in_memory(said: bytes) -> None:
    answered = asyncio.Event()

    async def slow(request: Request) -> Response:
        del request
        await answered.wait()
        return PlainTextResponse("slow")

    async def scene() -> None:
        sock = _tcp()
        listener = await serve(Starlette(routes=[Route("/", slow)]), sock, SocketAuth(OPERATOR))
        reader, writer = await asyncio.open_connection("127.0.0.1", sock.getsockname()[1])
        with suppress(ConnectionError):
            writer.write(said)
            assert b"slow" not in await asyncio.wait_for(reader.read(), 5)
        answered.set()
        assert listener.state.total_requests <= listen.MAX_PIPELINED
        listener.close()
        writer.close()

    asyncio.run(scene())


def _stuffed(listener: listen.Listener) -> int:
    """Return how many clients have left so much unread that there is no room for more."""
    served = [one for one in listener.state.connections if isinstance(one, listen.Connection)]
    return sum(one.flow.write_paused for one in served)


async def _asked(port: int, path: str) -> bytes:
    """Return what a TCP listener answers."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    try:
        return await reader.read()
    finally:
        writer.close()


@pytest.mark.parametrize(
    "data",
    [
        b"nonsense\r\n\r\n",
        b"GET /v1/self HTTP/1.1\r\nHost : x\r\n\r\n",
        b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 2\r\n\r\nab",
    ],
)
def test_what_is_not_http_is_a_bad_request(tmp_path: Path, data: bytes) -> None:
    async def scene(_: Plane) -> None:
        assert (await exchange(tmp_path / "control.sock", data)).startswith(b"HTTP/1.1 400")

    play(tmp_path, scene)


@pytest.mark.attack("DOS-14")
def test_nothing_that_anybody_can_send_is_told_to_the_log_unbounded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    upgrade = b"GET /oauth/jwks HTTP/1.1\r\nHost: x\r\nConnection: upgrade, close\r\nUpgrade: websocket\r\n\r\n"

    async def scene(_: Plane) -> None:
        for data in (b"nonsense\r\n\r\n", upgrade):
            assert await exchange(tmp_path / "control.sock", data)

    play(tmp_path, scene)
    assert [record.getMessage() for record in caplog.records] == []


def test_an_answer_over_tcp_is_not_held_back(tmp_path: Path) -> None:
    async def scene(made: Plane) -> None:
        host, _, port = made.base.removeprefix("http://").partition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /oauth/jwks HTTP/1.1\r\nHost: x\r\n\r\n")
        await made.web.get("/oauth/jwks")
        (connection, *_) = made.listeners[1].state.connections
        sock = connection.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        writer.close()

    play(tmp_path, scene)
