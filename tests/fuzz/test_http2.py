"""Whatever comes in HTTP/2: headers are one request and no other, frames end their connection at worst."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from random import Random

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.errors import RemitError
from remit.gateway import framing
from remit.gateway.connection import ClientConnections
from remit.gateway.http2 import Streams, request_head
from remit.gateway.http2_upstream import UpstreamStreams, response_head
from tests.gateway.playbook import Line, Play, SecureLine, play
from tests.gateway.rig import ALL, SECRET
from tests.gateway.rig import play as run

NAMES = [b":method", b":path", b":scheme", b":authority", b":status", b":protocol", b":x", b"", b":", b"host", b"Host"]
NAMES += [b"te", b"connection", b"content-length", b"transfer-encoding", b"x-a", b"x a", b"x:a", b"x\r\na", b"cookie"]
VALUES = [
    b"GET",
    b"POST",
    b"get",
    b"/a",
    b"/a b",
    b"/a\r\nx: y",
    b"https",
    b"http",
    b"a.test",
    b"a.test\r\n",
    b"trailers",
]
VALUES += [b"", b" ", b"5", b"chunked", b"x-a", b"b\0", b"\xe9", b"b\nc", b"b\tc"]
GOOD = [(b":method", b"GET"), (b":scheme", b"https"), (b":authority", b"a.test"), (b":path", b"/a?b=c")]

some = st.tuples(
    st.one_of(st.sampled_from(NAMES), st.binary(max_size=8)), st.one_of(st.sampled_from(VALUES), st.binary(max_size=12))
)
lists = st.one_of(
    st.lists(some, max_size=8),
    st.lists(some, max_size=4).map(lambda more: [*GOOD, *more]),
    st.permutations(GOOD).flatmap(lambda good: some.map(lambda one: [*good[:3], one, *good[3:]])),
)


@settings(max_examples=3_000)
@given(lists, st.booleans())
def test_headers_are_refused_or_read_as_what_they_are(headers: list[tuple[bytes, bytes]], ended: bool) -> None:  # noqa: FBT001
    try:
        head, chunked = request_head(headers, ended=ended)
    except RemitError:
        return
    assert head.find(framing.END) == len(head) - 4
    line, _, block = head[:-4].partition(b"\r\n")
    said = dict(headers)
    try:
        method, target = framing.request_line(line)
        fields = framing.request_fields(block)
    except RemitError:
        return
    assert (method.encode(), target) == (said[b":method"], said[b":path"])
    plain = [(name, value) for name, value in headers if not name.startswith(b":") and name != b"host"]
    framed = [(b"transfer-encoding", b"chunked")] if chunked else []
    authority = said.get(b":authority", said.get(b"host"))
    assert list(fields.items) == [(b"host", authority), *plain, *framed, (b"connection", b"close")]
    assert fields.chunked == chunked
    assert fields.nominated == frozenset()


def frames(dice: Random, authority: str) -> bytes:
    """Return a client's frames, most of them proper, some with a byte changed, left out or repeated."""
    client = H2Connection(H2Configuration(client_side=True, validate_outbound_headers=False))
    client.initiate_connection()
    out = [client.data_to_send()]
    numbers: list[int] = []
    for _ in range(dice.randrange(1, 12)):
        act = dice.randrange(7)
        try:
            if act < 3 or not numbers:
                numbers.append(client.get_next_available_stream_id())
                path = dice.choice(["/api/v1/public/a", "/api/hold", "/api/bytes/100000", "/api/../x"])
                head = [
                    (":method", dice.choice(["GET", "POST"])),
                    (":scheme", "https"),
                    (":authority", authority),
                    (":path", path),
                ]
                client.send_headers(
                    numbers[-1], [*head, ("x", "y" * dice.randrange(50))], end_stream=dice.random() < 0.5
                )
            elif act == 3:
                client.send_data(
                    dice.choice(numbers), dice.randbytes(dice.randrange(3_000)), end_stream=dice.random() < 0.5
                )
            elif act == 4:
                client.reset_stream(dice.choice(numbers))
            elif act == 5:
                client.ping(b"12345678")
            else:
                client.increment_flow_control_window(dice.randrange(1, 1_000), dice.choice([None, *numbers]))
        except Exception:  # noqa: BLE001, S110 - the client knows better than to send this
            pass
        out.append(client.data_to_send())
    return _spoilt(dice, bytearray(b"".join(out)))


