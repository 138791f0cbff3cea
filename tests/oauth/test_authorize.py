"""The authorization endpoint and pushed requests: what is taken, and to whom an error is told."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import urlencode

import httpx
import pytest

from remit import jose
from remit.broker import pending
from remit.core.principal import Workload
from remit.errors import UnauthenticatedError
from remit.oauth import authorize
from remit.oauth.registry import Registry
from remit.ports.identity import Registered
from tests.broker.asking import kept
from tests.broker.world import SEARCH, START
from tests.oauth.desk import ALICE, APP, PURPOSE, App, answer_of, browser, decide, followed, form_of, press, scene
from tests.oauth.plane import Agent, later

SPIFFE = "spiffe://corp.test/planner"
GATEWAY = "http://127.0.0.1:8471"


async def page(app: App, **more: str | None) -> httpx.Response:
    """Come to the authorization endpoint with a request."""
    return await browser(app.made).get("/oauth/authorize", params=app.asked(**more))


async def pushed(app: App, signer: Agent | None = None, /, **more: str | None) -> httpx.Response:
    """Push a request."""
    headers = {"dpop": app.proof("/oauth/par", signer)} if signer else {}
    return await app.made.web.post("/oauth/par", data=app.asked(**more), headers=headers)


# -- asking -----------------------------------------------------------------------------------------------------------


def test_the_human_sees_the_exact_request_and_the_client_gets_a_code(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        visitor = browser(app.made)
        shown = await visitor.get("/oauth/authorize", params=app.asked())
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
        sent = await page(app, redirect_uri="https://app.test/cb?tenant=7", prompt="none")
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
        answer = await page(app, **wrong)
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
        sent = await page(app, **wrong)
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
        sent = await page(app, **more)
        assert (answer_of(sent)["error"], "16384" in answer_of(sent)["error_description"]) == ("invalid_request", True)
        for answer in (
            await pushed(app, **more),
            await app.made.web.post("/oauth/device_authorization", data=app.wanted(**more)),
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
        query = urlencode([*app.asked().items(), (name, "x"), (name, "y")])
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
        query = urlencode([*app.asked(state="s" * 2_048).items(), (name, "x"), (name, "y")])
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
        query = urlencode([*app.asked(state="s" * 2_048).items(), *UNKNOWN.items(), *UNKNOWN.items()])
        answer = await browser(app.made).get(f"/oauth/authorize?{query}")
        assert answer.status_code == 200, answer.text
        assert (await pushed(app, **UNKNOWN)).status_code == 201

    scene(tmp_path, played)


def test_pages_are_not_for_sockets_of_runs(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        answer = await app.made.control.get("/oauth/authorize", params=app.asked())
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


# -- pushing ----------------------------------------------------------------------------------------------------------


def test_a_pushed_request_is_named_once_by_its_own_client(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        answer = await pushed(app)
        assert answer.status_code == 201
        name = {"client_id": APP, "request_uri": answer.json()["request_uri"]}
        assert answer.json()["expires_in"] == 60
        stolen = await browser(app.made).get("/oauth/authorize", params={**name, "client_id": "tv"})
        assert stolen.status_code == 400
        again = {**name, "request_uri": (await pushed(app)).json()["request_uri"]}
        visitor = browser(app.made)
        last = await decide(visitor, app.issuer, await visitor.get("/oauth/authorize", params=again))
        assert (await app.redeem(answer_of(last)["code"])).status_code == 200
        assert (await browser(app.made).get("/oauth/authorize", params=again)).status_code == 400

    scene(tmp_path, played)


@pytest.mark.attack("OAU-11")
def test_a_pushed_request_is_used_up_by_its_own_human_alone(tmp_path: Path) -> None:
    """Neither by whoever found its name and says another client's, nor by a look at it."""

    async def played(app: App) -> None:
        name = {"client_id": APP, "request_uri": (await pushed(app)).json()["request_uri"]}
        visitor = browser(app.made)
        for other in ("tv", "nobody", "", None):
            asked = {**name, "client_id": other} if other is not None else {"request_uri": name["request_uri"]}
            assert (await visitor.get("/oauth/authorize", params=asked)).status_code == 400
        first, second = [await visitor.get("/oauth/authorize", params=name) for _ in range(2)]
        assert answer_of(await decide(visitor, app.issuer, first))["code"]
        again = await press(visitor, second)
        assert (again.status_code, "used before" in again.text) == (400, True)
        assert len(kept(app.made.broker)) == 1

    scene(tmp_path, played)


