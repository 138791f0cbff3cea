"""An end that is not on record is neither lost nor called closed, however long the medium takes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from remit.broker.ends import UnrecordedEnd, UnrecordedEnds
from remit.core.audit import Event
from remit.core.lease import Closure
from remit.core.policy import Decision, Question
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Task
from remit.errors import RevokedError, UnavailableError
from remit.ports import Write
from tests.broker.world import OPERATOR, SEARCH, START, TABLE, World, details, run
from tests.support.memory_store import MemoryStore


class Gated(MemoryStore):
    """Answers commits and reads when it is told to; what comes while it is ``full`` fails."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.writing, self.reading = asyncio.Event(), asyncio.Event()
        self.writing.set()
        self.reading.set()

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        full = self.full and bool(writes or events)
        await self.writing.wait()
        if full:
            raise UnavailableError("the disk is full, so nothing can be recorded")
        await super().commit(writes, events)

    async def load(self, task_id: str) -> Task:
        await self.reading.wait()
        return await super().load(task_id)


class Unreadable(Gated):
    """As above, and what is asked for while it is ``unreadable`` cannot be read."""

    unreadable = False

    async def load(self, task_id: str) -> Task:
        if self.unreadable:
            raise UnavailableError
        return await super().load(task_id)


def gates(world: World) -> Gated:
    """Return the medium of a world."""
    assert isinstance(world.store, Gated)
    return world.store


async def turns() -> None:
    """Let everybody go on as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


def nothing(question: Question) -> Decision:
    """Allow nothing."""
    del question
    return Decision(allowed=False, reasons=("nothing is allowed",), version="none")


def child() -> GrantRequest:
    """Return what a child is to be."""
    return GrantRequest(details(TABLE, SEARCH), Bounds(depth=1, fan_out=2))


@pytest.mark.attack("REV-08")
def test_an_end_is_tried_again_though_reading_its_task_took_longer_than_the_back_off() -> None:
    async def body() -> None:
        world = World(store=Gated())
        broker = await world.ready()
        root = await world.opened(broker)
        below = (await broker.delegate(OPERATOR, root.id, child())).grant
        gates(world).full = True
        gates(world).reading.clear()
        revoking = asyncio.create_task(broker.revoke(OPERATOR, below.id))
        await turns()
        world.later(2)  # its time to be tried again comes and goes while the task is being read
        await broker.sweep()
        gates(world).reading.set()
        assert not (await revoking).recorded
        gates(world).full = False
        for _ in range(20):
            world.later(1)
            await broker.sweep()
        stored = await world.store.load(broker._tasks.task_of(root.id).id)
        assert stored.grant(below.id).revoked

    run(body())


@pytest.mark.attack("REV-08")
@pytest.mark.parametrize("fails", [True, False])
def test_an_end_is_not_on_record_while_the_commit_that_carries_it_may_fail(*, fails: bool) -> None:
    async def body() -> None:
        world = World(store=Gated())
        broker = await world.ready()
        root = await world.opened(broker)
        below = (await broker.delegate(OPERATOR, root.id, child())).grant
        task_id = broker._tasks.task_of(root.id).id
        gates(world).full = True
        assert not (await broker.revoke(OPERATOR, below.id)).recorded
        gates(world).full = fails
        gates(world).writing.clear()
        carrying = asyncio.create_task(broker.delegate(OPERATOR, root.id, child()))
        await turns()
        gates(world).full = False
        task = broker._tasks.task_of(root.id)
        assert not broker._revoker.report(task, frozenset({below.id}), 0).recorded
        recording = asyncio.create_task(broker._tasks.record_ends(task_id))
        await turns()
        assert not recording.done()
        gates(world).writing.set()
        await recording
        await asyncio.gather(carrying, return_exceptions=True)
        assert (await world.store.load(task_id)).grant(below.id).revoked
        assert (await broker.revoke(OPERATOR, below.id)).state is Closure.CLOSED

    run(body())


def test_a_task_whose_reader_is_cancelled_twice_is_read_by_the_sweep() -> None:
    async def body() -> None:
        world = World(store=Gated())
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, details(TABLE)[0])
        gates(world).writing.clear()
        delegating = asyncio.create_task(broker.delegate(OPERATOR, root.id, child()))
        for _ in range(3):
            await turns()
            delegating.cancel()
        await asyncio.gather(delegating, return_exceptions=True)
        assert delegating.cancelled()
        gates(world).writing.set()
        world.later(1)
        await broker.sweep()
        assert broker._tasks.check(root.id).grant.id == root.id
        world.later(3_600)
        await broker.sweep()
        assert world.target.accounts == {}

    run(body())


@pytest.mark.attack("REV-08")
def test_a_revoke_of_what_cannot_be_read_is_not_answered_as_if_there_were_nothing() -> None:
    async def body() -> None:
        world = World(store=Unreadable())
        broker = await world.ready()
        root = await world.opened(broker)
        task_id = broker._tasks.task_of(root.id).id
        world.store.full = world.store.unreadable = True  # type: ignore[attr-defined]  # the store of this test has it
        with pytest.raises(UnavailableError):
            await broker.delegate(OPERATOR, root.id, child())
        for attempt in (broker.revoke(OPERATOR, root.id), broker.close(OPERATOR, task_id)):
            with pytest.raises(UnavailableError):
                await attempt
        world.store.full = world.store.unreadable = False  # type: ignore[attr-defined]  # the store of this test has it
        world.later(1)
        await broker.sweep()
        assert (await broker.revoke(OPERATOR, root.id)).state is Closure.CLOSED

    run(body())


def test_a_policy_that_changes_while_a_task_is_read_again_by_the_sweep_is_not_said_to_hold_there() -> None:
    async def body() -> None:
        world = World(store=Unreadable())
        broker = await world.ready()
        root = await world.opened(broker)
        world.store.full = world.store.unreadable = True  # type: ignore[attr-defined]  # the store of this test has it
        with pytest.raises(UnavailableError):
            await broker.delegate(OPERATOR, root.id, child())
        world.store.full = world.store.unreadable = False  # type: ignore[attr-defined]  # the store of this test has it
        gates(world).reading.clear()
        world.later(1)
        sweeping = asyncio.create_task(broker.sweep())
        await turns()
        with pytest.raises(UnavailableError):
            await broker.policy.reload(OPERATOR, nothing, "none")
        gates(world).reading.set()
        await sweeping
        await broker.sweep()
        with pytest.raises(RevokedError):
            broker._tasks.check(root.id)

    run(body())


def test_a_commit_that_carried_nothing_ends_no_others_way() -> None:
    ends = UnrecordedEnds()
    waiting = UnrecordedEnd(frozenset({"grt_1"}), frozenset(), (), 1, START, visited=False)
    ends.waiting["task_1"] = waiting
    assert ends.carry("task_1") is waiting
    ends.arrived("task_1", None)
    assert ends.retry_at("task_1") == START
    ends.arrived("task_1", waiting)
    assert ends.retry_at("task_1") is None
