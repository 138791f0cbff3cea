"""A task's token at a provider has the scopes that what the task may use takes, where the operator says which."""

from __future__ import annotations

import asyncio

import pytest

from remit.broker import Broker
from remit.core import scope
from remit.core.orders import digest
from remit.core.task import Grant
from remit.errors import ConnectError, ScopeError, UnavailableError, UnsupportedScopeError
from remit.ports import Resource
from tests.broker.providers import OAUTH, Connected, connect, search
from tests.broker.world import OPERATOR, SEARCH, child, details, holder, run

LOWER = {"find": ["read"], "file": ["read", "write"], "resources/read": ["read"]}
ALL: dict[str, object] = {
    "type": "mcp",
    "resource": "tracker",
    "actions": ["tools/call", "resources/read"],
    "tools": "any",
}
ALL |= {"resources": ["**"]}
FIND: dict[str, object] = {"type": "mcp", "resource": "tracker", "actions": ["tools/call"], "tools": {"find": "any"}}
FILE: dict[str, object] = {**FIND, "tools": {"find": "any", "file": "any"}}
OTHER: dict[str, object] = {**FIND, "tools": {"find": "any", "drop": "any"}}
ANY: dict[str, object] = {**FIND, "tools": "any"}
READ: dict[str, object] = {"type": "mcp", "resource": "tracker", "actions": ["resources/read"], "resources": ["**"]}


@pytest.fixture
def world() -> Connected:
    return Connected()


async def served(world: Connected, **oauth: object) -> Broker:
    """Return a broker with a server of MCP that the operator has connected."""
    broker = await world.served()
    setting = {**OAUTH, "scopes": ["read", "write"], "lower": LOWER, **oauth}
    at = "mcp+https://tracker.test/mcp"
    await broker.put_resource(OPERATOR, Resource("tracker", "mcp", at, details(ALL), None, {"oauth": setting}))
    await connect(broker, "tracker")
    return broker


async def lent(world: Connected, broker: Broker, *raw: dict[str, object], refused: str = "") -> str:
    """Open a task for some details, and return its token."""
    return await lent_to(broker, await world.opened(broker, *raw), refused)


async def lent_to(broker: Broker, grant: Grant, refused: str = "") -> str:
    token = await broker.access_token(grant.id, "tracker", broker._registry.version("tracker"), refused)
    return token.value.reveal()[-1]


def asked(world: Connected) -> list[str | None]:
    """Return the scopes of the refreshes."""
    return [each.get("scope") for each in world.issuing.asked if each["grant_type"] == "refresh_token"]


def test_a_task_that_reads_has_a_token_that_reads_and_it_is_kept(world: Connected) -> None:
    async def body() -> None:
        broker = await served(world)
        assert [await lent(world, broker, FIND) for _ in range(2)] == ["1", "1"]
        assert await lent(world, broker, READ) == "1"
        assert await lent(world, broker, FIND, READ) == "1"
        assert await lent(world, broker, FILE) == "0"
        assert asked(world) == ["read"]
        assert await lent(world, await world.served(), FIND) == "1"  # it is on record
        assert asked(world) == ["read"]

    run(body())


@pytest.mark.parametrize("raw", [ANY, OTHER, {**OTHER, "actions": ["prompts/get"], "prompts": "any", "tools": {}}])
def test_who_may_use_what_nobody_gave_a_scope_has_the_token_of_all(world: Connected, raw: dict[str, object]) -> None:
    async def body() -> None:
        broker = await served(world)
        bound = details({**ALL, "actions": ["tools/call", "resources/read", "prompts/get"], "prompts": "any"})
        there = broker._registry.resource("tracker")
        await broker.put_resource(OPERATOR, Resource("tracker", "mcp", there.destination, bound, None, there.settings))
        assert await lent(world, broker, FIND, raw) == "0"
        assert asked(world) == []

    run(body())


def test_what_a_server_may_ask_takes_no_scope(world: Connected) -> None:
    async def body() -> None:
        broker = await served(world)
        asks = {**FIND, "actions": ["tools/call", "elicitation/create"]}
        there, bound = broker._registry.resource("tracker"), {**ALL, "actions": ["tools/call", "elicitation/create"]}
        bounded = Resource("tracker", "mcp", there.destination, scope.parse([bound]), None, there.settings)
        await broker.put_resource(OPERATOR, bounded)
        assert await lent(world, broker, asks) == "1"
        assert asked(world) == ["read"]

    run(body())