@pytest.mark.attack("OAU-11")
@pytest.mark.parametrize("name", ["tv", APP])
def test_strangers_who_push_keep_no_client_from_pushing(tmp_path: Path, name: str) -> None:
    """Under the name of another, or its own: then the newest counts, and its human opens it before so many others."""
    registry = Registry(
        [Registered(APP, "ConsentPage", ("http://127.0.0.1/cb",)), Registered("tv", "TV", ("https://tv.test/",))]
    )
    redirect = {"tv": "https://tv.test/"}.get(name, "http://127.0.0.1/cb")

    async def played(app: App) -> None:
        wide = json.dumps([{**SEARCH, "paths": [f"/v1/{'x' * 200}{number:02}" for number in range(70)]}])
        stranger = App(app.made, app.issuer, client_id=name, redirect=redirect)
        earlier = (await pushed(app)).json()["request_uri"]
        for number in range(200):
            answer = await pushed(stranger, authorization_details=wide, purpose=f"number {number}")
            assert answer.status_code == 201
        uri = earlier if name == "tv" else (await pushed(app)).json()["request_uri"]
        visitor = browser(app.made)
        page = await visitor.get("/oauth/authorize", params={"client_id": APP, "request_uri": uri})
        assert answer_of(await decide(visitor, app.issuer, page))["code"]

    scene(tmp_path, played, registry=registry)


@pytest.mark.attack("OAU-11")
def test_a_host_that_publishes_many_clients_has_the_room_of_one(tmp_path: Path) -> None:
    async def fetch(asked: str) -> bytes:
        return json.dumps({"client_id": asked, "redirect_uris": ["https://app.test/cb"]}).encode()

    async def played(app: App) -> None:
        uris = []
        for number in range(authorize.MAX_PUSHED + 1):
            stranger = App(app.made, app.issuer, client_id=f"https://bad.test/{number}", redirect="https://app.test/cb")
            uris.append((stranger.client_id, (await pushed(stranger)).json()["request_uri"]))
        visitor = browser(app.made)
        pages = [
            await visitor.get("/oauth/authorize", params={"client_id": name, "request_uri": uri})
            for name, uri in (uris[0], uris[1], uris[-1])
        ]
        assert [page.status_code for page in pages] == [400, 200, 200]

    scene(tmp_path, played, registry=Registry((), fetch, lambda: START))


