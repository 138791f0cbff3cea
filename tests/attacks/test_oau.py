"""Class OAU: the flows in which a human decides, and what can be got from them by who should get nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from remit import jose
from remit.errors import InvalidRequestError, RemitError
from remit.oauth import clients
from remit.oauth.clients import Registry
from remit.ports.identity import Registered
from remit.sdk.login import ClientRegistration, OpenIDClient
from remit.web.wire import check_login_page
from tests.broker.asking import kept
from tests.broker.world import SEARCH, TABLE
from tests.oauth.consent_driver import (
    ALICE,
    BOB,
    DEVICE,
    PURPOSE,
    REDIRECT,
    App,
    answer_of,
    browser,
    decide,
    form_of,
    press,
    scene,
)
from tests.oauth.plane import ACCESS_TOKEN, EXCHANGE, Agent, later
from tests.sdk.issuer import URL, FakeIssuer

GATEWAY = "http://127.0.0.1:8471"


# -- OAU-01 -----------------------------------------------------------------------------------------------------------


@pytest.mark.attack("OAU-01")
@pytest.mark.parametrize("name", ["resource", "audience"])
@pytest.mark.parametrize(
    "target",
    [
        "https://other.test",
        "",
        f"{GATEWAY}//",
        f"{GATEWAY}/Admin",
        "http://127.0.0.1:8471@other.test",
        "HTTP://127.0.0.1:8471",
        "*",
    ],
)
def test_no_exchange_makes_a_token_for_somebody_else(tmp_path: Path, name: str, target: str) -> None:
    async def played(app: App) -> None:
        told = (await app.redeem(await app.code())).json()
        exchange = {
            "grant_type": EXCHANGE,
            "subject_token": told["access_token"],
            "subject_token_type": ACCESS_TOKEN,
            "client_id": None,
        }
        answers = [
            await app.token(**exchange, **{name: target}),
            await app.redeem(await app.code(), **{name: target}),
            await app.token(grant_type="refresh_token", refresh_token=told["refresh_token"], **{name: target}),
            await app.made.web.post("/oauth/par", data=app.browser_request(**{name: target})),
            await app.made.web.post("/oauth/device_authorization", data=app.polled_request(**{name: target})),
            await app.afar(**{name: target}),
        ]
        assert {answer.json().get("error") for answer in answers} == {"invalid_target"}

    scene(tmp_path, played, gateway=GATEWAY)


@pytest.mark.attack("OAU-01")
def test_two_audiences_are_none(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await app.redeem(await app.code())).json()
        both = f"&resource={app.made.base}&resource={GATEWAY}"
        form = httpx.QueryParams(
            {"grant_type": EXCHANGE, "subject_token": told["access_token"], "subject_token_type": ACCESS_TOKEN}
        )
        answer = await app.made.web.post(
            "/oauth/token",
            content=f"{form}{both}",
            headers={"content-type": "application/x-www-form-urlencoded", "dpop": app.proof("/oauth/token")},
        )
        assert answer.json()["error"] == "invalid_target"

    scene(tmp_path, played, gateway=GATEWAY)


# -- OAU-02 -----------------------------------------------------------------------------------------------------------


@pytest.mark.attack("OAU-02")
def test_another_humans_token_is_as_unknown_as_no_token(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        hers = (await app.redeem(await app.code())).json()
        app.issuer.sub, eve = BOB, Agent()
        his = (await app.redeem(await app.code(), eve)).json()
        eve.token = his["access_token"]
        own = await app.made.call(eve, "POST", "/oauth/introspect", data={"token": his["access_token"]})
        assert own.json()["sub"] == BOB
        for token in (hers["access_token"], hers["refresh_token"], hers["grant"], hers["task"], "x", "apr_0"):
            answer = await app.made.call(eve, "POST", "/oauth/introspect", data={"token": token})
            assert answer.json() == {"active": False}
        for path in (f"/v1/tasks/{hers['task']}", "/v1/tasks/task_nobody", "/v1/approvals/apr_0", "/v1/approvals/x"):
            assert (await app.made.call(eve, "GET", path)).status_code == 404
        assert (await app.made.call(eve, "POST", "/oauth/revoke", data={"token": hers["refresh_token"]})).json() == {}
        app.agent.token = hers["access_token"]
        assert (await app.made.call(app.agent, "GET", "/v1/self")).status_code == 200

    scene(tmp_path, played)


# -- OAU-03 -----------------------------------------------------------------------------------------------------------


@pytest.mark.attack("OAU-03")
def test_the_victim_of_a_captured_link_sees_a_consent_of_their_own(tmp_path: Path) -> None:
    """Every request is shown and decided on, whatever was approved before: there is no cookie that says yes."""

    async def played(app: App) -> None:
        alice = browser(app.made)
        assert answer_of(
            await decide(alice, app.issuer, await alice.get("/oauth/authorize", params=app.browser_request()))
        )
        attacker = App(app.made, app.issuer, client_id="mallory", redirect="https://mallory.test/cb")
        page = await alice.get("/oauth/authorize", params=attacker.browser_request(purpose="steal"))
        assert page.status_code == 200
        for text in ("calls itself “Mallory” asks for access", "steal", "mallory.test"):
            assert text in page.text
        assert "location" not in page.headers

    known = [
        Registered("browser-app", "ConsentPage App", (REDIRECT,)),
        Registered("mallory", "Mallory", ("https://mallory.test/cb",)),
    ]
    scene(tmp_path, played, registry=Registry(known))


@pytest.mark.attack("OAU-03")
def test_a_login_that_the_attacker_began_ends_nothing_in_the_victims_browser(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        attacker, alice = browser(app.made), browser(app.made)
        page = await attacker.get("/oauth/authorize", params=app.browser_request())
        sent = await attacker.post("/oauth/consent", data={**form_of(page), "decision": "approve"})
        captured = app.issuer.back(sent)  # Alice, who is logged in at her issuer, would be sent right back here
        for query in (captured, captured + "&iss=x"):
            answer = await alice.get(query)
            assert answer.status_code == 400
            assert "location" not in answer.headers
        assert [item.verdict.value for item in kept(app.made.broker)] == ["pending"]

    scene(tmp_path, played)


@pytest.mark.attack("OAU-03")
def test_a_cookie_of_one_request_is_worth_nothing_for_another(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        attacker, alice = browser(app.made), browser(app.made)
        await alice.get("/oauth/authorize", params=app.browser_request())
        page = await attacker.get("/oauth/authorize", params=app.browser_request(purpose="steal"))
        forged = form_of(page)
        name = page.headers["set-cookie"].partition("=")[0]
        alice.cookies.set(name, next(iter(alice.cookies.values())))
        answer = await alice.post("/oauth/consent", data={**forged, "decision": "approve"})
        assert answer.status_code == 400
        assert app.issuer.begun == []

    scene(tmp_path, played)


@pytest.mark.attack("OAU-03")
def test_a_cookie_put_into_the_victims_browser_has_nobody_approve_unseen(tmp_path: Path) -> None:
    """Cookies have no port: a page of another program on this host sets the attacker's, and goes on where he was."""

    async def played(app: App) -> None:
        attacker, alice = browser(app.made), browser(app.made)
        codes = (await attacker.post("/oauth/device_authorization", data=app.polled_request())).json()
        page = await attacker.post("/oauth/device", data={"user_code": codes["user_code"]})
        sent = await press(attacker, page)
        name, value = sent.headers.get_list("set-cookie")[-1].partition(";")[0].split("=", 1)
        alice.cookies.set(name, value)
        last = await alice.get(app.issuer.back(sent))  # her session at the issuer lets her right through
        assert f"You are logged in as {ALICE}" in last.text
        assert PURPOSE in last.text
        (item,) = kept(app.made.broker)
        assert item.verdict.value == "pending"
        old, made = form_of(page), form_of(last)
        for who in (attacker, alice):
            for form in (old, {**made, "csrf": old["csrf"]}, {**old, "csrf": made["csrf"]}):
                answer = await who.post("/oauth/consent", data={**form, "decision": "approve"})
                assert answer.status_code == 400
        attacker.cookies.update(alice.cookies)  # a program at another port is sent them
        assert (await press(attacker, page)).status_code == 400
        polled = await app.token(grant_type=DEVICE, device_code=codes["device_code"])
        assert polled.json()["error"] == "authorization_pending"

    scene(tmp_path, played)


