"""An upstream that speaks HTTP/2 as it should not: it ends its stream or its connection, and never another request."""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path

import pytest
from h2.errors import ErrorCodes

from remit.gateway import http2_pool
from remit.gateway.http2_frames import STREAMS
from remit.gateway.http2_upstream import UNREAD, UpstreamStreams
from remit.gateway.response import TaskTurns
from remit.gateway.upstream import MAX_INTERIM
from tests.gateway.playbook import SecureLine
from tests.gateway.rig import SECRET, play
from tests.gateway.test_http2_upstream import H1, H2, OK, asked, spoken
from tests.support.http2_upstream import Spoken, frame
from tests.support.upstream import Seen

Heads = list[list[tuple[str | bytes, str | bytes]]]
MALFORMED: dict[str, Heads] = {
    "no status": [[("x-a", "b")]],
    "two statuses": [[OK, (":status", "204")]],
    "a status behind a field": [[("x-a", "b"), OK]],
    "a status of two digits": [[(":status", "20")]],
    "a status of words": [[(":status", "200 OK")]],
    "a status with a line": [[(":status", "200\r\nset-cookie: a=b")]],
    "a status beyond all": [[(":status", "600")]],
    "an unknown pseudo-header": [[OK, (":x", "y")]],
    "a pseudo-header of requests": [[OK, (":path", "/")]],
    "a name in upper case": [[OK, ("X-A", "b")]],
    "an empty name": [[OK, ("", "b")]],
    "a colon in a name": [[OK, ("x:a", "b")]],
    "a line in a name": [[OK, ("x-a: b\r\nproxy-status", "mine")]],
    "a line in a value": [[OK, ("x-a", "b\r\nproxy-status: mine")]],
    "a bare line feed in a value": [[OK, ("x-a", "b\nproxy-status: mine")]],
    "the end of a head in a value": [[OK, ("x-a", "b\r\n\r\nHTTP/1.1 200 OK\r\n\r\n")]],
    "NUL in a value": [[OK, ("x-a", "b\0c")]],
    "a blank around a value": [[OK, ("x-a", " b")]],
    "a connection": [[OK, ("connection", "close")]],
    "chunks": [[OK, ("transfer-encoding", "chunked")]],
    "chunks among others": [[OK, ("x-a", "b"), ("transfer-encoding", "gzip, chunked")]],
    "keep-alive": [[OK, ("keep-alive", "timeout=5")]],
    "an upgrade": [[OK, ("upgrade", "websocket")]],
    "a switch": [[(":status", "101"), ("upgrade", "websocket")]],
    "a switch without a word": [[(":status", "101")]],
    "two lengths": [[OK, ("content-length", "0"), ("content-length", "5")]],
    "the same length twice": [[OK, ("content-length", "0"), ("content-length", "0")]],
    "a length that is no number": [[OK, ("content-length", "+5")]],
    "a length without end": [[OK, ("content-length", "9" * 30)]],
    "a length of more": [[OK, ("content-length", "5")]],
    "too many fields": [[OK, *((f"x-{n}", "y") for n in range(200))]],
    "too large a head": [[OK, *((f"x-{n}", "y" * 9_000) for n in range(8))]],
    "interim answers without end": [[(":status", "103")]] * (MAX_INTERIM + 1),
    "an interim answer that ends": [[(":status", "103")], []],
}


@pytest.mark.attack("HTT-15")
@pytest.mark.parametrize("heads", MALFORMED.values(), ids=MALFORMED)
def test_an_answer_that_is_malformed_reaches_nobody(heads: Heads, tmp_path: Path) -> None:
    async def act(one: Spoken, stream: int, _: Seen) -> None:
        for number, head in enumerate(heads, 1):
            block = one.http.encoder.encode([(bytes(_raw(n)), bytes(_raw(v))) for n, v in head])
            one.say(_headers(stream, block, ended=number == len(heads)))

    async def scene() -> None:
        async with spoken(tmp_path, {"/act": act}) as (r, _):
            assert (await r.get("/api/v1/x")).status == 200
            reply = await r.get("/api/act", method="POST", body=b"{}")
            assert (reply.status, reply.headers["content-type"]) == (502, "application/problem+json")
            assert b"mine" not in reply.raw
            assert (await r.get("/api/v1/x")).status == 200
            assert sorted(event.decision for event in await r.outcomes(3)) == ["done", "done", "failed"]

    play(scene)


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1")


def _headers(stream: int, block: bytes, *, ended: bool) -> bytes:
    first, rest = block[:16_384], block[16_384:]
    out = frame(1, ended + (0 if rest else 4), stream, first)
    while rest:
        first, rest = rest[:16_384], rest[16_384:]
        out += frame(9, 0 if rest else 4, stream, first)
    return out


BODIES = {
    "less than it said": (("content-length", "10"), b"half"),
    "more than it said": (("content-length", "2"), b"more"),
    "some where it said none": (("content-length", "0"), b"x"),
}


