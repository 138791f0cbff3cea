"""What issuers say after the fact: logins that no longer count, and the tasks that rested on them."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from remit.broker import Broker
from remit.core.principal import Human, Signal
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import parse_detail
from remit.errors import GrantTokenError, TokenError
from tests.broker.world import SEARCH, START, TABLE, details, holder, run
from tests.sessions.login_scene import ALICE, BOB, ONE, TWO, Issuer, alive, said


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


def test_a_signal_of_the_far_future_keeps_its_human_out_for_minutes_alone(issuer: Issuer) -> None:
    async def scenario() -> None:
        broker = await issuer.world.ready()
        wanted = GrantRequest(details(SEARCH), Bounds(timedelta(minutes=5)), purpose="go on")
        await broker.signal([replace(said(), at=START + timedelta(days=9_999))])
        issuer.world.later(121)
        assert (await broker.open(issuer.human(at=issuer.world.now), wanted)).subject.sub == ALICE

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
