"""Database ports of a run: for logins of the grant's leases, piped under it and cut with it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from remit.core.request import GrantRequest
from remit.gateway import pipe
from remit.gateway.quota import MAX_PIPES
from remit.ports import Resource
from tests.broker.world import OPERATOR, details
from tests.gateway.rig import ALL, Rig, Wire, play, rig
from tests.support.simulated_target import SimulatedEngine, SimulatedTarget

pytestmark = pytest.mark.live
TABLE = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["a.b"]}


KEY = b"K\0\0\0\x0c\0\0\0\x07abcd"


def startup(login: str) -> bytes:
    body = f"user\0{login}\0database\0db\0\0".encode()
    return (len(body) + 8).to_bytes(4, "big") + b"\0\3\0\0" + body


def cancel(key: bytes) -> bytes:
    return (len(key) + 8).to_bytes(4, "big") + (80877102).to_bytes(4, "big") + key


@dataclass
class Database:
    """Something that names a session, and then answers what it is told in upper case."""

    port: int = 0
    connections: int = 0
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    opened: list[bytes] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            size = await reader.readexactly(4)
            self.opened.append(size + await reader.readexactly(int.from_bytes(size, "big") - 4))
            writer.write(KEY)
            while data := await reader.read(65_536):
                writer.write(data.upper())
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        self.lost.set()
        writer.close()


@asynccontextmanager
async def shop() -> AsyncIterator[Rig]:
    """Start a gateway whose databases have leases."""
    target = SimulatedTarget(lambda: datetime(2026, 1, 1, tzinfo=UTC))
    async with rig(make=lambda *_: SimulatedEngine(target)) as r:
        yield r


async def issued(r: Rig, grant: str) -> str:
    """Issue a lease, and return its login."""
    made = await r.broker.issue(OPERATOR, grant, details(TABLE)[0])
    return made.lease.plan.name


async def session(r: Rig, port: int, grant: str) -> Wire:
    """Open a session as a lease of the grant."""
    wire = await r.wire(port)
    await wire.send(startup(await issued(r, grant)))
    assert await wire.reader.readexactly(len(KEY)) == KEY
    return wire


@asynccontextmanager
async def database() -> AsyncIterator[Database]:
    """Start a database."""
    made = Database()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in made.writers:
            writer.transport.abort()
        await asyncio.sleep(0.01)


async def piped(r: Rig, made: Database, *raw: Mapping[str, object]) -> tuple[int, str]:
    """Open a port onto the database; return it with the grant it is bound to."""
    place = f"postgresql://broker@127.0.0.1:{made.port}/db"
    await r.broker.put_resource(
        OPERATOR, Resource("warehouse", "postgres", place, details(TABLE), None, {"tls": "loopback"})
    )
    grant = await r.opened(*(raw or (TABLE,)))
    return await listening(r, grant.id), grant.id


async def listening(r: Rig, grant: str) -> int:
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    sock.setblocking(False)
    await r.gateway.pipe(sock, grant, "warehouse")
    return int(sock.getsockname()[1])


def test_bytes_go_both_ways_and_the_end_goes_too() -> None:
    async def scene() -> None:
        async with database() as made, shop() as r:
            port, grant = await piped(r, made)
            wire = await session(r, port, grant)
            await wire.send(b"select 1;")
            assert await wire.reader.readexactly(9) == b"SELECT 1;"
            wire.writer.write_eof()
            assert await wire.rest() == b""
            await r.outcomes(1)
            uses = [(e.decision, e.resource, e.action) for e in await r.events("resource.use")]
            assert uses == [("allow", "warehouse", "connect")]

    play(scene)


def test_much_goes_through_at_the_pace_of_the_slower_side() -> None:
    async def scene() -> None:
        async with database() as made, shop() as r:
            port, grant = await piped(r, made)
            wire = await session(r, port, grant)
            sending = asyncio.create_task(wire.send(b"a" * 20_000_000))
            assert await wire.reader.readexactly(20_000_000) == b"A" * 20_000_000
            await sending

    play(scene)


def test_revoking_cuts_a_session_on_both_sides() -> None:
    async def scene() -> None:
        async with database() as made, shop() as r:
            port, grant = await piped(r, made)
            wire = await session(r, port, grant)
            await wire.send(b"x")
            await wire.reader.readexactly(1)
            await r.broker.revoke(OPERATOR, grant)
            await wire.rest()
            await asyncio.wait_for(made.lost.wait(), 5)

    play(scene)


def test_a_grant_revoked_while_its_session_is_being_opened_gets_none() -> None:
    async def scene() -> None:
        async with database() as made, shop() as r:
            port, grant = await piped(r, made)
            wire = await r.wire(port)
            await wire.send(startup(await issued(r, grant)))
            await r.settled(lambda: any(moving.grant == grant for moving in r.gateway.plane.in_flight))
            await r.broker.revoke(OPERATOR, grant)
            assert await wire.rest() == b""
            await r.settled(lambda: all(writer.transport.is_closing() for writer in made.writers))

    play(scene)


def test_a_revoked_grant_opens_no_session() -> None:
    async def scene() -> None:
        async with database() as made, shop() as r:
            port, grant = await piped(r, made)
            await r.broker.revoke(OPERATOR, grant)
            assert await (await r.wire(port)).rest() == b""
            assert made.connections == 0

    play(scene)


def test_a_grant_that_does_not_cover_the_database_opens_no_session() -> None:
    async def scene() -> None:
        async with database() as made, shop() as r:
            port, _ = await piped(r, made, ALL)
            assert await (await r.wire(port)).rest() == b""
            assert made.connections == 0
            denied = [e for e in await r.events("resource.use") if e.decision == "deny"]
            assert [(e.resource, e.code) for e in denied] == [("warehouse", "scope")]

    play(scene)


def test_a_database_that_is_not_there_ends_the_session() -> None:
    async def scene() -> None:
        async with database() as made, shop() as r:
            spare = socket.socket()
            spare.bind(("127.0.0.1", 0))
            made.port = spare.getsockname()[1]
            port, grant = await piped(r, made)
            wire = await r.wire(port)
            await wire.send(startup(await issued(r, grant)))
            assert b"C57P03\0Mremit: the database could not be reached\0" in await wire.rest()
            spare.close()
            [event] = await r.outcomes(1)
            assert (event.decision, event.code) == ("failed", "upstream")

    play(scene)


def test_a_grant_has_only_so_many_connections_at_a_time() -> None:
    async def scene() -> None:
        async with database() as made, shop() as r:
            port, grant = await piped(r, made)
            wires = [await session(r, port, grant) for _ in range(MAX_PIPES)]
            assert made.connections == MAX_PIPES
            assert await (await r.wire(port)).rest() == b""
            [denied] = [event for event in await r.events("resource.use") if event.decision == "deny"]
            assert denied.code == "limit"
            wires[0].close()
            await r.settled(lambda: r.gateway.quota.pipes.total() < MAX_PIPES)
            again = await session(r, port, grant)
            await again.send(b"abc")
            assert await again.reader.readexactly(3) == b"ABC"

    play(scene)


async def refused(r: Rig, port: int, opening: bytes) -> tuple[bytes, str | None]:
    """Return what a client is answered that is not let through, and the code of the denial on record."""
    wire = await r.wire(port)
    await wire.send(opening)
    answer = await wire.rest()
    denied = [event for event in await r.events("resource.use") if event.decision == "deny"]
    return answer, denied[-1].code if denied else None


def test_a_login_of_a_child_is_let_through_and_the_startup_message_goes_on_as_it_came() -> None:
    async def scene() -> None:
        async with database() as made, shop() as r:
            port, grant = await piped(r, made)
            below = await r.broker.delegate(OPERATOR, grant, GrantRequest(details(TABLE)))
            login = await issued(r, below.id)
            wire = await r.wire(port)
            await wire.send(b"\0\0\0\x08\x04\xd2\x16\x2f")  # does it speak TLS?
            assert await wire.reader.readexactly(1) == b"N"
            await wire.send(startup(login))
            assert await wire.reader.readexactly(len(KEY)) == KEY
            assert made.opened == [startup(login)]

    play(scene)


def test_no_other_login_reaches_the_database() -> None:
    async def scene() -> None:
        async with database() as made, shop() as r:
            port, grant = await piped(r, made)
            sibling = await r.opened(TABLE)
            ended = await issued(r, grant)
            await r.broker.revoke_lease(OPERATOR, ended.removeprefix("remit_"))
            for login in ("postgres", "", await issued(r, sibling.id), ended):
                answer, code = await refused(r, port, startup(login))
                assert answer[:1] == b"E"
                assert b"SFATAL\0VFATAL\0C28000\0Mremit: the login is that of no active lease" in answer, login
                assert code == "denied"
            assert made.connections == 0
            assert [event for event in await r.events("resource.use") if event.decision == "allow"] == []

    play(scene)


def test_a_parents_lease_is_no_login_at_its_childs_port() -> None:
    async def scene() -> None:
        async with database() as made, shop() as r:
            _, grant = await piped(r, made)
            child = await r.broker.delegate(OPERATOR, grant, GrantRequest(details(TABLE)))
            port = await listening(r, child.id)
            answer, code = await refused(r, port, startup(await issued(r, grant)))
            assert (answer[:1], code, made.connections) == (b"E", "denied", 0)

    play(scene)


def test_what_is_no_opening_reaches_nothing() -> None:
    async def scene() -> None:
        async with database() as made, shop() as r:
            port, grant = await piped(r, made)
            elsewhere = startup(await issued(r, grant)).replace(b"\0db\0", b"\0xy\0")
            for opening in (b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 200_000, elsewhere):
                answer, code = await refused(r, port, opening)
                assert (answer[:1], code) == (b"E", "invalid-request")
            assert made.connections == 0

    play(scene)


def test_one_that_says_nothing_is_let_go_and_counts_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipe, "OPENING", 0.05)

    async def scene() -> None:
        async with database() as made, shop() as r:
            port, _ = await piped(r, made)
            wire = await r.wire(port)
            await wire.send(b"\0\0")
            assert await wire.rest() == b""
            (await r.wire(port)).close()
            await r.settled(lambda: not r.gateway.quota.pipes)
            assert made.connections == 0
            assert await r.events("resource.use") == []
            assert not r.gateway.plane.in_flight

    play(scene)


def test_a_cancel_goes_to_sessions_of_the_same_grant_alone() -> None:
    async def scene() -> None:
        async with database() as made, shop() as r:
            port, grant = await piped(r, made)
            sibling = (await r.opened(TABLE)).id
            other = await listening(r, sibling)
            assert await refused(r, port, cancel(KEY[5:])) == (b"", "denied")
            mine = await session(r, port, grant)
            assert await refused(r, port, cancel(b"\0\0\0\x07wxyz")) == (b"", "denied")
            assert await refused(r, other, cancel(KEY[5:])) == (b"", "denied")
            assert len(made.opened) == 1
            wire = await r.wire(port)
            await wire.send(cancel(KEY[5:]))
            await r.settled(lambda: len(made.opened) == 2)
            assert made.opened[1] == cancel(KEY[5:])
            mine.close()
            wire.close()
            await r.settled(lambda: not r.gateway.plane.in_flight)
            assert await refused(r, port, cancel(KEY[5:])) == (b"", "denied")

    play(scene)
