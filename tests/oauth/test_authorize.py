"""The authorization endpoint: what is taken, and to whom an error is told."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlencode

import pytest

from remit import jose
from remit.broker import pending
from remit.core.principal import Workload
from remit.errors import UnauthenticatedError
from remit.oauth.clients import Registry
from remit.ports.identity import Registered
from tests.broker.asking import kept
from tests.broker.world import SEARCH, START
from tests.oauth.consent_driver import (
    ALICE,
    APP,
    PURPOSE,
    App,
    answer_of,
    authorization_page,
    browser,
    decide,
    followed,
    form_of,
    press,
    pushed,
    scene,
)
from tests.oauth.plane import Agent

SPIFFE = "spiffe://corp.test/planner"
GATEWAY = "http://127.0.0.1:8471"


# -- asking -----------------------------------------------------------------------------------------------------------


def test_the_human_sees_the_exact_request_and_the_client_gets_a_code(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        shown = await visitor.get("/oauth/authorize", params=app.browser_request())
        assert shown.status_code == 200
        for text in (
            "A program that calls itself “ConsentPage App” asks for access",
            PURPOSE,
            "/v1/**",
            "a program on this computer (127.0.0.1:8123)",
        ):
            assert text in shown.text
        last = await decide(visitor, app.issuer, shown)
        answer = answer_of(last)
        assert followed(last).startswith(f"{app.redirect}?")
        assert (answer["state"], answer["iss"]) == ("s-t-a-t-e", app.made.base)
        (begun,) = app.issuer.begun
        (asked,) = kept(app.made.broker)
        assert begun.nonce == jose.digest(f"{asked.digest}\n{begun.state}")
        told = (await app.redeem(answer["code"])).json()
        assert told["authorization_details"] == [SEARCH]
        assert app.made.broker._tasks.task_of(told["grant"]).head.subject.sub == ALICE

    scene(tmp_path, played)


def test_a_redirect_uri_with_a_query_keeps_it(tmp_path: Path) -> None:
    registry = Registry([Registered(APP, "ConsentPage App", ("https://app.test/cb?tenant=7",))])

    async def played(app: App) -> None:
        sent = await authorization_page(app, redirect_uri="https://app.test/cb?tenant=7", prompt="none")
        assert sent.headers["location"].startswith("https://app.test/cb?tenant=7&error=interaction_required&")

    scene(tmp_path, played, registry=registry)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"client_id": "nobody"}, "not known"),
        ({"client_id": None}, "client_id"),
        ({"redirect_uri": "https://evil.test/cb"}, "not one of this client"),
        ({"redirect_uri": None}, "redirect_uri"),
        ({"state": "a" * 2_049}, "state"),
        ({"state": "line\nbreak"}, "state"),
    ],
)
def test_who_cannot_be_told_apart_is_told_nothing(tmp_path: Path, wrong: dict[str, str | None], said: str) -> None:
    async def played(app: App) -> None:
        answer = await authorization_page(app, **wrong)
        assert answer.status_code == 400
        assert "location" not in answer.headers
        assert said in answer.text
        assert kept(app.made.broker) == []

    scene(tmp_path, played)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": None}, "unsupported_response_type"),
        ({"response_mode": "fragment"}, "invalid_request"),
        ({"scope": "openid"}, "invalid_scope"),
        ({"request": "eyJ"}, "request_not_supported"),
        ({"prompt": "none"}, "interaction_required"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"purpose": None}, "invalid_request"),
        ({"authorization_details": None}, "invalid_request"),
        ({"authorization_details": '[{"type": "odd"}]'}, "invalid_authorization_details"),
        ({"ttl": "99999999"}, "invalid_request"),
        ({"resource": "https://elsewhere.test"}, "invalid_target"),
        ({"dpop_jkt": "x"}, "invalid_request"),
    ],
)
def test_a_client_that_is_known_is_told_its_error(tmp_path: Path, wrong: dict[str, str | None], error: str) -> None:
    async def played(app: App) -> None:
        sent = await authorization_page(app, **wrong)
        assert sent.status_code == 303
        answer = answer_of(sent)
        assert (answer["error"], answer["state"], answer["iss"]) == (error, "s-t-a-t-e", app.made.base)
        assert "code" not in answer

    scene(tmp_path, played)


def test_no_more_is_asked_for_than_a_token_could_name(tmp_path: Path) -> None:
    """What is too large for headers would be approved in vain: the token that follows could not be used."""
    wide = {**SEARCH, "paths": [f"/v1/{'x' * 200}{number}" for number in range(90)]}

    async def played(app: App) -> None:
        more: dict[str, str | None] = {"authorization_details": json.dumps([wide])}
        opened = (await app.redeem(await app.code(depth="1", fan_out="1"))).json()
        app.agent.token, child = opened["access_token"], Agent()
        body = {"parent": opened["grant"], "authorization_details": [wide], "ttl": 60}
        proof = child.proof(
            "POST", f"{app.made.base}/v1/approvals", app.made.world.now, app.made.verifier.nonce(), app.agent.token
        )
        body |= {"req_cnf": {"jwk": child.jwk}, "req_cnf_proof": proof}
        waits = len(kept(app.made.broker))
        sent = await authorization_page(app, **more)
        assert (answer_of(sent)["error"], "16384" in answer_of(sent)["error_description"]) == ("invalid_request", True)
        for answer in (
            await pushed(app, **more),
            await app.made.web.post("/oauth/device_authorization", data=app.polled_request(**more)),
            await app.afar(**more),
            await app.made.call(app.agent, "POST", "/v1/approvals", json=body),
        ):
            assert answer.status_code == 413
            assert "16384" in answer.text
        assert len(kept(app.made.broker)) == waits

    scene(tmp_path, played)


def test_what_is_pushed_takes_only_so_much_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MAX_BYTES", 40_000)

    async def played(app: App) -> None:
        wide = json.dumps([{**SEARCH, "paths": [f"/v1/{'x' * 200}{number:02}" for number in range(70)]}])
        first = await pushed(app, authorization_details=wide)
        taken = [await pushed(app, authorization_details=wide) for _ in range(3)]
        assert [answer.status_code for answer in (first, *taken)] == [201, 201, 429, 429]
        assert taken[-1].headers["retry-after"] == "60"
        query = {"client_id": app.client_id, "request_uri": first.json()["request_uri"]}
        visitor = browser(app.made)
        last = await decide(visitor, app.issuer, await visitor.get("/oauth/authorize", params=query))
        told = (await app.redeem(answer_of(last)["code"])).json()
        assert told["authorization_details"] == json.loads(wide)
        assert (await pushed(app, authorization_details=wide)).status_code == 201

    scene(tmp_path, played)


@pytest.mark.parametrize("name", ["client_id", "redirect_uri"])
def test_a_client_or_redirect_uri_given_twice_is_refused_on_a_page(tmp_path: Path, name: str) -> None:
    async def played(app: App) -> None:
        query = urlencode([*app.browser_request().items(), (name, "x"), (name, "y")])
        answer = await browser(app.made).get(f"/oauth/authorize?{query}")
        assert (answer.status_code, answer.headers["content-type"]) == (400, "text/html; charset=utf-8")
        assert "location" not in answer.headers

    scene(tmp_path, played)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("resource", "invalid_target"),
        ("scope", "invalid_request"),
        ("purpose", "invalid_request"),
        ("Depth", "invalid_request"),
        ("fan-out", "invalid_request"),
        ("exercise", "invalid_request"),
    ],
)
def test_any_other_parameter_given_twice_and_a_limit_in_another_spelling_go_to_the_client(
    tmp_path: Path, name: str, error: str
) -> None:
    async def played(app: App) -> None:
        query = urlencode([*app.browser_request(state="s" * 2_048).items(), (name, "x"), (name, "y")])
        answer = await browser(app.made).get(f"/oauth/authorize?{query}")
        told = answer_of(answer)
        assert (told["error"], told["state"]) == (error, "s" * 2_048)
        assert kept(app.made.broker) == []

    scene(tmp_path, played)


UNKNOWN = {
    "foo": "bar",
    "claims": "{}",
    "acr_values": "x",
    "access_type": "offline",
    "id_token_hint": "a.b.c",
    "registration": "{}",
    "utm_source": "mail",
}


def test_what_is_not_known_is_ignored_once_and_twice(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        query = urlencode([*app.browser_request(state="s" * 2_048).items(), *UNKNOWN.items(), *UNKNOWN.items()])
        answer = await browser(app.made).get(f"/oauth/authorize?{query}")
        assert answer.status_code == 200, answer.text
        assert (await pushed(app, **UNKNOWN)).status_code == 201

    scene(tmp_path, played)


def test_pages_are_not_for_sockets_of_runs(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        answer = await app.made.control.get("/oauth/authorize", params=app.browser_request())
        assert answer.status_code == 404

    scene(tmp_path, played)


def test_without_an_issuer_of_humans_there_is_no_such_endpoint(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        for answer in (await app.made.web.get("/oauth/authorize"), await pushed(app)):
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        known = (await app.made.web.get("/.well-known/oauth-authorization-server")).json()
        assert known.keys().isdisjoint({"authorization_endpoint", "pushed_authorization_request_endpoint"})
        assert "authorization_code" not in known["grant_types_supported"]

    scene(tmp_path, played, logins=None)


@pytest.mark.parametrize(
    ("more", "anew"), [({}, False), ({"prompt": "login consent"}, True), ({"max_age": "3600"}, True)]
)
def test_a_client_may_want_its_human_to_log_in_again(tmp_path: Path, more: dict[str, str], *, anew: bool) -> None:
    async def played(app: App) -> None:
        assert await app.code(None, **more)
        assert [one.since is not None for one in app.issuer.begun] == [anew]

    scene(tmp_path, played)


# -- workloads --------------------------------------------------------------------------------------------------------


class Spire:
    """Lets in one workload, by its name."""

    async def assertion(self, token: str, kind: str) -> Workload:
        if token != SPIFFE:
            raise UnauthenticatedError(f"{kind} of somebody else")
        return Workload(SPIFFE, "jwt-svid", START.replace(year=2030), {"team": "sales"})

    async def certified(self, chain: object) -> Workload:
        raise UnauthenticatedError(str(chain))

    async def proven(self, wit: str, wpt: str, target: str, token: str | None) -> Workload:
        raise UnauthenticatedError(f"{wit}{wpt}{target}{token}")


SVID = {"client_assertion": SPIFFE, "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"}


def test_a_workload_asks_in_its_own_name_and_alone_redeems(tmp_path: Path) -> None:
    registry = Registry([Registered(SPIFFE, "Planner", ("http://127.0.0.1/cb",))])

    async def played(app: App) -> None:
        app.client_id = SPIFFE
        assert (await pushed(app)).json()["error"] == "invalid_client"
        answer = await pushed(app, **SVID)
        assert answer.status_code == 201, answer.text
        name = {"client_id": SPIFFE, "request_uri": answer.json()["request_uri"]}
        visitor = browser(app.made)
        shown = await visitor.get("/oauth/authorize", params=name)
        assert SPIFFE in shown.text
        code = answer_of(await decide(visitor, app.issuer, shown))["code"]
        assert (await app.redeem(code)).json()["error"] == "invalid_client"
        told = (await app.redeem(code, **SVID)).json()
        grant = app.made.broker._tasks.task_of(told["grant"]).grant(told["grant"])
        assert (grant.agent, grant.attested, dict(grant.binding.claims)) == (SPIFFE, True, {"team": "sales"})

    scene(tmp_path, played, registry=registry, workloads=Spire())


@pytest.mark.parametrize(
    "wrong", [{"response_type": "x"}, {"prompt": "none"}, {"scope": "openid"}, {"purpose": None}, {"ttl": "99999999"}]
)
def test_no_browser_is_sent_where_a_client_that_nobody_set_up_wants_it_before_its_human_logged_in(
    tmp_path: Path, wrong: dict[str, str | None]
) -> None:
    """RFC 9700 §4.11.2: else anybody's document makes an open redirector of this server."""
    url = "https://evil.test/app"

    async def fetch(asked: str) -> bytes:
        return json.dumps({"client_id": asked, "redirect_uris": ["https://phish.test/login"]}).encode()

    async def played(app: App) -> None:
        stranger = App(app.made, app.issuer, client_id=url, redirect="https://phish.test/login")
        sent = await authorization_page(stranger, **wrong)
        assert sent.status_code == 400
        assert "location" not in sent.headers
        assert "phish.test" not in sent.text
        visitor = browser(app.made)
        shown = await visitor.get("/oauth/authorize", params=stranger.browser_request())
        begun = await press(visitor, shown)
        failed = await visitor.get(app.issuer.back(begun).replace("of-the-issuer", "wrong"))
        assert failed.status_code == 400
        assert "phish.test" not in failed.text
        assert answer_of(
            await decide(visitor, app.issuer, await visitor.get("/oauth/authorize", params=stranger.browser_request()))
        )

    scene(tmp_path, played, registry=Registry((), fetch, lambda: START))


def test_the_page_of_a_published_client_says_who_publishes_it(tmp_path: Path) -> None:
    url = "https://app.test/client.json"

    async def fetch(asked: str) -> bytes:
        assert asked == url
        document = {"client_id": url, "client_name": "Nice <b>App</b>", "redirect_uris": ["https://app.test/cb"]}
        return json.dumps(document).encode()

    async def played(app: App) -> None:
        app.client_id, app.redirect = url, "https://app.test/cb"
        shown = await authorization_page(app)
        assert "calls itself “Nice &lt;b&gt;App&lt;/b&gt;” asks for access" in shown.text
        assert "all that is known is that app.test publishes it" in shown.text
        assert form_of(shown).keys() == {"visit", "csrf"}
        known = (await app.made.web.get("/.well-known/oauth-authorization-server")).json()
        assert known["client_id_metadata_document_supported"] is True

    scene(tmp_path, played, registry=Registry((), fetch, lambda: START))