def _spoilt(dice: Random, data: bytearray) -> bytes:
    for _ in range(dice.choice([0, 0, 1, 3])):
        at = dice.randrange(len(data))
        match dice.randrange(3):
            case 0:
                data[at] = dice.randrange(256)
            case 1:
                del data[at : at + dice.randrange(1, 20)]
            case _:
                data[at:at] = data[at : at + dice.randrange(1, 40)]
        if not data:
            break
    return bytes(data)


async def _poured(p: Play, dice: Random) -> None:
    line = Line()
    p.client._transport = line
    streams = Streams(p.client, line, ClientConnections())
    data = frames(dice, "gw")
    while data and not line.is_closing():
        size = dice.randrange(1, 2_000)
        streams.receive(data[:size])
        data = data[size:]
        await asyncio.sleep(0)
    await p.pause()
    streams.lost()
    await p.pause()
    assert streams.idle


@pytest.mark.parametrize("seed", range(8))
def test_whatever_frames_come_nothing_fails_and_nothing_is_left(seed: int) -> None:
    failures: list[object] = []

    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        async with play(ALL) as p:
            for number in range(40):
                await _poured(p, Random(seed * 1_000 + number))  # noqa: S311 - the same frames in each run
            said = b"".join(bytes(line.out) for _, line in p.lines)
            assert b"GET /v1/public/a HTTP/1.1" in said  # some requests got there
            assert b".." not in said

    run(scene)
    assert failures == []


ANSWERS = [b":status", b":path", b"", b":", b"X", b"te", b"connection", b"content-length", b"transfer-encoding", b"x-a"]
ANSWERS += [b"x a", b"x:a", b"x\r\na", b"set-cookie", b"upgrade", b"keep-alive"]
SAID = [b"200", b"204", b"304", b"100", b"103", b"101", b"600", b"2000", b"", b" ", b"0", b"5", b"+5", b"chunked", b"x"]
SAID += [b"b\0", b"\xe9", b"b\nc", b"b\tc", b"b\r\nproxy-status: mine", b"200\r\nx: y"]
of_answers = st.tuples(
    st.one_of(st.sampled_from(ANSWERS), st.binary(max_size=8)), st.one_of(st.sampled_from(SAID), st.binary(max_size=12))
)


@settings(max_examples=3_000)
@given(
    st.one_of(
        st.lists(of_answers, max_size=6),
        st.lists(of_answers, max_size=4).map(lambda more: [(b":status", b"200"), *more]),
    ),
    st.booleans(),
    st.sampled_from(["GET", "HEAD", "POST"]),
)
def test_answers_are_refused_or_read_as_what_they_are(
    headers: list[tuple[bytes, bytes]],
    ended: bool,  # noqa: FBT001
    method: str,
) -> None:
    try:
        head, chunked, size = response_head(headers, method, ended=ended)
    except RemitError:
        return
    assert head.find(framing.END) == len(head) - 4
    try:
        status, fields = framing.response_head(head[:-4])
    except RemitError:
        return
    (_, code), *plain = headers
    assert status.code == int(code)
    interim = status.code < 200
    none = [] if not ended or interim or size is not None else [(b"content-length", b"0")]
    framed = [(b"transfer-encoding", b"chunked")] if chunked else []
    assert list(fields.items) == [*plain, *none, *framed, *([] if interim else [(b"connection", b"close")])]
    body = None if interim else framing.response_body(status.code, fields, method)
    assert not isinstance(body, framing.UntilClose)  # the end of a stream is told, not guessed
    assert fields.nominated == frozenset()


