"""HTTP/2 of clients in a run: a stream is a request like any other, and floods end their connection alone."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from h2 import events
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from remit.errors import InvalidRequestError
from remit.gateway.http2 import RESETS, request_head
from remit.gateway.http2_frames import STREAMS
from remit.gateway.server import Channel
from tests.broker.world import OPERATOR
from tests.gateway.rig import ALL, PLACEHOLDER, SECRET, Rig, http, play, rig
from tests.gateway.test_proxy import connected, listening, made, trusting
from tests.support.http2_client import Http2Client, Pairs

Scene = Callable[[], Awaitable[None]]
KEY = ("authorization", f"Bearer {PLACEHOLDER}")


@asynccontextmanager
async def spoken(r: Rig, port: int | None = None) -> AsyncIterator[Http2Client]:
    """Speak HTTP/2 with `api.test` through the proxy."""
    reached = made()
    wire = await r.wire(port or await listening(r, reached))
    await wire.send(b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n")
    assert (await wire.reply("HEAD")).status == 200
    context = trusting(reached)
    context.set_alpn_protocols(["h2"])
    await wire.writer.start_tls(context, server_hostname="api.test")
    session: ssl.SSLObject = wire.writer.get_extra_info("ssl_object")
    assert session.selected_alpn_protocol() == "h2"
    client = Http2Client(wire.reader, wire.writer)
    try:
        yield client
    finally:
        wire.close()


def test_streams_are_requests_with_the_credential_at_the_same_time() -> None:
    async def scene() -> None:
        async with rig(http(args="any")) as r, spoken(r) as client:
            numbers = [client.ask(KEY, ("x-n", str(n)), path=f"/v1/public/a?q={n}") for n in range(30)]
            refused = client.ask(KEY, path="/v1/private")
            for number in numbers:
                answer = await client.answer(number)
                assert (answer.status, answer.ended, answer.headers["content-type"]) == (200, True, "application/json")
                assert "connection" not in answer.headers
            assert ((await client.answer(refused)).status, b'"scope"' in client.answers[refused].body) == (403, True)
            assert sorted(seen.target for seen in r.upstream.seen) == sorted(f"/v1/public/a?q={n}" for n in range(30))
            assert {seen.headers["authorization"] for seen in r.upstream.seen} == {f"Bearer {SECRET}"}
            assert {seen.headers["host"] for seen in r.upstream.seen} == {f"127.0.0.1:{r.upstream.port}"}

    play(scene)


def test_a_client_that_takes_both_gets_http_1_1() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            reached = made()
            async with connected(r, await listening(r, reached), reached, "api.test") as wire:
                assert wire.writer.get_extra_info("ssl_object").selected_alpn_protocol() is None
            context = trusting(reached)
            context.set_alpn_protocols(["h2", "http/1.1"])
            port = await listening(r, reached, by_name=True)
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="api.test")
            assert writer.get_extra_info("ssl_object").selected_alpn_protocol() == "http/1.1"
            writer.close()

    play(scene)


@pytest.mark.parametrize("runs", [play, lambda scene: asyncio.run(scene())], ids=["uvloop", "asyncio"])
def test_what_comes_in_one_piece_with_the_end_of_the_handshake_is_heard(runs: Callable[[Scene], None]) -> None:
    """One loop hands it on before it says that the handshake has ended, the other after that."""

    async def scene() -> None:
        async with rig(http()) as r:
            reached = made()
            wire = await r.wire(await listening(r, reached, by_name=True))
            context, came, out = trusting(reached), ssl.MemoryBIO(), ssl.MemoryBIO()
            context.set_alpn_protocols(["h2"])
            tls = context.wrap_bio(came, out, server_hostname="api.test")
            while tls.version() is None or out.pending == 0:
                with suppress(ssl.SSLWantReadError):
                    tls.do_handshake()
                    break
                await wire.send(out.read())
                came.write(await wire.reader.read(65_536))
            client = Http2Client(wire.reader, wire.writer)
            client.ask(KEY)
            tls.write(client.http.data_to_send())
            await wire.send(out.read())
            found: list[events.Event] = []
            async with asyncio.timeout(10):
                while not any(isinstance(event, events.ResponseReceived) for event in found):
                    came.write(await wire.reader.read(65_536))
                    with suppress(ssl.SSLWantReadError):
                        while True:  # each record
                            found += client.http.receive_data(tls.read(65_536))
            assert [seen.target for seen in r.upstream.seen] == ["/v1/public/a"]

    runs(scene)


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
@pytest.mark.parametrize("sized", [True, False])
def test_a_body_arrives_whole(size: int, *, sized: bool) -> None:
    async def scene() -> None:
        body = bytes(range(256)) * (size // 256) + bytes(size % 256)
        async with rig(ALL) as r, spoken(r) as client:
            length = [("content-length", str(size))] if sized else []
            number = client.ask(KEY, *length, method="POST", path="/v1/a", ended=False)
            at = 0
            while at < len(body):
                room = min(client.http.local_flow_control_window(number), client.http.max_outbound_frame_size)
                if room:
                    client.http.send_data(number, body[at : at + room])
                    at += room
                else:
                    await client.heard()
            client.http.end_stream(number)
            answer = await client.answer(number)
            assert (answer.status, answer.ended) == (200, True)
            (seen,) = r.upstream.seen
            assert seen.body_size == size
            assert seen.body == body[: len(seen.body)]

    play(scene)


def test_a_long_answer_goes_as_fast_as_its_client_takes_it_and_holds_up_no_other() -> None:
    async def scene() -> None:
        async with rig(ALL) as r, spoken(r) as client:
            client.acknowledges = False
            slow = client.ask(KEY, path="/bytes/8000000")
            while len(client.answers[slow].body) < 65_535:
                await client.heard()
            client.http.increment_flow_control_window(100_000)
            other = client.ask(KEY, path="/bytes/1000")
            assert len((await client.answer(other)).body) == 1_000
            assert len(client.answers[slow].body) == 65_535
            (stream,) = (one for one in r.gateway.connections.all if one._exchange is not None)
            assert stream._transport is not None
            assert stream._transport.get_write_buffer_size() < 1_000_000
            client.acknowledges = True
            client.http.increment_flow_control_window(8_000_000)
            client.http.increment_flow_control_window(8_000_000, slow)
            assert len((await client.answer(slow)).body) == 8_000_000

    play(scene)


def test_answers_without_a_body_end_with_their_head() -> None:
    async def scene() -> None:
        async with rig(ALL) as r, spoken(r) as client:
            for path, method, status in (
                ("/v1/a", "HEAD", 200),
                ("/status/204", "GET", 204),
                ("/status/304", "GET", 304),
            ):
                answer = await client.answer(client.ask(KEY, method=method, path=path))
                assert (answer.status, answer.body, answer.ended) == (status, b"", True)
            number = client.ask(KEY, ("expect", "100-continue"), method="POST", ended=False)
            while not client.answers[number].interim:
                await client.heard()
            client.http.send_data(number, b"x" * 10, end_stream=True)
            assert (await client.answer(number)).status == 200
            assert r.upstream.seen[-1].body == b"x" * 10

    play(scene)


def test_a_client_that_leaves_gets_what_it_has_asked_for() -> None:
    async def scene() -> None:
        async with rig(ALL) as r, spoken(r) as client:
            number = client.ask(KEY, path="/hold")
            await client.flush()
            await r.settled(lambda: len(r.upstream.seen) == 1)
            client.writer.write(frame(7, 0, 0, bytes(8)))
            r.upstream.held.set()
            assert (await client.answer(number)).status == 200
            await client.end()

    play(scene)


WRONG_STREAMS = {
    "another authority": ({"authority": "else.test"}, []),
    "an authority with another port": ({"authority": "api.test:8443"}, []),
    "userinfo": ({"authority": "me@api.test"}, []),
    "plain http": ({"scheme": "http"}, []),
    "a path without a slash": ({"path": "v1/public/a"}, []),
    "a URL as the path": ({"path": "https://api.test/v1/public/a"}, []),
    "an asterisk": ({"path": "*", "method": "OPTIONS"}, []),
    "a dot segment": ({"path": "/v1/public/../private"}, []),
    "a fragment": ({"path": "/v1/public/a#b"}, []),
    "a placeholder in the path": ({"path": f"/v1/public/{PLACEHOLDER}"}, []),
    "a method in lower case": ({"method": "get"}, []),
    "an expectation": ({}, [("expect", "200-ok")]),
    "a length that is no number": ({}, [("x-a", "b"), ("remit-grant", "grt_1"), ("remit-grant", "grt_2")]),
    "a value with bytes beyond ASCII": ({}, [("x-a", b"\xe9")]),
}


@pytest.mark.attack("DST-01")
@pytest.mark.parametrize(("pseudo", "headers"), WRONG_STREAMS.values(), ids=WRONG_STREAMS)
def test_a_request_that_is_none_is_refused_on_its_stream(
    pseudo: dict[str, str], headers: list[tuple[str, str]]
) -> None:
    async def scene() -> None:
        async with rig(http(actions=["GET", "OPTIONS"])) as r, spoken(r) as client:
            number = client.ask(KEY, *headers, ended=True, **pseudo)
            answer = await client.answer(number)
            assert answer.status in {400, 403, 405, 421}
            assert answer.headers["content-type"] == "application/problem+json"
            assert r.upstream.seen == []
            assert (await client.answer(client.ask(KEY))).status == 200  # the others go on

    play(scene)


GET = [(":method", "GET"), (":scheme", "https"), (":authority", "api.test"), (":path", "/v1/public/a")]
BROKEN = {
    "a name in upper case": [*GET, ("X-A", "b")],
    "an empty name": [*GET, ("", "b")],
    "a colon in a name": [*GET, ("x:a", "b")],
    "a line in a value": [*GET, ("x-a", "b\r\nauthorization: mine")],
    "a line in a name": [*GET, ("x-a: b\r\nauthorization", "mine")],
    "a line in the path": [*GET[:3], (":path", "/v1/public/a HTTP/1.1\r\nx: y")],
    "a line in the authority": [*GET[:2], (":authority", "api.test\r\nx: y"), GET[3]],
    "a blank in the path": [*GET[:3], (":path", "/v1/public/a b")],
    "NUL in a value": [*GET, ("x-a", "b\0")],
    "a blank around a value": [*GET, ("x-a", " b")],
    "chunks": [*GET, ("transfer-encoding", "chunked")],
    "an upgrade": [*GET, ("upgrade", "websocket")],
    "a connection": [*GET, ("connection", "x-a")],
    "keep-alive": [*GET, ("keep-alive", "1")],
    "proxy-connection": [*GET, ("proxy-connection", "keep-alive")],
    "te of more": [*GET, ("te", "trailers, deflate")],
    "another host": [*GET, ("host", "else.test")],
    "host twice": [*GET, ("host", "api.test"), ("host", "else.test")],
    "no method": GET[1:],
    "no scheme": [GET[0], *GET[2:]],
    "no path": GET[:3],
    "an empty path": [*GET[:3], (":path", "")],
    "no authority": [*GET[:2], GET[3]],
    "a pseudo-header twice": [*GET, GET[3]],
    "a pseudo-header behind another": [*GET[:3], ("x-a", "b"), GET[3]],
    "a pseudo-header of answers": [*GET, (":status", "200")],
    "an unknown pseudo-header": [*GET, (":x", "200")],
    "a WebSocket": [(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:]],
    "a CONNECT": [(":method", "CONNECT"), (":authority", "api.test:443")],
    "a length of more": [*GET, ("content-length", "5")],
    "two lengths": [*GET, ("content-length", "0"), ("content-length", "5")],
}


@pytest.mark.attack("HTT-15")
@pytest.mark.parametrize("headers", BROKEN.values(), ids=BROKEN)
def test_headers_that_are_malformed_reach_nobody(headers: Pairs) -> None:
    async def scene() -> None:
        async with rig(http(args="any")) as r, spoken(r) as client:
            answer = await client.answer(client.ask_raw([*headers, KEY]))
            assert answer.status in {0, 400, 403, 405, 421}
            assert answer.status or answer.reset or client.gone == ErrorCodes.PROTOCOL_ERROR
            assert r.upstream.seen == []
            assert [event.decision for event in await r.events("resource.use")] == ["deny"]

    play(scene)


@pytest.mark.attack("HTT-15")
@pytest.mark.parametrize("name", [name for name in BROKEN if "length" not in name])
def test_headers_that_are_malformed_make_no_head_whatever_the_library_lets_through(name: str) -> None:
    pairs = [(octets(header), octets(value)) for header, value in BROKEN[name]]
    with pytest.raises(InvalidRequestError):
        request_head(pairs, ended=True)


def octets(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


@pytest.mark.attack("HTT-15")
def test_trailers_are_not_accepted() -> None:
    async def scene() -> None:
        async with rig(ALL) as r, spoken(r) as client:
            number = client.ask(KEY, method="POST", ended=False)
            client.http.send_data(number, b"x")
            client.http.send_headers(number, [("x-t", "y")], end_stream=True)
            assert (await client.answer(number)).reset == ErrorCodes.PROTOCOL_ERROR
            assert (await client.answer(client.ask(KEY))).status == 200
            assert all(b"x-t" not in seen.raw for seen in r.upstream.seen)

    play(scene)


def test_an_early_answer_ends_the_stream_and_not_the_connection() -> None:
    async def scene() -> None:
        async with rig(http(actions=["POST"])) as r, spoken(r) as client:
            number = client.ask(KEY, method="POST", path="/v1/private", ended=False)
            client.http.send_data(number, b"x" * 10_000)
            assert ((await client.answer(number)).status, client.answers[number].ended) == (403, True)
            while client.answers[number].reset is None:
                await client.heard()
            assert client.answers[number].reset == ErrorCodes.NO_ERROR
            assert (await client.answer(client.ask(KEY, method="GET"))).status == 403
            assert r.upstream.seen == []

    play(scene)


def test_a_key_in_an_answer_is_withheld_on_its_stream() -> None:
    async def scene() -> None:
        async with rig(ALL) as r, spoken(r) as client:
            echoed, fine = client.ask(KEY, path="/echo/plain"), client.ask(KEY)
            assert (await client.answer(echoed)).status == 502
            assert SECRET.encode() not in client.answers[echoed].body
            assert (await client.answer(fine)).status == 200

    play(scene)


@pytest.mark.attack("REV-01")
def test_streams_end_with_their_grant() -> None:
    async def scene() -> None:
        async with rig(ALL) as r:
            child = await r.child(ALL)
            async with spoken(r) as client:
                cut = client.ask(KEY, ("remit-grant", child.id), path="/forever")
                other = client.ask(KEY, path="/forever")
                while not (client.answers[cut].body and client.answers[other].body):
                    await client.heard()
                await r.broker.revoke(OPERATOR, child.id)
                assert (await client.answer(cut)).reset == ErrorCodes.INTERNAL_ERROR
                async with asyncio.timeout(5):
                    await r.upstream.cut.wait()
                before = len(client.answers[other].body)
                while len(client.answers[other].body) == before:
                    await client.heard()
                await r.broker.revoke(OPERATOR, r.grant.id)
                await client.end()
            assert [event.code for event in await r.outcomes(2)] == ["revoked", "revoked"]

    play(scene)


def test_what_was_sent_on_streams_that_were_taken_back_is_not_counted_for_ever() -> None:
    """All streams share 64 times a body's window."""

    async def scene() -> None:
        async with rig(ALL) as r, spoken(r) as client:
            for _ in range(RESETS - 20):
                number = client.ask(KEY, method="POST", path="/hold", ended=False)
                while client.http.local_flow_control_window(number) < 60_000:
                    await client.heard()
                for _ in range(4):
                    client.http.send_data(number, bytes(15_000))
                client.http.reset_stream(number)
            assert (await client.answer(client.ask(KEY))).status == 200

    play(scene)


