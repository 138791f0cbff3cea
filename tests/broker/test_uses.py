"""One use: judged, debited, recorded, judged once more; and denials that do not fill the disk."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from remit.broker.broker import SOME
from remit.core.audit import LOUD, ungrouped
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.errors import ConflictError, IntegrityError, NotFoundError, RevokedError, ScopeError
from remit.ports import PutSecret
from remit.ports.broker import Outcome, Use, UseRequest
from tests.broker.world import OPERATOR, SEARCH, TABLE, World, child, details, holder, run, search
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


def test_a_denial_stands_for_one_at_least_whoever_says_less(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        before = await broker._store.size()
        for times in (0, -1, -(2**63)) * 100:
            await broker.deny(root.id, SEARCHED, ScopeError(), "r", times=times)
        assert await broker._store.size() - before < LOUD + 10

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


UNCOUNTED = {key: value for key, value in SEARCH.items() if key != "uses"}


def asking(grant_id: str, request: str, resource: str = "search", index: int = 0) -> UseRequest:
    return UseRequest(grant_id, resource, "GET", request, index)


def replaced(use: UseRequest, request: str) -> UseRequest:
    return UseRequest(use.grant, use.resource, use.action, request, use.index)


def test_many_uses_are_permitted_in_one_commit_and_others_get_their_turn_meanwhile(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, UNCOUNTED)
        asked = [asking(root.id, f"req_a.{number}") for number in range(2 * SOME)]
        before, turns = len(await world.events()), list[int]()
        asyncio.get_running_loop().call_soon(turns.append, 1)
        found = await broker.uses(asked)
        assert turns == [1]
        assert [use.request for use in found if isinstance(use, Use)] == [use.request for use in asked]
        events = (await world.events())[before:]
        assert {(event.event, event.grant, event.decision) for event in events} == {("resource.use", root.id, "allow")}
        told = [name for event in events for name in ungrouped(event.request or "")]
        assert told == [use.request for use in asked]
        assert len(events) < 5

    run(body())


def test_what_ends_between_two_turns_of_many_uses_is_seen_in_the_next(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root, other = [await world.opened(broker, UNCOUNTED) for _ in range(2)]
        first, second = [
            [asking(grant.id, f"req_{n}.{i}") for i in range(SOME)] for n, grant in enumerate((root, other))
        ]
        again = [replaced(use, f"{use.request}.again") for use in first]
        before, ending = len(await world.events()), list[asyncio.Task[object]]()
        revoking = lambda: ending.append(asyncio.ensure_future(broker.revoke(OPERATOR, root.id)))  # noqa: E731 - short
        asyncio.get_running_loop().call_soon(revoking)
        found = await broker.uses([*first, *second, *again])
        await asyncio.gather(*ending)
        events = [event for event in (await world.events())[before:] if event.event == "resource.use"]
        told = {name for event in events for name in ungrouped(event.request or "")}
        assert told == {use.request for use in (*first, *second)}
        ends = [isinstance(use, RevokedError) for use in found]
        assert ends == [True] * SOME + [False] * SOME + [True] * SOME

    run(body())


def test_of_many_uses_those_before_a_change_of_their_resource_are_refused_alone(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, TABLE, UNCOUNTED)
        versions = broker._registry._versions
        assert versions["search"] == versions["warehouse"] == 1
        asyncio.get_running_loop().call_soon(versions.__setitem__, "search", 2)
        others = [asking(root.id, f"req_b.{i}", "warehouse") for i in range(SOME - 1)]
        found = await broker.uses([asking(root.id, "req_a.1", index=1), *others, asking(root.id, "req_a.2", index=1)])
        assert isinstance(found[0], ConflictError)
        assert [use.version for use in found if isinstance(use, Use)] == [1] * len(others) + [2]

    run(body())


def test_of_many_uses_each_is_permitted_or_refused_by_itself(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root, other = await world.opened(broker), await world.opened(broker, exercise=False)
        await broker.revoke(OPERATOR, (ended := await world.opened(broker)).id)
        asked = {
            asking(root.id, "r1", index=1): None,
            asking(root.id, "r2", "nowhere"): NotFoundError,
            asking(root.id, "r3", index=2): ScopeError,  # beyond the scope
            asking(root.id, "r4", index=-1): ScopeError,
            asking(root.id, "r5", index=0): ScopeError,  # the detail of another resource
            asking(root.id, "r9", "warehouse", index=1): ScopeError,
            asking(other.id, "r6", index=1): ScopeError,
            asking(ended.id, "r7", index=1): RevokedError,
            asking("grt_none", "r8", index=1): NotFoundError,
        }
        before = len(await world.events())
        found = await broker.uses(list(asked))
        assert [None if isinstance(use, Use) else type(use) for use in found] == list(asked.values())
        assert "may delegate but not be used" in str(found[6])
        assert [event.request for event in (await world.events())[before:]] == ["r1"]
        assert broker._tasks.spent == {(root.id, 1): 1}

    run(body())


def test_nothing_of_a_resource_is_used_whose_secret_cannot_be_opened(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        stored = await world.store.secret("search")
        await world.store.commit((PutSecret(replace(stored, version=2, sealed=b"not as it was sealed")),), ())
        again = world.broker()
        await again.start()
        before = len(await world.events())
        [refused] = await again.uses([asking(root.id, "r", index=1)])
        assert isinstance(refused, IntegrityError)
        with pytest.raises(IntegrityError):
            await again.use(root.id, SEARCHED, "r", 1)
        assert len(await world.events()) == before
        assert again._tasks.spent == {}

    run(body())


def test_the_line_of_a_grant_is_known_live_or_ended_and_of_no_other(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        made = (await broker.delegate(holder(broker, root), root.id, child(SEARCH))).grant
        task_id = broker._tasks.task_of(root.id).id

        def known() -> bool:
            line = broker.line(made.id)
            return line is not None and (line.task, line.lineage) == (task_id, (root.id, made.id))

        assert known()
        await broker.revoke(OPERATOR, made.id)
        assert known()
        world.now = root.expires_at
        await broker.sweep()
        assert task_id not in broker._tasks
        assert known()
        assert broker.line("grt_none") is None

    run(body())
