"""Reading a head again after a commit failed or was cancelled: it includes what was queued, and loses nothing newer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from remit.broker.tasks import TaskCache
from remit.core import scope
from remit.core.audit import Event
from remit.core.grant import GrantContext
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Subject, Task, open_task
from remit.errors import RevokedError, UnavailableError
from remit.ports import Write
from tests.broker.world import START, TABLE, run
from tests.support.memory_store import MemoryStore

EVENT = Event("grant.revoke", START, "done")
SUBJECT = Subject("unix://host#1000", "local-uid")


class SlowStore(MemoryStore):
    """Makes commits durable when it is told to, in order, even those whose callers have gone."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.order = asyncio.Lock()
        self.background: set[asyncio.Task[None]] = set()

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        task = asyncio.create_task(self._later(writes, events))
        self.background.add(task)
        await asyncio.shield(task)

    async def _later(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        async with self.order:
            await self.gate.wait()
            await super().commit(writes, events)


async def opened(store: MemoryStore) -> tuple[TaskCache, Task]:
    """Return heads with one open task."""
    heads = TaskCache(store, lambda: START)
    wanted = GrantRequest(scope.parse([TABLE]), Bounds(timedelta(minutes=5)))
    start = open_task("task_1", "grt_1", SUBJECT, replace(wanted, purpose="draft"), GrantContext(), START)
    task = await heads.step(start, EVENT)
    return heads, task


def test_a_revoke_that_is_cancelled_while_it_becomes_durable_is_in_the_head_that_is_read_again() -> None:
    async def body() -> None:
        store = SlowStore()
        heads, _ = await opened(store)
        store.gate.clear()
        revoking = asyncio.create_task(heads.step(heads.task("task_1").revoke("grt_1"), EVENT))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        revoking.cancel()
        await asyncio.sleep(0)
        store.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await revoking
        with pytest.raises(RevokedError):
            heads.check("grt_1")

    run(body())


def test_a_head_that_somebody_else_read_and_moved_on_is_kept() -> None:
    async def body() -> None:
        store = MemoryStore()
        heads, task = await opened(store)
        newer = await heads.step(heads.task("task_1").revoke("grt_1"), EVENT)
        store._rows["task", "task_1"] = task  # what a slower reader has seen
        assert await heads.load("task_1") is newer
        with pytest.raises(RevokedError):
            heads.check("grt_1")

    run(body())


class BrokenStore(MemoryStore):
    """A medium that takes nothing any more."""

    broken = False

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        if self.broken:
            raise UnavailableError
        await super().commit(writes, events)


def test_what_ended_stays_ended_in_the_head_though_the_store_takes_nothing() -> None:
    async def body() -> None:
        store = BrokenStore()
        heads, task = await opened(store)
        store.broken = True
        with pytest.raises(UnavailableError):
            await heads.step(heads.task("task_1").revoke("grt_1"), EVENT)
        assert heads.task("task_1").head == replace(task.head, closed=True)
        assert await store.load("task_1") == task
        with pytest.raises(RevokedError):
            heads.check("grt_1")

    run(body())


def test_whoever_waits_for_a_task_that_is_being_read_again_goes_on_when_it_is_back() -> None:
    async def body() -> None:
        store = SlowStore()
        heads, task = await opened(store)
        store.gate.clear()
        revoking = asyncio.create_task(heads.step(task.revoke("grt_1"), EVENT))
        await asyncio.sleep(0)
        revoking.cancel()
        await asyncio.sleep(0)
        assert heads.known() == [task.id]  # it is not loaded, and not forgotten
        waiting = asyncio.create_task(heads.returned(task.id))
        await asyncio.sleep(0)
        assert not waiting.done()
        store.gate.set()
        assert await waiting
        with pytest.raises(asyncio.CancelledError):
            await revoking
        assert heads.task(task.id).head.closed
        assert not await heads.returned("task_404")

    run(body())