def test_a_pushed_request_lives_a_minute(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        name = (await pushed(app)).json()["request_uri"]
        later(app.made, 60)
        answer = await browser(app.made).get("/oauth/authorize", params={"client_id": APP, "request_uri": name})
        assert answer.status_code == 400

    scene(tmp_path, played)


@pytest.mark.parametrize("name", ["urn:ietf:params:oauth:request_uri:guess", "https://evil.test/request", "x"])
def test_a_request_uri_of_ones_own_is_refused(tmp_path: Path, name: str) -> None:
    async def played(app: App) -> None:
        answer = await browser(app.made).get("/oauth/authorize", params={"client_id": APP, "request_uri": name})
        assert answer.status_code == 400
        assert (await pushed(app, request_uri=name)).json()["error"] == "invalid_request"

    scene(tmp_path, played)


@pytest.mark.parametrize(
    ("wrong", "error", "status"),
    [
        ({"client_id": "nobody"}, "invalid_request", 400),
        ({"redirect_uri": "https://evil.test/cb"}, "invalid_request", 400),
        ({"scope": "openid"}, "invalid_scope", 400),
        ({"code_challenge": None}, "invalid_request", 400),
        ({"resource": "https://elsewhere.test"}, "invalid_target", 400),
        ({"client_assertion": "x"}, "invalid_request", 400),
    ],
)
def test_what_is_wrong_is_told_when_it_is_pushed(
    tmp_path: Path, wrong: dict[str, str | None], error: str, status: int
) -> None:
    async def played(app: App) -> None:
        answer = await pushed(app, **wrong)
        assert (answer.status_code, answer.json()["error"]) == (status, error)

    scene(tmp_path, played)


# -- keys and audiences -----------------------------------------------------------------------------------------------


def test_the_key_of_a_push_is_the_only_one_that_redeems(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        name = (await pushed(app, app.agent)).json()["request_uri"]
        visitor = browser(app.made)
        shown = await visitor.get("/oauth/authorize", params={"client_id": APP, "request_uri": name})
        assert app.agent.signer.kid in shown.text
        code = answer_of(await decide(visitor, app.issuer, shown))["code"]
        refused = await app.redeem(code, Agent())
        assert refused.json()["error"] == "invalid_dpop_proof"

    scene(tmp_path, played)


def test_a_push_by_another_key_than_it_names_is_refused(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        named = Agent().signer.kid
        assert (await pushed(app, app.agent, dpop_jkt=named)).json()["error"] == "invalid_request"
        own = await pushed(app, app.agent, dpop_jkt=app.agent.signer.kid)
        assert own.status_code == 201

    scene(tmp_path, played)


def test_a_proof_that_lacks_a_nonce_is_asked_for_one(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        proof = app.agent.proof("POST", f"{app.made.base}/oauth/par", app.made.world.now, "stale", None)
        answer = await app.made.web.post("/oauth/par", data=app.asked(), headers={"dpop": proof})
        assert (answer.status_code, answer.json()["error"]) == (400, "use_dpop_nonce")
        assert answer.headers["dpop-nonce"]

    scene(tmp_path, played)


def test_a_token_is_for_the_audience_that_was_asked_for_and_no_other(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        assert f"<dd>{GATEWAY}</dd>" in (await page(app, resource=GATEWAY)).text
        code = await app.code(resource=GATEWAY)
        wider = await app.redeem(code, resource=app.made.base)
        assert wider.json()["error"] == "invalid_target"
        code = await app.code(resource=GATEWAY)
        told = (await app.redeem(code)).json()
        assert app.made.verifier.signed(told["access_token"]).all["aud"] == GATEWAY

    scene(tmp_path, played, gateway=GATEWAY)


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
        sent = await page(stranger, **wrong)
        assert sent.status_code == 400
        assert "location" not in sent.headers
        assert "phish.test" not in sent.text
        visitor = browser(app.made)
        shown = await visitor.get("/oauth/authorize", params=stranger.asked())
        begun = await press(visitor, shown)
        failed = await visitor.get(app.issuer.back(begun).replace("of-the-issuer", "wrong"))
        assert failed.status_code == 400
        assert "phish.test" not in failed.text
        assert answer_of(
            await decide(visitor, app.issuer, await visitor.get("/oauth/authorize", params=stranger.asked()))
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
        shown = await page(app)
        assert "calls itself “Nice &lt;b&gt;App&lt;/b&gt;” asks for access" in shown.text
        assert "all that is known is that app.test publishes it" in shown.text
        assert form_of(shown).keys() == {"visit", "csrf"}
        known = (await app.made.web.get("/.well-known/oauth-authorization-server")).json()
        assert known["client_id_metadata_document_supported"] is True

    scene(tmp_path, played, registry=Registry((), fetch, lambda: START))
