"""A grant with its first token in one step: the proof is burnt first, and a human is whom the authority verified."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from remit.broker import Broker
from remit.broker.pending import PendingMemory
from remit.compose.bound_grants import BoundGrants
from remit.core.policy import in_bounds
from remit.core.principal import IdToken
from remit.core.request import Binding, Bounds, GrantRequest
from remit.errors import (
    AudienceError,
    GrantTokenError,
    NotFoundError,
    RemitError,
    ReplayError,
    RevokedError,
    TargetError,
    TokenError,
    UsedError,
)
from remit.jose.proof import Proof
from remit.jose.strict import read_json
from remit.jose.token import TokenSpec
from tests.broker.world import OPERATOR, SEARCH, World, child, details, holder, run
from tests.support.link import edge_of
from tests.support.signing import Ring
from tests.web.fake_identity import ALICE, FakeIdentity

KEY = "k" * 43
ALICES = IdToken("id-token-of-alice")
BOUND = GrantRequest(details(SEARCH), Bounds(timedelta(minutes=10), depth=1, fan_out=2), Binding(KEY), purpose="try")


@pytest.fixture(name="world")
def a_world() -> World:
    """Return the world of a test."""
    return World()


def bound(world: World, broker: Broker, humans: FakeIdentity | None = None) -> Any:
    """Return what an edge has of what makes grants with their tokens."""
    pending, clock = PendingMemory(lambda: world.now), lambda: world.now
    number = iter(range(100))
    name = lambda prefix: f"{prefix}_{next(number)}"  # noqa: E731 - short
    return edge_of(BoundGrants(broker, Ring(), pending, "https://remit.test", clock, name, b"n" * 32, humans=humans))


def proof(world: World, jti: str = "proof-001") -> Proof:
    """Return a proof of the key."""
    return Proof(KEY, jti, int(world.now.timestamp()))


async def denied(world: World) -> list[tuple[str, str | None, str | None]]:
    """Return what was denied, at which resource, and why."""
    return [(each.event, each.resource, each.code) for each in await world.events() if each.decision == "deny"]


def test_a_task_is_opened_for_the_human_of_an_id_token_that_is_verified_here(world: World) -> None:
    async def body() -> None:
        world.decide = in_bounds
        broker = await world.ready()
        there = bound(world, broker, FakeIdentity(world))
        made = await there.open_with_token(ALICES, BOUND, TokenSpec(), proof(world))
        view = await broker.grant(made.grant)
        assert (view.subject.sub, view.task, made.token_type, made.expires_in) == (ALICE, made.task, "DPoP", 600)
        assert await there.present(made.token) == view.holder

    run(body())


@pytest.mark.parametrize(
    ("text", "error"), [("a-lie", GrantTokenError), ("id-token-of-alice-for-another", AudienceError)]
)
def test_an_id_token_that_is_no_good_opens_nothing_and_is_in_the_audit(
    world: World, text: str, error: type[RemitError]
) -> None:
    async def body() -> None:
        broker = await world.ready()
        with pytest.raises(error):
            await bound(world, broker, FakeIdentity(world)).open_with_token(IdToken(text), BOUND, TokenSpec())
        assert await broker.tasks(OPERATOR) == []
        assert await denied(world) == [("resource.use", "remit", error.code)]

    run(body())


def test_nobody_is_a_human_where_no_issuer_is_believed(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        with pytest.raises(GrantTokenError):
            await bound(world, broker).open_with_token(ALICES, BOUND, TokenSpec())
        assert await broker.tasks(OPERATOR) == []

    run(body())


def test_an_id_token_opens_one_task(world: World) -> None:
    async def body() -> None:
        world.decide = in_bounds
        broker = await world.ready()
        there = bound(world, broker, FakeIdentity(world))
        await there.open_with_token(ALICES, BOUND, TokenSpec(), proof(world))
        with pytest.raises(UsedError):
            await there.open_with_token(ALICES, BOUND, TokenSpec(), proof(world, "proof-002"))
        assert len(await broker.tasks(OPERATOR)) == 1

    run(body())


@pytest.mark.parametrize("stranger", [True, False])
def test_a_proof_that_was_seen_opens_nothing(world: World, stranger: bool) -> None:  # noqa: FBT001 - a parameter
    async def body() -> None:
        broker = await world.ready()
        there = bound(world, broker, FakeIdentity(world))
        await there.open_with_token(OPERATOR, BOUND, TokenSpec(), proof(world), stranger=stranger)
        with pytest.raises(ReplayError):
            await there.open_with_token(ALICES, BOUND, TokenSpec(), proof(world), stranger=stranger)
        assert len(await broker.tasks(OPERATOR)) == 1

    run(body())


def test_what_no_token_can_be_made_for_uses_nothing_up_and_makes_nothing(world: World) -> None:
    async def body() -> None:
        world.decide = in_bounds
        broker = await world.ready()
        there, spec = bound(world, broker, FakeIdentity(world)), TokenSpec("https://elsewhere.test")
        with pytest.raises(TargetError):
            await there.open_with_token(ALICES, BOUND, spec, proof(world))
        assert await broker.tasks(OPERATOR) == []
        made = await there.open_with_token(ALICES, BOUND, TokenSpec(), proof(world))
        who, wanted = await there.present(made.token), child(SEARCH, jkt=KEY, depth=0)
        with pytest.raises(TargetError):
            await there.delegate_with_token(who, made.grant, wanted, spec, proof(world, "proof-002"))
        assert len(broker._tasks.task_of(made.grant).grants) == 1
        await there.delegate_with_token(who, made.grant, wanted, TokenSpec(), proof(world, "proof-002"))

    run(body())


def test_what_no_token_was_made_for_has_ended(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        by_certificate = replace(BOUND, binding=Binding(x5t=KEY))  # whose end nobody said
        with pytest.raises(TokenError):
            await bound(world, broker).open_with_token(OPERATOR, by_certificate, TokenSpec())
        assert [task.closed for task in await broker.tasks(OPERATOR)] == [True]

    run(body())


def test_a_proof_that_was_seen_makes_no_child(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, SEARCH, depth=2, fan_out=3, jkt=KEY)
        who, there, wanted = holder(broker, root), bound(world, broker), child(SEARCH, jkt=KEY)
        made = await there.delegate_with_token(who, root.id, wanted, TokenSpec(par_hash="p" * 43), proof(world))
        assert await there.present(made.token) == (await broker.grant(made.grant)).holder
        with pytest.raises(ReplayError):
            await there.delegate_with_token(who, root.id, wanted, TokenSpec(), proof(world))
        assert {each.id for each in broker._tasks.task_of(root.id).grants.values()} == {root.id, made.grant}

    run(body())


def test_what_is_bound_to_nothing_has_no_token(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        wanted = replace(BOUND, binding=Binding())
        made = await bound(world, broker).open_with_token(OPERATOR, wanted, TokenSpec())
        assert (made.token, made.token_type, made.expires_in) == (None, None, 600)
        assert read_json(made.details) == [SEARCH]

    run(body())


def test_whoever_may_not_delegate_gets_no_token(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root, other = [await world.opened(broker, SEARCH, depth=2, fan_out=3, jkt=KEY) for _ in range(2)]
        there, wanted = bound(world, broker), child(SEARCH, jkt=KEY)
        with pytest.raises(NotFoundError):
            await there.delegate_with_token(holder(broker, other), root.id, wanted, TokenSpec(), proof(world))
        await broker.revoke(OPERATOR, root.id)
        with pytest.raises(RevokedError):
            await there.delegate_with_token(holder(broker, root), root.id, wanted, TokenSpec(), proof(world, "proof-2"))

    run(body())
