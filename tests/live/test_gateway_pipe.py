"""Database ports of a run, piped under a grant and cut with it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from remit.gateway.quota import MAX_PIPES
from remit.ports import Resource
from tests.broker.world import OPERATOR, details
from tests.gateway.rig import ALL, Rig, play, rig

pytestmark = pytest.mark.live
TABLE = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["a.b"]}


@dataclass
class Database:
    """Something that answers what it is told, in upper case."""

    port: int = 0
    connections: int = 0
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        try:
            while data := await reader.read(65_536):
                writer.write(data.upper())
                await writer.drain()
        except ConnectionError:
            pass
        self.lost.set()
        writer.close()


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
    await r.broker.put_resource(OPERATOR, Resource("warehouse", "postgres", place, details(TABLE), None, {}))
    grant = await r.opened(*(raw or (TABLE,)))
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    sock.setblocking(False)
    await r.gateway.pipe(sock, grant.id, "warehouse")
    return sock.getsockname()[1], grant.id


def test_bytes_go_both_ways_and_the_end_goes_too() -> None:
    async def scene() -> None:
        async with database() as made, rig() as r:
            port, _ = await piped(r, made)
            wire = await r.wire(port)
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
        async with database() as made, rig() as r:
            port, _ = await piped(r, made)
            wire = await r.wire(port)
            sending = asyncio.create_task(wire.send(b"a" * 20_000_000))
            assert await wire.reader.readexactly(20_000_000) == b"A" * 20_000_000
            await sending

    play(scene)


def test_revoking_cuts_a_session_on_both_sides() -> None:
    async def scene() -> None:
        async with database() as made, rig() as r:
            port, grant = await piped(r, made)
            wire = await r.wire(port)
            await wire.send(b"x")
            await wire.reader.readexactly(1)
            await r.broker.revoke(OPERATOR, grant)
            await wire.rest()
            await asyncio.wait_for(made.lost.wait(), 5)

    play(scene)


def test_a_grant_revoked_while_its_session_is_being_opened_gets_none() -> None:
    async def scene() -> None:
        async with database() as made, rig() as r:
            port, grant = await piped(r, made)
            wire = await r.wire(port)
            await r.settled(lambda: any(moving.grant == grant for moving in r.gateway.plane.in_flight))
            await r.broker.revoke(OPERATOR, grant)
            assert await wire.rest() == b""
            await r.settled(lambda: all(writer.transport.is_closing() for writer in made.writers))

    play(scene)


def test_a_revoked_grant_opens_no_session() -> None:
    async def scene() -> None:
        async with database() as made, rig() as r:
            port, grant = await piped(r, made)
            await r.broker.revoke(OPERATOR, grant)
            assert await (await r.wire(port)).rest() == b""
            assert made.connections == 0

    play(scene)


def test_a_grant_that_does_not_cover_the_database_opens_no_session() -> None:
    async def scene() -> None:
        async with database() as made, rig() as r:
            port, _ = await piped(r, made, ALL)
            assert await (await r.wire(port)).rest() == b""
            assert made.connections == 0
            denied = [e for e in await r.events("resource.use") if e.decision == "deny"]
            assert [(e.resource, e.code) for e in denied] == [("warehouse", "scope")]

    play(scene)


def test_a_database_that_is_not_there_ends_the_session() -> None:
    async def scene() -> None:
        async with database() as made, rig() as r:
            spare = socket.socket()
            spare.bind(("127.0.0.1", 0))
            made.port = spare.getsockname()[1]
            port, _ = await piped(r, made)
            assert await (await r.wire(port)).rest() == b""
            spare.close()
            [event] = await r.outcomes(1)
            assert (event.decision, event.code) == ("failed", "upstream")

    play(scene)


def test_a_grant_has_only_so_many_connections_at_a_time() -> None:
    async def scene() -> None:
        async with database() as made, rig() as r:
            port, _ = await piped(r, made)
            wires = [await r.wire(port) for _ in range(MAX_PIPES)]
            await r.settled(lambda: made.connections == MAX_PIPES)
            assert await (await r.wire(port)).rest() == b""
            [denied] = [event for event in await r.events("resource.use") if event.decision == "deny"]
            assert denied.code == "limit"
            wires[0].close()
            await r.settled(lambda: r.gateway.quota.pipes.total() < MAX_PIPES)
            again = await r.wire(port)
            await again.send(b"abc")
            assert await again.reader.readexactly(3) == b"ABC"

    play(scene)
