"""What a run can make the broker hold: whatever it sends, it is its own connection that ends."""

from __future__ import annotations

import asyncio
import logging
import random
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
from grpclib.const import Status
from grpclib.exceptions import GRPCError
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, Event, TrailersReceived

from remit.core.spiffe import TrustBundle
from remit.kinds.spiffe.calls import SECURITY, SERVICE
from remit.kinds.spiffe.listen import MAX_CALLS, MAX_CONNECTIONS, MAX_FRAME, MAX_REQUEST, Frames
from tests.broker.world import OPERATOR
from tests.kinds.spiffe.mesh import Client, Mesh, meshed

PATIENCE = 20.0  # seconds
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
MAX_KEPT = 2 * 1024 * 1024  # bytes under way to a broker that takes no more: what both sockets buffer, with room
HEADERS = [
    (":method", "POST"),
    (":scheme", "http"),
    (":path", f"{SERVICE}/FetchX509Bundles"),
    (":authority", "localhost"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
    (SECURITY, "true"),
]
EMPTY = b"\0\0\0\0\0"  # a message of gRPC: not compressed, no bytes


def run(folder: Path, body: Callable[[Mesh, Path, Client], Awaitable[None]]) -> None:
    """Run a test's body with a grant's socket; the grant is served as well as ever afterwards."""

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), meshed(folder) as mesh:
            grant = await mesh.opened()
            async with mesh.client(grant) as client:
                await body(mesh, folder / f"{grant.id}.sock", client)
                assert (await client.once("FetchX509SVID")).svids[0].spiffe_id == grant.agent

    asyncio.run(main())


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


