"""What is kept of connections at every step of a refresh, and what is lent of them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from msgspec import structs

from remit.broker import Broker
from remit.broker.sessions import LoginRevocations
from remit.core.audit import Event
from remit.core.connection import nonce
from remit.core.principal import Human
from remit.core.secret import Secret
from remit.core.task import Grant, Subject
from remit.errors import (
    ConflictError,
    ConnectError,
    DeniedError,
    GrantTokenError,
    InvalidRequestError,
    NotFoundError,
    RemitError,
    ScopeError,
    StepUpError,
    UnavailableError,
)
from remit.ports import Resource, Write
from remit.ports.broker import AccessToken
from tests.broker.providers import ISSUER, OAUTH, Connected, connect, query, search
from tests.broker.world import OPERATOR, SEARCH, TABLE, child, details, holder, run, warehouse
from tests.support.memory_store import MemoryStore


@pytest.fixture
def world() -> Connected:
    return Connected()


async def lent(broker: Broker, grant: Grant) -> str:
    return (await token(broker, grant)).value.reveal()


async def token(broker: Broker, grant: Grant) -> AccessToken:
    return await broker.access_token(grant.id, "search", broker._registry.version("search"))


async def swept(broker: Broker) -> None:
    """Have done what is due."""
    broker.connecting.kept.sweep()
    for _ in range(20):
        await asyncio.sleep(0)


async def events(world: Connected, name: str) -> list[str]:
    return [f"{event.decision} {event.code or ''}".strip() for event in await world.events() if event.event == name]


class Full(MemoryStore):
    """A store that takes nothing while it is full."""

    full = False

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        if self.full:
            raise UnavailableError("the disk is full")
        await super().commit(writes, events)


def test_a_token_is_lent_to_the_task_of_its_human_until_shortly_before_its_end(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        first = await token(broker, grant)
        assert first.value.reveal() == "access-token-number-0"
        assert first.until is not None
        assert (first.until - world.now).total_seconds() == 540
        world.later(539)
        assert await lent(broker, grant) == "access-token-number-0"
        world.later(1)
        assert await lent(broker, grant) == "access-token-number-1"
        refresh = world.issuing.asked[-1]
        assert refresh == {
            "grant_type": "refresh_token",
            "refresh_token": "refresh-token-number-0",
            "resource": "https://search.test",
        }
        assert await events(world, "connection.refresh") == ["allow", "done"]

    run(body())


def test_nothing_of_a_connection_is_in_the_log_or_in_clear_in_the_store(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        world.later(550)
        await lent(broker, grant)
        leaves = b"".join([entry.leaf for entry in await world.store.entries(0, 100)])
        kept = b"".join([record.body for record in await world.store.records("connection")])
        view = repr(await broker.connections(OPERATOR)) + repr(broker.connecting.kept.all())
        for number in (0, 1):
            for name in ("access", "refresh"):
                word = f"{name}-token-number-{number}"
                assert word.encode() not in leaves + kept
                assert word not in view

    run(body())


def test_two_who_need_a_new_token_at_once_make_one_refresh(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        grant, other = await world.opened(broker, SEARCH), await world.opened(broker, SEARCH)
        world.later(550)
        found = await asyncio.gather(*(lent(broker, each) for each in (grant, other, grant)))
        assert set(found) == {"access-token-number-1"}
        assert len(world.issuing.asked) == 2

    run(body())


def test_who_stops_waiting_does_not_stop_the_refresh(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        world.later(550)
        asked, goes = asyncio.Event(), asyncio.Event()

        async def before() -> None:
            asked.set()
            await goes.wait()

        world.issuing.before = before
        waiting = asyncio.create_task(lent(broker, grant))
        await asked.wait()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        goes.set()
        assert await lent(broker, grant) == "access-token-number-1"
        assert len(world.issuing.asked) == 2

    run(body())


async def cut_off(world: Connected, *, before: bool) -> Grant:
    """Have a broker die while a refresh is out: before the provider has heard of it, or before its answer is kept."""
    broker = await world.connected()
    grant = await world.opened(broker, SEARCH)
    world.later(550)
    out = asyncio.Event()

    async def dies() -> None:
        out.set()
        await asyncio.Event().wait()

    if before:
        world.issuing.before = dies
    else:
        world.issuing.after = dies
    asking = asyncio.create_task(lent(broker, grant))
    await out.wait()
    for going in broker.connecting.kept._going.values():
        going.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    world.issuing.before = world.issuing.after = None
    return grant


def test_after_a_crash_before_the_provider_has_heard_of_a_refresh_it_goes_on(world: Connected) -> None:
    async def body() -> None:
        grant = await cut_off(world, before=True)
        again = await world.served()
        assert [view.unsure for view in await again.connections(OPERATOR)] == [True]
        world.later(0.1)
        assert await lent(again, grant) == "access-token-number-1"
        assert [view.unsure for view in await again.connections(OPERATOR)] == [False]

    run(body())


def test_a_token_that_a_crash_took_away_is_found_and_said(world: Connected, caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        grant = await cut_off(world, before=False)
        again = await world.served()
        assert "a refresh of a connection to `search` was cut off" in caplog.text
        with pytest.raises(ConnectError, match="does not take its token again") as caught:
            await lent(again, grant)
        assert caught.value.help == "on the broker's host: `remit connect search`"
        assert await events(world, "connection.end") == ["failed grant-token"]
        view = (await again.connections(OPERATOR))[0]
        assert "cut off" in view.over
        await connect(again)
        assert await lent(again, grant) == "access-token-number-2"

    run(body())


def test_an_access_token_that_is_still_good_is_lent_while_the_provider_does_not_answer(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        world.later(550)

        async def silent() -> None:
            raise UnavailableError("`auth.search.test` does not answer")

        world.issuing.before = silent
        found = await token(broker, grant)
        assert found.value.reveal() == "access-token-number-0"
        assert found.until is not None
        assert (found.until - world.now).total_seconds() == 15
        world.later(14)
        assert await lent(broker, grant) == "access-token-number-0"
        assert await events(world, "connection.refresh") == ["allow", "failed unavailable"]  # not asked again so soon
        world.later(50)
        with pytest.raises(UnavailableError):
            await lent(broker, grant)
        world.issuing.before = None
        world.later(16)
        assert await lent(broker, grant) == "access-token-number-1"

    run(body())


def test_no_refresh_goes_out_that_could_not_be_stored() -> None:
    store = Full()
    world = Connected(store=store)

    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        world.later(550)
        store.full = True
        assert await lent(broker, grant) == "access-token-number-0"
        assert len(world.issuing.asked) == 1
        store.full = False
        assert await lent(broker, grant) == "access-token-number-1"

    run(body())


def test_what_the_provider_gave_while_the_store_failed_is_not_lost() -> None:
    store = Full()
    world = Connected(store=store)

    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        world.later(550)

        async def fills() -> None:
            store.full = True

        world.issuing.after = fills
        assert await lent(broker, grant) == "access-token-number-1"
        world.issuing.after = None
        await swept(broker)
        store.full = False
        await swept(broker)
        again = await world.served()
        world.later(0.1)
        assert await lent(again, grant) == "access-token-number-1"

    run(body())


def test_a_connection_that_is_over_at_the_provider_is_over_here(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        world.issuing.good.clear()
        world.later(550)
        for _ in range(2):
            with pytest.raises(ConnectError, match="is over at the provider"):
                await lent(broker, grant)
        assert len(world.issuing.asked) == 2

    run(body())


def test_a_token_without_a_refresh_token_ends_the_connection_with_it(world: Connected) -> None:
    async def body() -> None:
        world.issuing.refreshes = False
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        assert await lent(broker, grant) == "access-token-number-0"
        world.later(550)
        with pytest.raises(ConnectError, match="nothing to renew it with"):
            await lent(broker, grant)

    run(body())


def test_a_token_that_does_not_end_is_never_renewed(world: Connected) -> None:
    async def body() -> None:
        world.issuing.lifetime = None
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        world.later(800)
        assert await token(broker, grant) == AccessToken(Secret("access-token-number-0"), None)

    run(body())


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (search({**OAUTH, "issuer": "https://other.test"}), ConnectError),
        (search({**OAUTH, "client_id": "remit-2"}), ConnectError),
        (search(destination="https://elsewhere.test"), ConnectError),
    ],
)
def test_tokens_go_nowhere_else_when_a_resource_is_changed(
    world: Connected, change: Resource, error: type[RemitError]
) -> None:
    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        before = broker._registry.version("search")
        await broker.put_resource(OPERATOR, change)
        with pytest.raises(error, match="another destination or provider"):
            await lent(broker, grant)
        await broker.put_resource(OPERATOR, search())
        with pytest.raises(ConflictError):
            await broker.access_token(grant.id, "search", before)

    run(body())


def test_a_grant_that_has_not_the_resource_is_lent_nothing(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        await broker.put_resource(OPERATOR, warehouse(), Secret("pw"))
        grant = await world.opened(broker, TABLE)
        with pytest.raises(ScopeError):
            await lent(broker, grant)
        with pytest.raises(NotFoundError):
            await broker.access_token("grt_none", "search", 0)

    run(body())


def test_the_clients_secret_goes_to_the_provider_alone(world: Connected) -> None:
    async def body() -> None:
        broker = await world.served()
        await broker.put_resource(OPERATOR, search(), Secret("client-secret-0123456789"))
        await connect(broker)
        client = world.issuing.clients[-1]
        assert client.secret == Secret("client-secret-0123456789")
        assert client.method == "client_secret_basic"
        with pytest.raises(DeniedError):
            await broker.credential("search", broker._registry.version("search"))
        moved = search({**OAUTH, "issuer": "https://evil.test"})
        with pytest.raises(RemitError, match="the secret must be given again"):
            await broker.put_resource(OPERATOR, moved)
        for more in (
            {"scopes": ["read"]},
            {"scopes": ["read"], "lower": {"find": ["read"]}},
            {"revoke_with_task": True},
        ):
            await broker.put_resource(OPERATOR, search({**OAUTH, **more}))

    run(body())


def test_what_is_ended_here_is_lent_no_more_and_told_to_the_provider(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)
        view = await broker.end_connection(OPERATOR, "search")
        assert view.over == "was ended here"
        with pytest.raises(ConnectError, match="was ended here"):
            await lent(broker, grant)
        with pytest.raises(NotFoundError):
            await broker.end_connection(OPERATOR, "search")
        await swept(broker)
        assert world.issuing.revoked == ["refresh-token-number-0"]
        assert await events(world, "connection.revoke") == ["done"]
        await swept(broker)
        assert len(world.issuing.revoked) == 1

    run(body())


def test_a_provider_that_does_not_hear_of_an_end_is_told_again_also_after_a_restart(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected()

        async def silent() -> None:
            raise UnavailableError("`auth.search.test` does not answer")

        world.issuing.before = silent
        await broker.end_connection(OPERATOR, "search")
        await swept(broker)
        assert world.issuing.revoked == []
        world.issuing.before = None
        again = await world.served()
        world.later(0.1)
        await swept(again)
        assert world.issuing.revoked == ["refresh-token-number-0"]

    run(body())


def test_where_the_resource_says_so_a_connection_ends_with_the_last_task_that_needs_it(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected(revoke_with_task=True)
        await swept(broker)  # nobody has used it yet
        first, second = await world.opened(broker, SEARCH), await world.opened(broker, SEARCH)
        await lent(broker, first)
        for grant, revoked in ((first, 0), (second, 1)):
            await broker.close(OPERATOR, broker._tasks.task_of(grant.id).id)
            again = await world.served()
            for _ in range(2):
                await swept(again)
            assert len(world.issuing.revoked) == revoked
            broker = again

    run(body())


def test_a_task_has_what_a_human_approved_beyond_its_root_grant_until_that_ends(world: Connected) -> None:
    async def body() -> None:
        broker = await world.connected(revoke_with_task=True)
        await broker.put_resource(OPERATOR, warehouse(), Secret("admin-pw"))
        root = await world.opened(broker, TABLE)
        item = (await broker.ask(holder(broker, root), root.id, child(SEARCH))).approval
        item = await broker.approve(item.id, item.digest, OPERATOR)
        beyond = (await broker.delegate(holder(broker, root), root.id, child(SEARCH), item)).grant
        await lent(broker, beyond)
        for left in (1, 0):
            for _ in range(2):
                await swept(broker)
            (view,) = await broker.connections(OPERATOR)
            assert (len(world.issuing.revoked), view.open_tasks) == (1 - left, left)
            await broker.revoke(OPERATOR, beyond.id)

    run(body())


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({"error": "access_denied"}, "did not connect you"),
        ({"code": "c" * 4_097}, "too long"),
        ({"code": "c", "iss": "https://evil.test"}, "not from the provider that was asked"),
    ],
)
def test_an_answer_that_says_no_or_comes_from_elsewhere_connects_nobody(
    world: Connected, answer: dict[str, str], says: str
) -> None:
    async def body() -> None:
        broker = await world.served()
        await broker.put_resource(OPERATOR, search())
        begun = await broker.begin_connection(OPERATOR, "search")
        asked = query(begun.url)
        assert (asked["code_challenge_method"], asked["resource"]) == ("S256", "https://search.test")
        assert asked["redirect_uri"] == "https://remit.test/oauth/connected/search"
        for expected in (says, "was used before"):
            with pytest.raises(RemitError, match=expected):
                await broker.answer_connection("search", {"state": begun.state, **answer}, "")
        assert world.issuing.asked == []
        assert await broker.connections(OPERATOR) == []
        assert [told.partition(" ")[0] for told in await events(world, "connection.make")] == ["deny"]

    run(body())


def test_a_provider_that_always_names_itself_has_to(world: Connected) -> None:
    async def body() -> None:
        world.issuing.provider = structs.replace(world.issuing.provider, names_itself=True)
        broker = await world.served()
        await broker.put_resource(OPERATOR, search())
        with pytest.raises(DeniedError, match="not from the provider"):
            await connect(broker)
        view = await connect(broker, iss=ISSUER)
        assert view.issuer == ISSUER

    run(body())


def test_what_was_begun_counts_for_its_resource_its_browser_and_ten_minutes(world: Connected) -> None:
    async def body() -> None:
        broker = await world.served()
        await broker.put_resource(OPERATOR, search())
        for browser, shown, name, later in (("b", "", "search", 0), ("", "", "other", 0), ("", "", "search", 601)):
            begun = await broker.begin_connection(OPERATOR, "search", browser)
            world.later(later)
            with pytest.raises(RemitError, match="begun"):
                await broker.answer_connection(name, {"state": begun.state, "code": "c"}, shown)
        assert world.issuing.asked == []

    run(body())


def test_nothing_is_redeemed_before_the_code_of_the_last_page_is_typed_where_it_was_begun(world: Connected) -> None:
    async def body() -> None:
        broker = await world.served()
        await broker.put_resource(OPERATOR, search())
        begun = await broker.begin_connection(OPERATOR, "search")
        back = await broker.answer_connection("search", {"state": begun.state, "code": "c"}, "")
        about = (back.human, back.resource, back.issuer, back.destination)
        assert about == (OPERATOR.subject.sub, "search", ISSUER, "https://search.test")
        for wrong in ("", "BCDFGHJK", back.code[:-1]):
            with pytest.raises(InvalidRequestError, match="not the code on the page"):
                await broker.type_connection_code(OPERATOR, "search", back.begun, wrong)
        for browser in ("", "b"):  # a page confirms what a page began
            with pytest.raises(InvalidRequestError):
                await broker.confirm_connection("search", back.begun, browser)
        assert (world.issuing.asked, await broker.connections(OPERATOR)) == ([], [])
        typed = f" {back.code[:4].lower()}-{back.code[4:]}"
        view = await broker.type_connection_code(OPERATOR, "search", back.begun, typed)
        assert (view.human, world.issuing.asked[0]["code"]) == (OPERATOR.subject.sub, "c")
        with pytest.raises(InvalidRequestError, match="used before"):
            await broker.type_connection_code(OPERATOR, "search", back.begun, typed)

    run(body())


def test_who_has_seen_a_state_and_comes_first_connects_nothing_and_who_comes_later_changes_nothing(
    world: Connected,
) -> None:
    async def body() -> None:
        broker = await world.served()
        await broker.put_resource(OPERATOR, search())
        begun = await broker.begin_connection(OPERATOR, "search")
        first = await broker.answer_connection("search", {"state": begun.state, "code": "first"}, "")
        with pytest.raises(InvalidRequestError, match="used before"):  # so no page shows a code that counts
            await broker.answer_connection("search", {"state": begun.state, "code": "second"}, "")
        with pytest.raises(InvalidRequestError, match="not the code on the page"):
            await broker.type_connection_code(OPERATOR, "search", first.begun, "")
        await broker.type_connection_code(OPERATOR, "search", first.begun, first.code)
        assert [asked["code"] for asked in world.issuing.asked] == ["first"]

    run(body())


def test_what_came_back_waits_for_ten_minutes_and_for_its_resource(world: Connected) -> None:
    async def body() -> None:
        broker = await world.served()
        await broker.put_resource(OPERATOR, search())
        for name, later in (("other", 0), ("search", 601)):
            begun = await broker.begin_connection(OPERATOR, "search", "b")
            back = await broker.answer_connection("search", {"state": begun.state, "code": "c"}, "b")
            world.later(later)
            with pytest.raises(InvalidRequestError, match="took too long"):
                await broker.confirm_connection(name, back.begun, "b")
        assert world.issuing.asked == []

    run(body())


def test_a_connection_that_is_made_anew_is_revoked_at_its_provider_before_the_new_one_is_asked_for(
    world: Connected,
) -> None:
    async def body() -> None:
        broker = await world.connected()
        grant, asked = await world.opened(broker, SEARCH), len(world.issuing.asked)

        async def before() -> None:
            seen.append((list(world.issuing.revoked), len(world.issuing.asked) - asked))

        seen: list[tuple[list[str], int]] = []
        world.issuing.before = before
        await connect(broker)
        world.issuing.before = None
        assert seen == [([], 0), (["refresh-token-number-0"], 0)]
        assert await lent(broker, grant) == "access-token-number-1"
        assert world.issuing.good == {"refresh-token-number-1"}
        assert await events(world, "connection.revoke") == ["done"]

    run(body())


def test_a_provider_that_cannot_be_told_of_the_connection_before_does_not_keep_the_new_one_away(
    world: Connected, caplog: pytest.LogCaptureFixture
) -> None:
    async def body() -> None:
        broker = await world.connected()
        grant = await world.opened(broker, SEARCH)

        async def before() -> None:
            world.issuing.before = None
            raise UnavailableError("down")

        world.issuing.before = before
        await connect(broker)
        assert await lent(broker, grant) == "access-token-number-1"
        assert "was not told that a connection is over" in caplog.text
        assert await events(world, "connection.revoke") == ["failed"]

    run(body())


def test_we_register_once_for_a_resource_where_the_provider_wants_it(world: Connected) -> None:
    async def body() -> None:
        broker = await world.served()
        await broker.put_resource(OPERATOR, search({"issuer": ISSUER}))
        with pytest.raises(RemitError, match="only clients that are registered"):
            await connect(broker)
        world.issuing.provider = structs.replace(world.issuing.provider, registration_endpoint=f"{ISSUER}/register")
        for _ in range(2):
            await connect(broker)
        assert world.issuing.registered == ["https://remit.test/oauth/connected/search"]
        assert world.issuing.clients[-1].id == "registered-1"

    run(body())


def test_a_human_is_told_on_which_page_to_connect_and_a_workload_that_it_cannot(world: Connected) -> None:
    async def body() -> None:
        broker = await world.served()
        await broker.put_resource(OPERATOR, search())
        kept, resource = broker.connecting.kept, search()
        with pytest.raises(ConnectError) as caught:
            await kept.lend(Subject("https://idp.test#alice", "urn:mfa"), resource)
        assert caught.value.url == "https://remit.test/connections/search"
        with pytest.raises(DeniedError) as refused:
            await kept.lend(Subject("spiffe://prod.test/job", "workload"), resource)
        assert not isinstance(refused.value, ConnectError)

    run(body())


def test_a_provider_that_reads_documents_is_given_ours_where_it_can_read_it(world: Connected) -> None:
    async def body() -> None:
        world.issuing.provider = structs.replace(world.issuing.provider, documents=True)
        broker = await world.served()
        await broker.put_resource(OPERATOR, search({"issuer": ISSUER}))
        begun = await broker.begin_connection(OPERATOR, "search")
        assert query(begun.url)["client_id"] == "https://remit.test/oauth/client/search"

    run(body())


async def discovers(world: Connected, **settings: object) -> Broker:
    """Return a broker with a resource that says itself who its provider is."""
    register = f"{ISSUER}/register"
    world.issuing.provider = structs.replace(world.issuing.provider, registration_endpoint=register, scopes=("read",))
    broker = await world.served()
    await broker.put_resource(OPERATOR, search(settings))
    return broker


def at_page(world: Connected, state: str, acr: str = "urn:password", ago: int = 0) -> Human:
    """Return a human who has logged in on our page to connect."""
    subject = Subject("https://idp.test#alice", acr, world.now - timedelta(seconds=ago))
    there = nonce("search", state)
    return Human(subject, state, world.now, world.now, "web", there, confidential=True, state=state)


class Ended(LoginRevocations):
    """Revokes all logins once it is told to."""

    over = False

    def check(self, human: Human) -> None:  # noqa: ARG002 - all
        if self.over:
            raise GrantTokenError("this login was ended at its issuer")


@pytest.mark.parametrize("step", ["begin", "confirm", "redeemed"])
def test_a_login_that_has_ended_connects_nothing(world: Connected, step: str) -> None:
    async def body() -> None:
        ended = Ended()
        broker = world.broker(revocations=lambda _: ended)
        await broker.start()
        await broker.put_resource(OPERATOR, search())

        async def ends() -> None:
            ended.over = True

        async def whole() -> None:
            begun = await broker.begin_connection(at_page(world, "s"), "search", "b")
            back = await broker.answer_connection("search", {"state": begun.state, "code": "c"}, "b")
            ended.over = step == "confirm"
            await broker.confirm_connection("search", back.begun, "b")

        ended.over = step == "begin"
        world.issuing.before = ends if step == "redeemed" else None
        with pytest.raises(GrantTokenError, match="ended at its issuer"):
            await whole()
        assert await broker.connections(OPERATOR) == []
        assert len(world.issuing.asked) == (step == "redeemed")

    run(body())


@pytest.mark.parametrize(("acr", "ago"), [("urn:password", 0), ("urn:mfa", 3_600)])
def test_a_login_has_to_be_as_strong_as_one_that_approves(world: Connected, acr: str, ago: int) -> None:
    async def body() -> None:
        world.step_up = {"https://idp.test#alice": ("urn:mfa",)}
        broker = await world.served()
        await broker.put_resource(OPERATOR, search())
        for brought in (True, False):
            with pytest.raises(StepUpError):
                await broker.connecting.begin(at_page(world, f"{brought}", acr, ago), "search", "b", brought=brought)
        begun = await broker.begin_connection(at_page(world, "strong", "urn:mfa"), "search", "b")
        assert begun.issuer == ISSUER

    run(body())


def test_what_a_resource_says_of_its_provider_counts_once_the_operator_has_connected(world: Connected) -> None:
    async def body() -> None:
        broker = await discovers(world)

        async def goes(at: str) -> str:
            return (await broker.begin_connection(at_page(world, at), "search", "b")).issuer

        with pytest.raises(DeniedError, match="operator has not agreed") as caught:
            await goes("s1")
        assert "`remit connect search`" in str(caught.value.help)
        assert world.issuing.registered == []
        await connect(broker)
        assert await goes("s2") == ISSUER

    run(body())


@pytest.mark.parametrize(
    ("change", "says", "settled"),
    [
        ({"issuer": "https://github.test"}, "another provider", {"issuer": "https://github.test"}),
        ({"scopes": ("read", "admin:org")}, "asks for more", {"scopes": ["read"]}),
    ],
)
def test_a_resource_that_says_something_else_of_its_provider_is_refused_until_the_operator_names_it(
    world: Connected, change: dict[str, Any], says: str, settled: dict[str, object]
) -> None:
    async def body() -> None:
        broker = await discovers(world)
        await connect(broker)
        world.issuing.provider = structs.replace(world.issuing.provider, **change)
        for restarted in (broker, await world.served()):
            with pytest.raises(ConflictError, match=says):
                await restarted.begin_connection(OPERATOR, "search")
        broker = await world.served()
        await broker.put_resource(OPERATOR, search(settled))
        begun = await broker.begin_connection(OPERATOR, "search")
        assert begun.issuer == world.issuing.provider.issuer

    run(body())


def test_whoever_is_at_the_control_socket_asks_for_more_beside_what_was_let_before(world: Connected) -> None:
    async def body() -> None:
        broker = await discovers(world)
        world.issuing.provider = structs.replace(world.issuing.provider, scopes=("read",))
        asked = partial(broker.connecting.begin, OPERATOR, "search", brought=True)
        assert query((await asked(more=("issues:write",))).url)["scope"] == "read issues:write"
        await connect(broker)
        key = OPERATOR.name, "search"
        broker.connecting.kept._of[key] = replace(broker.connecting.kept._of[key], scope="read gists")
        assert query((await asked(more=("issues:write", "read"))).url)["scope"] == "read gists issues:write"
        assert query((await asked()).url)["scope"] == "read"
        world.issuing.provider = structs.replace(world.issuing.provider, scopes=("read", "admin:org"))
        with pytest.raises(ConflictError, match="asks for more"):
            await asked(more=("issues:write",))
        assert query((await asked(more=("admin:org",))).url)["scope"] == "read admin:org gists"
        await broker.end_connection(OPERATOR, "search")
        assert query((await asked(more=("admin:org",))).url)["scope"] == "read admin:org"

    run(body())


def test_a_provider_may_be_near_at_the_hosts_that_the_operator_named_alone(world: Connected) -> None:
    async def body() -> None:
        broker = await world.served()
        at = {f"{name}_endpoint": f"https://{name}.corp.test/{name}" for name in ("authorization", "token")}
        named = {"authorization.corp.test", "token.corp.test"}
        for oauth, private, near in (
            (OAUTH, None, {"auth.search.test"}),
            (OAUTH, True, {"auth.search.test", "search.test"}),
            ({"scopes": ["read"]}, True, {"search.test"}),
            ({"scopes": ["read"]}, None, set()),
        ):
            settings = {"oauth": oauth, **({} if private is None else {"private": private})}
            await broker.put_resource(OPERATOR, replace(search(), settings=settings))
            with suppress(InvalidRequestError):  # of a provider that takes no registrations
                await broker.begin_connection(OPERATOR, "search")
            assert set(world.issuing.discovered[-1][1]) == near
        await broker.put_resource(OPERATOR, search({**OAUTH, **at}))
        await connect(broker)
        assert set(broker.connecting.kept.all()[0].provider.near) == named

    run(body())


def test_a_server_of_mcp_is_asked_at_its_url_and_its_token_is_for_that(world: Connected) -> None:
    async def body() -> None:
        broker = await world.served()
        bound = details({"type": "mcp", "resource": "search", "actions": ["tools/call"], "tools": "any"})
        oauth = {"oauth": {"scopes": ["read"]}}
        world.issuing.provider = structs.replace(world.issuing.provider, registration_endpoint=f"{ISSUER}/register")
        for at, near in (("https://mcp.test/mcp", ()), ("http://127.0.0.1:8080/mcp", ("127.0.0.1",))):
            await broker.put_resource(OPERATOR, Resource("search", "mcp", f"mcp+{at}", bound, None, oauth))
            begun = await broker.begin_connection(OPERATOR, "search")
            assert world.issuing.discovered[-1] == (at, near)
            assert world.issuing.said
            assert (query(begun.url)["resource"], query(begun.url)["scope"]) == (at, "read")

    run(body())
