"""An end is in memory before it is on disk, and is never taken back: what holds while it cannot be recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import timedelta

import pytest

from remit.broker import Broker
from remit.core.audit import Event
from remit.core.grant import Posture
from remit.core.lease import Closure, LeaseState, Report
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Access
from remit.core.task import Change, Grant, Task
from remit.errors import ConflictError, NotFoundError, RemitError, RevokedError, UnavailableError
from remit.ports import Write
from tests.broker.samples import DETAIL
from tests.broker.world import OPERATOR, SEARCH, TABLE, World, confirmed, details, holder, on_end, run
from tests.grant_requests import changed
from tests.support.memory_store import MemoryStore
from tests.uses import permitted_use

GET = Access("search", "GET", "/v1/search")


class Full(MemoryStore):
    """A medium that is full from time to time; reads go on."""

    def __init__(self) -> None:
        super().__init__()
        self.full = False
        self.unreadable = False
        self.tried = 0

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        await asyncio.sleep(0)
        if self.full and (writes or events):
            self.tried += 1
            raise UnavailableError("the disk is full, so nothing can be recorded")
        await super().commit(writes, events)

    async def load(self, task_id: str) -> Task:
        await asyncio.sleep(0)
        if self.unreadable:
            raise UnavailableError
        return await super().load(task_id)


@pytest.fixture
def world() -> World:
    """Return a world on a medium that can be filled."""
    return World(store=Full())


def medium(world: World) -> Full:
    """Return the medium of a world."""
    assert isinstance(world.store, Full)
    return world.store


def child(**more: object) -> GrantRequest:
    """Return what a child is to be."""
    return changed(GrantRequest(details(TABLE, SEARCH), Bounds(depth=1, fan_out=2)), more)


async def stored(world: World, broker: Broker, grant: Grant) -> Task:
    """Return the task of a grant as it is stored."""
    assert isinstance(world.store, MemoryStore)
    return await MemoryStore.load(world.store, broker._tasks.task_of(grant.id).id)


async def refused(broker: Broker, grant: Grant) -> None:
    """Assert that nothing can be done under a grant, for that it was revoked."""
    for attempt in (
        permitted_use(broker, grant.id, GET, "req_1"),
        broker.issue(holder(broker, grant), grant.id, DETAIL),
        broker.delegate(holder(broker, grant), grant.id, child()),
        broker.attach(OPERATOR, grant.id, Posture()),
    ):
        with pytest.raises((RevokedError, UnavailableError)) as caught:
            await attempt
        assert isinstance(caught.value, RevokedError) or isinstance(caught.value.__context__, RevokedError)
    with pytest.raises(RevokedError):
        broker._tasks.check(grant.id)


@pytest.mark.attack("REV-08")
def test_a_revoke_whose_commit_fails_holds_reaches_the_target_and_says_that_it_is_not_recorded(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        below = (await broker.delegate(OPERATOR, root.id, child())).grant
        await broker.issue(holder(broker, below), below.id, DETAIL)
        await confirmed(broker)
        cut: set[str] = set()
        on_end(broker, cut.update)
        medium(world).full = True
        report = await broker.revoke(OPERATOR, root.id)
        assert (report.state, report.recorded, report.revoked) == (Closure.PARTIAL, False, 2)
        assert report.outstanding == ()
        assert world.target.accounts == {}
        assert cut == {root.id, below.id}
        for grant in (root, below):
            await refused(broker, grant)
        task = broker._tasks.task_of(root.id)  # what `remit tree` shows
        assert task.head.closed
        assert all(grant.revoked for grant in task.grants.values())
        assert not (await stored(world, broker, root)).head.closed

    run(body())


def test_what_could_not_be_recorded_is_tried_again_with_back_off_until_it_is_with_its_event(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        await confirmed(broker)
        medium(world).full = True
        await broker.revoke(OPERATOR, root.id)
        for _ in range(100):  # twice a second for 50 s
            world.later(0.5)
            await broker.sweep()
        assert 5 <= medium(world).tried <= 40
        assert 5 <= len(caplog.messages) <= 20
        assert caplog.messages[0].startswith("what ended in 1 tasks could not be recorded: the disk is full")
        medium(world).full = False
        world.later(8)
        await broker.sweep()
        task = await stored(world, broker, root)
        assert task.head.closed
        assert all(lease.state in {LeaseState.REVOKING, LeaseState.REVOKED} for lease in task.leases.values())
        events = [event.event for event in await world.events()]
        assert events.count("grant.revoke") == 1
        before = await world.store.size()
        world.later(60)
        await broker.sweep()
        await broker.sweep()
        assert (await stored(world, broker, root)).leases == {}
        assert [event.event for event in (await world.events())[before:]] == []

    run(body())


def test_asking_again_records_it_and_then_says_closed(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        await confirmed(broker)
        medium(world).full = True
        for _ in range(2):
            assert not (await broker.revoke(OPERATOR, root.id)).recorded
        medium(world).full = False
        report = await broker.revoke(OPERATOR, root.id)
        assert (report.state, report.recorded) == (Closure.CLOSED, True)
        assert (await stored(world, broker, root)).head.closed

    run(body())


async def close(broker: Broker, root: Grant) -> Report:
    """End the task of a grant."""
    return await broker.close(OPERATOR, broker._tasks.task_of(root.id).id)


async def revoke_lease(broker: Broker, root: Grant) -> Report:
    """End the one lease of a grant."""
    [lease] = broker._tasks.task_of(root.id).leases
    return await broker.revoke_lease(OPERATOR, lease)


@pytest.mark.parametrize("verb", [close, revoke_lease])
@pytest.mark.attack("REV-08")
def test_every_verb_that_ends_reaches_the_target_though_nothing_can_be_recorded(world: World, verb: object) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        await confirmed(broker)
        medium(world).full = True
        report = await verb(broker, root)  # type: ignore[operator]  # one of the verbs above
        assert (report.state, report.recorded) == (Closure.PARTIAL, False)
        assert world.target.accounts == {}
        [lease] = broker._tasks.task_of(root.id).leases.values()
        assert lease.state is LeaseState.REVOKING
        medium(world).full = False
        world.later(8)
        await broker.sweep()
        assert (await stored(world, broker, root)).leases == {}

    run(body())


@pytest.mark.parametrize("verb", [close, revoke_lease])
def test_an_end_right_after_an_issue_whose_confirmation_fails_too_reaches_the_target(
    world: World, verb: Callable[[Broker, Grant], Awaitable[Report]]
) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        medium(world).full = True
        report = await verb(broker, root)
        assert not report.recorded
        assert report.state in {Closure.UNKNOWN, Closure.PARTIAL}  # as the confirmation fails after the end, or before
        assert world.target.accounts == {}
        medium(world).full = False
        world.later(11)
        await broker.sweep()
        with suppress(NotFoundError):  # it may be over so long that nobody knows it any more
            assert (await stored(world, broker, root)).leases == {}
        assert world.target.accounts == {}

    run(body())


@pytest.mark.parametrize("seconds", [601, 901])  # the end of the lease, and of the task
@pytest.mark.attack("REV-08")
def test_what_expires_ends_at_the_target_though_the_sweep_cannot_record_it(world: World, seconds: int) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        await confirmed(broker)
        medium(world).full = True
        world.later(seconds)
        await broker.sweep()
        assert world.target.accounts == {}
        medium(world).full = False
        world.later(8)
        await broker.sweep()
        await broker.sweep()
        task = await MemoryStore.load(medium(world), (await world.store.tasks(1))[0])
        assert task.leases == {}
        assert task.head.closed is (seconds > 900)

    run(body())


def test_a_revoke_that_is_cancelled_holds_and_is_recorded_later(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        await confirmed(broker)
        medium(world).full = True
        task_id = broker._tasks.task_of(root.id).id
        revoking = asyncio.create_task(broker.revoke(OPERATOR, root.id))
        await asyncio.sleep(0)
        revoking.cancel()
        await asyncio.gather(revoking, return_exceptions=True)
        assert revoking.cancelled()
        with pytest.raises(RevokedError):
            broker._tasks.check(root.id)
        while broker._tasks.unrecorded(task_id) is None:  # the commit goes on without whoever asked for it, and fails
            await broker._tasks.durable()
        await broker._tasks.returned(task_id)
        world.later(1)
        await broker.sweep()
        assert world.target.accounts == {}
        medium(world).full = False
        world.later(8)
        await broker.sweep()
        assert (await stored(world, broker, root)).head.closed

    run(body())


def test_a_child_that_is_being_made_while_its_parent_ends_and_nothing_is_recorded_is_not_there(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        medium(world).full = True
        delegating = asyncio.create_task(broker.delegate(OPERATOR, root.id, child()))
        await asyncio.sleep(0)
        report = await broker.revoke(OPERATOR, root.id)
        [made] = await asyncio.gather(delegating, return_exceptions=True)
        assert isinstance(made, RemitError)
        assert not report.recorded
        assert list(broker._tasks.task_of(root.id).grants) == [root.id]
        medium(world).full = False
        world.later(8)
        await broker.sweep()
        task = await stored(world, broker, root)
        assert (task.head.closed, list(task.grants)) == (True, [root.id])

    run(body())


def test_whatever_is_recorded_next_in_a_task_records_what_ended_in_it_before(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        ended = (await broker.delegate(OPERATOR, root.id, child())).grant
        medium(world).full = True
        await broker.revoke(OPERATOR, ended.id)
        medium(world).full = False
        await broker.delegate(OPERATOR, root.id, child())
        task = await stored(world, broker, root)
        assert [grant.revoked for grant in task.grants.values()] == [False, True, False]
        assert [event.grant for event in await world.events() if event.event == "grant.revoke"] == [ended.id]

    run(body())


def test_a_grant_that_ended_frees_its_place_and_a_failing_step_does_not_take_the_end_back(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        ended = (await broker.delegate(OPERATOR, root.id, child())).grant
        medium(world).full = True
        await broker.revoke(OPERATOR, ended.id)
        for _ in range(3):
            with pytest.raises(UnavailableError):
                await broker.delegate(OPERATOR, root.id, child())
            with pytest.raises(RevokedError):
                broker._tasks.check(ended.id)
        assert broker._tasks.check(root.id).grant.id == root.id

    run(body())


@pytest.mark.attack("REV-08")
def test_a_revoke_finds_its_grant_while_others_make_commits_fail_without_end(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        medium(world).full = True
        over = False

        async def spam() -> None:
            while not over:
                await asyncio.gather(broker.delegate(OPERATOR, root.id, child()), return_exceptions=True)
                await asyncio.sleep(0)

        spamming = [asyncio.create_task(spam()) for _ in range(4)]
        for _ in range(50):
            await asyncio.sleep(0)
        report = await broker.revoke(OPERATOR, root.id)
        over = True
        await asyncio.gather(*spamming)
        assert not report.recorded
        with pytest.raises(RevokedError):
            broker._tasks.check(root.id)

    run(body())


def test_a_task_that_cannot_be_read_either_ends_at_the_target_and_is_recorded_when_it_can(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        await confirmed(broker)
        medium(world).full = medium(world).unreadable = True
        report = await broker.revoke(OPERATOR, root.id)
        assert (report.state, report.recorded) == (Closure.PARTIAL, False)
        assert world.target.accounts == {}
        with pytest.raises(RevokedError):
            broker._tasks.check(root.id)
        medium(world).full = medium(world).unreadable = False
        world.later(8)
        await broker.sweep()
        world.later(8)
        await broker.sweep()
        assert (await stored(world, broker, root)).head.closed

    run(body())


def test_what_ended_and_is_not_recorded_is_not_forgotten_when_its_time_is_up(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        task_id = broker._tasks.task_of(root.id).id
        medium(world).full = True
        await broker.revoke(OPERATOR, root.id)
        world.later(901)
        await broker.sweep()
        medium(world).full = False
        world.later(8)
        await broker.sweep()
        assert (await world.store.load(task_id)).head.closed

    run(body())


class Racy(MemoryStore):
    """Refuses one commit as built on a head that is not there any more."""

    lost = 0

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        if self.lost and any(isinstance(write, Change) for write in writes):
            self.lost -= 1
            raise ConflictError
        await super().commit(writes, events)


def test_a_revoke_whose_base_failed_is_recorded_when_it_answers() -> None:
    async def body() -> None:
        world = World(store=Racy())
        broker = await world.ready()
        root = await world.opened(broker)
        world.store.lost = 2  # type: ignore[attr-defined]  # the store of this test has it
        report = await broker.revoke(OPERATOR, root.id)
        assert (report.state, report.recorded) == (Closure.CLOSED, True)
        assert (await stored(world, broker, root)).head.closed

    run(body())


def test_entries_that_were_late_carry_the_time_of_their_record(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, ttl=timedelta(hours=1))
        medium(world).full = True
        await broker.revoke(OPERATOR, root.id)
        medium(world).full = False
        world.later(60)
        await world.opened(broker)
        await broker.sweep()
        times = [event.at for event in await world.events()]
        assert times == sorted(times)

    run(body())
