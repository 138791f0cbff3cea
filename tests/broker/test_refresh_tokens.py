from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest

from remit import jose
from remit.broker import Broker
from remit.broker.refresh_tokens import KEPT
from remit.core.audit import Event
from remit.core.refresh import MAX_SPENT, RefreshFamily
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Grant
from remit.errors import (
    GrantTokenError,
    IntegrityError,
    RevokedError,
    UnauthenticatedError,
    UnavailableError,
    UsedError,
    WrongKeyError,
)
from remit.ports import PutRecord, Record, Write
from remit.ports.broker import Presented
from tests.broker.world import OPERATOR, World, holder, run
from tests.support.memory_store import MemoryStore

JKT = "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


def shown(token: str, client: str = "app", jkt: str | None = JKT, *, attested: bool = False) -> Presented:
    return Presented(jose.digest(token), client, jkt, attested=attested)


async def begun(world: World, token: str = "first") -> tuple[Broker, Grant]:
    """Return a broker and a grant whose first refresh token was handed out."""
    broker = await world.ready()
    grant = await world.opened(broker, jkt=JKT)
    await broker.issue_refresh_token(grant.id, "app", jose.digest(token), None)
    return broker, grant


async def told(world: World) -> list[tuple[str, str, str | None]]:
    return [(e.event, e.decision, e.code) for e in await world.events() if e.event.startswith(("token.", "grant.rev"))]


