"""The page on which a human connects a resource to their account at its provider."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from html import unescape
from pathlib import Path

import httpx
import pytest

from remit.core.orders import digest
from remit.core.policy import in_bounds
from remit.core.principal import Human
from remit.errors import StepUpError
from tests.broker.providers import Connected, query, search
from tests.broker.world import OPERATOR
from tests.oauth.consent_driver import ALICE, ISSUER, STRONG, App, Scene, browser, form_of, press, scene

BACK = "/oauth/connected/search"
EMPTY: Mapping[str, tuple[str, ...]] = {}


def asked_of(app: App) -> list[dict[str, str]]:
    """Return what the provider was asked for tokens with."""
    assert isinstance(app.made.world, Connected)
    return app.made.world.issuing.asked


def connecting(tmp_path: Path, played: Scene, step_up: Mapping[str, tuple[str, ...]] = EMPTY) -> None:
    async def whole(app: App) -> None:
        await app.made.broker.delete_resource(OPERATOR, "search")  # which has a key
        await app.made.broker.put_resource(OPERATOR, search())
        await played(app)

    world = Connected(now=datetime(2026, 11, 25, 12, tzinfo=UTC), decide=in_bounds, step_up=dict(step_up))
    scene(tmp_path, whole, world=world)


async def logged_in(app: App, visitor: httpx.AsyncClient) -> httpx.Response:
    """Come to the page, log in, and see the last one."""
    first = await visitor.get("/connections/search")
    assert "Connect search" in first.text
    return await visitor.get(app.issuer.back(await press(visitor, first)))


def leads(page: httpx.Response) -> str:
    """Return where a page goes on to when that is pressed, and not before: it says what for."""
    for told in (f"<dd>{ALICE}</dd>", "<dd>https://auth.search.test</dd>", "<dd>https://search.test</dd>"):
        assert told in page.text
    assert "http-equiv" not in page.text
    found = re.search('class="go" rel="noreferrer" href="([^"]+)"', page.text)
    assert found is not None, page.text
    return unescape(found[1])


async def away(app: App, visitor: httpx.AsyncClient) -> dict[str, str]:
    """Go on to the provider; return what it is asked."""
    url = leads(await press(visitor, await logged_in(app, visitor)))
    assert url.startswith("https://auth.search.test/authorize?")
    return query(url)


def test_a_human_logs_in_goes_on_and_is_connected(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        last = await logged_in(app, visitor)
        assert f"You are logged in as {ALICE}." in last.text
        assert await app.made.broker.connections(OPERATOR) == []
        asked = query(leads(await press(visitor, last)))
        assert asked["redirect_uri"] == f"https://remit.test{BACK}"
        back = await visitor.get(BACK, params={"code": "c", "state": asked["state"]})
        for told in (f"<dd>{ALICE}</dd>", "<dd>https://auth.search.test</dd>", "<dd>https://search.test</dd>"):
            assert told in back.text
        assert (asked_of(app), await app.made.broker.connections(OPERATOR)) == ([], [])
        done = await press(visitor, back)
        assert (done.status_code, "Connected" in done.text) == (200, True)
        assert (await press(visitor, back)).status_code == 400
        (view,) = await app.made.broker.connections(OPERATOR)
        assert (view.human, view.resource) == (ALICE, "search")
        assert "token-number" not in done.text
        again = await visitor.get(BACK, params={"code": "c", "state": asked["state"]})
        assert again.status_code == 400

    connecting(tmp_path, played)


def test_the_browser_that_comes_back_is_the_one_that_left(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        asked = await away(app, browser(app.made))
        other = await browser(app.made).get(BACK, params={"code": "c", "state": asked["state"]})
        assert (other.status_code, "another browser" in other.text) == (400, True)
        assert await app.made.broker.connections(OPERATOR) == []

    connecting(tmp_path, played)


def test_only_the_browser_that_came_back_can_confirm_and_only_by_our_form(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor, other = browser(app.made), browser(app.made)
        asked = await away(app, visitor)
        other.cookies.update(visitor.cookies)  # another program of the host has them, over plain http
        back = await visitor.get(BACK, params={"code": "c", "state": asked["state"]})
        assert (await press(other, back)).status_code == 400
        forged = {**form_of(back), "csrf": "of-mine", "decision": "approve"}
        assert (await visitor.post("/oauth/consent", data=forged)).status_code == 400
        assert "Nothing was connected." in (await press(visitor, back, "deny")).text
        assert await app.made.broker.connections(OPERATOR) == []

    connecting(tmp_path, played)


def test_what_a_command_began_is_confirmed_where_it_runs_and_at_no_page(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        broker = app.made.broker
        begun = await broker.begin_connection(OPERATOR, "search")
        back = await browser(app.made).get(BACK, params={"code": "c", "state": begun.state})
        code = re.search("<code>([A-Z]{4}-[A-Z]{4})</code>", back.text)
        assert code is not None
        assert form_of(back) == {}
        assert await broker.connections(OPERATOR) == []
        await broker.type_connection_code(OPERATOR, "search", digest(begun.state), code[1])
        assert [view.human for view in await broker.connections(OPERATOR)] == [OPERATOR.subject.sub]

    connecting(tmp_path, played)


def test_who_does_not_go_on_is_sent_nowhere(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        refused = await press(visitor, await logged_in(app, visitor), "deny")
        assert "Nothing was connected." in refused.text
        early = await press(visitor, await visitor.get("/connections/search"), "deny")
        assert "Nothing was connected." in early.text
        assert await app.made.broker.connections(OPERATOR) == []

    connecting(tmp_path, played)


def test_a_login_for_something_else_connects_nothing_and_one_counts_once(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        broker = app.made.broker
        for nonce in ("of something else", None):
            human: Human = app.issuer.human(nonce)
            with pytest.raises(StepUpError):
                await broker.begin_connection(human, "search")
        visitor = browser(app.made)
        last = await logged_in(app, visitor)
        leads(await press(visitor, last))
        assert (await press(visitor, last)).status_code == 400

    connecting(tmp_path, played)


def test_the_page_asks_for_a_login_as_strong_as_one_that_approves(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        weak = await press(visitor, await logged_in(app, visitor))
        assert (weak.status_code, "Log in again" in weak.text) == (403, True)
        assert app.issuer.begun[-1].acr == (STRONG,)
        app.issuer.acr = STRONG
        await away(app, visitor)

    connecting(tmp_path, played, {f"{ISSUER}#": (STRONG,), ALICE: (STRONG,)})


def test_what_we_say_of_us_to_a_provider_has_one_redirect_uri_for_each_resource(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        issuer = app.made.verifier.issuer
        told = (await app.made.web.get("/oauth/client/search")).json()
        assert told["client_id"] == f"{issuer}/oauth/client/search"
        assert told["client_name"] == "remit for search"
        assert told["redirect_uris"] == [f"{issuer}/oauth/connected/search"]
        assert (await app.made.web.get("/oauth/client/no%2Fname")).status_code in {400, 404}

    connecting(tmp_path, played)
