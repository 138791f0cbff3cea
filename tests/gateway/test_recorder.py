"""While nothing can be recorded nothing is let through, and whoever asks is told so at once."""

from __future__ import annotations

import logging
import socket
from collections.abc import Sequence

import pytest

from remit.core import scope
from remit.core.audit import Event
from remit.errors import UnavailableError
from remit.ports import Resource, Write
from tests.broker.world import OPERATOR
from tests.gateway.rig import ALL, Rig, http, play, rig
from tests.support.memory_store import MemoryStore

FAILURES = [UnavailableError("the disk is full"), OSError(28, "No space left on device"), RuntimeError("locked")]


class Full(MemoryStore):
    """A store that refuses every write while ``failure`` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.failure: Exception | None = None

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        if self.failure is not None:
            raise self.failure
        await super().commit(writes, events)


def lines(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return what was logged about it."""
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.mark.attack("DOS-05")
@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_request_is_refused_at_once_and_the_connection_goes_on(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        store = Full()
        async with rig(store=store) as r:
            wire = await r.wire()
            store.failure = failure
            for target in ("/api/v1/x", "/other/x", "/api/v1/x"):
                await wire.send(r.request(target))
                reply = await wire.reply()
                assert (reply.status, reply.json()["code"]) == (503, "unavailable")
                assert 'details="unavailable"' in reply.headers["proxy-status"]
            assert r.upstream.seen == []
            assert len(lines(caplog)) == 1
            store.failure = None
            await wire.send(r.request("/api/v1/x"))
            assert (await wire.reply()).status == 200

    play(scene)


@pytest.mark.attack("DOS-05")
@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_what_is_no_request_is_refused_and_leaves_no_failed_task(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        store = Full()
        async with rig(store=store) as r:
            store.failure = failure
            for raw in (b"NONSENSE\r\n\r\n", b"GET /api/x HTTP/1.1\r\nHost : x\r\n\r\n"):
                wire = await r.wire()
                await wire.send(raw)
                assert (await wire.reply()).status == 400
                assert await wire.rest() == b""
            await r.settled(lambda: not r.gateway.plane.tasks)
            assert len(lines(caplog)) == 1

    play(scene)


@pytest.mark.attack("DOS-05")
@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_an_answer_under_way_is_not_ended_by_an_outcome_that_cannot_be_recorded(
    failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async def scene() -> None:
        store = Full()
        async with rig(store=store) as r:
            wire = await r.wire()
            await wire.send(r.request("/api/hold"))
            await r.upstream.arrived.wait()
            store.failure = failure
            r.upstream.held.set()
            assert (await wire.reply()).status == 200
            await r.settled(lambda: bool(lines(caplog)))
            await r.settled(lambda: not r.gateway.plane.tasks)
            await wire.send(r.request("/api/v1/x"))
            assert (await wire.reply()).status == 503
            assert len(lines(caplog)) == 1

    play(scene)


@pytest.mark.attack("DOS-05")
@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_second_try_on_a_new_connection_is_refused(failure: Exception) -> None:
    async def scene() -> None:
        store = Full()
        async with rig(store=store) as r:
            wire = await r.wire()
            await wire.send(r.request("/api/v1/x"))
            assert (await wire.reply()).status == 200
            r.upstream.held.clear()
            r.upstream.arrived.clear()
            await wire.send(r.request("/api/hold"))
            await r.upstream.arrived.wait()
            store.failure = failure
            for writer in tuple(r.upstream._open):
                writer.transport.abort()
            assert (await wire.reply()).status == 503
            assert len(r.upstream.seen) == 2

    play(scene)


async def port_of_a_database(r: Rig) -> int:
    """Open a database port of a run, to where nothing listens."""
    raw = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["a.b"]}
    warehouse = Resource("warehouse", "postgres", "postgresql://127.0.0.1:9/db", scope.parse([raw]), None, {})
    await r.broker.put_resource(OPERATOR, warehouse, None)
    grant = await r.opened(raw)
    sock = socket.socket()
    sock.bind(("127.0.0.1", 0))
    sock.listen(8)
    sock.setblocking(False)
    await r.gateway.pipe(sock, grant.id, "warehouse")
    return int(sock.getsockname()[1])


@pytest.mark.attack("DOS-05")
@pytest.mark.parametrize("failure", FAILURES, ids=repr)
def test_a_connection_to_a_database_is_ended_at_once(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        store = Full()
        async with rig(ALL, store=store) as r:
            port = await port_of_a_database(r)
            store.failure = failure
            wire = await r.wire(port)
            assert await wire.rest() == b""
            await r.settled(lambda: not r.gateway.plane.tasks)
            assert len(lines(caplog)) == 1
            assert r.gateway.quota.pipes == {}

    play(scene)


def test_another_outage_is_logged_again(caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        store = Full()
        async with rig(http(), store=store) as r:
            for count in (1, 2):
                store.failure = OSError(28, "full")
                assert (await r.get("/api/v1/public/x")).status == 503
                store.failure = None
                assert (await r.get("/api/v1/admin")).status == 403
                assert len(lines(caplog)) == count

    play(scene)