@pytest.mark.parametrize(("length", "body"), BODIES.values(), ids=BODIES)
def test_a_body_of_another_length_is_no_whole_answer(length: tuple[str, str], body: bytes, tmp_path: Path) -> None:
    async def act(one: Spoken, stream: int, _: Seen) -> None:
        one.head(stream, OK, length)
        await one.data(stream, body)

    async def trailing(one: Spoken, stream: int, _: Seen) -> None:
        one.head(stream, OK, ("content-length", "10"))
        await one.data(stream, b"half", ended=False)
        one.head(stream, ("x-trailer", "a"), ended=True)

    async def scene() -> None:
        async with spoken(tmp_path, {"/act": act, "/trailing": trailing}) as (r, _):
            for path in ("/api/act", "/api/trailing"):
                (wire,) = await asked(r, [path], "Connection: close")
                rest = await wire.rest()
                assert rest.startswith(b"HTTP/1.1 502 ") or len(rest.partition(b"\r\n\r\n")[2]) < 10
            assert [event.decision for event in await r.outcomes(2)] == ["failed", "failed"]
            assert (await r.get("/api/v1/x")).status == 200

    play(scene)


SETTINGS = struct.Struct(">HI")
FLOODS = {
    "continuations": frame(1, 0, 1, b"\x88") + frame(9, 0, 1, b"\0" * 100) * 2_000,
    "a header list without end": frame(1, 0, 1, b"\x88") + frame(9, 0, 1, b"\x0f\x0d\x7f\xff\x7f" + b"a" * 16_000) * 20,
    "a header list of a mebibyte": frame(1, 0, 1, b"\x88" + b"\0\x01a\x7f\x80\xff\x3f")
    + frame(9, 0, 1, b"a" * 16_384) * 62
    + frame(9, 4, 1, b"a" * 16_384),
    "headers that grow in the table": frame(1, 4, 1, b"\x88\x40\x01a\x7f\x81\x1f" + b"b" * 4_000 + b"\xbe" * 12_000),
    "a large frame": frame(0, 0, 1, b"x" * 20_000),
    "a frame of HTTP/1.1": b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    "data before a head": frame(0, 1, 1, b"x"),
    "data of no stream": frame(0, 0, 7, b"x"),
    "data of the connection": frame(0, 0, 0, b"x"),
    "a head on a stream that nobody opened": frame(1, 5, 99, b"\x88"),
    "a head on a stream of its own": frame(1, 5, 2, b"\x88"),
    "a window beyond its bound": frame(8, 0, 0, b"\x7f\xff\xff\xff"),
    "a window of nothing": frame(8, 0, 0, bytes(4)),
    "an odd ping": frame(6, 0, 0, b"x"),
    "a setting that is none": frame(4, 0, 0, b"\0\4\xff\xff\xff\xff"),
    "half a setting": frame(4, 0, 0, b"\0\4\0"),
    "settings that resize a table": b"".join(frame(4, 0, 0, SETTINGS.pack(1, n % 2 * 4_096)) for n in range(500)),
    "a push": frame(5, 4, 1, b"\0\0\0\2\x82"),
    "a farewell that is none": frame(7, 0, 0, b"x"),
    "headers within headers": frame(1, 0, 1, b"\x88") + frame(1, 4, 3, b"\x88"),
    "data beyond the window": frame(1, 4, 1, b"\x88") + frame(0, 0, 1, b"x" * 16_384) * 5,
}


@pytest.mark.attack("DOS-17")
@pytest.mark.parametrize("flood", FLOODS.values(), ids=FLOODS)
def test_what_is_no_http_2_ends_its_connection(flood: bytes, tmp_path: Path) -> None:
    async def act(one: Spoken, _: int, __: Seen) -> None:
        one.say(flood)

    async def scene() -> None:
        async with spoken(tmp_path, {"/act": act}) as (r, upstream):
            (wire,) = await asked(r, ["/api/act"], "Connection: close")
            rest = await wire.rest()
            assert rest.startswith(b"HTTP/1.1 502 ") or not rest.endswith(b"0\r\n\r\n")
            await r.settled(lambda: upstream.spoken[0].lost)
            assert [event.code for event in await r.outcomes(1)] == ["upstream"]
            assert (await r.get("/api/v1/x")).status == 200
            assert upstream.offered == [H1, H2, H2]

    play(scene)


NOTHING = {
    "pings": frame(6, 0, 0, b"12345678") * 20_000,
    "settings": frame(4, 0, 0) * 20_000,
    "settings of all kinds": b"".join(
        frame(4, 0, 0, b"".join(SETTINGS.pack(0x100 + at, 1) for at in range(n * 2_000, n * 2_000 + 2_000)))
        for n in range(32)
    ),
    "windows": frame(8, 0, 1, (1).to_bytes(4)) * 20_000,
    "priorities": frame(2, 0, 1, bytes(5)) * 20_000,
    "frames of no kind": frame(77, 0, 0, b"x" * 1_000) * 2_000,
    "empty data": frame(1, 4, 1, b"\x88") + frame(0, 0, 1) * 20_000,
    "padding": frame(1, 4, 1, b"\x88") + frame(0, 8, 1, b"\xff" + bytes(255)) * 200,
}


