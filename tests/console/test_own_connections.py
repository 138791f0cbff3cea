"""The page on which a human sees their own connections, and ends one."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from remit.core.connection import nonce
from remit.core.principal import Operator
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Access
from remit.core.task import Grant, Subject
from remit.errors import StepUpError
from tests.broker.providers import Connected
from tests.broker.test_connections import swept
from tests.broker.world import OPERATOR, SEARCH, details
from tests.console.test_connect import connecting
from tests.oauth.consent_driver import ALICE, BOB, ISSUER, PURPOSE, STRONG, App, browser, form_of, press

HERE = "/connections"
GOOD = {key: value for key, value in SEARCH.items() if key != "uses"}


async def both(app: App) -> None:
    """Connect `search` for Alice and for Bob."""
    broker = app.made.broker
    for human in (ALICE, BOB):
        begun = await broker.begin_connection(Operator(Subject(human, STRONG)), "search", "b")
        back = await broker.answer_connection("search", {"state": begun.state, "code": "c"}, "b")
        await broker.confirm_connection("search", back.begun, "b")


async def opened(app: App, human: str, purpose: str) -> Grant:
    """Open a task for a human that may use `search`."""
    wanted = GrantRequest(details(GOOD), Bounds(timedelta(minutes=15)), purpose=purpose)
    return (await app.made.broker.open(Operator(Subject(human, STRONG)), wanted)).grant


async def seen(app: App, visitor: httpx.AsyncClient) -> httpx.Response:
    """Come to the page, log in, and see what is there."""
    first = await visitor.get(HERE)
    assert (first.status_code, "search" in first.text, "idp.test" in first.text) == (200, False, False)
    return await visitor.get(app.issuer.back(await press(visitor, first)))


async def live(app: App) -> list[str]:
    """Return whose connections there are."""
    return [view.human for view in await app.made.broker.connections(OPERATOR) if not view.over]


def revoked(app: App) -> list[str]:
    """Return the tokens that the provider was told to revoke."""
    assert isinstance(app.made.world, Connected)
    return app.made.world.issuing.revoked


def test_a_human_sees_their_own_connections_what_uses_them_and_nobody_elses(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        await both(app)
        grant = await opened(app, ALICE, PURPOSE)
        await opened(app, BOB, "what Bob is after")
        page = (await seen(app, browser(app.made))).text
        task = app.made.broker._tasks.task_of(grant.id).id
        for told in ("search", "https://auth.search.test", "2026-11-25 12:00 UTC", f"{task}: {PURPOSE}", ALICE):
            assert told in page
        assert "not since this broker was started" in page
        assert page.count("Disconnect search") == 1
        assert ("Bob" in page, BOB in page, "token-number" in page) == (False, False, False)
        app.made.world.later(60)
        await app.made.broker.use(grant.id, Access("search", "GET", "/v1/search"), "r", 0)
        assert "2026-11-25 12:01 UTC" in (await seen(app, browser(app.made))).text

    connecting(tmp_path, played)


def test_one_that_is_ended_is_revoked_at_its_provider_and_another_humans_stays(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        await both(app)
        visitor = browser(app.made)
        page = await seen(app, visitor)
        done = await press(visitor, page, resource="search")
        assert f"not connected any more for {ALICE}" in done.text
        assert await live(app) == [BOB]
        await swept(app.made.broker)
        assert revoked(app) == ["refresh-token-number-0"]
        assert (await press(visitor, page, resource="search")).status_code == 400  # it counted once
        after = (await seen(app, visitor)).text
        for told, is_there in (("was ended here", True), ('href="/connections/search"', True), ("Disconnect", False)):
            assert (told in after) == is_there

    connecting(tmp_path, played)


def test_who_has_none_is_shown_none_and_has_nothing_to_press(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        await both(app)
        app.issuer.sub = f"{ISSUER}#carol"
        page = await seen(app, browser(app.made))
        assert "There are none." in page.text
        assert form_of(page) == {}

    connecting(tmp_path, played)


def test_only_the_browser_that_logged_in_ends_one_and_only_by_our_form(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        await both(app)
        visitor = browser(app.made)
        page = await seen(app, visitor)
        assert (await press(browser(app.made), page, resource="search")).status_code == 400
        forged = {**form_of(page), "csrf": "of-mine", "decision": "approve", "resource": "search"}
        assert (await visitor.post("/oauth/consent", data=forged)).status_code == 400
        assert (await press(visitor, page)).status_code == 400  # which one?
        assert (await press(visitor, page, resource="no/name")).status_code == 400
        assert (await press(visitor, await visitor.get(HERE), resource="search")).status_code == 200  # to the login
        assert "Nothing was" in (await press(visitor, await visitor.get(HERE), "deny")).text
        assert await live(app) == [ALICE, BOB]
        assert (await press(visitor, page, resource="nothing")).status_code == 404
        assert await live(app) == [ALICE, BOB]

    connecting(tmp_path, played)


def test_a_login_for_something_else_shows_and_ends_nothing(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        await both(app)
        broker = app.made.broker
        for made_for in ("of something else", None, nonce("search", "s")):
            human = app.issuer.human(made_for)
            with pytest.raises(StepUpError):
                await broker.connections(human)
            with pytest.raises(StepUpError):
                await broker.end_connection(human, "search")
        assert await live(app) == [ALICE, BOB]

    connecting(tmp_path, played)


def test_the_page_asks_for_a_login_as_strong_as_one_that_approves(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        await both(app)
        visitor = browser(app.made)
        weak = await seen(app, visitor)
        assert (weak.status_code, "Log in again" in weak.text, "search" in weak.text) == (403, True, False)
        app.issuer.acr = STRONG
        assert "Disconnect search" in (await seen(app, visitor)).text

    connecting(tmp_path, played, {f"{ISSUER}#": (STRONG,), ALICE: (STRONG,)})