def test_a_task_that_takes_no_scope_has_no_token_and_is_told_what_to_grant(world: Connected) -> None:
    async def body() -> None:
        broker = await served(world)
        there, asks = broker._registry.resource("tracker"), {**FIND, "actions": ["elicitation/create"], "tools": {}}
        bounded = Resource("tracker", "mcp", there.destination, details(ALL, asks), None, there.settings)
        await broker.put_resource(OPERATOR, bounded)
        with pytest.raises(ScopeError, match="takes no scope") as refused:
            await lent(world, broker, asks)
        assert "`oauth.lower`" in str(refused.value.help)
        assert asked(world) == []

    run(body())


def test_what_a_human_approved_beyond_the_root_grant_takes_its_scopes(world: Connected) -> None:
    async def body() -> None:
        broker = await served(world)
        await broker.put_resource(OPERATOR, search())
        root = await world.opened(broker, SEARCH)
        item = (await broker.ask(holder(broker, root), root.id, child(FIND))).approval
        item = await broker.approve(item.id, item.digest, OPERATOR)
        beyond = (await broker.delegate(holder(broker, root), root.id, child(FIND), item)).grant
        assert await lent_to(broker, beyond) == "1"
        assert asked(world) == ["read"]

    run(body())


@pytest.mark.parametrize(("how", "token"), [("narrows", "1"), ("widens", "1"), ("refuses", "0")])
def test_where_no_scope_that_is_needed_was_given_by_that_name_the_provider_says_what_it_gives(
    world: Connected, how: str, token: str
) -> None:
    async def body() -> None:
        world.issuing.says = "read,write"
        broker = await served(world)
        world.issuing.narrows = {"narrows": True, "widens": False, "refuses": None}[how]
        assert [await lent(world, broker, FIND) for _ in range(2)] == [token] * 2
        assert asked(world) == ["read"]
        told = [event.decision for event in await world.events() if event.event == "connection.lower"]
        assert told == ([] if how == "narrows" else ["failed"])

    run(body())


def test_many_that_need_a_narrow_token_at_once_make_one_refresh(world: Connected) -> None:
    async def body() -> None:
        broker = await served(world)
        assert await asyncio.gather(*(lent(world, broker, FIND) for _ in range(4))) == ["1"] * 4
        assert len(asked(world)) == 1

    run(body())


@pytest.mark.parametrize(("how", "token"), [("widens", "1"), ("refuses", "0")])
def test_where_a_provider_gives_none_that_is_said_and_it_is_asked_once(world: Connected, how: str, token: str) -> None:
    async def body() -> None:
        broker = await served(world)
        world.issuing.narrows = False if how == "widens" else None
        found = await asyncio.gather(*(lent(world, broker, FIND) for _ in range(3)))
        assert {*found, await lent(world, broker, FIND)} == {token}
        told = [event.decision for event in await world.events() if event.event == "connection.lower"]
        assert (told, asked(world)) == (["failed"], ["read"])
        world.later(550)
        assert await lent(world, broker, FIND) == str(int(token) + 1)  # nothing is used up
        assert asked(world) == ["read", None]

    run(body())


def test_a_provider_that_refuses_a_refresh_for_all_is_left_alone_for_a_moment(world: Connected) -> None:
    async def body() -> None:
        broker = await served(world)
        world.later(601)

        async def refuses() -> None:
            raise UnsupportedScopeError

        world.issuing.before = refuses
        for _ in range(3):
            with pytest.raises((UnsupportedScopeError, UnavailableError)):
                await lent(world, broker, FILE)
        told = [f"{event.event} {event.decision}" for event in await world.events() if event.resource == "tracker"]
        assert told[-2:] == ["connection.refresh allow", "connection.refresh failed"]
        world.issuing.before = None
        world.later(16)
        assert await lent(world, broker, FIND) == "1"  # it gives narrow ones
        assert asked(world) == ["read"]

    run(body())


def test_a_provider_that_does_not_answer_gives_no_wider_token(world: Connected) -> None:
    async def body() -> None:
        broker = await served(world)

        async def silent() -> None:
            raise UnavailableError("it does not answer")

        world.issuing.before = silent
        with pytest.raises(UnavailableError):
            await lent(world, broker, FIND)
        assert await lent(world, broker, FILE) == "0"

    run(body())


def test_a_narrow_token_that_is_refused_is_renewed_as_narrow_and_ends_with_its_connection(world: Connected) -> None:
    async def body() -> None:
        broker = await served(world)
        assert await lent(world, broker, FIND) == "1"
        assert await lent(world, broker, FIND, refused=digest("access-token-number-1")) == "2"
        assert asked(world) == ["read", "read"]
        await broker.end_connection(OPERATOR, "tracker")
        with pytest.raises(ConnectError):
            await lent(world, broker, FIND)

    run(body())
