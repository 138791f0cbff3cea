"""Pushed requests (RFC 9126): who uses them up, what room they take, and the key and audience of what follows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remit.oauth import authorization_requests
from remit.oauth.clients import Registry
from remit.ports.identity import Registered
from tests.broker.asking import kept
from tests.broker.world import SEARCH, START
from tests.oauth.consent_driver import (
    APP,
    App,
    answer_of,
    authorization_page,
    browser,
    decide,
    press,
    pushed,
    scene,
)
from tests.oauth.plane import Agent, later

SPIFFE = "spiffe://corp.test/planner"
GATEWAY = "http://127.0.0.1:8471"


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
        for number in range(authorization_requests.MAX_PUSHED + 1):
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
        ({"client_id": "nobody"}, "invalid_client", 401),
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
        answer = await app.made.web.post("/oauth/par", data=app.browser_request(), headers={"dpop": proof})
        assert (answer.status_code, answer.json()["error"]) == (400, "use_dpop_nonce")
        assert answer.headers["dpop-nonce"]

    scene(tmp_path, played)


def test_a_token_is_for_the_audience_that_was_asked_for_and_no_other(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        assert f"<dd>{GATEWAY}</dd>" in (await authorization_page(app, resource=GATEWAY)).text
        code = await app.code(resource=GATEWAY)
        wider = await app.redeem(code, resource=app.made.base)
        assert wider.json()["error"] == "invalid_target"
        code = await app.code(resource=GATEWAY)
        told = (await app.redeem(code)).json()
        assert app.made.verifier.signed(told["access_token"]).all["aud"] == GATEWAY

    scene(tmp_path, played, gateway=GATEWAY)
