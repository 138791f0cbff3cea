"""What has ended and is not on record is noted, and has ended for the next broker too, however this one dies."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest

from remit.broker import Broker, checkpoints, ends, revocation
from remit.core.audit import Event
from remit.core.lease import Closure
from remit.core.request import Bounds, GrantRequest
from remit.errors import GrantEndedError, RemitError, UnavailableError
from remit.ports import NotedEnd, Write
from tests.broker.samples import DETAIL
from tests.broker.test_checkpoints import Place, beside
from tests.broker.world import OPERATOR, SEARCH, TABLE, World, details, holder, run
from tests.support.memory_store import MemoryStore


class Failing(MemoryStore):
    """Takes no commit while it is ``full``, answers none while it ``hangs``, notes nothing while it is ``worn``."""

    full = worn = False
    notes = 0

    def __init__(self) -> None:
        super().__init__()
        self.answering = asyncio.Event()
        self.answering.set()

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        await self.answering.wait()
        if self.full and (writes or events):
            raise UnavailableError("the disk is full, so nothing can be recorded")
        await super().commit(writes, events)

    async def note_ends(self, noted: Sequence[NotedEnd]) -> None:
        await asyncio.sleep(0)
        if self.worn:
            raise UnavailableError("worn")
        self.notes += 1
        await super().note_ends(noted)


@pytest.fixture
def world() -> World:
    return World(store=Failing())


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have nobody wait for long."""
    monkeypatch.setattr(ends, "PATIENCE", 0.02)
    for module in (ends, checkpoints):
        monkeypatch.setattr(module, "WAIT", 0.02)
    monkeypatch.setattr(revocation, "HASTE", 0.01)


def medium(world: World) -> Failing:
    assert isinstance(world.store, Failing)
    return world.store


def child(depth: int = 1) -> GrantRequest:
    return GrantRequest(details(TABLE, SEARCH), Bounds(depth=depth, fan_out=2))


async def another(world: World) -> Broker:
    """Start the next broker on what is stored; the one before is not asked."""
    medium(world).answering.set()
    medium(world).full = False
    broker = world.broker()
    await broker.start()
    return broker


def live(broker: Broker, grant_id: str) -> bool:
    try:
        broker._tasks.check(grant_id)
    except GrantEndedError:
        return False
    return True


