"""Calls, batches of uses and ends over a real pair of sockets."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from remit.core.audit import ungrouped
from remit.core.policy import in_bounds
from remit.core.principal import Holder, IdToken
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.errors import (
    BudgetError,
    DeniedError,
    GrantTokenError,
    NotFoundError,
    RemitError,
    RevokedError,
    ScopeError,
    TokenError,
    UnavailableError,
)
from remit.jose.token import TokenSpec
from remit.link import roles
from remit.ports.broker import Notice, Outcome, Use
from tests.broker.world import OPERATOR, SEARCH, World, child, holder, run
from tests.link.two_ends import linked, minting
from tests.web.fake_identity import ALICE, FakeIdentity

SEARCHED = Access("search", "GET", "/v1/search")
OFTEN = {**SEARCH, "uses": 1_000}


def test_calls_are_answered_and_refused_as_by_the_broker_itself(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, SEARCH)
        async with linked(world, broker) as link:
            await link.redeem(root.id)
            assert await link.broker.grant(root.id) == await broker.grant(root.id)
            mine = holder(broker, root)
            made = await link.broker.delegate(mine, root.id, child(SEARCH))
            assert await link.broker.find(made.id, mine) == made
            assert await link.broker.resource("search") == await broker.resource("search")
            with pytest.raises(NotFoundError):
                await link.broker.find("grt_none", mine)
            await asyncio.gather(*(link.broker.grant(root.id) for _ in range(300)))

    run(body())


def test_uses_of_one_turn_are_permitted_in_one_commit_and_their_outcomes_ride_in_the_next(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, OFTEN)
        async with linked(world, broker) as link:
            await link.redeem(root.id)
            before = await world.store.size()
            first = await asyncio.gather(*(link.broker.use(root.id, SEARCHED, f"req_a.{i}", 0) for i in range(40)))
            assert [use.request for use in first] == [f"req_a.{i}" for i in range(40)]
            ended = link.broker.outcomes([Outcome(use, "done", None, "200") for use in first])
            await asyncio.gather(ended, link.broker.use(root.id, SEARCHED, "req_a.last", 0))
        events = (await world.events())[before:]
        asked = [name for event in events if event.event == "resource.use" for name in ungrouped(event.request or "")]
        assert asked[:40] == [f"req_a.{i}" for i in range(40)]
        over = [event for event in events if event.event == "resource.outcome"]
        assert [name for event in over[:1] for name in ungrouped(event.request or "")] == asked[:40]
        assert len(events) <= 6

    run(body())


def test_each_use_of_a_batch_is_refused_by_itself(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root, other = await world.opened(broker, SEARCH), await world.opened(broker, SEARCH)
        async with linked(world, broker) as link:
            await link.redeem(root.id)
            await link.broker.grant(root.id)
            asked = [link.broker.use(root.id, SEARCHED, f"req_{i}", 0) for i in range(5)]
            found = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(each) for each in found] == [Use, Use, Use, BudgetError, BudgetError]
            with pytest.raises(NotFoundError):
                await link.broker.use(other.id, SEARCHED, "req_8", 0)
            await broker.revoke(OPERATOR, root.id)
            with pytest.raises(RevokedError):
                await link.broker.use(root.id, SEARCHED, "req_9", 0)

    run(body())


def test_a_use_that_is_asked_for_by_callback_is_answered_as_any_other(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, {**SEARCH, "uses": 2})
        async with linked(world, broker) as link:
            await link.redeem(root.id)
            told = list[Use | RemitError]()
            assert not link.worker.ask(root.id, SEARCHED, "req_1", 0, told.append)  # whose task it is, nobody has said
            await link.broker.grant(root.id)
            for number in (1, 2, 3):
                assert link.worker.ask(root.id, SEARCHED, f"req_{number}", 0, told.append)
            assert told == []
            with pytest.raises(BudgetError):
                await link.broker.use(root.id, SEARCHED, "req_4", 0)
            task, version = holder(broker, root).task, (await broker.target("search")).version
            assert told[:2] == [Use(f"req_{n}", task, root.id, root.id, "search", 0, version) for n in (1, 2)]
            assert isinstance(told[2], BudgetError)
            assert link.worker.ask(root.id, SEARCHED, "req_5", 0, told.append)
            link.worker.close()
            assert isinstance(told[3], UnavailableError)
            assert not link.worker.ask(root.id, SEARCHED, "req_6", 0, told.append)
        assert len(told) == 4

    run(body())


def test_a_worker_says_nothing_beyond_its_role(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root, other = await world.opened(broker, SEARCH), await world.opened(broker, SEARCH)
        async with linked(world, broker) as link:
            await link.redeem(root.id)
            with pytest.raises(DeniedError):
                await link.broker.tasks(OPERATOR)
            with pytest.raises(DeniedError):
                await link.broker.put_secret(OPERATOR, "search", Secret("mine-0123456789ab"))
            for call in (link.broker.grant(other.id), link.broker.tasks(holder(broker, other))):
                with pytest.raises(NotFoundError):
                    await call
            with pytest.raises(NotFoundError):
                await link.broker.credential("search", 0)
            assert await link.broker.handle_key(root.id) == await broker.handle_key(root.id)
            with pytest.raises(NotFoundError):
                await link.broker.handle_key(other.id)
            version = (await link.broker.use(root.id, SEARCHED, "req_1", 0)).version
            assert await link.broker.credential("search", version) == Secret("api-key-0123456789ab")
        async with linked(world, broker, roles.WEB) as web:
            with pytest.raises(NotFoundError):
                await web.broker.use(root.id, SEARCHED, "req_2", 0)
            with pytest.raises(DeniedError):
                await web.broker.target("search")
            with pytest.raises(DeniedError):
                await web.broker.handle_key(root.id)
            with pytest.raises(NotFoundError):
                await web.broker.tasks(Holder("task_1", other.id))

    run(body())


def test_a_worker_names_the_holder_of_a_token_that_it_was_shown(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root, other = [await world.opened(broker, SEARCH, depth=2, fan_out=2, jkt=jkt * 43) for jkt in "ab"]
        tokens = minting(world, broker)
        text = (await tokens.mint(root.id, TokenSpec())).token or ""
        async with linked(world, broker, roles.WEB, tokens) as web:
            with pytest.raises(NotFoundError):
                await web.broker.mint(root.id, TokenSpec())
            await web.broker.refuse_token(text, TokenError())  # it tells of nothing
            with pytest.raises(NotFoundError):
                await web.broker.grant(root.id)
            assert await web.broker.token_grant(text) == await broker.grant(root.id)
            shown = await web.broker.present(text)
            assert shown == holder(broker, root)
            made = await web.broker.delegate(shown, root.id, child(SEARCH))
            assert (await web.broker.mint(root.id, TokenSpec())).expires_in == 600
            assert await web.broker.grant(made.id) == made
            with pytest.raises(NotFoundError):
                await web.broker.mint(other.id, TokenSpec())
        async with linked(world, broker, roles.EDGE, tokens) as edge:
            assert await edge.broker.present(text) == shown
            with pytest.raises(DeniedError):
                await edge.broker.mint(root.id, TokenSpec())

    run(body())


def test_web_may_name_what_it_opened_for_a_human_whom_the_authority_verified_and_an_edge_opens_nothing(
    world: World,
) -> None:
    async def body() -> None:
        world.decide = in_bounds
        broker = await world.ready()
        tokens, wanted = (
            minting(world, broker, FakeIdentity(world)),
            child(SEARCH, jkt="k" * 43, ttl=timedelta(hours=1), purpose="try"),
        )
        alice = IdToken("id-token-of-alice")
        async with linked(world, broker, roles.WEB, tokens) as web:
            with pytest.raises(GrantTokenError):
                await web.broker.open_with_token(IdToken("a-lie"), wanted, TokenSpec())
            with pytest.raises(DeniedError):
                await web.broker.open_with_token(OPERATOR, wanted, TokenSpec())
            made = await web.broker.open_with_token(alice, wanted, TokenSpec())
            assert (await web.broker.grant(made.grant)).subject.sub == ALICE
        async with linked(world, broker, roles.EDGE, tokens) as edge:
            with pytest.raises(DeniedError):
                await edge.broker.open_with_token(IdToken("id-token-of-alice-too"), wanted, TokenSpec())
            with pytest.raises(DeniedError):
                await edge.broker.delegate_with_token(Holder(made.task, made.grant), made.grant, wanted, TokenSpec())

    run(body())


def test_new_keys_are_taken_over_before_that_is_reported(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        tokens = minting(world, broker)
        async with linked(world, broker, roles.WEB, tokens) as web:
            tokens.keys_changed()
            assert await broker.feeds.acted_on()
            assert web.heard.notices == [Notice(token_keys=await tokens.token_keys())]

    run(body())


def test_an_end_is_acted_on_before_its_report(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, SEARCH)
        async with linked(world, broker) as link:
            await link.redeem(root.id)
            await link.broker.use(root.id, SEARCHED, "req_1", 0)
            report = await broker.revoke(OPERATOR, root.id)
            assert report.state == "closed"
            assert link.heard.marked == [frozenset({root.id})]
            assert [notice.grants for notice in link.heard.notices] == [frozenset({root.id})]
            assert link.heard.severed == []
            assert link.stuck == []

    run(body())


def test_what_waits_is_told_when_the_other_end_is_gone_and_its_uses_are_entered_as_unknown(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, OFTEN)
        async with linked(world, broker) as link:
            await link.redeem(root.id)
            for i in range(3):
                await link.broker.use(root.id, SEARCHED, f"req_b.{i}", 0)
            link.authority.close()
            with pytest.raises(UnavailableError):
                await link.broker.use(root.id, SEARCHED, "req_b.3", 0)
            assert sorted(link.gone) == ["authority", "worker"]
            await broker._tasks.durable()
        last = (await world.events())[-1]
        assert (last.event, last.decision, last.request) == ("resource.outcome", "unknown", "req_b.0,1,2")

    run(body())


@pytest.mark.parametrize("leaves", [True, False])
def test_what_a_worker_says_as_it_leaves_is_on_record_and_the_rest_is_unknown(world: World, leaves: bool) -> None:  # noqa: FBT001 - a case
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, OFTEN)
        async with linked(world, broker) as link:
            await link.redeem(root.id)
            first, _ = [await link.broker.use(root.id, SEARCHED, f"req_c.{i}", 0) for i in range(2)]
            leaving = asyncio.create_task(link.authority.leave(20 if leaves else 0.01))
            while "worker" not in link.gone:  # noqa: ASYNC110 - the link makes it so
                await asyncio.sleep(0)
            assert not link.worker._lost
            if leaves:
                await link.broker.outcomes([Outcome(first, "done", None, "200")])
                link.worker.close()
            await leaving
            assert link.gone == ["worker", "authority"]
        ended = [event for event in await world.events() if event.event == "resource.outcome"]
        said = [("done", "req_c.0"), ("unknown", "req_c.1")] if leaves else [("unknown", "req_c.0,1")]
        assert [(event.decision, event.request) for event in ended] == said

    run(body())


def test_a_flood_of_denials_is_counted_before_it_is_sent_and_told_as_if_it_was_not(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, SEARCH)
        async with linked(world, broker) as link:
            await link.redeem(root.id)
            for i in range(100):
                await link.broker.deny(root.id, SEARCHED, ScopeError(), f"req_{i}")
        causes = [event.cause for event in await world.events() if event.decision == "deny"]
        assert causes == [None] * 20 + ["32 times this minute", "64 times this minute"]

    run(body())
