"""Tasks that have to be read again: whoever asks for one waits, and one that is not there holds up no other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest

from remit.broker import Broker
from remit.core.audit import Event
from remit.core.lease import Closure
from remit.core.policy import Decision, Question
from remit.core.principal import GrantView, Signal
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Access
from remit.core.task import Grant, Posture, Task
from remit.errors import IntegrityError, NotFoundError, RemitError, RevokedError, UnavailableError
from remit.ports import Write
from tests.broker.world import OPERATOR, START, TABLE, World, confirmed, details, holder, run
from tests.support.memory_store import MemoryStore


class Worn(MemoryStore):
    """A medium whose next commits fail, whose reads take until ``reading`` is set, and then fail as told."""

    def __init__(self) -> None:
        super().__init__()
        self.lose = 0
        self.damage: RemitError | None = None
        self.reading = asyncio.Event()
        self.reading.set()
        self.reads = 0

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        await asyncio.sleep(0)
        if writes and self.lose:
            self.lose -= 1
            raise UnavailableError
        await super().commit(writes, events)

    async def load(self, task_id: str) -> Task:
        self.reads += 1
        await self.reading.wait()
        if self.damage is not None:
            raise self.damage
        return await super().load(task_id)


@dataclass
class Wearing(World):
    """A world on such a medium."""

    store: Worn = field(default_factory=Worn)

    def losing(self, broker: Broker, grant: Grant) -> asyncio.Task[GrantView]:
        """Have the next commit of a task fail, whereupon it is read again."""
        self.store.lose = 1
        return asyncio.create_task(broker.delegate(OPERATOR, grant.id, GrantRequest(details(TABLE), Bounds(depth=1))))


async def turns() -> None:
    """Let everybody go on as far as they can."""
    for _ in range(20):
        await asyncio.sleep(0)


async def lost(world: Wearing, broker: Broker, grant: Grant, damage: RemitError) -> None:
    """Lose a task: a commit of it fails, and so does reading it again."""
    world.store.damage = damage
    with pytest.raises(UnavailableError):
        await world.losing(broker, grant)


def nothing(question: Question) -> Decision:
    """Allow nothing."""
    del question
    return Decision(allowed=False, reasons=("nothing is allowed",), version="none")


def test_whoever_revokes_in_a_task_that_is_being_read_again_waits_until_it_is_back() -> None:
    async def body() -> None:
        world = Wearing()
        broker = await world.ready()
        root = await world.opened(broker)
        world.store.reading.clear()
        losing = world.losing(broker, root)
        await turns()
        revoking = asyncio.create_task(broker.revoke(OPERATOR, root.id))
        await turns()
        assert not revoking.done()
        world.store.reading.set()
        report = await revoking
        assert (report.state, report.recorded, report.revoked) == (Closure.CLOSED, True, 1)
        with pytest.raises(UnavailableError):
            await losing

    run(body())


def test_whoever_looks_at_a_task_that_is_being_read_again_waits_until_it_is_back() -> None:
    async def body() -> None:
        world = Wearing()
        broker = await world.ready()
        root = await world.opened(broker)
        task_id = broker._tasks.task_of(root.id).head.id
        world.store.reading.clear()
        losing = world.losing(broker, root)
        await turns()
        looking = asyncio.create_task(broker.task(OPERATOR, task_id))
        await turns()
        assert not looking.done()
        world.store.reading.set()
        assert (await looking).header.id == task_id
        with pytest.raises(UnavailableError):
            await losing

    run(body())


CHILD = GrantRequest(details(TABLE), Bounds(depth=1))
MADE: dict[str, Callable[[Broker, Grant], Coroutine[Any, Any, object]]] = {
    "delegate": lambda broker, root: broker.delegate(holder(broker, root), root.id, CHILD),
    "issue": lambda broker, root: broker.issue(OPERATOR, root.id, details(TABLE)[0]),
    "attach": lambda broker, root: broker.attach(OPERATOR, root.id, Posture()),
}


@pytest.mark.parametrize("verb", MADE)
def test_whatever_is_made_in_a_task_that_is_being_read_again_waits_until_it_is_back(verb: str) -> None:
    async def body() -> None:
        world = Wearing()
        broker = await world.ready()
        root = await world.opened(broker)
        asked = MADE[verb](broker, root)
        world.store.reading.clear()
        losing = world.losing(broker, root)
        await turns()
        making = asyncio.create_task(asked)
        await turns()
        assert not making.done()
        world.store.reading.set()
        await making
        with pytest.raises(UnavailableError):
            await losing

    run(body())


def test_what_cannot_wait_for_a_task_that_is_being_read_again_is_told_to_try_again_and_not_that_it_is_unknown() -> None:
    async def body() -> None:
        world = Wearing()
        broker = await world.ready()
        root = await world.opened(broker)
        lease = (await broker.issue(OPERATOR, root.id, details(TABLE)[0])).lease
        search = [detail.resource for detail in root.scope].index("search")
        await confirmed(broker)
        world.store.reading.clear()
        losing = world.losing(broker, root)
        await turns()
        for asked in (
            broker.use(root.id, Access("search", "GET"), "req_1", search),
            broker.grant(root.id),
            broker.renew(OPERATOR, lease.id, timedelta(seconds=1)),
            broker.revoke_lease(OPERATOR, lease.id),
        ):
            with pytest.raises(UnavailableError, match="cannot be read now"):
                await asked
        with pytest.raises(NotFoundError):
            await broker.grant("grt_404")
        world.store.reading.set()
        with pytest.raises(UnavailableError):
            await losing
        assert (await broker.use(root.id, Access("search", "GET"), "req_2", search)).grant == root.id
        with pytest.raises(NotFoundError):
            await broker.revoke_lease(OPERATOR, "lse_404")
        assert (await broker.revoke_lease(OPERATOR, lease.id)).state is Closure.CLOSED

    run(body())


def test_whoever_revokes_in_a_task_that_takes_too_long_to_come_back_is_told_to_try_again() -> None:
    async def body() -> None:
        world = Wearing()
        broker = await world.ready()
        root = await world.opened(broker)
        world.store.reading.clear()
        losing = world.losing(broker, root)
        await turns()
        with pytest.raises(UnavailableError, match="cannot be read now"):
            await broker.revoke(OPERATOR, root.id)
        assert not losing.done()  # it is still being read
        world.store.reading.set()
        await asyncio.gather(losing, return_exceptions=True)
        assert (await broker.revoke(OPERATOR, root.id)).state is Closure.CLOSED

    run(body())


@pytest.mark.parametrize("damage", [IntegrityError(), NotFoundError()])
def test_a_task_that_is_damaged_when_it_is_read_again_is_not_known_and_not_read_for_ever(damage: RemitError) -> None:
    async def body() -> None:
        world = Wearing()
        broker = await world.ready()
        root, other = [await world.opened(broker) for _ in range(2)]
        await lost(world, broker, root, damage)
        assert broker._tasks.known() == [broker._tasks.task_of(other.id).id]
        with pytest.raises(NotFoundError):
            broker._tasks.check(root.id)
        with pytest.raises(NotFoundError):
            await broker.revoke(OPERATOR, root.id)
        before = world.store.reads
        for _ in range(10):
            world.later(1)
            await broker.sweep()
        assert world.store.reads == before
        assert broker._tasks.check(other.id).grant.id == other.id

    run(body())


def test_what_ends_in_a_task_that_turns_out_damaged_stays_ended_and_reaches_the_target() -> None:
    async def body() -> None:
        world = Wearing()
        broker = await world.ready()
        root = await world.opened(broker)
        task_id = broker._tasks.task_of(root.id).id
        await broker.issue(OPERATOR, root.id, details(TABLE)[0])
        world.store.lose, world.store.damage = 1, IntegrityError()
        report = await broker.revoke(OPERATOR, root.id)
        assert (report.state, report.recorded) == (Closure.PARTIAL, False)
        assert world.target.accounts == {}
        with pytest.raises(RevokedError):
            broker._tasks.check(root.id)
        before = world.store.reads
        world.later(8)
        await broker.sweep()
        assert (world.store.reads, broker._tasks.unrecorded(task_id)) == (before, None)  # nothing waits for it for ever

    run(body())


def test_a_task_that_could_not_be_read_and_is_damaged_holds_up_no_other_in_the_sweep(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def body() -> None:
        world = Wearing()
        broker = await world.ready()
        root, other = [await world.opened(broker) for _ in range(2)]
        await broker.issue(OPERATOR, other.id, details(TABLE)[0])
        await confirmed(broker)
        lost_id = broker._tasks.task_of(root.id).id
        await lost(world, broker, root, UnavailableError())
        assert lost_id in broker._tasks.known()
        world.store.damage = IntegrityError()
        world.later(601)  # the lease of the other is over
        before = world.store.reads
        await broker.sweep()
        assert world.target.accounts == {}
        assert lost_id not in broker._tasks.known()
        world.later(8)
        await broker.sweep()
        assert world.store.reads == before + 1
        assert caplog.messages == []

    run(body())


def test_a_signal_passes_over_a_task_that_turns_out_damaged_and_ends_the_rest() -> None:
    async def body() -> None:
        world = Wearing()
        broker = await world.ready()
        root, other = [await world.opened(broker) for _ in range(2)]
        world.store.reading.clear()
        losing = world.losing(broker, root)
        await turns()
        signal = Signal(START, "session-revoked", "event-1", OPERATOR.subject.sub, None)
        taking = asyncio.create_task(broker.signal([signal]))
        await turns()
        assert not taking.done()  # it may be about the one that is being read
        world.store.damage = IntegrityError()
        world.store.reading.set()
        assert await taking == 1
        await asyncio.gather(losing, return_exceptions=True)
        with pytest.raises(RevokedError):
            broker._tasks.check(other.id)

    run(body())


def test_another_policy_passes_over_a_task_that_turns_out_damaged_and_ends_the_rest() -> None:
    async def body() -> None:
        world = Wearing()
        broker = await world.ready()
        root, other = [await world.opened(broker) for _ in range(2)]
        world.store.reading.clear()
        losing = world.losing(broker, root)
        await turns()
        reloading = asyncio.create_task(broker.policy.reload(OPERATOR, nothing, "none"))
        await turns()
        assert not reloading.done()
        world.store.damage = IntegrityError()
        world.store.reading.set()
        assert await reloading == 1
        await asyncio.gather(losing, return_exceptions=True)
        with pytest.raises(RevokedError):
            broker._tasks.check(other.id)

    run(body())


@pytest.mark.parametrize("damage", [None, IntegrityError()])
def test_ends_by_an_issuer_wait_for_a_task_that_is_read_again_and_count_only_what_they_ended(
    damage: RemitError | None,
) -> None:
    async def body() -> None:
        world = Wearing()
        broker = await world.ready()
        root = await world.opened(broker)
        world.store.reading.clear()
        world.store.damage = damage
        losing = world.losing(broker, root)
        await turns()
        ending = asyncio.create_task(broker.sessions.end_tasks(lambda _: False, "logout"))
        await turns()
        assert not ending.done()
        world.store.reading.set()
        assert await ending == 0
        await asyncio.gather(losing, return_exceptions=True)

    run(body())


def test_ends_by_an_issuer_that_could_not_be_recorded_are_said_so() -> None:
    async def body() -> None:
        world = Wearing()
        broker = await world.ready()
        root = await world.opened(broker)
        world.store.lose = 100
        with pytest.raises(UnavailableError, match="what an issuer ended"):
            await broker.sessions.end_tasks(lambda _: True, "logout")
        with pytest.raises(RevokedError):
            broker._tasks.check(root.id)

    run(body())
