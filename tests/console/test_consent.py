"""A human decides on one request in one browser: shown exactly, bound to it, and decided by its form."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from html import unescape
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from remit.compose.app import build
from remit.console.pages import ClientDisplay
from remit.console.seal import Seal
from remit.console.visits import ConsentSession, RedirectTarget, described
from remit.oauth.authorization_requests import MAX_KEPT
from remit.oauth.clients import Registry
from remit.ports.identity import Registered
from remit.web.authentication import TokenAuth
from tests.broker.asking import kept
from tests.broker.world import SEARCH
from tests.console.visits import DETAIL, approved, visited
from tests.oauth.consent_driver import (
    APP,
    ISSUER,
    PURPOSE,
    App,
    answer_of,
    browser,
    decide,
    followed,
    form_of,
    press,
    scene,
)
from tests.oauth.plane import later

# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_holds_no_secret_of_the_client(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        page = await visited(app, browser(app.made))
        assert json.dumps(PURPOSE)[1:-1] in page.text
        assert app.verifier not in page.text

    scene(tmp_path, played)


def test_a_cookie_binds_one_browser_to_one_request(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        first, second = await visited(app, visitor), await visited(app, visitor, purpose="another thing")
        for page in (first, second):
            cookie = page.headers["set-cookie"]
            assert "HttpOnly; SameSite=Lax; Max-Age=600" in cookie
            assert form_of(page)["csrf"] not in cookie
        assert first.headers["set-cookie"].partition("=")[0] != second.headers["set-cookie"].partition("=")[0]
        for page in (first, second):  # both go on, each for itself
            assert answer_of(await decide(visitor, app.issuer, page))["code"]

    scene(tmp_path, played)


def test_over_tls_the_cookie_is_of_this_host_alone(tmp_path: Path) -> None:
    """RFC 6265bis §4.1.3.2: nobody at another host or without TLS can set or get a cookie named ``__Host-``."""

    async def played(app: App) -> None:
        made = app.made
        verifier = replace(made.verifier, issuer="https://remit.test")
        served, web = (
            build(replace(made.deps, verifier=verifier)),
            TokenAuth(frozenset({"remit.test"}), verifier.holder),
        )

        async def called(scope: Scope, receive: Receive, send: Send) -> None:
            await served({**scope, "state": {"listener": replace(web, scheme="https")}}, receive, send)

        transport = httpx.ASGITransport(called)
        async with httpx.AsyncClient(transport=transport, base_url="https://remit.test") as visitor:
            page = await visited(app, visitor)
            assert page.headers["set-cookie"].startswith("__Host-remit-")
            assert page.headers["set-cookie"].endswith("; Secure")
            last = await decide(visitor, app.issuer, page)
            assert answer_of(last)["iss"] == "https://remit.test"
            assert last.headers["set-cookie"].startswith("__Host-remit-")
            assert [cookie.value for cookie in visitor.cookies.jar] == []

    scene(tmp_path, played)


# -- the form ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"csrf": "x"}, "not from our page"),
        ({"visit": "x"}, "too old"),
        ({"decision": "maybe"}, "decision"),
        ({"issuer": ISSUER}, "issuer"),
    ],
)
def test_a_form_that_is_not_ours_decides_nothing(tmp_path: Path, wrong: dict[str, str], said: str) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        answer = await approved(visitor, await visited(app, visitor), **wrong)
        assert answer.status_code == 400
        assert said in answer.text
        assert app.issuer.begun == []

    scene(tmp_path, played)


def test_a_form_works_in_its_own_browser_alone(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        page = await visited(app, visitor)
        stranger = await approved(browser(app.made), page)
        assert "begun in another browser" in stranger.text
        assert kept(app.made.broker) == []
        assert (await approved(visitor, page)).status_code == 200
        assert len(app.issuer.begun) == 1
        assert (await approved(visitor, page)).status_code == 400  # its cookie has gone

    scene(tmp_path, played)


@pytest.mark.parametrize("kind", ["form", "login"])
def test_what_a_browser_keeps_for_us_is_sealed(tmp_path: Path, kind: str) -> None:
    """It can neither change it, nor show one for the other, nor another broker's."""

    async def played(app: App) -> None:
        visitor = browser(app.made)
        page = await visited(app, visitor)
        form = form_of(page)
        if kind == "form":
            raw, _, mac = form["visit"].partition(".")
            texts = [
                "",
                ".",
                raw,
                f"{raw}.",
                f".{mac}",
                f"{raw}.{mac[:-1]}",
                f"{raw[:-4]}AAAA.{mac}",
                f"{form['visit']}x",
            ]
            for wrong in [
                *texts,
                f"{raw}.{Seal().close('form', ConsentSession('apr_1', ClientDisplay())).partition('.')[2]}",
            ]:
                assert (await approved(visitor, page, visit=wrong)).status_code == 400
            assert app.issuer.begun == []
            return
        begun = await approved(visitor, page)
        (name,) = visitor.cookies
        for wrong in (
            "x",
            form["visit"],
            visitor.cookies[name][:-1],
            Seal().close("login", ConsentSession("apr_1", ClientDisplay())),
        ):
            other = browser(app.made)
            other.cookies.set(name, wrong)
            assert "not begun in this browser" in (await other.get(app.issuer.back(begun))).text
        state = followed(begun).partition("state=")[2]
        guessed = state[:-1] + ("a" if state[-1] != "a" else "b")
        assert (await visitor.get(app.issuer.back(begun).replace(state, guessed))).status_code == 400
        assert (await visitor.get(app.issuer.back(begun))).status_code == 200

    scene(tmp_path, played)