@pytest.mark.attack("DOS-17")
@pytest.mark.parametrize("flood", NOTHING.values(), ids=NOTHING)
def test_much_that_says_nothing_is_read_in_turns_with_others(flood: bytes, tmp_path: Path) -> None:
    async def act(one: Spoken, stream: int, _: Seen) -> None:
        head = b"" if flood[3] == 1 else frame(1, 4, stream, b"\x88")
        one.say(flood + head + frame(0, 1, stream, b"end"))

    async def scene() -> None:
        async with spoken(tmp_path, {"/act": act}) as (r, upstream):
            reply = await r.get("/api/act")
            assert (reply.status, reply.body) == (200, b"end")
            (one,) = r.pool._shared._all
            assert len(one.http.remote_settings) < 10
            assert one.transport.get_write_buffer_size() < 100_000
            assert upstream.connections == 1

    play(scene)


class FullLine(SecureLine):
    """One whose other end does not read."""

    waits = 0

    def get_write_buffer_size(self) -> int:
        return self.waits


class NoPool:
    def put(self, upstream: UpstreamStreams) -> None: ...
    def gone(self, upstream: UpstreamStreams) -> None: ...


@pytest.mark.attack("DOS-17")
def test_an_upstream_that_says_much_and_does_not_read_is_not_heard_either() -> None:
    async def scene() -> None:
        line, ping = FullLine(), frame(6, 0, 0, b"12345678")
        streams = UpstreamStreams(NoPool(), TaskTurns(asyncio.get_running_loop()), "task")
        streams.connection_made(line)
        streams.data_received(frame(4, 0, 0) + ping)
        streams.pause_writing()
        line.waits = UNREAD
        streams.data_received(ping)
        assert line.log == []  # or two that wait for each other would wait for ever
        line.waits += 1
        streams.data_received(ping)
        assert line.log == ["pause"]
        line.waits = 0
        streams.resume_writing()
        assert line.log == ["pause", "resume"]
        streams.abort()

    play(scene)


@pytest.mark.parametrize("window", [0, 1])
def test_a_window_that_opens_byte_by_byte_costs_its_own_stream_alone(window: int, tmp_path: Path) -> None:
    async def act(one: Spoken, stream: int, _: Seen) -> None:
        one.head(stream, OK, ended=True)

    async def scene() -> None:
        async with spoken(tmp_path, {"/act": act}) as (r, upstream):
            assert (await r.get("/api/v1/x")).status == 200
            (one,) = upstream.spoken
            one.say(frame(4, 0, 0, SETTINGS.pack(4, window)))
            wire = await r.wire()
            await wire.send(r.request("/api/act", "Content-Length: 300", method="POST") + b"x" * 300)
            await r.settled(lambda: 3 in one.heads)
            for _n in range(300 - window):
                one.say(frame(8, 0, 3, (1).to_bytes(4)))
            assert (await wire.reply("POST")).status == 200
            assert upstream.seen[-1].body_size == 300
            assert (await r.get("/api/v1/x")).status == 200

    play(scene)


def test_an_upstream_that_never_begins_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_pool, "CONNECT", 0.2)

    async def scene() -> None:
        async with spoken(tmp_path, greeting=b"") as (r, upstream):
            wires = await asked(r, ["/api/v1/x"] * 5)
            assert {(await wire.reply()).status for wire in wires} == {502}
            assert upstream.offered.count(H2) <= 2
            await r.settled(lambda: all(one.lost for one in upstream.spoken))
            assert SECRET.encode() not in b"".join(bytes(one.raw) for one in upstream.spoken)

    play(scene)


@pytest.mark.parametrize("greeting", [b"HTTP/1.1 400 Bad Request\r\n\r\n", frame(4, 0, 0, SETTINGS.pack(3, 0))])
def test_an_upstream_that_greets_with_something_else_gets_nothing(greeting: bytes, tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path, greeting=greeting) as (r, upstream):
            reply = await r.get("/api/v1/x")
            assert (reply.status, reply.json()["code"]) == (502, "upstream")
            await r.settled(lambda: all(one.lost for one in upstream.spoken))
            assert SECRET.encode() not in b"".join(bytes(one.raw) for one in upstream.spoken)

    play(scene)


@pytest.mark.attack("DOS-17")
def test_resets_end_what_was_asked_and_nothing_else(tmp_path: Path) -> None:
    async def act(one: Spoken, stream: int, _: Seen) -> None:
        one.say(frame(3, 0, stream, int(ErrorCodes.INTERNAL_ERROR).to_bytes(4)) * 100)

    async def scene() -> None:
        async with spoken(tmp_path, {"/act": act}) as (r, upstream):
            (holds,) = await asked(r, ["/api/hold"])
            await r.settled(lambda: bool(upstream.seen))
            wires = await asked(r, ["/api/act"] * (STREAMS - 1))
            assert {(await wire.reply()).status for wire in wires} == {502}
            assert len(upstream.seen) == STREAMS  # and none was asked again
            upstream.held.set()
            assert (await holds.reply()).status == 200

    play(scene)