@pytest.mark.attack("DOS-17")
def test_streams_that_are_taken_back_again_and_again_end_the_connection() -> None:
    async def scene() -> None:
        async with rig(ALL) as r, spoken(r) as client:
            for _ in range(RESETS + 50):
                number = client.ask(KEY, path="/hold")
                client.http.reset_stream(number)
            await client.end()
            assert client.gone == ErrorCodes.ENHANCE_YOUR_CALM
            assert len(r.upstream.seen) <= RESETS
            await r.settled(lambda: not r.gateway.connections.all)
            await r.settled(lambda: sum(r.gateway.quota.held.values()) == len(r.pool.all))

    play(scene)


@pytest.mark.attack("DOS-17")
def test_no_more_streams_are_open_than_were_offered() -> None:
    async def scene() -> None:
        async with rig(ALL) as r, spoken(r) as client:
            while client.http.remote_settings.max_concurrent_streams != STREAMS:
                await client.heard()
            client.http.remote_settings[SettingCodes.MAX_CONCURRENT_STREAMS] = 1_000
            client.http.remote_settings.acknowledge()
            for _ in range(STREAMS + 1):
                client.ask(KEY, path="/hold")
            await client.end()
            assert client.gone is not None
            assert len(r.upstream.seen) <= STREAMS
            r.upstream.held.set()

    play(scene)