class Raw:
    """A connection that says what it likes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.h2 = H2Connection(config=H2Configuration(client_side=True, validate_outbound_headers=False))

    def greet(self) -> None:
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def call(self, number: int, message: bytes = EMPTY, *, end: bool = True) -> None:
        self.h2.send_headers(number, HEADERS)
        self.h2.send_data(number, message, end_stream=end)

    async def until(self, kind: type[Event], count: int = 1) -> list[Event]:
        """Read until so many events of a kind have come."""
        found: list[Event] = []
        while len(found) < count:
            data = await self.reader.read(65_536)
            assert data
            found += [event for event in self.h2.receive_data(data) if isinstance(event, kind)]
            self.flush()
        return found

    async def ended(self) -> bool:
        """Whether the broker ends the connection; it waits for that."""
        with suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass
        return True


@asynccontextmanager
async def raw(path: Path) -> AsyncIterator[Raw]:
    reader, writer = await asyncio.open_unix_connection(path)
    try:
        yield Raw(reader, writer)
    finally:
        writer.transport.abort()


def test_a_run_has_a_number_of_connections_and_no_more(tmp_path: Path) -> None:
    async def body(mesh: Mesh, path: Path, client: Client) -> None:
        del mesh
        await client.once("FetchX509Bundles")  # it has one itself
        held = [await asyncio.open_unix_connection(path) for _ in range(MAX_CONNECTIONS - 1)]
        for reader, _ in held:
            assert await reader.read(9)  # settings: it was let in
        async with raw(path) as late:
            assert await late.ended()
        held[0][1].close()
        while True:  # until the broker has seen that one is gone
            async with raw(path) as again:
                with suppress(ConnectionError):
                    if await again.reader.read(9):
                        break
        for _, writer in held:
            writer.transport.abort()

    run(tmp_path, body)


@pytest.mark.parametrize("calls", [MAX_CALLS + 1, 200])
def test_too_many_calls_at_a_time_end_their_connection(tmp_path: Path, calls: int) -> None:
    async def body(_: Mesh, path: Path, __: Client) -> None:
        async with raw(path) as found:
            found.greet()
            for number in range(calls):
                found.call(2 * number + 1)
            found.flush()
            assert await found.ended()

    run(tmp_path, body)


def test_as_many_calls_as_are_allowed_are_served(tmp_path: Path) -> None:
    async def body(_: Mesh, path: Path, __: Client) -> None:
        async with raw(path) as found:
            found.greet()
            for number in range(MAX_CALLS):
                found.call(2 * number + 1)
            found.flush()
            answered = await found.until(DataReceived, MAX_CALLS)
            assert len({event.stream_id for event in answered if isinstance(event, DataReceived)}) == MAX_CALLS

    run(tmp_path, body)


@pytest.mark.parametrize("end", [True, False])
def test_a_request_that_is_too_large_ends_its_connection(tmp_path: Path, end: bool) -> None:  # noqa: FBT001 - a case
    async def body(_: Mesh, path: Path, __: Client) -> None:
        async with raw(path) as found:
            found.greet()
            found.call(1, struct.pack(">?I", False, 2 * MAX_REQUEST), end=False)
            found.flush()
            sent = 0
            while sent <= 2 * MAX_REQUEST:
                window = min(found.h2.local_flow_control_window(1), 16_384, 2 * MAX_REQUEST + 1 - sent)
                if window:
                    found.h2.send_data(1, b"x" * window, end_stream=end and sent + window > 2 * MAX_REQUEST)
                    found.flush()
                    sent += window
                    continue
                data = await found.reader.read(65_536)
                if not data:
                    break
                found.h2.receive_data(data)
            assert await found.ended()
            assert sent < 2 * MAX_REQUEST

    run(tmp_path, body)


MALFORMED = {
    "no message": (b"", ()),
    "half a head": (b"\0\0", ()),
    "less than was said": (b"\0\0\0\0\x09abc", ()),
    "not protobuf": (b"\0\0\0\0\3\xff\xff\xff", ()),
    "compressed": (b"\1\0\0\0\1x", ()),
    "metadata that is not base64": (EMPTY, (("x-bin", "*"),)),
    "metadata with a reserved name": (EMPTY, (("grpc-foo", "x"),)),
    "a time that is none": (EMPTY, (("grpc-timeout", "soon"),)),
    "an encoding nobody has": (EMPTY, (("grpc-encoding", "zip"),)),
}


@pytest.mark.parametrize(("message", "more"), MALFORMED.values(), ids=MALFORMED)
@pytest.mark.parametrize("name", ["FetchX509SVID", "FetchJWTSVID", "ValidateJWTSVID"])
def test_a_malformed_call_is_nobodys_business_but_the_runs(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str, message: bytes, more: tuple[tuple[str, str], ...]
) -> None:
    async def body(_: Mesh, path: Path, __: Client) -> None:
        async with raw(path) as found:
            found.greet()
            found.h2.send_headers(1, [*HEADERS[:2], (":path", f"{SERVICE}/{name}"), *HEADERS[3:], *more])
            found.h2.send_data(1, message, end_stream=True)
            found.flush()
            data = b""
            while len(data) < 9:  # it is being served; whether there is an answer is up to the library
                got = await found.reader.read(65_536)
                if not got:
                    break
                data += got

    with caplog.at_level(logging.INFO):
        run(tmp_path, body)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


class Broken(dict[str, TrustBundle]):
    """The bundles of others, when something is wrong with us."""

    def items(self) -> NoReturn:
        raise ValueError("a secret of ours")


def test_what_fails_on_our_side_is_logged_and_said_without_a_word_of_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE), meshed(tmp_path) as mesh:
            mesh.trust.now = replace(mesh.trust.now, others=Broken())
            async with mesh.client(await mesh.opened()) as client:
                with pytest.raises(GRPCError) as caught:
                    await client.once("FetchX509Bundles")
            assert (caught.value.status, "secret" in str(caught.value.message)) == (Status.INTERNAL, False)

    asyncio.run(main())
    assert "a secret of ours" in caplog.text


HOSTILE = {
    "not http/2": b"GET / HTTP/1.1\r\nhost: x\r\n\r\n",
    "tls": bytes.fromhex("16030100c8010000c40303") + b"\0" * 200,
    "noise": random.Random(7).randbytes(65_536),  # noqa: S311 - noise, and no secret
    "a frame too long": PREFACE + frame(4, 0, 0, b"") + b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 70_000,
    "data without headers": PREFACE + frame(4, 0, 0, b"") + frame(0, 1, 1, b"x"),
    "headers that do not decode": PREFACE + frame(4, 0, 0, b"") + frame(1, 5, 1, b"\xff" * 40),
    "an even stream": PREFACE + frame(4, 0, 0, b"") + frame(1, 5, 2, b"\x82"),
    "a window too large": PREFACE + frame(4, 0, 0, b"") + frame(8, 0, 0, b"\x7f\xff\xff\xff") * 2,
    "a window of nothing": PREFACE + frame(4, 0, 0, b"") + frame(8, 0, 0, b"\0\0\0\0"),
    "settings that cannot be": PREFACE + frame(4, 0, 0, struct.pack(">HI", 5, 1)),
    "a push": PREFACE + frame(4, 0, 0, b"") + frame(5, 4, 1, b"\0\0\0\2\x82"),
    "continuations without end": PREFACE + frame(4, 0, 0, b"") + frame(1, 1, 1, b"") + frame(9, 0, 1, b"") * 5_000,
    "headers without end": PREFACE + frame(4, 0, 0, b"") + frame(1, 1, 1, b"\x40\1a\x7f\x80\x7f" + b"b" * 16_000) * 9,
    "goaway": PREFACE + frame(4, 0, 0, b"") + frame(7, 0, 0, b"\0" * 8),
    "an unheard-of extension": PREFACE + frame(4, 0, 0, b"") + frame(10, 0, 0, b"\0\1ax") + frame(7, 0, 0, b"\0" * 8),
}


@pytest.mark.parametrize("sent", HOSTILE.values(), ids=HOSTILE)
def test_what_is_not_grpc_ends_its_own_connection(tmp_path: Path, sent: bytes) -> None:
    async def body(_: Mesh, path: Path, __: Client) -> None:
        async with raw(path) as found:
            found.writer.write(sent)
            assert await found.ended()

    run(tmp_path, body)


@pytest.mark.parametrize(
    "flood",
    [frame(6, 0, 0, b"\0" * 8), frame(4, 0, 0, struct.pack(">HI", 3, 9))],
    ids=["pings", "settings"],
)
def test_answers_that_a_run_does_not_read_are_not_kept_for_it(tmp_path: Path, flood: bytes) -> None:
    async def body(_: Mesh, path: Path, __: Client) -> None:
        async with raw(path) as found:
            found.writer.write(PREFACE + frame(4, 0, 0, b""))
            sent, many = 0, flood * 256
            with suppress(TimeoutError):  # the broker takes no more
                async with asyncio.timeout(4):
                    while sent < MAX_KEPT:
                        found.writer.write(many)
                        await found.writer.drain()
                        sent += len(many)
            assert sent < MAX_KEPT

    run(tmp_path, body)


def test_calls_that_are_begun_and_given_up_leave_nothing(tmp_path: Path) -> None:
    async def body(_: Mesh, path: Path, __: Client) -> None:
        async with raw(path) as found:
            found.greet()
            for number in range(2_000):
                found.call(2 * number + 1)
                found.h2.reset_stream(2 * number + 1)
                if number % 16 == 0:
                    found.flush()
                    await found.writer.drain()
            found.h2.ping(b"are you?")
            found.flush()
            data = b""
            while b"are you?" not in data:
                data += await found.reader.read(65_536)
                assert data

    run(tmp_path, body)


def test_frames_of_kinds_to_come_are_passed_over(tmp_path: Path) -> None:
    async def body(_: Mesh, path: Path, __: Client) -> None:
        async with raw(path) as found:
            found.greet()
            found.writer.write(frame(0x20, 0, 0, b"what?") + frame(0xFA, 7, 0, b""))
            found.call(1)
            found.flush()
            await found.until(DataReceived)

    run(tmp_path, body)


def test_closing_ends_the_connections_that_are_open(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE), meshed(tmp_path) as mesh:
            grant = await mesh.opened()
            async with mesh.place(grant) as path:
                reader, writer = await asyncio.open_unix_connection(path)
                assert await reader.read(9)
            with suppress(ConnectionError):
                while await reader.read(9):
                    pass
            writer.close()

    asyncio.run(main())


def test_the_end_of_a_grant_reaches_every_connection(tmp_path: Path) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE), meshed(tmp_path) as mesh:
            grant = await mesh.opened()
            async with mesh.place(grant) as path, raw(path) as one, raw(path) as two:
                for found in (one, two):
                    found.greet()
                    found.call(1)
                    found.flush()
                    await found.until(DataReceived)
                await mesh.broker.revoke(OPERATOR, grant.id)
                for found in (one, two):
                    (end,) = await found.until(TrailersReceived)
                    assert isinstance(end, TrailersReceived)
                    assert dict(end.headers or ())[b"grpc-status"] == b"7"

    asyncio.run(main())


@pytest.mark.parametrize("step", [1, 2, 9, 24, 1_000_000])
def test_the_length_of_a_frame_is_seen_however_its_bytes_come(step: int) -> None:
    good = PREFACE + frame(4, 0, 0, b"") + frame(0, 0, 1, b"x" * MAX_FRAME) + frame(6, 0, 0, b"\0" * 8)
    seen = Frames()
    assert all(seen.fit(good[at : at + step]) for at in range(0, len(good), step))
    bad = frame(0, 0, 1, b"x" * (MAX_FRAME + 1))[:9]
    assert not all(seen.fit(bad[at : at + step]) for at in range(0, len(bad), step))