# -- OAU-04 -----------------------------------------------------------------------------------------------------------

REGISTERED = ("http://127.0.0.1/cb", "https://app.test/cb", "http://localhost:7777/cb")


@pytest.mark.attack("OAU-04")
@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1/cb/more",
        "http://127.0.0.1/cb/",
        "http://127.0.0.1/CB",
        "http://127.0.0.1/cb/..%2fevil",
        "http://127.0.0.1/%63b",
        "http://127.0.0.1/cb?x=1",
        "http://127.0.0.1/cb#x",
        "http://127.0.0.1/cb@evil.test",
        "http://127.0.0.1@evil.test/cb",
        "http://evil.test@127.0.0.1/cb",
        "http://127.0.0.1:80@evil.test/cb",
        "http://127.0.0.1:/cb",
        "http://127.0.0.1:0/cb",
        "http://127.0.0.1:70000/cb",
        "http://127.0.0.1:8 /cb",
        "http://127.0.0.1.evil.test/cb",
        "http://127.1/cb",
        "http://2130706433/cb",
        "http://0x7f.1/cb",
        "http://[::1]/cb",
        "http://localhost/cb",
        "https://127.0.0.1/cb",
        "HTTP://127.0.0.1/cb",
        "http://localhost:7778/cb",
        "https://app.test:443/cb",
        "https://app.test:8443/cb",
        "https://App.test/cb",
        "https://app.test./cb",
        "https://%61pp.test/cb",
        "https://x.app.test/cb",
        "https://app.test/cb%00",
        "https://app.test/cb ",
        "//app.test/cb",
        "/cb",
        "javascript:alert(1)",
        "",
    ],
)
def test_a_redirect_uri_that_is_nearly_registered_gets_nothing(tmp_path: Path, uri: str) -> None:
    async def played(app: App) -> None:
        for answer in (
            await browser(app.made).get("/oauth/authorize", params=app.browser_request(redirect_uri=uri)),
            await app.made.web.post("/oauth/par", data=app.browser_request(redirect_uri=uri)),
        ):
            assert answer.status_code == 400
            assert "location" not in answer.headers
        assert kept(app.made.broker) == []

    scene(tmp_path, played, registry=Registry([Registered("browser-app", "ConsentPage App", REGISTERED)]))


