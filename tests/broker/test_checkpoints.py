"""The second place for checkpoints: what covers an end, and what ends everything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from remit.broker import Broker, checkpoints, notices
from remit.broker.checkpoints import Checkpoints
from remit.core.audit import Checkpoint, Event
from remit.core.scope import Access
from remit.core.task import Closure
from remit.errors import IntegrityError, RemitError, UnavailableError
from remit.ports import Witness
from tests.broker.world import OPERATOR, START, World, run
from tests.uses import permitted_use


@dataclass
class Place:
    """A second place in memory; ``out`` while it cannot be read, ``slow`` while it does not answer."""

    kept: Checkpoint | None = None
    writes: int = 0
    out: bool = False
    slow: asyncio.Event | None = None
    before: list[Callable[[], None]] = field(default_factory=list)  # what others do there before the next call

    async def last(self) -> Checkpoint | None:
        if self.out:
            raise UnavailableError("it is out")
        if self.slow is not None:
            await self.slow.wait()
        if self.before:
            self.before.pop()()
        return self.kept

    async def keep(self, size: int, root: bytes, epoch: int, known: Checkpoint | None) -> tuple[Checkpoint, bool]:
        last = await self.last()
        if last is not None and last != known:
            return last, False
        await asyncio.sleep(0)
        self.writes += 1
        self.kept = Checkpoint("log", size, root, f"{size} {root.hex()} {epoch}", epoch)
        return self.kept, True


def beside(broker: Broker, place: Witness) -> None:
    broker.checkpoints = Checkpoints(broker._tasks, broker._revoker, place)


async def noted(broker: Broker, count: int = 1) -> None:
    await broker._store.commit((), [Event("token.begin", START, "allow")] * count)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "WAIT", 0.02)


def test_an_end_is_closed_when_a_checkpoint_covers_it(world: World) -> None:
    async def body() -> None:
        broker, place = await world.ready(), Place()
        beside(broker, place)
        for end in (broker.revoke, lambda who, grant: broker.close(who, broker._tasks.task_of(grant).id)):
            root = await world.opened(broker)
            report = await end(OPERATOR, root.id)
            assert (report.state, report.covered) == (Closure.CLOSED, True)
            assert place.kept is not None
            assert (place.kept.size, place.kept.root) == await broker._store.root()

    run(body())


def test_one_checkpoint_serves_all_who_wait(world: World) -> None:
    async def body() -> None:
        broker, place = await world.ready(), Place()
        roots = [await world.opened(broker) for _ in range(50)]
        beside(broker, place)
        reports = await asyncio.gather(*(broker.revoke(OPERATOR, root.id) for root in roots))
        assert {report.state for report in reports} == {Closure.CLOSED}
        assert place.writes <= 3

    run(body())


@pytest.mark.parametrize("trouble", ["out", "slow"])
@pytest.mark.usefixtures("short")
def test_a_place_that_confirms_nothing_makes_an_end_partial_and_holds_up_none(world: World, trouble: str) -> None:
    async def body() -> None:
        broker, place = await world.ready(), Place()
        beside(broker, place)
        roots = [await world.opened(broker) for _ in range(2)]
        place.out, place.slow = trouble == "out", asyncio.Event() if trouble == "slow" else None
        report = await asyncio.wait_for(broker.revoke(OPERATOR, roots[0].id), 5)
        assert (report.state, report.covered, report.outstanding) == (Closure.PARTIAL, False, ())
        with pytest.raises(RemitError):
            broker._tasks.check(roots[0].id)
        with pytest.raises(UnavailableError):
            await broker.checkpoints.look()
        assert broker.checkpoints.trouble is not None
        broker._tasks.check(roots[1].id)  # nothing else ends
        assert not broker._tasks.rolled_back
        if place.slow is not None:
            place.slow.set()
        place.out = False
        assert (await broker.revoke(OPERATOR, roots[0].id)).state is Closure.CLOSED
        await broker.checkpoints.look()
        assert broker.checkpoints.trouble is None

    run(body())


@pytest.mark.usefixtures("short")
def test_a_signal_is_acknowledged_once_a_checkpoint_covers_it(world: World) -> None:
    async def body() -> None:
        broker, place = await world.ready(), Place(out=True)
        beside(broker, place)
        with pytest.raises(UnavailableError):
            await broker.signal([])
        place.out = False
        assert await broker.signal([]) == 0

    run(body())


def test_a_resource_that_is_removed_from_under_tasks_waits_for_a_checkpoint(world: World) -> None:
    async def body() -> None:
        broker, place = await world.ready(), Place()
        await world.opened(broker)
        beside(broker, place)
        await broker.delete_resource(OPERATOR, "warehouse")
        assert place.kept is not None
        assert place.kept.size == await broker._store.size()

    run(body())


@pytest.mark.parametrize("longer", [0, 1, 5])
@pytest.mark.attack("AUD-06")
def test_a_checkpoint_of_another_log_ends_everything_at_the_next_look(world: World, longer: int) -> None:
    async def body() -> None:
        broker, place = await world.ready(), Place()
        root = await world.opened(broker)
        beside(broker, place)
        await broker.checkpoints.look()
        assert place.kept is not None
        place.kept = replace(place.kept, size=place.kept.size + longer, root=b"\1" * 32, text="another's")
        await noted(broker, 3)
        with pytest.raises(IntegrityError):
            await broker.checkpoints.look()
        assert broker._tasks.task_of(root.id).head.closed
        with pytest.raises(IntegrityError):
            await permitted_use(broker, root.id, Access("search", "GET", "/v1/x"), "r")
        with pytest.raises(IntegrityError):
            await world.opened(broker)
        assert place.kept.text == "another's"  # what shows it is not written over
        place.kept = None
        with pytest.raises(IntegrityError):
            await broker.checkpoints.look()  # nor is it forgotten
        assert place.kept is None

    run(body())


def test_a_revoke_on_an_older_copy_is_not_closed_and_ends_all_else(world: World) -> None:
    async def body() -> None:
        broker, place = await world.ready(), Place()
        one, other = [await world.opened(broker) for _ in range(2)]
        beside(broker, place)
        place.kept = Checkpoint("log", await broker._store.size() + 1, b"\1" * 32, "another's")
        assert (await broker.revoke(OPERATOR, one.id)).state is Closure.PARTIAL
        with pytest.raises(RemitError):
            broker._tasks.check(other.id)

    run(body())


def test_an_older_checkpoint_of_the_same_log_is_replaced(world: World) -> None:
    async def body() -> None:
        broker, place = await world.ready(), Place()
        beside(broker, place)
        await broker.checkpoints.look()
        old = place.kept
        await noted(broker)
        await broker.checkpoints.look()
        place.kept = old
        await broker.checkpoints.look()
        assert not broker._tasks.rolled_back
        assert place.kept is not None
        assert place.kept.size == await broker._store.size()

    run(body())


def test_what_somebody_writes_between_two_looks_is_looked_at(world: World) -> None:
    async def body() -> None:
        broker, place = await world.ready(), Place()
        root = await world.opened(broker)
        beside(broker, place)
        await broker.checkpoints.look()
        place.before.append(lambda: setattr(place, "kept", Checkpoint("log", 10_000, b"\1" * 32, "another's")))
        assert (await broker.revoke(OPERATOR, root.id)).state is Closure.PARTIAL
        assert broker._tasks.rolled_back

    run(body())


def test_what_others_write_there_all_the_time_covers_nothing_and_ends_nothing(world: World) -> None:
    async def body() -> None:
        broker, place = await world.ready(), Place()
        one, other = [await world.opened(broker) for _ in range(2)]
        await noted(broker, checkpoints.TRIES)
        beside(broker, place)

        def older(size: int, root: bytes) -> Callable[[], None]:
            return lambda: setattr(place, "kept", Checkpoint("log", size, root, f"another's {size}"))

        place.before += [older(*await broker._store.root(size)) for size in range(1, checkpoints.TRIES + 1)]
        report = await broker.revoke(OPERATOR, one.id)
        assert (report.state, report.covered, place.writes) == (Closure.PARTIAL, False, 0)
        broker._tasks.check(other.id)
        assert not broker._tasks.rolled_back
        assert (await broker.revoke(OPERATOR, one.id)).state is Closure.CLOSED  # they have stopped

    run(body())


def test_an_empty_log_keeps_nothing_there_and_is_found_out_by_what_is_kept(world: World) -> None:
    async def body() -> None:
        broker, place = world.broker(), Place()
        assert await broker._store.size() == 0
        beside(broker, place)
        await broker.checkpoints.look()
        assert place.writes == 0
        place.kept = Checkpoint("log", 1, b"\1" * 32, "of a log that is gone")
        with pytest.raises(IntegrityError):
            await broker.checkpoints.look()

    run(body())


@pytest.mark.attack("AUD-06")
def test_a_broker_that_finds_a_higher_epoch_than_its_own_permits_nothing_and_ends_everything(world: World) -> None:
    async def body() -> None:
        broker, place = await world.ready(), Place()
        root = await world.opened(broker)
        beside(broker, place)
        await broker.checkpoints.look()
        assert place.kept is not None
        assert place.kept.epoch == 1
        beside(broker, place)  # as a start does
        await broker.checkpoints.look()
        assert place.kept.epoch == 2
        await broker.checkpoints.look()
        assert (place.kept.epoch, broker._tasks.rolled_back) == (2, False)
        place.kept = replace(place.kept, epoch=3, text="another's")
        with pytest.raises(IntegrityError, match="another broker works on a copy"):
            await broker.checkpoints.look()
        with pytest.raises(RemitError):
            broker._tasks.check(root.id)
        assert place.kept.text == "another's"

    run(body())


def test_of_two_that_start_at_once_the_one_that_comes_later_goes_on(world: World) -> None:
    async def body() -> None:
        broker, place = await world.ready(), Place()
        await noted(broker)
        beside(broker, place)
        size, root = await broker._store.root()
        earlier = Checkpoint("log", size, root, "another's", 1)
        place.before += [lambda: setattr(place, "kept", earlier), lambda: None]  # after the first look
        await broker.checkpoints.look()
        assert place.kept is not None
        assert (place.kept.epoch, broker._tasks.rolled_back) == (2, False)

    run(body())


def test_an_older_epoch_in_the_place_is_replaced(world: World) -> None:
    async def body() -> None:
        broker, place = await world.ready(), Place()
        beside(broker, place)
        await broker.checkpoints.look()
        old = place.kept
        beside(broker, place)
        await broker.checkpoints.look()
        place.kept = old
        await broker.checkpoints.look()
        assert place.kept is not None
        assert (place.kept.epoch, broker._tasks.rolled_back) == (2, False)

    run(body())


def test_an_end_under_which_an_edge_may_still_be_at_work_is_unknown(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "WAIT", 0.01)
    monkeypatch.setattr(notices, "GONE", 0.01)

    async def body() -> None:
        broker, stuck = await world.ready(), list[int]()
        at_work, other, last = [await world.opened(broker) for _ in range(3)]
        edge = broker.listen(lambda: stuck.append(1), lambda grants: at_work.id in grants)
        assert (await broker.revoke(OPERATOR, other.id)).state is Closure.CLOSED  # it holds nothing there
        assert (await broker.revoke(OPERATOR, at_work.id)).state is Closure.UNKNOWN
        assert stuck == [1]
        edge.close()
        assert (await broker.revoke(OPERATOR, last.id)).state is Closure.CLOSED

    run(body())


def test_a_broker_that_was_lent_no_key_signs_no_checkpoint(world: World) -> None:
    async def body() -> None:
        broker = world.broker(sign=checkpoints.unsigned)
        with pytest.raises(UnavailableError, match="no key signs"):
            await broker.checkpoint()

    run(body())


def test_a_checkpoint_is_signed_of_the_log_as_it_is_now(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        for _ in range(2):
            await noted(broker)
            made = await broker.checkpoint()
            assert (made.size, made.root) == await broker._store.root()

    run(body())
