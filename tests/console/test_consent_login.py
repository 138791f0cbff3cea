"""What a decision at the page takes: a login for this request, in the browser that asked, at one of the issuers."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from remit.broker import pending
from remit.errors import UnavailableError
from tests.broker.asking import kept
from tests.console.visits import DETAIL, approved, logged_in, visited
from tests.oauth.consent_driver import (
    ALICE,
    APP,
    BOB,
    ISSUER,
    PURPOSE,
    App,
    answer_of,
    browser,
    decide,
    form_of,
    press,
    scene,
)


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
        first = await visited(app, visitor)
        begun = form_of(first)
        last = await visitor.get(app.issuer.back(await approved(visitor, first)))
        form = form_of(last)
        assert not {form["visit"], form["csrf"]} & {begun["visit"], begun["csrf"]}
        assert "begun in another browser" in (await press(browser(app.made), last)).text
        for wrong in ({"csrf": begun["csrf"]}, {"visit": begun["visit"]}, {"decision": "maybe"}):
            assert (await approved(visitor, last, **wrong)).status_code == 400
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
            page = await visited(app, visitor)
        else:
            codes = (await app.made.web.post("/oauth/device_authorization", data=app.polled_request())).json()
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
        answer = await approved(visitor, await visited(app, visitor))
        assert answer.status_code == 400
        assert 'http-equiv="refresh"' not in answer.text
        assert authorization not in answer.text

    scene(tmp_path, played)


def test_of_several_issuers_the_human_chooses_one(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        page = await visited(app, visitor)
        assert '<option value="https://other.test">Other</option>' in page.text
        assert (await approved(visitor, page)).status_code == 400
        assert (await approved(visitor, page, issuer="https://evil.test")).status_code == 400
        assert (await approved(visitor, page, issuer="https://other.test")).status_code == 200
        assert [one.issuer for one in app.issuer.begun] == ["https://other.test"]

    scene(tmp_path, played, issuers={ISSUER: "Example", "https://other.test": "Other"})


def test_each_issuer_sends_browsers_back_to_a_place_of_its_own(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        for issuer, place in (ISSUER, "/oauth/callback"), ("https://other.test", "/oauth/callback/2"):
            begun = await approved(visitor, await visited(app, visitor), issuer=issuer)
            assert app.issuer.begun[-1].back == f"{app.made.base}{place}"
            last = await visitor.get(app.issuer.back(begun).replace("/oauth/callback", place))
            assert answer_of(await press(visitor, last))["code"]

    scene(tmp_path, played, issuers={ISSUER: "Example", "https://other.test": "Other"})


@pytest.mark.parametrize("place", ["/oauth/callback", "/oauth/callback/1", "/oauth/callback/02", "/oauth/callback/3"])
def test_an_answer_at_the_place_of_another_issuer_is_to_no_login(tmp_path: Path, place: str) -> None:
    """RFC 9700 §4.4: an issuer may have sent the browser on to another, which does not say who it is (RFC 9207)."""

    async def played(app: App) -> None:
        visitor = browser(app.made)
        begun = await approved(visitor, await visited(app, visitor), issuer="https://other.test")
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
        pushed = (await app.made.web.post("/oauth/par", data=app.browser_request())).json()["request_uri"]
        codes = (await app.made.web.post("/oauth/device_authorization", data=app.polled_request())).json()
        before, records = await app.made.world.events(), kept(app.made.broker)
        lured = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "no-cors", "sec-fetch-dest": dest}
        visitor = browser(app.made)
        for params in (app.browser_request(), {"client_id": APP, "request_uri": pushed}):
            answer = await visitor.get("/oauth/authorize", params=params, headers=lured)
            assert (answer.status_code, "set-cookie" in answer.headers) == (403, False)
        for path in (codes["verification_uri_complete"], "/oauth/callback?state=x&code=y", "/approvals/apr_1"):
            assert (await visitor.get(path, headers=lured)).status_code == 403
        for _ in range(120):  # also as often as a window is opened
            assert (await browser(app.made).get("/oauth/authorize", params=app.browser_request())).status_code == 200
        assert (await app.made.world.events(), kept(app.made.broker)) == (before, records)
        assert answer_of(await decide(visitor, app.issuer, await visited(app, visitor)))["code"]
        assert (await app.made.web.post("/oauth/device_authorization", data=app.polled_request())).status_code == 200

    scene(tmp_path, played)


@pytest.mark.attack("OAU-10")
def test_what_is_wrong_with_a_request_leaves_no_entry_either(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        before = await app.made.world.events()
        for wrong in ({"purpose": "x" * 2_001}, {"ttl": "0"}, {"prompt": "none"}, {"authorization_details": "[]"}):
            assert "error=" in (await visited(app, browser(app.made), **wrong)).headers["location"]
        assert await app.made.world.events() == before

    scene(tmp_path, played)


@pytest.mark.attack("OAU-10")
def test_it_is_on_record_once_the_human_goes_on(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        page = await visited(app, visitor)
        foreign = {"origin": "https://evil.test"}
        form = {**form_of(page), "decision": "approve"}
        assert (await visitor.post("/oauth/consent", data=form, headers=foreign)).status_code == 403
        assert kept(app.made.broker) == []
        await approved(visitor, page)
        (item,) = kept(app.made.broker)
        assert (item.asker, item.verdict.value) == (APP, "pending")
        await press(visitor, await visited(app, visitor), "deny")
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
            codes = (await app.made.web.post("/oauth/device_authorization", data=app.polled_request())).json()

        async def opened(visitor: httpx.AsyncClient) -> httpx.Response:
            if asks == "grant":
                return await visitor.get(link)
            return await visitor.post("/oauth/device", data={"user_code": codes["user_code"]})

        human, late = browser(app.made), browser(app.made)
        away = await approved(human, await opened(human))
        stranger = browser(app.made)
        for _ in range(120):
            assert (await approved(stranger, await opened(stranger))).status_code == 200
            stranger.cookies.clear()
        back = await human.get(app.issuer.back(away))
        assert "You are logged in as" in back.text
        assert (
            "You are logged in as" in (await late.get(app.issuer.back(await approved(late, await opened(late))))).text
        )
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
            back = await other.get(app.issuer.back(await approved(other, await visited(app, other))))
            assert "You are logged in as" in back.text
            other.cookies.clear()
        app.issuer.sub = ALICE
        visitor = browser(app.made)
        assert answer_of(await decide(visitor, app.issuer, await visited(app, visitor)))["code"]

    scene(tmp_path, played)