async def refusal(broker: Broker, presented: Presented, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        await broker.rotate_refresh_token(presented, jose.digest("unwanted"))


def test_a_token_is_turned_into_the_next_again_and_again() -> None:
    async def scene() -> None:
        world = World()
        broker, grant = await begun(world)
        for old, new in (("first", "second"), ("second", "third")):
            rotated = await broker.rotate_refresh_token(shown(old), jose.digest(new))
            found, family = rotated.grant, rotated.family
            assert (found.id, family.current) == (grant.id, jose.digest(new))
        assert await told(world) == [("token.begin", "allow", None), *[("token.refresh", "allow", None)] * 2]

    run(scene())


@pytest.mark.parametrize("name", ["spiffe://example.org/planner", "https://ci.test#build"])
def test_what_an_attested_workload_was_given_it_spends_only_if_it_is_attested_again(name: str) -> None:
    async def scene() -> None:
        world = World()
        broker = await world.ready()
        grant = await world.opened(broker, jkt=JKT, agent=name, attested=True)
        await broker.issue_refresh_token(grant.id, name, jose.digest("first"), None)
        await refusal(broker, shown("first", name), UnauthenticatedError)
        assert (await told(world))[-1] == ("token.refresh", "deny", "unauthenticated")
        found = (await broker.rotate_refresh_token(shown("first", name, attested=True), jose.digest("second"))).grant
        assert found.id == grant.id

    run(scene())


def test_what_a_client_with_a_key_of_its_own_was_given_it_spends_only_if_it_proves_that_again() -> None:
    async def scene() -> None:
        world, name = World(), "https://app.test/client.json"
        broker = await world.ready()
        grant = await world.opened(broker, jkt=JKT)
        await broker.issue_refresh_token(grant.id, name, jose.digest("first"), None, keyed=True)
        for step in ("first", "second"):
            await refusal(broker, shown(step, name), UnauthenticatedError)
            assert (await told(world))[-1] == ("token.refresh", "deny", "unauthenticated")
            presented = replace(shown(step, name), keyed=True)
            await broker.rotate_refresh_token(presented, jose.digest("second" if step == "first" else "third"))
            broker = await world.ready()  # started anew, it is known still

    run(scene())


def test_no_key_of_its_own_makes_a_client_the_workload_that_was_attested() -> None:
    async def scene() -> None:
        world, name = World(), "spiffe://example.org/planner"
        broker = await world.ready()
        grant = await world.opened(broker, jkt=JKT, agent=name, attested=True)
        await broker.issue_refresh_token(grant.id, name, jose.digest("first"), None, keyed=True)
        await refusal(broker, replace(shown("first", name), keyed=True), UnauthenticatedError)

    run(scene())


def test_a_spent_token_ends_the_grant_with_all_below_it_and_the_audit_says_why() -> None:
    async def scene() -> None:
        world = World()
        broker, grant = await begun(world)
        child = (
            await broker.delegate(
                holder(broker, grant), grant.id, GrantRequest(grant.scope, Bounds(timedelta(minutes=1)))
            )
        ).grant
        await broker.rotate_refresh_token(shown("first"), jose.digest("second"))
        await broker.rotate_refresh_token(shown("second"), jose.digest("third"))
        await refusal(broker, shown("first"), UsedError)
        for one in (grant, child):
            with pytest.raises(RevokedError):
                broker._tasks.check(one.id)
        await refusal(broker, shown("third"), RevokedError)
        assert ("token.refresh", "deny", "used") in await told(world)
        (ended,) = [e for e in await world.events() if e.event == "grant.revoke"]
        assert ended.cause == "a refresh token was used twice"

    run(scene())


@pytest.mark.parametrize(
    ("presented", "kind", "code"),
    [
        (shown("first", client="other"), GrantTokenError, "grant-token"),
        (shown("first", jkt="another-key"), WrongKeyError, "wrong-key"),
        (shown("first", jkt=None), WrongKeyError, "wrong-key"),
        (replace(shown("first"), x5t=JKT), WrongKeyError, "wrong-key"),
    ],
)
def test_whoever_else_presents_a_token_gets_nothing_and_spends_nothing(
    presented: Presented, kind: type[Exception], code: str
) -> None:
    async def scene() -> None:
        world = World()
        broker, grant = await begun(world)
        await refusal(broker, presented, kind)
        entry = (await world.events())[-1]
        assert (entry.event, entry.decision, entry.code, entry.grant) == ("token.refresh", "deny", code, grant.id)
        assert (await broker.rotate_refresh_token(shown("first"), jose.digest("second"))).grant.id == grant.id

    run(scene())


def test_a_thief_without_the_key_cannot_end_a_grant_by_a_spent_token() -> None:
    async def scene() -> None:
        world = World()
        broker, grant = await begun(world)
        await broker.rotate_refresh_token(shown("first"), jose.digest("second"))
        await refusal(broker, shown("first", jkt="another-key"), WrongKeyError)
        assert broker._tasks.check(grant.id).grant.id == grant.id

    run(scene())


def test_a_guess_is_nobodys() -> None:
    async def scene() -> None:
        world = World()
        broker, _ = await begun(world)
        before = len(await world.events())
        await refusal(broker, shown("guess"), GrantTokenError)
        assert len(await world.events()) == before

    run(scene())


def test_a_token_is_worth_nothing_once_its_grant_has_ended() -> None:
    async def scene() -> None:
        world = World()
        broker, grant = await begun(world)
        await broker.revoke(OPERATOR, grant.id)
        await refusal(broker, shown("first"), RevokedError)

    run(scene())


def test_of_two_at_the_same_time_by_its_key_both_are_answered_and_both_go_on() -> None:
    async def scene() -> None:
        world = World()
        broker, grant = await begun(world)
        await asyncio.gather(*(broker.rotate_refresh_token(shown("first"), jose.digest(new)) for new in ("one", "two")))
        again = world.broker()
        await again.start()
        for old in ("one", "two"):
            assert (await again.rotate_refresh_token(shown(old), jose.digest(f"{old}-2"))).grant.id == grant.id
        await refusal(again, shown("first"), UsedError)

    run(scene())


def test_a_token_whose_answer_was_lost_is_answered_again_as_long_as_its_key_shows_it() -> None:
    async def scene() -> None:
        world = World()
        broker, grant = await begun(world)
        await broker.rotate_refresh_token(shown("first"), jose.digest("lost"))
        world.later(600)
        await refusal(broker, shown("first", jkt="another-key"), WrongKeyError)
        assert (await broker.rotate_refresh_token(shown("first"), jose.digest("second"))).grant.id == grant.id
        await refusal(broker, shown("lost"), UsedError)
        with pytest.raises(RevokedError):
            broker._tasks.check(grant.id)

    run(scene())


def test_chains_survive_a_restart_with_what_they_know_of_theft() -> None:
    async def scene() -> None:
        world = World()
        broker, _ = await begun(world)
        await broker.rotate_refresh_token(shown("first"), jose.digest("second"))
        again = world.broker()
        await again.start()
        await again.rotate_refresh_token(shown("second"), jose.digest("third"))
        await refusal(again, shown("first"), UsedError)

    run(scene())


class Failing(MemoryStore):
    """A store whose medium fails when it is told to."""

    fails = False

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        if self.fails and any(isinstance(write, PutRecord) for write in writes):
            raise UnavailableError
        await super().commit(writes, events)


def test_a_turn_that_was_not_made_durable_leaves_the_old_token_good() -> None:
    async def scene() -> None:
        store = Failing()
        world = World(store=store)
        broker, grant = await begun(world)
        store.fails = True
        await refusal(broker, shown("first"), UnavailableError)
        store.fails = False
        await refusal(broker, shown("unwanted"), GrantTokenError)
        store.fails = True
        turns = [broker.rotate_refresh_token(shown("first"), jose.digest(new)) for new in ("one", "two")]
        assert {type(one) for one in await asyncio.gather(*turns, return_exceptions=True)} == {UnavailableError}
        store.fails = False
        assert (await broker.rotate_refresh_token(shown("first"), jose.digest("second"))).grant.id == grant.id

    run(scene())


def test_a_family_that_was_not_made_durable_is_none() -> None:
    async def scene() -> None:
        store = Failing()
        world = World(store=store)
        broker = await world.ready()
        grant = await world.opened(broker, jkt=JKT)
        store.fails = True
        with pytest.raises(UnavailableError):
            await broker.issue_refresh_token(grant.id, "app", jose.digest("first"), None)
        assert await broker.refresh_token(jose.digest("first")) is None

    run(scene())


def test_chains_are_forgotten_some_time_after_their_grant() -> None:
    async def scene() -> None:
        world = World()
        broker, _ = await begun(world)
        world.later(KEPT.total_seconds() + 16 * 60)
        await broker.issue_refresh_token((await world.opened(broker, jkt=JKT)).id, "app", jose.digest("other"), None)
        assert await broker.refresh_token(jose.digest("first")) is None
        assert await broker.refresh_token(jose.digest("other")) is not None

    run(scene())


def test_a_kept_chain_that_cannot_be_read_stops_the_broker() -> None:
    async def scene() -> None:
        world = World()
        record = Record("refresh", "rfc_1", 1, b"{}", world.now)
        await world.store.commit([PutRecord(record)], [])
        with pytest.raises(IntegrityError):
            await world.broker().start()

    run(scene())


def test_a_family_remembers_a_hundred_spent_tokens_and_the_one_that_counts() -> None:
    family = RefreshFamily("rfc_1", "grt_1", "app", None, "0")
    for number in range(1, 151):
        turned = family.turn(str(number - 1), str(number), 0.0, bound=True)
        assert turned is not None
        family = turned
    assert (family.current, family.rev, len(family.spent)) == ("150", 151, MAX_SPENT)
    assert family.known == tuple(str(number) for number in range(50, 151))


def test_a_broker_remembers_no_more_of_a_family_than_its_record_does() -> None:
    async def scene() -> None:
        world = World()
        broker, grant = await begun(world, "0")
        for number in range(1, MAX_SPENT + 3):
            await broker.rotate_refresh_token(shown(str(number - 1)), jose.digest(str(number)))
        assert len(broker._families) == MAX_SPENT + 1
        await refusal(broker, shown("1"), GrantTokenError)
        await broker.grant(grant.id)
        await refusal(broker, shown("2"), UsedError)

    run(scene())


def test_a_family_whose_grant_is_long_over_is_worth_nothing() -> None:
    async def scene() -> None:
        world = World()
        family = RefreshFamily("rfc_1", "grt_gone", "app", None, jose.digest("first"))
        record = Record("refresh", family.id, 1, msgspec.json.encode(family), world.now + KEPT)
        await world.store.commit([PutRecord(record)], [])
        broker = await world.ready()
        await refusal(broker, shown("first"), GrantTokenError)
        assert (await world.events())[-1].code == "grant-token"

    run(scene())


def test_a_family_that_is_still_needed_is_not_forgotten_when_another_begins() -> None:
    async def scene() -> None:
        world = World()
        broker, _ = await begun(world)
        await broker.issue_refresh_token((await world.opened(broker, jkt=JKT)).id, "app", jose.digest("other"), None)
        assert await broker.refresh_token(jose.digest("first")) is not None

    run(scene())


def test_the_places_of_live_grants_are_told() -> None:
    async def scene() -> None:
        world = World()
        broker, grant = await begun(world)
        assert broker._tasks.places() == [grant.status]
        await broker.revoke(OPERATOR, grant.id)
        assert broker._tasks.places() == []

    run(scene())


def test_what_the_operator_does_to_the_house_is_in_the_audit() -> None:
    async def scene() -> None:
        world = World()
        broker = await world.ready()
        await broker.note(OPERATOR, "key.rotate", "allow", action="token", key="kid")
        entry = (await world.events())[-1]
        assert (entry.event, entry.decision, entry.action, entry.key) == ("key.rotate", "allow", "token", "kid")
        assert (entry.subject, entry.grant) == (OPERATOR.subject.sub, None)

    run(scene())


def test_a_token_that_is_forgotten_while_its_turn_is_waited_for_is_not_known() -> None:
    async def scene() -> None:
        broker, grant = await begun(World())
        digest = jose.digest("first")
        family = await broker.refresh_token(digest)
        assert family is not None
        turn = broker._turning.setdefault(family.id, asyncio.Lock())
        async with turn:
            waits = asyncio.create_task(broker.rotate_refresh_token(shown("first"), jose.digest("second")))
            await asyncio.sleep(0)
            del broker._families[digest]
        with pytest.raises(GrantTokenError, match="was forgotten"):
            await waits
        broker._tasks.check(grant.id)

    run(scene())
