"""Whatever comes in HTTP/2: headers are one request and no other, frames end their connection at worst."""

from __future__ import annotations

import asyncio
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
from tests.gateway.playbook import Line, Play, play
from tests.gateway.rig import ALL
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
