"""A human decides on one request in one browser: shown exactly, bound to it, proven by a login for it."""

from __future__ import annotations

import json
import secrets
from dataclasses import replace
from html import unescape
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from remit.broker import pending
from remit.compose.app import build
from remit.console.consent_session import ConsentSession, RedirectTarget, Seal, described
from remit.errors import UnavailableError
from remit.oauth.authorize import MAX_KEPT
from remit.oauth.registry import Registry
from remit.ports.identity import Registered
from remit.web.authentication import TokenAuth
from remit.web.verifier import Keys, Verifier
from tests.broker.asking import kept
from tests.broker.world import SEARCH
from tests.oauth.desk import (
    ALICE,
    APP,
    BOB,
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


async def shown(app: App, visitor: httpx.AsyncClient, **more: str | None) -> httpx.Response:
    """Come to the page of a request."""
    return await visitor.get("/oauth/authorize", params=app.asked(**more))


async def sent(visitor: httpx.AsyncClient, page: httpx.Response, **more: str) -> httpx.Response:
    """Press approve."""
    return await visitor.post("/oauth/consent", data={**form_of(page), "decision": "approve", **more})


# -- the page ---------------------------------------------------------------------------------------------------------


def test_the_page_holds_no_secret_of_the_client(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        page = await shown(app, browser(app.made))
        assert json.dumps(PURPOSE)[1:-1] in page.text
        assert app.verifier not in page.text

    scene(tmp_path, played)


def test_a_cookie_binds_one_browser_to_one_request(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        first, second = await shown(app, visitor), await shown(app, visitor, purpose="another thing")
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
        keys = Keys(made.signer, [made.signer.public_jwk()])
        known = made.verifier
        verifier = Verifier(made.broker, keys, "https://remit.test", known.clock, known.nonces, known.pending)
        served, web = (
            build(replace(made.deps, verifier=verifier)),
            TokenAuth(frozenset({"remit.test"}), verifier.holder),
        )

        async def called(scope: Scope, receive: Receive, send: Send) -> None:
            await served({**scope, "state": {"listener": replace(web, scheme="https")}}, receive, send)

        transport = httpx.ASGITransport(called)
        async with httpx.AsyncClient(transport=transport, base_url="https://remit.test") as visitor:
            page = await shown(app, visitor)
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
        answer = await sent(visitor, await shown(app, visitor), **wrong)
        assert answer.status_code == 400
        assert said in answer.text
        assert app.issuer.begun == []

    scene(tmp_path, played)


def test_a_form_works_in_its_own_browser_alone(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        page = await shown(app, visitor)
        stranger = await sent(browser(app.made), page)
        assert "begun in another browser" in stranger.text
        assert kept(app.made.broker) == []
        assert (await sent(visitor, page)).status_code == 200
        assert len(app.issuer.begun) == 1
        assert (await sent(visitor, page)).status_code == 400  # its cookie has gone

    scene(tmp_path, played)


@pytest.mark.parametrize("kind", ["form", "login"])
def test_what_a_browser_keeps_for_us_is_sealed(tmp_path: Path, kind: str) -> None:
    """It can neither change it, nor show one for the other, nor another broker's."""

    async def played(app: App) -> None:
        visitor = browser(app.made)
        page = await shown(app, visitor)
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
            for wrong in [*texts, f"{raw}.{Seal().close('form', ConsentSession('apr_1')).partition('.')[2]}"]:
                assert (await sent(visitor, page, visit=wrong)).status_code == 400
            assert app.issuer.begun == []
            return
        begun = await sent(visitor, page)
        (name,) = visitor.cookies
        for wrong in ("x", form["visit"], visitor.cookies[name][:-1], Seal().close("login", ConsentSession("apr_1"))):
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
        page = await sent(visitor, await shown(app, visitor, state=state))
        assert max(len(cookie) for cookie in page.headers.get_list("set-cookie")) < 4_096
        assert answer_of(await press(visitor, await visitor.get(app.issuer.back(page))))["state"] == state
        refused = await shown(app, visitor, state=f"{state}x")
        assert (refused.status_code, "too long together" in refused.text) == (400, True)

    scene(tmp_path, played, registry=Registry([Registered(name, "D" * 100, (long,))]))


def test_a_form_from_another_origin_is_refused(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        page = await shown(app, visitor)
        data = {**form_of(page), "decision": "approve"}
        answer = await visitor.post("/oauth/consent", data=data, headers={"origin": "https://evil.test"})
        assert answer.status_code == 403

    scene(tmp_path, played)


def test_a_page_is_over_in_ten_minutes(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        page = await shown(app, visitor)
        later(app.made, 600)
        assert "too old" in (await sent(visitor, page)).text

    scene(tmp_path, played)


def test_a_refusal_goes_back_without_a_login(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        answer = await decide(visitor, app.issuer, await shown(app, visitor), "deny")
        assert followed(answer).startswith(f"{app.redirect}?error=access_denied&")
        assert app.issuer.begun == []

    scene(tmp_path, played)


# -- the login --------------------------------------------------------------------------------------------------------


async def logged_in(app: App, visitor: httpx.AsyncClient) -> str:
    """Approve; return where the issuer sends the browser back."""
    return app.issuer.back(await sent(visitor, await shown(app, visitor)))


def test_a_login_counts_in_its_own_browser_alone_and_once(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        back = await logged_in(app, visitor)
        stranger = await browser(app.made).get(back)
        assert (stranger.status_code, "location" in stranger.headers) == (400, False)
        last = await visitor.get(back)
        assert answer_of(await press(visitor, last))["code"]
        assert (await visitor.get(back)).status_code == 400

    scene(tmp_path, played)


def test_a_login_alone_decides_nothing_and_its_page_says_who_and_what(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        last = await visitor.get(await logged_in(app, visitor))
        (item,) = kept(app.made.broker)
        assert item.verdict.value == "pending"
        for text in (
            f"You are logged in as {app.issuer.sub}.",
            item.digest,
            PURPOSE,
            "calls itself “ConsentPage App” asks for access",
        ):
            assert text in last.text
        assert [name in last.text for name in ('value="approve"', 'value="deny"', "<script")] == [True, True, False]
        assert "location" not in last.headers

    scene(tmp_path, played)


def test_the_last_page_is_of_the_browser_that_came_back_alone_and_counts_once(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        first = await shown(app, visitor)
        begun = form_of(first)
        last = await visitor.get(app.issuer.back(await sent(visitor, first)))
        form = form_of(last)
        assert not {form["visit"], form["csrf"]} & {begun["visit"], begun["csrf"]}
        assert "begun in another browser" in (await press(browser(app.made), last)).text
        for wrong in ({"csrf": begun["csrf"]}, {"visit": begun["visit"]}, {"decision": "maybe"}):
            assert (await sent(visitor, last, **wrong)).status_code == 400
        origin = {"origin": "http://127.0.0.1:3000"}
        data = {**form, "decision": "approve"}
        assert (await visitor.post("/oauth/consent", data=data, headers=origin)).status_code == 403
        assert kept(app.made.broker)[0].verdict.value == "pending"
        assert answer_of(await press(visitor, last))["code"]
        assert "used before" in (await press(visitor, last)).text

    scene(tmp_path, played)


@pytest.mark.parametrize("asks", ["code", "device"])
def test_who_logged_in_to_approve_may_still_refuse(tmp_path: Path, asks: str) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        if asks == "code":
            page = await shown(app, visitor)
        else:
            codes = (await app.made.web.post("/oauth/device_authorization", data=app.wanted())).json()
            page = await visitor.post("/oauth/device", data={"user_code": codes["user_code"]})
        last = await visitor.get(app.issuer.back(await press(visitor, page)))
        answer = await press(visitor, last, "deny")
        assert "Refused" in answer.text
        assert asks != "code" or answer_of(answer)["error"] == "access_denied"
        assert kept(app.made.broker)[0].verdict.value == "denied"

    scene(tmp_path, played)


def test_who_logged_in_to_refuse_approves_of_nothing(tmp_path: Path) -> None:
    """That login was not asked to be as strong as approving takes."""

    async def played(app: App) -> None:
        visitor = browser(app.made)
        asked = (await app.afar(login_hint="alice")).json()
        page = await visitor.get(asked["verification_uri"])
        last = await visitor.get(app.issuer.back(await press(visitor, page, "deny")))
        assert 'value="approve"' not in last.text
        assert (await press(visitor, last, "approve")).status_code == 400
        assert "Refused" in (await press(visitor, last, "deny")).text

    scene(tmp_path, played)


def test_an_answer_to_no_login_is_refused(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        for query in ("", "?state=guess&code=x", "?state=guess&state=x", "?state=guess&odd=x"):
            answer = await browser(app.made).get(f"/oauth/callback{query}")
            assert (answer.status_code, answer.headers["content-type"]) == (400, "text/html; charset=utf-8")

    scene(tmp_path, played)


def test_what_the_issuer_refuses_is_told_to_the_client(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        back = (await logged_in(app, visitor)).replace("of-the-issuer", "wrong")
        answer = answer_of(await visitor.get(back))
        assert (answer["error"], answer["state"], answer["iss"]) == ("access_denied", "s-t-a-t-e", app.made.base)

    scene(tmp_path, played)


def test_an_issuer_that_is_away_is_told_to_the_client(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        back = await logged_in(app, visitor)

        async def away(*_: object) -> object:
            raise UnavailableError

        app.issuer.finish = away  # type: ignore[method-assign, assignment] # an outage
        assert answer_of(await visitor.get(back))["error"] == "temporarily_unavailable"

    scene(tmp_path, played)


@pytest.mark.parametrize("authorization", ["javascript:alert(1)", "http://idp.test/auth", "file:///etc/passwd", "--x"])
def test_no_browser_is_sent_to_what_is_no_login_page(tmp_path: Path, authorization: str) -> None:
    async def played(app: App) -> None:
        app.issuer.authorization = authorization
        visitor = browser(app.made)
        answer = await sent(visitor, await shown(app, visitor))
        assert answer.status_code == 400
        assert 'http-equiv="refresh"' not in answer.text
        assert authorization not in answer.text

    scene(tmp_path, played)


def test_of_several_issuers_the_human_chooses_one(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        page = await shown(app, visitor)
        assert '<option value="https://other.test">Other</option>' in page.text
        assert (await sent(visitor, page)).status_code == 400
        assert (await sent(visitor, page, issuer="https://evil.test")).status_code == 400
        assert (await sent(visitor, page, issuer="https://other.test")).status_code == 200
        assert [one.issuer for one in app.issuer.begun] == ["https://other.test"]

    scene(tmp_path, played, issuers={ISSUER: "Example", "https://other.test": "Other"})


def test_each_issuer_sends_browsers_back_to_a_place_of_its_own(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        for issuer, place in (ISSUER, "/oauth/callback"), ("https://other.test", "/oauth/callback/2"):
            begun = await sent(visitor, await shown(app, visitor), issuer=issuer)
            assert app.issuer.begun[-1].back == f"{app.made.base}{place}"
            last = await visitor.get(app.issuer.back(begun).replace("/oauth/callback", place))
            assert answer_of(await press(visitor, last))["code"]

    scene(tmp_path, played, issuers={ISSUER: "Example", "https://other.test": "Other"})


@pytest.mark.parametrize("place", ["/oauth/callback", "/oauth/callback/1", "/oauth/callback/02", "/oauth/callback/3"])
def test_an_answer_at_the_place_of_another_issuer_is_to_no_login(tmp_path: Path, place: str) -> None:
    """RFC 9700 §4.4: an issuer may have sent the browser on to another, which does not say who it is (RFC 9207)."""

    async def played(app: App) -> None:
        visitor = browser(app.made)
        begun = await sent(visitor, await shown(app, visitor), issuer="https://other.test")
        back = app.issuer.back(begun)
        assert answer_of(await visitor.get(back.replace("/oauth/callback", place)))["error"] == "access_denied"
        assert (await visitor.get(back.replace("/oauth/callback", "/oauth/callback/2"))).status_code == 400
        assert kept(app.made.broker)[0].verdict.value == "pending"

    scene(tmp_path, played, issuers={ISSUER: "Example", "https://other.test": "Other"})


@pytest.mark.attack("OAU-10")
@pytest.mark.parametrize("dest", ["image", "iframe", "empty", "script", "document, image", ""])
def test_a_page_that_a_browser_is_lured_to_changes_nothing(tmp_path: Path, dest: str) -> None:
    """A GET is all that another page can make a browser send: no record, no entry, no cookie, no room of anybody's."""

    async def played(app: App) -> None:
        pushed = (await app.made.web.post("/oauth/par", data=app.asked())).json()["request_uri"]
        codes = (await app.made.web.post("/oauth/device_authorization", data=app.wanted())).json()
        before, records = await app.made.world.events(), kept(app.made.broker)
        lured = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": dest}
        visitor = browser(app.made)
        for params in (app.asked(), {"client_id": APP, "request_uri": pushed}):
            answer = await visitor.get("/oauth/authorize", params=params, headers=lured)
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
        for path in (codes["verification_uri_complete"], "/oauth/callback?state=x&code=y", "/approvals/apr_1"):
            assert (await visitor.get(path, headers=lured)).status_code == 403
        for _ in range(120):  # also as often as a window is opened
            assert (await browser(app.made).get("/oauth/authorize", params=app.asked())).status_code == 200
        assert (await app.made.world.events(), kept(app.made.broker)) == (before, records)
        assert answer_of(await decide(visitor, app.issuer, await shown(app, visitor)))["code"]
        assert (await app.made.web.post("/oauth/device_authorization", data=app.wanted())).status_code == 200

    scene(tmp_path, played)


@pytest.mark.attack("OAU-10")
def test_what_is_wrong_with_a_request_leaves_no_entry_either(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        before = await app.made.world.events()
        for wrong in ({"purpose": "x" * 2_001}, {"ttl": "0"}, {"prompt": "none"}, {"authorization_details": "[]"}):
            assert "error=" in (await shown(app, browser(app.made), **wrong)).headers["location"]
        assert await app.made.world.events() == before

    scene(tmp_path, played)


@pytest.mark.attack("OAU-10")
def test_it_is_on_record_once_the_human_goes_on(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        page = await shown(app, visitor)
        foreign = {"origin": "https://evil.test"}
        form = {**form_of(page), "decision": "approve"}
        assert (await visitor.post("/oauth/consent", data=form, headers=foreign)).status_code == 403
        assert kept(app.made.broker) == []
        await sent(visitor, page)
        (item,) = kept(app.made.broker)
        assert (item.asker, item.verdict.value) == (APP, "pending")
        await press(visitor, await shown(app, visitor), "deny")
        assert kept(app.made.broker) == [item]

    scene(tmp_path, played)


@pytest.mark.attack("OAU-14")
@pytest.mark.parametrize("asks", ["grant", "device"])
def test_who_holds_a_link_keeps_nobody_from_deciding(tmp_path: Path, asks: str) -> None:
    async def played(app: App) -> None:
        if asks == "grant":
            told = (await app.redeem(await app.code(depth="1", fan_out="1"))).json()
            app.agent.token = told["access_token"]
            body = {"parent": told["grant"], "authorization_details": [{**json.loads(DETAIL), "uses": 9}], "ttl": 60}
            link = (await app.made.call(app.agent, "POST", "/v1/approvals", json=body)).json()["verification_uri"]
        else:
            codes = (await app.made.web.post("/oauth/device_authorization", data=app.wanted())).json()

        async def opened(visitor: httpx.AsyncClient) -> httpx.Response:
            if asks == "grant":
                return await visitor.get(link)
            return await visitor.post("/oauth/device", data={"user_code": codes["user_code"]})

        human, late = browser(app.made), browser(app.made)
        away = await sent(human, await opened(human))
        stranger = browser(app.made)
        for _ in range(120):
            assert (await sent(stranger, await opened(stranger))).status_code == 200
            stranger.cookies.clear()
        back = await human.get(app.issuer.back(away))
        assert "You are logged in as" in back.text
        assert "You are logged in as" in (await late.get(app.issuer.back(await sent(late, await opened(late))))).text
        assert "Approved" in (await press(human, back)).text

    scene(tmp_path, played)


@pytest.mark.attack("OAU-14")
def test_a_human_who_logs_in_again_and_again_keeps_no_other_from_deciding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pending, "MOST", 20)

    async def played(app: App) -> None:
        app.issuer.sub = BOB
        other = browser(app.made)
        for _ in range(30):
            back = await other.get(app.issuer.back(await sent(other, await shown(app, other))))
            assert "You are logged in as" in back.text
            other.cookies.clear()
        app.issuer.sub = ALICE
        visitor = browser(app.made)
        assert answer_of(await decide(visitor, app.issuer, await shown(app, visitor)))["code"]

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


DETAIL = '{"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}'


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
        last = await visitor.get(app.issuer.back(await sent(visitor, first)))
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