class FuzzedUpstream:
    """An upstream that answers as it likes, mostly properly."""

    def __init__(self, dice: Random) -> None:
        config = H2Configuration(client_side=False, validate_outbound_headers=False, normalize_outbound_headers=False)
        self.http, self._dice = H2Connection(config), dice
        self.http.initiate_connection()

    def says(self, heard: bytes) -> bytes:
        dice, http = self._dice, self.http
        with suppress(Exception):
            http.receive_data(heard)
        for number in tuple(http.streams):
            with suppress(Exception):  # it knows better than to send this
                self._answer(number)
        data = bytearray(http.data_to_send())
        return _spoilt(dice, data) if data and dice.random() < 0.3 else bytes(data)

    def _answer(self, number: int) -> None:
        dice, http = self._dice, self.http
        match dice.randrange(7):
            case 0:
                http.reset_stream(number, dice.choice([0, 7, 8]))
            case 1:
                http.ping(b"12345678")
                http.update_settings({4: dice.randrange(100_000)})
            case _:
                bad = dice.choice([[], [], [], [("x-a", "b\r\nproxy-status: mine")], [("connection", "close")]])
                size = dice.choice([[], [], [("content-length", str(dice.randrange(30)))]])
                http.send_headers(number, [(":status", dice.choice(["200", "404", "103", "204"])), *bad, *size])
                for _ in range(dice.randrange(4)):
                    key = SECRET.encode() if dice.random() < 0.2 else b""
                    http.send_data(number, dice.randbytes(dice.randrange(20)) + key, end_stream=dice.random() < 0.4)
                if dice.random() < 0.3:
                    http.send_headers(number, [("x-t", dice.choice(["y", SECRET]))], end_stream=True)
                else:
                    http.end_stream(number)


async def _asked(p: Play, dice: Random) -> bytes:
    line, upstream = SecureLine(), FuzzedUpstream(dice)
    pool = p.rig.pool
    streams = UpstreamStreams(pool, p.rig.gateway.plane.turns, "task")
    line.protocol = streams
    streams.connection_made(line)
    pool._shared._all.append(streams)
    streams.data_received(upstream.http.data_to_send())
    heard = b""
    for _ in range(dice.randrange(1, 6)):
        if p.client._transport is None or p.line.is_closing():
            break
        body = b"x" * dice.randrange(1, 50) if dice.random() < 0.3 else b""
        method = b"POST" if body else dice.choice([b"GET", b"HEAD"])
        framed = b"Content-Length: %d\r\n" % len(body) if body else b""
        await p.client_says(method + b" /api/v1/public/a HTTP/1.1\r\nHost: gw\r\n" + framed + b"\r\n" + body)
        data = upstream.says(line.take())
        while data and not line.is_closing():
            size = dice.randrange(1, 400)
            streams.data_received(data[:size])
            data = data[size:]
            await asyncio.sleep(0)
        await p.pause()
        heard += p.client_hears()
    streams.connection_lost(None)
    await p.pause()
    heard += p.client_hears()
    assert not streams._using
    assert not streams._open
    assert streams not in pool._shared._all
    return heard


@pytest.mark.parametrize("seed", range(8))
def test_whatever_an_upstream_says_nothing_fails_and_nothing_is_left(seed: int) -> None:
    failures: list[object] = []
    heard: list[bytes] = []

    async def scene() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: failures.append(context))
        for number in range(150):
            async with play(ALL) as p:
                heard.append(await _asked(p, Random(seed * 1_000 + number)))  # noqa: S311 - the same in each run
                p.client.connection_lost(None)
                await p.pause()
                assert not p.rig.gateway.plane.in_flight

    run(scene)
    assert failures == []
    said = b"".join(heard)
    assert SECRET.encode() not in said
    assert b"proxy-status: mine" not in said
    assert said.count(b"HTTP/1.1 200 ") > 5
