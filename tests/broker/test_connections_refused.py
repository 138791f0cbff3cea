"""Connections that are not made, or not gone on with: what was begun too often, changed meanwhile, or overtaken."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from msgspec import structs

from remit.broker import connecting, connections
from remit.core.audit import Event
from remit.core.connection import nonce
from remit.core.secret import Secret
from remit.errors import (
    ConflictError,
    ConnectError,
    InvalidRequestError,
    LimitError,
    NotFoundError,
    StepUpError,
    UnavailableError,
)
from remit.ports import Write
from tests.broker.providers import OAUTH, Connected, connect, search
from tests.broker.test_connections import at_page, events, lent, swept
from tests.broker.world import OPERATOR, SEARCH, run, warehouse


@pytest.fixture
def world() -> Connected:
    return Connected()


async def silent() -> None:
    raise UnavailableError("`auth.search.test` does not answer")


def test_a_login_that_was_made_for_something_else_connects_nothing(world: Connected) -> None:
    async def body() -> None:
        broker = await world.served()
        await broker.put_resource(OPERATOR, search())
        human = at_page(world, "s")
        for other in (replace(human, nonce=nonce("wiki", "s")), replace(human, state=None)):
            with pytest.raises(StepUpError, match="not made to connect this resource"):
                await broker.begin_connection(other, "search", "b")
        assert (world.issuing.asked, await broker.connections(OPERATOR)) == ([], [])

    run(body())


def test_who_begins_too_often_loses_what_was_begun_first(world: Connected) -> None:
    async def body() -> None:
        broker = await world.served()
        await broker.put_resource(OPERATOR, search())
        states = [(await broker.begin_connection(OPERATOR, "search")).state for _ in range(connecting.MOST_OF_ONE + 1)]
        with pytest.raises(InvalidRequestError, match="not begun here"):
            await broker.answer_connection("search", {"state": states[0], "code": "c"}, "")
        back = await broker.answer_connection("search", {"state": states[-1], "code": "c"}, "")
        await broker.type_connection_code(OPERATOR, "search", back.begun, back.code)
        assert [each.resource for each in await broker.connections(OPERATOR)] == ["search"]

    run(body())


def test_no_more_are_away_at_once_than_there_is_room_for(world: Connected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "MOST", 2)

    async def body() -> None:
        broker = await world.served()
        await broker.put_resource(OPERATOR, search())
        for _ in range(2):
            await broker.begin_connection(OPERATOR, "search")
        with pytest.raises(LimitError):
            await broker.begin_connection(OPERATOR, "search")
        world.later(601)
        await connect(broker)

    run(body())


def test_nothing_is_redeemed_for_a_resource_that_was_changed_meanwhile(world: Connected) -> None:
    async def body() -> None:
        broker = await world.served()
        await broker.put_resource(OPERATOR, search())
        begun = await broker.begin_connection(OPERATOR, "search")
        back = await broker.answer_connection("search", {"state": begun.state, "code": "c"}, "")
        await broker.put_resource(OPERATOR, search({**OAUTH, "scopes": ["read"]}))
        with pytest.raises(ConflictError, match="changed meanwhile"):
            await broker.type_connection_code(OPERATOR, "search", back.begun, back.code)
        assert (world.issuing.asked, await broker.connections(OPERATOR)) == ([], [])

    run(body())


def test_a_clients_secret_is_shown_only_where_the_provider_takes_one(world: Connected) -> None:
    async def body() -> None:
        world.issuing.provider = structs.replace(world.issuing.provider, methods=("private_key_jwt",))
        broker = await world.served()
        await broker.put_resource(OPERATOR, search(), Secret("client-secret-0123456789"))
        with pytest.raises(InvalidRequestError, match="takes no client secret"):
            await connect(broker)
        assert world.issuing.asked == []

    run(body())


def test_a_human_ends_no_connection_of_somebody_else(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        with pytest.raises(NotFoundError):
            await broker.end_connection(at_page(world, "s"), "search", OPERATOR.name)
        assert not (await broker.connections(OPERATOR))[0].over

    run(body())


def test_a_resource_with_a_key_is_not_connected_and_a_broker_that_reaches_no_providers_connects_none(
    world: Connected,
) -> None:
    async def body() -> None:
        broker = await world.served()
        await broker.put_resource(OPERATOR, warehouse(), Secret("admin-pw"))
        with pytest.raises(InvalidRequestError, match="with a key"):
            await broker.begin_connection(OPERATOR, "warehouse")
        alone = world.broker(providers=None)
        await alone.start()
        await alone.put_resource(OPERATOR, search())
        with pytest.raises(UnavailableError, match="no providers"):
            await alone.begin_connection(OPERATOR, "search")

    run(body())


def test_a_provider_that_takes_too_long_over_a_refresh_is_given_up(
    world: Connected, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "PATIENCE", 0)

    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        world.later(601)

        async def never() -> None:
            await asyncio.Event().wait()

        world.issuing.before = never
        with pytest.raises(UnavailableError, match="did not answer in time"):
            await lent(broker, grant)
        assert await events(world, "connection.refresh") == ["allow", "failed unavailable"]

    run(body())


def test_a_refresh_that_waited_for_an_end_does_not_go_out(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        world.later(601)
        waits = asyncio.create_task(lent(broker, grant))
        await asyncio.sleep(0)
        await broker.end_connection(OPERATOR, "search")
        with pytest.raises(ConnectError, match="was ended here"):
            await waits
        assert [form["grant_type"] for form in world.issuing.asked] == ["authorization_code"]

    run(body())


async def slowly(
    world: Connected, first: Callable[[], Awaitable[object]], second: Callable[[], Awaitable[object]]
) -> None:
    """Have a second step asked for while the first is being stored."""
    commit, going, goes = world.store.commit, asyncio.Event(), asyncio.Event()

    async def held(writes: Sequence[Write], events: Sequence[Event]) -> None:
        going.set()
        await goes.wait()
        await commit(writes, events)

    world.store.commit = held  # type: ignore[method-assign]  # for a while
    one = asyncio.ensure_future(first())
    await going.wait()
    other = asyncio.ensure_future(second())
    await asyncio.sleep(0)
    world.store.commit = commit  # type: ignore[method-assign]  # as it was
    goes.set()
    await asyncio.gather(one, other)


def test_two_who_end_a_connection_at_once_end_it_once(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        end = lambda: broker.end_connection(OPERATOR, "search")  # noqa: E731 - short
        await slowly(world, end, end)
        await swept(broker)
        assert (await events(world, "connection.end"), len(world.issuing.revoked)) == (["done"], 1)

    run(body())


def test_two_tasks_that_use_a_connection_for_the_first_time_at_once_are_put_down_once(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected(revoke_with_task=True)
        grants = [await world.opened(broker, SEARCH) for _ in range(2)]
        await slowly(world, lambda: lent(broker, grants[0]), lambda: lent(broker, grants[1]))
        assert await events(world, "connection.use") == ["done"]

    run(body())


def test_a_provider_that_is_never_told_is_given_up_after_a_day_and_its_tokens_go(
    world: Connected, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        broker = await world.connected()
        world.issuing.before = silent
        await broker.end_connection(OPERATOR, "search")
        world.later(timedelta(days=1).total_seconds() + 1)
        await swept(broker)
        assert await events(world, "connection.revoke") == ["failed"]
        assert "was not told that a connection is over" in caplog.text
        (left,) = broker.connecting.kept.all()
        assert (left.access_token, left.refresh_token) == (None, None)
        world.issuing.before = None
        await swept(broker)
        assert world.issuing.revoked == []

    run(body())


def test_who_connects_anew_while_the_provider_is_being_told_of_the_end_tells_it_no_second_time(
    world: Connected,
) -> None:
    async def body() -> None:
        broker = await world.connected()
        world.issuing.before = silent
        await broker.end_connection(OPERATOR, "search")
        await swept(broker)
        going, goes = asyncio.Event(), asyncio.Event()

        async def slow() -> None:
            going.set()
            await goes.wait()

        world.issuing.before = slow
        world.later(connections.PAUSE.total_seconds() + 1)
        broker.connecting.kept.sweep()
        await going.wait()
        anew = asyncio.create_task(connect(broker))
        for _ in range(20):
            await asyncio.sleep(0)
        goes.set()
        await anew
        assert world.issuing.revoked == ["refresh-token-number-0"]
        assert [each.over for each in await broker.connections(OPERATOR)] == [""]

    run(body())
