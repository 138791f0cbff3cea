"""What issuers say after the fact: logins that no longer count, and the tasks that rested on them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from remit.broker import Broker
from remit.core.audit import Event
from remit.core.policy import Decision, Question
from remit.core.principal import Human, Signal
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import parse_detail
from remit.core.task import Grant, Report, Subject, Task
from remit.errors import ConflictError, GrantEndedError, GrantTokenError, TokenError, UnavailableError
from remit.ports import Write
from remit.stores.memory import MemoryStore
from tests.broker.world import SEARCH, START, TABLE, World, details, holder, run

ALICE, BOB = "https://idp.test#alice", "https://idp.test#bob"
ONE, TWO = "https://idp.test#session-1", "https://idp.test#session-2"


def everybody(question: Question) -> Decision:
    """Allow whatever resources allow, to any human."""
    del question
    return Decision(allowed=True, reasons=("anybody may",), version="test-1")


class Brittle(MemoryStore):
    """A memory store whose next writes can be told to fail, or to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: list[Exception] = []
        self.gate: asyncio.Event | None = None
        self.reached = asyncio.Event()  # that somebody waits for it

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        if writes and self.gate is not None:
            self.reached.set()
            await self.gate.wait()
        if writes and self.fail:
            raise self.fail.pop(0)
        await super().commit(writes, events)


@dataclass
class Issuer:
    """Logs humans in at a broker, each with a token that was never seen before."""

    world: World = field(default_factory=lambda: World(store=Brittle(), decide=everybody))
    tokens: int = 0

    @property
    def store(self) -> Brittle:
        assert isinstance(self.world.store, Brittle)
        return self.world.store

    def human(self, sub: str = ALICE, sid: str | None = ONE, *, at: datetime | None = None) -> Human:
        """Return a human by a new ID token; ``at`` is when they logged in."""
        self.tokens += 1
        now = self.world.now
        subject = Subject(sub, "urn:test:password", auth_time=at, sid=sid)
        return Human(subject, f"token-{self.tokens}", now, now + timedelta(minutes=10), "remit")

    async def opened(self, broker: Broker, sub: str = ALICE, sid: str | None = ONE) -> Grant:
        """Open a task as a human who has just logged in."""
        wanted = GrantRequest(details(TABLE, SEARCH), Bounds(timedelta(minutes=15), depth=1, fan_out=1))
        return (await broker.open(self.human(sub, sid), replace(wanted, purpose="draft the CFO summary"))).grant


def said(sub: str | None = ALICE, sid: str | None = None, digest: str = "event-1") -> Signal:
    """Return what an issuer said."""
    return Signal(START, "session-revoked", digest, sub, sid)


def alive(broker: Broker, grant: Grant) -> bool:
    """Whether a grant is accepted."""
    try:
        broker._tasks.check(grant.id)
    except GrantEndedError:
        return False
    return True


@pytest.fixture
def issuer() -> Issuer:
    """Return an issuer over a fresh world."""
    return Issuer()


# -- what ends ---------------------------------------------------------------------------------------------------------


