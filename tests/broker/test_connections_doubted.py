"""A token that its resource did not take: another is asked for once, and not by whoever says so again and again."""

from __future__ import annotations

import asyncio

import pytest

from remit.broker import Broker
from remit.core.orders import digest
from remit.core.task import Grant
from remit.errors import ConnectError, UnavailableError
from tests.broker.providers import Connected, search
from tests.broker.world import OPERATOR, SEARCH, run


@pytest.fixture
def world() -> Connected:
    return Connected()


async def refused(broker: Broker, grant: Grant, number: int) -> str:
    """Say that a token was not taken; return the one that is lent then."""
    version = broker._registry.version("search")
    named = digest(f"access-token-number-{number}")
    return (await broker.access_token(grant.id, "search", version, named)).value.reveal()


async def steps(world: Connected) -> list[tuple[str, str | None]]:
    found = [event for event in await world.events() if event.event == "connection.refresh"]
    return [(event.decision, event.cause) for event in found]


def test_it_is_renewed_once_in_a_minute_and_that_is_on_record(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        assert await refused(broker, grant, 0) == "access-token-number-1"
        assert await steps(world) == [("allow", "its resource refused the token"), ("done", None)]
        for _ in range(3):
            assert await refused(broker, grant, 1) == "access-token-number-1"
        world.later(60)
        assert await refused(broker, grant, 1) == "access-token-number-2"
        assert len(world.issuing.asked) == 3

    run(body())


def test_one_that_was_renewed_meanwhile_is_not_renewed_again(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        assert await refused(broker, grant, 7) == "access-token-number-0"
        found = await asyncio.gather(*(refused(broker, grant, 0) for _ in range(3)))
        assert "access-token-number-1" in found
        world.later(60)
        assert await refused(broker, grant, 0) == "access-token-number-1"
        assert len(world.issuing.asked) == 2

    run(body())


def test_what_cannot_be_renewed_is_kept(world: Connected) -> None:
    async def body() -> None:
        world.issuing.refreshes = False
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        assert await refused(broker, grant, 0) == "access-token-number-0"
        (view,) = await broker.connections(OPERATOR)
        assert view.over == ""

    run(body())


@pytest.mark.parametrize("lifetime", [600, None])
def test_where_the_provider_does_not_answer_the_token_of_before_is_lent_for_a_moment(
    world: Connected, lifetime: int | None
) -> None:
    async def body() -> None:
        world.issuing.lifetime = lifetime
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)

        async def silent() -> None:
            raise UnavailableError("it does not answer")

        world.issuing.before = silent
        assert await refused(broker, grant, 0) == "access-token-number-0"
        world.issuing.before = None
        world.later(60)
        assert await refused(broker, grant, 0) == "access-token-number-1"

    run(body())


def test_where_the_provider_says_no_the_connection_is_over(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        world.issuing.good.clear()
        with pytest.raises(ConnectError, match="is over at the provider"):
            await refused(broker, grant, 0)
        with pytest.raises(ConnectError):
            await refused(broker, grant, 0)
        assert len(world.issuing.asked) == 2

    run(body())


def test_a_token_of_another_resource_is_none_of_this_one(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        await broker.put_resource(OPERATOR, search(destination="https://moved.test"))
        grant = await world.opened(broker, SEARCH)
        with pytest.raises(ConnectError):
            await refused(broker, grant, 0)
        assert len(world.issuing.asked) == 1

    run(body())