def test_what_no_browser_could_keep_is_said_at_once_and_the_rest_fits_a_cookie(tmp_path: Path) -> None:
    """RFC 6265 §6.1: browsers keep 4,096 bytes of a cookie with its name and attributes."""
    long, state = f"https://app.test/{secrets.token_urlsafe(1_536)}"[:2_048], secrets.token_urlsafe(512)[:500]
    name = secrets.token_urlsafe(64)[: MAX_KEPT - len(long) - len(state)]

    async def played(app: App) -> None:
        app.redirect, app.client_id = long, name
        visitor = browser(app.made)
        page = await approved(visitor, await visited(app, visitor, state=state))
        assert max(len(cookie) for cookie in page.headers.get_list("set-cookie")) < 4_096
        assert answer_of(await press(visitor, await visitor.get(app.issuer.back(page))))["state"] == state
        refused = await visited(app, visitor, state=f"{state}x")
        assert (refused.status_code, "too long together" in refused.text) == (400, True)

    scene(tmp_path, played, registry=Registry([Registered(name, "D" * 100, (long,))]))


def test_a_form_from_another_origin_is_refused(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        page = await visited(app, visitor)
        data = {**form_of(page), "decision": "approve"}
        answer = await visitor.post("/oauth/consent", data=data, headers={"origin": "https://evil.test"})
        assert answer.status_code == 403

    scene(tmp_path, played)


def test_a_page_is_over_in_ten_minutes(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        page = await visited(app, visitor)
        later(app.made, 600)
        assert "too old" in (await approved(visitor, page)).text

    scene(tmp_path, played)


def test_a_refusal_goes_back_without_a_login(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        answer = await decide(visitor, app.issuer, await visited(app, visitor), "deny")
        assert followed(answer).startswith(f"{app.redirect}?error=access_denied&")
        assert app.issuer.begun == []

    scene(tmp_path, played)


# -- approvals --------------------------------------------------------------------------------------------------------


def test_the_owner_of_this_state_is_sent_to_the_terminal(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        opened = await app.made.opened(app.agent)
        body = {"parent": opened["grant"], "authorization_details": [{**json.loads(DETAIL), "uses": 99}], "ttl": 60}
        asked = (await app.made.control.post("/v1/approvals", json=body)).json()
        page = await browser(app.made).get(asked["verification_uri"])
        assert f"remit approve {asked['approval']}" in page.text
        assert form_of(page) == {}

    scene(tmp_path, played)


@pytest.mark.attack("OAU-12")
def test_the_page_of_a_grants_request_says_what_for_from_whom_what_it_has_and_what_exceeds_it(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await app.redeem(await app.code(depth="2", fan_out="2"))).json()
        app.agent.token = told["access_token"]
        asks = [SEARCH | {"paths": ["/v1/less"]}, json.loads(DETAIL) | {"uses": 9}]
        body = {"parent": told["grant"], "authorization_details": asks, "label": "approved by IT security"}
        asked = (await app.made.call(app.agent, "POST", "/v1/approvals", json=body)).json()
        visitor = browser(app.made)
        first = await visitor.get(asked["verification_uri"])
        last = await visitor.get(app.issuer.back(await approved(visitor, first)))
        for page in (first, last):
            text = unescape(page.text)
            for said in (
                f"<dt>the task is for</dt><dd>{PURPOSE}</dd>",
                "<dt>exceeds</dt><dd>authorization_details</dd>",
                "<dt>calls itself</dt><dd>approved by IT security</dd>",
                "<h2>What the grant has that asks</h2>",
                f'"spiffe://remit.local/task/{told["task"]}/{told["grant"]}"',
            ):
                assert said in text
            assert text.count("beyond what the grant has") == 1
            assert text.index("beyond what the grant has") < text.index("/v1/**") < text.index("/v1/less")
        assert "digest" not in first.text.lower()

    scene(tmp_path, played)


def test_an_approval_that_does_not_exist_has_no_page(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        answer = await browser(app.made).get("/approvals/apr_guess")
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")

    scene(tmp_path, played)


def test_a_request_is_approved_once_whoever_comes_second(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor, second = browser(app.made), browser(app.made)
        asked = (await app.afar(login_hint="alice")).json()
        uri = asked["verification_uri"]
        first_page, second_page = await visitor.get(uri), await second.get(uri)
        assert "Approved" in (await decide(visitor, app.issuer, first_page)).text
        assert (await decide(second, app.issuer, second_page)).status_code == 409
        assert "This was approved" in (await visitor.get(uri)).text

    scene(tmp_path, played)


# -- answers ----------------------------------------------------------------------------------------------------------


def test_an_answer_carries_state_and_issuer() -> None:
    back = RedirectTarget(APP, "https://app.test/cb?x=1", "c", "s t", "https://remit.test")
    assert back.url(code="c&d") == "https://app.test/cb?x=1&code=c%26d&state=s+t&iss=https%3A%2F%2Fremit.test"
    stateless = RedirectTarget(APP, "https://app.test/cb", "c", None, "https://remit.test")
    assert stateless.refusal("e", "d") == "https://app.test/cb?error=e&error_description=d&iss=https%3A%2F%2Fremit.test"


def test_a_description_holds_what_it_may() -> None:
    assert described('a "b" \\ é\n`c`') == "a 'b' ' ''`c`"