def test_all_tasks_of_a_human_end_with_what_hangs_below_and_nobody_elses(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        first, second = await issuer.opened(broker), await issuer.opened(broker, sid=None)
        other, owner = await issuer.opened(broker, BOB), await issuer.world.opened(broker)
        child = (await broker.delegate(holder(broker, first), first.id, GrantRequest(details(SEARCH)))).grant
        await broker.issue(holder(broker, first), first.id, parse_detail(TABLE))
        assert await broker.signal([said()]) == 2
        assert [alive(broker, one) for one in (first, second, child, other, owner)] == [False, False, False, True, True]
        assert issuer.world.target.accounts == {}
        assert await broker.signal([said(digest="event-2")]) == 0

    run(scenario())


@pytest.mark.parametrize(
    ("signal", "left"),
    [
        (said(ALICE, ONE), ["two", "bob"]),  # a login of no known session may have been that one
        (said(None, ONE), ["two", "none", "bob"]),
        (said(ALICE), ["bob"]),
        (said(BOB), ["one", "two", "none"]),
        (said(ALICE, "https://idp.test#other"), ["one", "two", "bob"]),
        (said("https://other.test#alice"), ["one", "two", "none", "bob"]),
    ],
    ids=["session-of-human", "session", "human", "other-human", "unknown-session", "other-issuer"],
)
def test_a_signal_ends_what_it_is_about(issuer: Issuer, signal: Signal, left: list[str]) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        tasks = {
            "one": await issuer.opened(broker, sid=ONE),
            "two": await issuer.opened(broker, sid=TWO),
            "none": await issuer.opened(broker, sid=None),
            "bob": await issuer.opened(broker, BOB, sid="https://idp.test#session-3"),
        }
        await broker.signal([signal])
        assert [name for name, grant in tasks.items() if alive(broker, grant)] == left

    run(scenario())


def test_what_an_issuer_said_and_what_it_ended_is_in_the_log(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        grant = await issuer.opened(broker)
        await broker.signal([said()])
        taken, closed = (await issuer.world.events())[-2:]
        assert (taken.event, taken.decision, taken.subject) == ("signal.take", "done", ALICE)
        assert taken.cause == "session-revoked"
        assert (closed.event, closed.grant, closed.cause) == ("task.close", grant.id, "session-revoked")

    run(scenario())


def test_what_was_refused_is_in_the_log_with_why(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        await broker._revocations.refuse(TokenError("its signature does not hold"))
        last = (await issuer.world.events())[-1]
        assert (last.event, last.decision, last.code, last.subject) == ("signal.take", "deny", TokenError.code, None)

    run(scenario())


# -- what is not opened any more -------------------------------------------------------------------------------------


def test_a_login_from_before_a_signal_opens_nothing_and_one_after_it_does(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        wanted = GrantRequest(details(SEARCH), Bounds(timedelta(minutes=5)))
        await broker.signal([said()])
        old = issuer.human()
        issuer.world.later(60)
        renewed = issuer.human(at=START)  # a token of now, for a login of then
        for human in (old, renewed):
            with pytest.raises(GrantTokenError, match="ended this login"):
                await broker.open(human, replace(wanted, purpose="go on"))
        assert alive(
            broker, (await broker.open(issuer.human(at=issuer.world.now), replace(wanted, purpose="start anew"))).grant
        )
        denied = [event for event in await issuer.world.events() if event.decision == "deny"]
        assert [event.event for event in denied] == ["task.open", "task.open"]

    run(scenario())


def test_a_login_by_an_issuer_whose_clock_is_ahead_is_void_by_that_clock_and_the_next_one_is_welcome(
    issuer: Issuer,
) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        wanted = GrantRequest(details(SEARCH), Bounds(timedelta(minutes=5), depth=1))
        ahead = timedelta(seconds=50)

        def login(seconds: int, sid: str | None = ONE) -> Human:
            at = START + ahead + timedelta(seconds=seconds)
            return replace(issuer.human(at=at, sid=sid), issued_at=at)

        async def refused(broker: Broker) -> None:
            for sid in (ONE, None):
                with pytest.raises(GrantTokenError, match="ended this login"):
                    await broker.open(login(-10, sid), replace(wanted, purpose="go on"))

        await broker.signal([replace(said(), at=START + ahead)])
        await refused(broker)
        issuer.world.later(5)
        fresh = (await broker.open(login(5), replace(wanted, purpose="start anew"))).grant
        await broker.signal([replace(said(BOB, digest="event-2"), at=START)])
        await broker.signal([replace(said(ALICE, TWO, "event-3"), at=START + ahead)])
        assert alive(broker, fresh)  # it was opened before that time by our clock, and by a login after it
        again = issuer.world.broker()
        await again.start()
        assert alive(again, fresh)
        await refused(again)
        await again.signal([replace(said(ALICE, digest="event-4"), at=START)])  # an older one, heard of later
        await refused(again)
        assert not alive(again, fresh)

    run(scenario())


def test_a_session_that_was_named_has_ended_for_good(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        wanted = GrantRequest(details(SEARCH), Bounds(timedelta(minutes=5)))
        await broker.signal([said(ALICE, ONE)])
        issuer.world.later(60)
        with pytest.raises(GrantTokenError):
            await broker.open(issuer.human(sid=ONE), replace(wanted, purpose="go on"))
        with pytest.raises(GrantTokenError):  # of no known session, and from before
            await broker.open(issuer.human(sid=None, at=START), replace(wanted, purpose="go on"))
        for human in (issuer.human(sid=TWO), issuer.human(sid=None), issuer.human(BOB, None, at=START)):
            assert alive(broker, (await broker.open(human, replace(wanted, purpose="go on"))).grant)

    run(scenario())


def test_nothing_is_opened_while_a_signal_becomes_durable(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        issuer.store.gate = asyncio.Event()
        taking = asyncio.create_task(broker.signal([said()]))
        await issuer.store.reached.wait()
        opening = asyncio.create_task(issuer.opened(broker))
        await asyncio.sleep(0)
        issuer.store.gate.set()
        with pytest.raises(GrantTokenError):
            await opening
        assert await taking == 0

    run(scenario())


# -- delivered again, or when all goes wrong ------------------------------------------------------------------------


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
        issuer.store.commit = commit  # type: ignore[method-assign]
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
        issuer.store.load = load  # type: ignore[method-assign]
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