@pytest.mark.attack("REV-08")
def test_what_could_not_be_recorded_has_ended_for_the_next_broker_and_nothing_else_has(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root, other = [await world.opened(broker) for _ in range(2)]
        ended, stays = [(await broker.delegate(OPERATOR, root.id, child())).id for _ in range(2)]
        below = (await broker.delegate(OPERATOR, ended, child(0))).id
        task_id = broker._tasks.task_of(root.id).id
        medium(world).full = True
        await broker.revoke(OPERATOR, ended)
        assert medium(world).noted == (NotedEnd(task_id, (ended,)),)  # what is below goes with it
        again = await another(world)
        found = {name: live(again, name) for name in (root.id, other.id, ended, stays, below)}
        assert found == {root.id: True, other.id: True, ended: False, stays: True, below: False}
        assert [e.grant for e in await world.events() if e.event == "grant.revoke"] == [ended]
        await again.sweep()
        assert medium(world).noted == ()
        stored = await MemoryStore.load(medium(world), task_id)
        assert stored.grants[below].revoked

    run(body())


@pytest.mark.parametrize("what", ["task", "lease"])
def test_a_task_and_a_single_lease_are_noted_too_and_the_next_broker_visits_the_target(world: World, what: str) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        task_id = broker._tasks.task_of(root.id).id
        lease = (await broker.issue(OPERATOR, root.id, DETAIL)).lease
        medium(world).full = True
        world.target.fail = {"revoke"}
        if what == "task":
            await broker.close(OPERATOR, task_id)
        else:
            await broker.revoke_lease(OPERATOR, lease.id)
        world.target.fail.clear()
        again = await another(world)
        assert live(again, root.id) is (what == "lease")
        await again.sweep()
        assert world.target.accounts == {}
        assert (await MemoryStore.load(medium(world), task_id)).head.closed is (what == "task")

    run(body())


def test_everything_ends_where_the_note_says_so(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        roots = [await world.opened(broker) for _ in range(3)]
        medium(world).noted = (NotedEnd(),)
        again = await another(world)
        assert [live(again, root.id) for root in roots] == [False] * 3
        await again.sweep()
        assert medium(world).noted == ()

    run(body())


def test_a_note_of_what_is_not_there_or_has_ended_changes_nothing(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root, other = [await world.opened(broker) for _ in range(2)]
        task_id = broker._tasks.task_of(root.id).id
        await broker.revoke(OPERATOR, root.id)
        size = await world.store.size()
        medium(world).noted = (
            NotedEnd("task_gone", ("grt_x",)),
            NotedEnd(task_id, (root.id, "grt_gone"), ("lse_gone",)),
            NotedEnd(task_id),
        )
        again = await another(world)
        assert (live(again, other.id), await world.store.size()) == (True, size)

    run(body())


def test_a_broker_that_starts_on_a_full_disk_goes_by_the_note_and_keeps_it(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        medium(world).full = True
        await broker.revoke(OPERATOR, root.id)
        for _ in range(2):
            broker = world.broker()
            await broker.start()
            assert not live(broker, root.id)
            assert len(medium(world).noted) == 1
        assert not (await broker.revoke(OPERATOR, root.id)).recorded

    run(body())


@pytest.mark.usefixtures("short")
@pytest.mark.attack("REV-08")
def test_a_commit_that_hangs_holds_up_no_end_at_the_target_and_is_noted(world: World) -> None:
    async def body() -> None:
        broker, place = await world.ready(), Place()
        root = await world.opened(broker)
        await broker.issue(holder(broker, root), root.id, DETAIL)
        beside(broker, place)
        medium(world).answering.clear()
        place.slow = asyncio.Event()  # and the second place hangs, too
        report = await asyncio.wait_for(broker.revoke(OPERATOR, root.id), 1)
        assert (report.state, report.recorded, report.covered) == (Closure.PARTIAL, False, False)
        assert report.outstanding == ()
        assert world.target.accounts == {}
        assert [end.grants for end in medium(world).noted] == [(root.id,)]
        assert not live(broker, root.id)
        assert not (await asyncio.wait_for(broker.revoke(OPERATOR, root.id), 1)).recorded
        medium(world).answering.set()
        for late in tuple(broker._tasks._ends._late):  # the commits that nobody waited for
            await late
        await broker.sweep()
        assert medium(world).noted == ()
        place.slow.set()
        assert (await broker.revoke(OPERATOR, root.id)).state is Closure.CLOSED
        assert broker._tasks.task_of(root.id).leases == {}

    run(body())


@pytest.mark.usefixtures("short")
def test_a_hanging_commit_whose_end_was_noted_has_ended_for_the_next_broker(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        medium(world).answering.clear()
        await broker.revoke(OPERATOR, root.id)
        lost, medium(world).answering = medium(world).answering, asyncio.Event()  # what hangs never comes
        again = await another(world)
        assert not live(again, root.id)
        lost.set()

    run(body())


@pytest.mark.usefixtures("short")
def test_where_nothing_can_be_noted_the_end_holds_and_the_log_says_how_long(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        medium(world).full = medium(world).worn = True
        report = await broker.revoke(OPERATOR, root.id)
        assert (report.recorded, world.target.accounts) == (False, {})
        assert "neither recorded nor noted" in caplog.text
        medium(world).worn = False
        await broker.sweep()
        assert len(medium(world).noted) == 1

    run(body())


def test_ends_that_are_recorded_note_nothing_and_many_share_one_note(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        roots = [await world.opened(broker) for _ in range(50)]
        await broker.sweep()
        before = medium(world).notes
        await broker.revoke(OPERATOR, roots.pop().id)
        await broker.sweep()
        assert medium(world).notes == before
        medium(world).full = True
        await asyncio.gather(*(broker.revoke(OPERATOR, root.id) for root in roots))
        assert len(medium(world).noted) == 49
        assert medium(world).notes - before <= 3

    run(body())


@pytest.mark.usefixtures("short")
def test_whoever_revokes_while_a_task_cannot_be_read_is_answered_in_time(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        medium(world).full = True
        with pytest.raises(RemitError):
            await broker.delegate(OPERATOR, root.id, child())
        medium(world).full = False
        delegating = asyncio.create_task(broker.delegate(OPERATOR, root.id, child()))
        await asyncio.sleep(0)
        medium(world).answering.clear()
        report = await asyncio.wait_for(broker.revoke(OPERATOR, root.id), 1)
        assert not report.recorded
        medium(world).answering.set()
        await delegating
        times = [event.at for event in await world.events()]
        assert all(one <= other for one, other in pairwise(times))

    run(body())
