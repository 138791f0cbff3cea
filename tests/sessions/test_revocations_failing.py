"""What issuers say, delivered again, or while the store or the process fails: what was said holds all the same."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from remit.core.audit import Event
from remit.core.request import GrantRequest
from remit.core.task import Report, Task
from remit.errors import ConflictError, GrantTokenError, UnavailableError
from remit.ports import Write
from remit.sessions.revocations import KEPT, KIND
from tests.broker.world import SEARCH, details, holder, run
from tests.sessions.login_scene import ALICE, BOB, ONE, TWO, Issuer, alive, said


@pytest.fixture
def issuer() -> Issuer:
    """Return an issuer over a fresh world."""
    return Issuer()


def test_a_second_delivery_ends_nothing_that_was_opened_since(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        for signal in (said(), said(ALICE, ONE, "event-2")):
            await issuer.opened(broker, sid=TWO)
            assert await broker.signal([signal]) in {0, 1}
            issuer.world.later(60)
            fresh = [await issuer.opened(broker, sid=TWO), await issuer.opened(broker, sid=None)]
            assert await broker.signal([signal]) == 0
            assert all(alive(broker, grant) for grant in fresh)

    run(scenario())


def test_a_second_delivery_across_a_restart_is_known(issuer: Issuer) -> None:
    async def scenario() -> None:
        await (await issuer.world.ready()).signal([said()])
        issuer.world.later(60)
        broker = issuer.world.broker()
        await broker.start()
        fresh = await issuer.opened(broker)
        assert await broker.signal([said()]) == 0
        assert alive(broker, fresh)
        assert await broker.signal([said(digest="event-2")]) == 1

    run(scenario())


def test_a_signal_that_comes_when_the_store_is_away_holds_all_the_same(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        grant = await issuer.opened(broker)
        issuer.store.fail.append(UnavailableError())
        with pytest.raises(UnavailableError):
            await broker.signal([said()])
        with pytest.raises(GrantTokenError):
            await issuer.opened(broker)
        assert await broker.signal([said()]) == 1
        assert not alive(broker, grant)
        assert await broker.signal([said(digest="event-2")]) == 0

    run(scenario())


def test_what_was_stored_in_a_commit_that_was_in_doubt_hides_no_later_signal(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        commit = issuer.store.commit

        async def durable_and_lost(writes: Sequence[Write], events: Sequence[Event]) -> None:
            await commit(writes, events)
            raise UnavailableError

        issuer.store.commit = durable_and_lost  # type: ignore[method-assign]  # the answer of the medium is lost
        with pytest.raises(UnavailableError):
            await broker.signal([said()])
        issuer.store.commit = commit  # type: ignore[method-assign]  # and is back
        issuer.world.later(60)
        grant = await issuer.opened(broker)
        assert await broker.signal([said()]) == 0  # once more, as it was not acknowledged
        assert alive(broker, grant)
        assert await broker.signal([said(digest="event-2")]) == 1  # and something new
        assert not alive(broker, grant)

    run(scenario())


def test_what_could_not_be_ended_the_sweep_ends(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        grant = await issuer.opened(broker)
        commit = issuer.store.commit

        async def kept_and_no_more(writes: Sequence[Write], events: Sequence[Event]) -> None:
            if any(event.event == "task.close" for event in events):
                raise UnavailableError
            await commit(writes, events)

        issuer.store.commit = kept_and_no_more  # type: ignore[method-assign]  # the medium fails at this very moment
        with pytest.raises(UnavailableError):
            await broker.signal([said()])
        issuer.store.commit = commit  # type: ignore[method-assign]  # and is back
        assert not alive(broker, grant)
        assert not (await issuer.store.load(broker._tasks.task_of(grant.id).id)).head.closed
        issuer.world.later(1)
        await broker.sweep()
        assert (await issuer.store.load(broker._tasks.task_of(grant.id).id)).head.closed
        closed = [event for event in await issuer.world.events() if event.event == "task.close"]
        assert [event.cause for event in closed] == ["session-revoked"]

    run(scenario())


def test_a_task_whose_commits_fail_is_tried_again_and_not_for_ever(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        grant = await issuer.opened(broker)
        commit, failures = issuer.store.commit, [6]

        async def loses_races(writes: Sequence[Write], events: Sequence[Event]) -> None:
            if failures[0] and any(event.event == "task.close" for event in events):
                failures[0] -= 1
                raise ConflictError
            await commit(writes, events)

        issuer.store.commit = loses_races  # type: ignore[method-assign]  # what ours was built on fails
        with pytest.raises(UnavailableError, match="could not be ended"):
            await broker.signal([said()])
        assert not failures[0]
        assert not alive(broker, grant)
        issuer.world.later(8)
        await broker.sweep()
        assert (await issuer.store.load(broker._tasks.task_of(grant.id).id)).head.closed

    run(scenario())


def test_a_task_that_is_being_read_again_ends_when_it_is_back(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        grant = await issuer.opened(broker)
        lost, other = await issuer.opened(broker, sid=TWO), await issuer.opened(broker, BOB)
        load, back = issuer.store.load, asyncio.Event()

        async def slowly(task_id: str) -> object:
            await back.wait()
            if task_id == lost_id:
                raise UnavailableError
            return await load(task_id)

        lost_id = broker._tasks.task_of(lost.id).id
        issuer.store.load = slowly  # type: ignore[method-assign, assignment]  # the medium takes its time
        issuer.store.fail += [UnavailableError()] * 3
        asked = GrantRequest(details(SEARCH))
        failing = [
            asyncio.create_task(broker.delegate(holder(broker, one), one.id, asked)) for one in (grant, lost, other)
        ]
        for _ in range(10):
            await asyncio.sleep(0)
        assert list(broker._tasks) == []
        taking = asyncio.create_task(broker.signal([said()]))
        await asyncio.sleep(0)
        back.set()
        with pytest.raises(UnavailableError):  # one that cannot be read is not called ended
            await taking
        await asyncio.gather(*failing, return_exceptions=True)
        assert (alive(broker, grant), alive(broker, other)) == (False, True)
        issuer.store.load = load  # type: ignore[method-assign]  # and is back
        issuer.world.later(1)
        await broker.sweep()
        assert not alive(broker, lost)

    run(scenario())


def test_whoever_hangs_up_leaves_nothing_half_done(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        grant = await issuer.opened(broker)
        issuer.store.gate = asyncio.Event()
        taking = asyncio.create_task(broker.signal([said()]))
        await issuer.store.reached.wait()
        taking.cancel()
        issuer.store.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await taking
        for _ in range(100):
            await asyncio.sleep(0)
        assert not alive(broker, grant)

    run(scenario())


def test_a_death_between_the_signal_and_the_end_of_a_task_is_made_good_at_the_start(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        doomed, other = await issuer.opened(broker), await issuer.opened(broker, BOB)
        untouched = issuer.world.store.commit

        async def dies(writes: Sequence[Write], events: Sequence[Event]) -> None:
            if any(event.event == "task.close" for event in events):
                raise UnavailableError  # nothing of what comes after the signal is stored
            await untouched(writes, events)

        issuer.store.commit = dies  # type: ignore[method-assign]  # the process ends here
        with pytest.raises(UnavailableError):
            await broker.signal([said()])
        issuer.store.commit = untouched  # type: ignore[method-assign]  # another begins
        again = issuer.world.broker()
        await again.start()
        assert (alive(again, doomed), alive(again, other)) == (False, True)

    run(scenario())


def test_many_signals_are_taken_in_one(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        tasks = [await issuer.opened(broker), await issuer.opened(broker, BOB)]
        signals = [said(), replace(said(BOB), digest="event-2")]
        assert await broker.signal(signals) == 2
        assert not any(alive(broker, one) for one in tasks)

    run(scenario())


def test_what_one_signal_could_not_end_is_ended_later_though_another_was_done_meanwhile(
    issuer: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        slow, lost = await issuer.opened(broker), await issuer.opened(broker, BOB)
        slows, losts = broker._tasks.task_of(slow.id).id, broker._tasks.task_of(lost.id).id
        gate, end = asyncio.Event(), broker._revoker.end

        async def waiting(task: Task, *more: Any) -> Report:
            if task.id == slows:
                await gate.wait()
            return await end(task, *more)

        monkeypatch.setattr(broker._revoker, "end", waiting)
        first = asyncio.create_task(broker.signal([said()]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        broker._tasks.forget(losts)
        broker._tasks._read_later(losts)  # as after a commit that failed, on a medium that cannot be read either
        second = asyncio.create_task(broker.signal([said(BOB, digest="event-2")]))
        for _ in range(20):
            await asyncio.sleep(0)
        gate.set()
        assert await first == 1
        with pytest.raises(UnavailableError):
            await second
        issuer.world.later(1)
        await broker.sweep()
        assert not alive(broker, lost)

    run(scenario())


def test_a_signal_about_a_login_whose_record_is_too_old_to_be_kept_is_taken(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        await broker.signal([said()])
        issuer.world.later(KEPT.total_seconds() + 1)
        (record,) = await issuer.store.records(KIND)
        del issuer.store._rows["record", KIND, record.id]  # as a store may, whose time it is
        grant = await issuer.opened(broker)
        assert await broker.signal([said(digest="event-2")]) == 1
        assert not alive(broker, grant)

    run(scenario())