@pytest.mark.attack("DOS-17")
def test_a_connection_whose_streams_are_under_way_makes_no_room_for_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.gateway.connection.MAX_CLIENTS", 2)

    async def scene() -> None:
        async with rig(ALL) as r, spoken(r) as client:
            held, more = client.ask(KEY, path="/hold"), client.ask(KEY)
            assert (await client.answer(more)).reset == ErrorCodes.REFUSED_STREAM
            r.upstream.held.set()
            assert (await client.answer(held)).status == 200
            assert (await client.answer(client.ask(KEY))).status == 200

    play(scene)


def frame(kind: int, flags: int, stream: int, data: bytes = b"") -> bytes:
    return len(data).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + data


FLOODS = {
    "continuations": frame(1, 0, 1, b"\x82") + frame(9, 0, 1, b"\0" * 100) * 2_000,
    "a header list without end": frame(1, 0, 1, b"\x82") + frame(9, 0, 1, b"\x0f\x0d\x7f\xff\x7f" + b"a" * 16_000) * 20,
    "headers that grow in the table": frame(1, 4, 1, b"\x82\x40\x01a\x7f\x81\x1f" + b"b" * 4_000 + b"\xbe" * 12_000),
    "a large frame": frame(0, 0, 1, b"x" * 20_000),
    "a frame of HTTP/1.1": b"GET /v1/public/a HTTP/1.1\r\nHost: api.test\r\n\r\n",
    "data of no stream": frame(0, 0, 7, b"x"),
    "a window beyond its bound": frame(8, 0, 0, b"\x7f\xff\xff\xff"),
    "an odd ping": frame(6, 0, 0, b"x"),
    "a setting that is none": frame(4, 0, 0, b"\0\4\xff\xff\xff\xff"),
    "a push": frame(5, 4, 1, b"\0\0\0\2\x82"),
    "a stream with an even number": frame(1, 5, 2, b"\x82\x84\x87\x41\x01a"),
    "headers within headers": frame(1, 0, 1, b"\x82") + frame(1, 4, 3, b"\x82"),
}


