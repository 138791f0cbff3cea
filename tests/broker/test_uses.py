"""One use: judged, debited, recorded, judged once more; and denials that do not fill the disk."""

from __future__ import annotations

from dataclasses import replace

import pytest

from remit.core.audit import LOUD
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.errors import ConflictError, RevokedError, ScopeError
from remit.ports.broker import Outcome
from tests.broker.world import OPERATOR, SEARCH, World, details, run, search
from tests.uses import permitted_use

SEARCHED = Access("search", "GET", "/v1/search")


def test_a_use_outside_the_scope_is_refused(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        access = Access("search", "POST", "/v1/search", args={"query.q": '"x"'})
        with pytest.raises(ScopeError):
            await permitted_use(broker, root.id, access, "r")

    run(body())


def test_a_grant_revoked_while_its_use_is_being_recorded_has_no_effect(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        commit = world.store.commit

        async def slow(writes: object, events: object) -> None:
            world.store.commit = commit  # type: ignore[method-assign]  # a test stands in its way
            await broker.revoke(OPERATOR, root.id)
            await commit(writes, events)  # type: ignore[arg-type]  # as it came

        world.store.commit = slow  # type: ignore[method-assign]  # a test stands in its way
        with pytest.raises(RevokedError):
            await permitted_use(broker, root.id, SEARCHED, "r")

    run(body())


def test_a_use_is_permitted_by_the_detail_that_is_named(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        assert (await broker.use(root.id, SEARCHED, "r", 1)).index == 1

    run(body())


def test_a_flood_of_denials_is_counted_not_written(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        before = await broker._store.size()
        for _ in range(1_000):
            await broker.deny(root.id, SEARCHED, ScopeError(), "r")
        written = await broker._store.size() - before
        assert LOUD < written < LOUD + 10
        assert (await world.events())[-1].cause == "512 times this minute"
        world.later(60)
        await broker.deny(root.id, SEARCHED, ScopeError(), "r")
        assert await broker._store.size() == before + written + 1

    run(body())


def test_outcomes_that_were_noted_share_one_commit(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        first = await broker.use(root.id, SEARCHED, "r1", 1)
        second = await broker.use(root.id, SEARCHED, "r2", 1)
        before = len(await world.events())
        await broker.outcomes([Outcome(first, "done", None, "200"), Outcome(second, "failed", "upstream", "502")])
        await broker.outcomes([])
        found = [(event.request, event.decision, event.code) for event in (await world.events())[before:]]
        assert found == [("r1", "done", None), ("r2", "failed", "upstream")]

    run(body())


def test_a_secret_is_given_for_the_version_that_a_use_was_permitted_for(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        use = await broker.use(root.id, SEARCHED, "r", 1)
        assert await broker.credential("search", use.version) == Secret("api-key-0123456789ab")
        await broker.put_secret(OPERATOR, "search", Secret("key-2-0123456789ab"))
        with pytest.raises(ConflictError, match="changed meanwhile"):
            await broker.credential("search", use.version)
        target = await broker.target("search")
        assert await broker.credential("search", target.version) == Secret("key-2-0123456789ab")
        bound = {key: value for key, value in SEARCH.items() if key != "uses"}
        await broker.put_resource(
            OPERATOR, replace(search(), name="open", bound=details({**bound, "resource": "open"}))
        )
        assert await broker.credential("open", (await broker.target("open")).version) is None

    run(body())


def test_a_use_of_a_resource_that_changes_while_it_is_recorded_is_not_permitted(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        commit = world.store.commit

        async def slow(writes: object, events: object) -> None:
            world.store.commit = commit  # type: ignore[method-assign]  # one commit alone is slow
            await broker.put_secret(OPERATOR, "search", Secret("key-2-0123456789ab"))
            await commit(writes, events)  # type: ignore[arg-type]  # as it came

        world.store.commit = slow  # type: ignore[method-assign]  # as above
        with pytest.raises(ConflictError, match="changed meanwhile"):
            await permitted_use(broker, root.id, SEARCHED, "r")
        assert await broker.resource("search") in await broker.resources()

    run(body())
