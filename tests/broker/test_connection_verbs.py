"""What a human is shown of their own connections, and how they end one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from remit.broker.connection_verbs import MOST_TASKS
from remit.core.connection import nonce
from remit.core.principal import Human
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.errors import NotFoundError, RemitError, StepUpError
from tests.broker.providers import Connected, connect
from tests.broker.test_connections import at_page, events, swept
from tests.broker.world import OPERATOR, SEARCH, TABLE, run, warehouse


@pytest.fixture
def world() -> Connected:
    return Connected()


def owner(world: Connected, state: str) -> Human:
    """Return the owner as they would have logged in to see their connections."""
    human = at_page(world, state)
    return replace(human, subject=replace(human.subject, sub=OPERATOR.name), nonce=nonce("", state))


def test_what_uses_a_connection_and_when_it_was_last_used(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        (unused,) = await broker.connections(owner(world, "s"))
        assert (unused.used_at, unused.tasks, unused.open_tasks) == (None, (), 0)
        grants = []
        for number in range(MOST_TASKS + 1):
            world.later(1)
            grants.append(await world.opened(broker, SEARCH, purpose=f"number {number}"))
        await broker.put_resource(OPERATOR, warehouse(), Secret("admin-pw"))
        await world.opened(broker, TABLE)  # which may not use it
        await broker.use(grants[0].id, Access("search", "GET", "/v1/search"), "r", 0)
        (view,) = await broker.connections(owner(world, "s"))
        assert view.used_at == world.now
        assert view.open_tasks == MOST_TASKS + 1
        assert [task.purpose for task in view.tasks] == [f"number {left}" for left in range(MOST_TASKS, 0, -1)]
        for grant in grants[1:]:
            await broker.close(OPERATOR, broker._tasks.task_of(grant.id).id)
        (view,) = await broker.connections(OPERATOR)
        assert [task.purpose for task in view.tasks] == ["number 0"]
        world.later(60)
        await connect(broker)
        assert [(each.used_at, each.open_tasks) for each in await broker.connections(OPERATOR)] == [(None, 1)]

    run(body())


def test_a_human_sees_and_ends_their_own_alone_by_a_login_that_counts_once(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        alice = replace(at_page(world, "a"), nonce=nonce("", "a"))
        assert await broker.connections(alice) == []
        for name in ("search", "nothing"):
            with pytest.raises(NotFoundError):
                await broker.end_connection(replace(alice, digest=name), name)
        by = owner(world, "s")
        ended = await broker.end_connection(by, "search")
        assert ended.over == "was ended here"
        await swept(broker)
        assert world.issuing.revoked == ["refresh-token-number-0"]
        assert [view.over for view in await broker.connections(by)] == ["was ended here"]
        await connect(broker)
        with pytest.raises(RemitError):
            await broker.end_connection(by, "search")
        assert [view.over for view in await broker.connections(OPERATOR)] == [""]
        assert (await events(world, "connection.ask"))[-1:] == ["allow"]

    run(body())


def test_a_login_that_was_made_for_something_else_shows_and_ends_nothing(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        human = owner(world, "s")
        for other in (
            replace(human, nonce=nonce("search", "s")),
            replace(human, state=None),
            replace(human, confidential=False),
        ):
            with pytest.raises(StepUpError, match="not made to see or end connections"):
                await broker.connections(other)
            with pytest.raises(StepUpError, match="not made to see or end connections"):
                await broker.end_connection(other, "search")
        with pytest.raises(StepUpError, match="not made to connect"):
            await broker.begin_connection(human, "search", "b")
        with pytest.raises(NotFoundError):
            await broker.end_connection(human, "search", "https://idp.test#bob")
        assert [view.over for view in await broker.connections(OPERATOR)] == [""]

    run(body())