@pytest.mark.attack("DOS-17")
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_a_flood_ends_its_connection(flood: bytes) -> None:
    async def scene() -> None:
        async with rig(ALL) as r, spoken(r) as client:
            await client.flush()
            client.writer.write(flood)
            await client.end()
            assert client.gone is not None
            assert r.upstream.seen == []
            await r.settled(lambda: not r.gateway.connections.all)

    play(scene)


@pytest.mark.attack("DOS-17")
def test_a_client_that_asks_and_does_not_read_is_not_heard_either() -> None:
    async def scene() -> None:
        async with rig(ALL) as r, spoken(r) as client:
            await client.flush()
            other = await r.listen(Channel((await r.opened(ALL)).id, {}))
            client.writer.transport.pause_reading()  # type: ignore[attr-defined]
            client.writer.write(frame(6, 0, 0, b"12345678") * 400_000)  # each has an answer
            for _ in range(50):
                assert (await r.get("/api/v1/a", port=other)).status == 200
            (below,) = (one for one in r.gateway.connections.all if one.listener.front.bound_grant == r.grant.id)
            assert below._transport is not None
            assert below._transport.get_write_buffer_size() < 1_000_000
            client.writer.transport.abort()

    play(scene)


def test_without_its_package_clients_are_offered_http_1_1_alone() -> None:
    asks = "import sys; sys.modules['h2'] = None; from remit.gateway import http2_frames, server; "
    asks += "print(http2_frames.AVAILABLE)"
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