@pytest.mark.attack("OAU-04")
@pytest.mark.parametrize("uri", [*REGISTERED, "http://127.0.0.1:1/cb", "http://127.0.0.1:65535/cb"])
def test_what_is_registered_is_taken_at_any_loopback_port(uri: str) -> None:
    assert clients.is_registered(Registered("app", "App", REGISTERED), uri)


@pytest.mark.attack("OAU-04")
def test_a_code_is_redeemed_with_the_redirect_uri_it_was_sent_to(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        for uri in ("http://127.0.0.1:8124/cb", "http://127.0.0.1/cb", None):
            answer = await app.token(**{**app.redeeming(await app.code()), "redirect_uri": uri})
            assert answer.json()["error"] == "invalid_grant"
        assert list(app.made.broker._tasks) == []

    scene(tmp_path, played)


# -- OAU-05 -----------------------------------------------------------------------------------------------------------


@pytest.mark.attack("OAU-05")
@pytest.mark.parametrize(
    "verifier", [None, "", "plain", "challenge", "w" * 43, "w" * 42, "w" * 129, "\u00e9" * 43, "v erifier" * 6]
)
def test_a_code_without_its_verifier_is_worth_nothing(tmp_path: Path, verifier: str | None) -> None:
    async def played(app: App) -> None:
        named = {"challenge": jose.digest(app.verifier), "plain": app.verifier[:-1]}
        form = {**app.redeeming(await app.code()), "code_verifier": named.get(verifier or "", verifier)}
        assert (await app.token(**form)).json()["error"] == "invalid_grant"
        assert list(app.made.broker._tasks) == []
        again = await app.token(**app.redeeming(str(form["code"])))  # nor is it used up by who merely found it
        assert again.status_code == 200

    scene(tmp_path, played)


@pytest.mark.attack("OAU-05")
@pytest.mark.parametrize(
    "downgrade",
    [
        {"code_challenge": None},
        {"code_challenge": None, "code_challenge_method": None},
        {"code_challenge_method": "plain"},
        {"code_challenge_method": None},
        {"code_challenge_method": "s256"},
    ],
)
def test_no_flow_begins_without_a_challenge(tmp_path: Path, downgrade: dict[str, str | None]) -> None:
    async def played(app: App) -> None:
        sent = await browser(app.made).get("/oauth/authorize", params=app.browser_request(**downgrade))
        assert answer_of(sent)["error"] == "invalid_request"
        pushed = await app.made.web.post("/oauth/par", data=app.browser_request(**downgrade))
        assert pushed.json()["error"] == "invalid_request"
        assert kept(app.made.broker) == []

    scene(tmp_path, played)


# -- OAU-07 -----------------------------------------------------------------------------------------------------------


async def more(app: App, child: Agent, purpose: str = PURPOSE) -> dict[str, str]:
    """Open a task of Alice's, and have its agent ask for a table it has not."""
    told = (await app.redeem(await app.code(depth="2", fan_out="2", purpose=purpose))).json()
    app.agent.token, app.agent.grant = told["access_token"], told["grant"]
    url = f"{app.made.base}/v1/approvals"
    proof = child.proof("POST", url, app.made.world.now, app.made.verifier.nonce(), app.agent.token)
    body = {"parent": told["grant"], "authorization_details": [TABLE], "ttl": 60}
    body |= {"req_cnf": {"jwk": child.jwk}, "req_cnf_proof": proof}
    answer = await app.made.call(app.agent, "POST", "/v1/approvals", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def approved(app: App, child: Agent) -> dict[str, str]:
    """Have Alice approve of it in her browser."""
    item, visitor = await more(app, child), browser(app.made)
    page = await visitor.get(f"/approvals/{item['approval']}")
    assert "Approved" in (await decide(visitor, app.issuer, page)).text
    return item


@pytest.mark.attack("OAU-07")
@pytest.mark.parametrize(
    "swap",
    [
        {"authorization_details": json.dumps([{**TABLE, "tables": ["sales.revenue", "hr.salaries"]}])},
        {"authorization_details": json.dumps([TABLE, SEARCH])},
        {"ttl": "61"},
        {"depth": "1"},
        {"label": "another"},
    ],
)
def test_an_approval_is_for_what_was_shown_alone(tmp_path: Path, swap: dict[str, str]) -> None:
    async def played(app: App) -> None:
        child = Agent()
        item = await approved(app, child)
        right = {"authorization_details": json.dumps([TABLE]), "ttl": "60", "approval": item["approval"]}
        answer = await app.made.exchange(app.agent, app.made.delegation(app.agent, child, **{**right, **swap}))
        assert answer.status_code == 400
        other = await app.made.exchange(app.agent, app.made.delegation(app.agent, Agent(), **right))
        assert other.status_code == 400  # another key than the one that was shown
        assert (await app.made.exchange(app.agent, app.made.delegation(app.agent, child, **right))).status_code == 200
        again = await app.made.exchange(app.agent, app.made.delegation(app.agent, child, **right))
        assert (again.json()["error"], again.json()["code"]) == ("invalid_request", "used")

    scene(tmp_path, played)


def digest_of(app: App, item: dict[str, str]) -> str:
    """Return what only who decides is told."""
    return app.made.broker._approvals.get(item["approval"]).digest


@pytest.mark.attack("OAU-07")
def test_nobody_but_the_named_human_approves_and_only_once(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        item = await more(app, Agent())
        uri, visitor = f"/approvals/{item['approval']}", browser(app.made)
        app.issuer.sub = BOB
        assert (await decide(visitor, app.issuer, await visitor.get(uri))).status_code == 404
        by_agent = await app.made.call(app.agent, "POST", f"/v1{uri}/approve", json={"digest": digest_of(app, item)})
        assert by_agent.status_code == 403
        assert app.made.broker._approvals.get(item["approval"]).verdict.value == "pending"
        app.issuer.sub = ALICE
        first, second = await visitor.get(uri), await visitor.get(uri)
        assert "Approved" in (await decide(visitor, app.issuer, first)).text
        assert (await decide(visitor, app.issuer, second)).status_code == 409

    scene(tmp_path, played)


@pytest.mark.attack("OAU-07")
def test_a_login_for_one_request_decides_on_no_other(tmp_path: Path) -> None:
    """The login's nonce is the digest of one request, so that its ID token is no use for another."""

    async def played(app: App) -> None:
        first, second = await more(app, Agent()), await more(app, Agent(), "another task")
        app.issuer.sub = ALICE
        human = app.issuer.human(digest_of(app, first))

        async def replayed(token: str, *, nonce: str | None = None) -> object:
            assert (token, bool(nonce)) == ("of-alice", True)
            return human

        app.issuer.id_token = replayed  # type: ignore[method-assign, assignment] # what an agent got hold of
        for item, status in ((second, 403), (first, 200), (first, 409)):
            body = {"digest": digest_of(app, item), "id_token": "of-alice"}
            path = f"/v1/approvals/{item['approval']}/approve"
            assert (await app.made.web.post(path, json=body)).status_code == status

    scene(tmp_path, played)


@pytest.mark.attack("OAU-07")
def test_a_device_code_opens_one_task_for_what_was_shown(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        codes = (await app.made.web.post("/oauth/device_authorization", data=app.polled_request())).json()
        visitor = browser(app.made)
        shown = await visitor.post("/oauth/device", data={"user_code": codes["user_code"]})
        await decide(visitor, app.issuer, shown)
        form: dict[str, str | None] = {"grant_type": DEVICE, "device_code": codes["device_code"]}
        wider = await app.token(**form, authorization_details=json.dumps([TABLE]))
        assert wider.json()["error"] == "invalid_request"
        later(app.made, 5)
        assert (await app.token(**form)).json()["authorization_details"] == [SEARCH]
        later(app.made, 5)
        assert (await app.token(**form)).json()["error"] == "invalid_grant"
        assert len(list(app.made.broker._tasks)) == 1

    scene(tmp_path, played)


# -- RED-05 -----------------------------------------------------------------------------------------------------------

HOSTILE = (
    "file:///etc/passwd",
    "javascript:alert(1)",
    "--new-window=x",
    "-x",
    "$(touch pwned)",
    "http://idp.test/a",
    "",
)


def _visiting(url: str) -> None:
    pytest.fail(f"a browser was sent to {url}")


@pytest.mark.attack("RED-05")
@pytest.mark.parametrize("endpoint", HOSTILE)
def test_a_terminal_opens_no_browser_for_what_is_no_login_page(endpoint: str) -> None:
    there = OpenIDClient(
        ClientRegistration(URL, "remit"), FakeIssuer(metadata={"authorization_endpoint": endpoint}).transport
    )
    with closing(there), pytest.raises(RemitError):
        there.browser(_visiting)


@pytest.mark.attack("RED-05")
@pytest.mark.parametrize("endpoint", HOSTILE)
def test_the_broker_sends_no_browser_to_what_is_no_login_page(endpoint: str) -> None:
    with pytest.raises(InvalidRequestError):
        check_login_page(endpoint)


@pytest.mark.attack("RED-05")
def test_a_browser_gets_the_url_as_one_argument_and_no_shell_sees_it(tmp_path: Path) -> None:
    record = tmp_path / "argv"
    browser_ = tmp_path / "browser"
    browser_.write_text(
        f"#!{sys.executable}\nimport json,sys\nopen({str(record)!r}, 'w').write(json.dumps(sys.argv[1:]))\n"
    )
    browser_.chmod(0o700)
    url = "https://idp.test/auth?x=$(touch${IFS}pwned);`touch${IFS}pwned`&y=%s|touch&z='\""
    code = "import sys; from remit.cli.login import visit; visit(sys.argv[1])"
    environ = {**os.environ, "BROWSER": f"{browser_} %s"}
    done = subprocess.run([sys.executable, "-c", code, url], cwd=tmp_path, env=environ, capture_output=True, check=True)
    assert json.loads(record.read_text()) == [url]
    assert not (tmp_path / "pwned").exists()
    assert b"Traceback" not in done.stderr
