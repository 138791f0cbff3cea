"""`scope` as names for details that an operator wrote, at every endpoint that has it; endpoints of the gateway."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from remit.errors import AudienceError
from remit.web.scope_templates import ScopeTemplate
from tests.broker.world import SEARCH, TABLE, details
from tests.oauth.consent_driver import (
    DEVICE,
    App,
    authorization_page,
    browser,
    decide,
    pushed,
    scene,
    svid,
)
from tests.oauth.plane import Agent

GATEWAY = "http://127.0.0.1:8471"
FIND = ScopeTemplate("find", details(SEARCH), "find what is asked for", "Search the web", 900)
SALES = ScopeTemplate("sales", details(TABLE), "read the sales figures", clients=("spiffe://prod.test/**",))
OWN = ScopeTemplate("search", details(SEARCH), "use the search as its client sees fit")
SCOPES = {one.name: one for one in (FIND, SALES, OWN)}
ALONE = {"find": FIND, "sales": SALES}
NAMED: dict[str, str | None] = {"authorization_details": None, "purpose": None}


def _scene(tmp_path: Path, played: Any, scopes: dict[str, ScopeTemplate] = ALONE) -> None:
    scene(tmp_path, played, gateway=GATEWAY, scopes=scopes)


def test_a_client_that_knows_no_details_gets_those_of_a_name_and_is_told_the_name(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await app.redeem(await app.code(None, **NAMED, scope="find offline_access"))).json()
        assert (told["scope"], told["authorization_details"]) == ("find", [SEARCH])
        [task] = app.made.broker._tasks
        assert task.head.purpose == "find what is asked for"
        assert int(task.grants[task.head.root].bounds.ttl.total_seconds()) == 900  # type: ignore[union-attr]  # settled
        fresh = await app.token(grant_type="refresh_token", refresh_token=told["refresh_token"], scope="find")
        assert fresh.json()["scope"] == "find"
        other = {"grant_type": "refresh_token", "refresh_token": fresh.json()["refresh_token"]}
        assert (await app.token(**other, scope="sales")).json()["error"] == "invalid_scope"
        assert (await app.token(**other)).status_code == 200

    _scene(tmp_path, played)


def test_the_page_shows_the_details_that_a_name_stands_for_and_its_title(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        page = unescape((await authorization_page(app, **NAMED, scope="find")).text)
        for shown in ("find: Search the web", "/v1/**", "find what is asked for", '"paths"'):
            assert shown in page

    _scene(tmp_path, played)


def test_a_title_stands_for_no_details_but_its_own(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        both = {"purpose": None, "scope": "find find"}
        whole, more = "find: Search the web</", "find: Search the web; and more, which no scope names</"
        for own, shown, hidden in (([SEARCH], whole, more), ([TABLE], more, whole)):
            told = {**both, "authorization_details": json.dumps(own)}
            page = unescape((await authorization_page(app, **told)).text)
            assert shown in page
            assert hidden not in page
            asked = app.polled_request(**told, client_id="tv")
            answer = (await app.made.web.post("/oauth/device_authorization", data=asked)).json()
            typed = await browser(app.made).post("/oauth/device", data={"user_code": answer["user_code"]})
            assert shown in unescape(typed.text)

    _scene(tmp_path, played)


def test_what_the_client_says_itself_counts_before_the_template(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await app.redeem(await app.code(authorization_details=None, scope="find", ttl="60"))).json()
        [task] = app.made.broker._tasks
        assert task.head.purpose != FIND.purpose
        assert int(task.grants[told["grant"]].bounds.ttl.total_seconds()) == 60  # type: ignore[union-attr]  # settled

    _scene(tmp_path, played)


def test_names_and_details_are_all_asked_for(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        request = app.polled_request(**svid(), scope="find sales", authorization_details=None, purpose=None)
        answer = await app.token(**{"client_id": None, **request, "grant_type": "client_credentials"})
        assert answer.json()["authorization_details"] == [SEARCH, TABLE]
        assert answer.json()["scope"] == "find sales"

    _scene(tmp_path, played)


@pytest.mark.parametrize("scope", ["nothing", "find nothing", "sales"])
def test_an_unknown_name_and_one_for_others_are_told_to_the_client(tmp_path: Path, scope: str) -> None:
    async def played(app: App) -> None:
        sent = await authorization_page(app, **NAMED, scope=scope)
        assert "error=invalid_scope" in sent.headers["location"]
        assert (await pushed(app, **NAMED, scope=scope)).json()["error"] == "invalid_scope"
        device = await app.made.web.post(
            "/oauth/device_authorization", data=app.polled_request(**NAMED, scope=scope, client_id="tv")
        )
        assert device.json()["error"] == "invalid_scope"

    _scene(tmp_path, played)


def test_a_device_and_a_client_from_afar_ask_by_name(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        asked = app.polled_request(**NAMED, scope="find", client_id="tv")
        answer = (await app.made.web.post("/oauth/device_authorization", data=asked)).json()
        visitor = browser(app.made)
        page = await visitor.post("/oauth/device", data={"user_code": answer["user_code"]})
        assert "find: Search the web" in page.text
        await decide(visitor, app.issuer, page)
        form = {"grant_type": DEVICE, "device_code": answer["device_code"], "client_id": "tv"}
        assert (await app.token(**form)).json()["scope"] == "find"
        afar = await app.afar(**NAMED, scope="openid sales")
        assert afar.status_code == 200, afar.text
        assert (await app.afar(**NAMED, scope="openid email")).json()["error"] == "invalid_scope"

    _scene(tmp_path, played)


def test_a_child_is_asked_for_by_name_and_is_no_wider_for_it(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        parent, child = Agent(), Agent()
        made = app.made
        opened = await app.redeem(await app.code(None, **NAMED, scope="find", depth="1", fan_out="2"), parent)
        made.taken(opened.json(), parent)
        form = made.delegation(parent, child, scope="find")
        del form["authorization_details"]
        answer = await made.exchange(parent, form)
        assert answer.json()["scope"] == "find", answer.text
        wider = made.delegation(parent, Agent(), scope="wide")
        del wider["authorization_details"]
        assert (await made.exchange(parent, wider)).json()["error"] == "invalid_authorization_details"

    wide = ScopeTemplate("wide", details({**SEARCH, "paths": ["/**"]}), "everything")
    _scene(tmp_path, played, {"find": FIND, "wide": wide})


@pytest.mark.parametrize("ending", ["", "/", "/mcp", "/mcp/", "/v1/.well-known/a%20b..c"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]"])
def test_an_endpoint_of_the_gateway_is_an_audience_and_brings_its_own_template(
    tmp_path: Path, host: str, ending: str
) -> None:
    async def played(app: App) -> None:
        resource = f"http://{host}:8471/search{ending}"
        told = (await app.redeem(await app.code(None, **NAMED, resource=resource), resource=resource)).json()
        claims = app.made.verifier.signed(told["access_token"])
        assert claims.audience == f"{GATEWAY}/search"
        assert told["authorization_details"] == [SEARCH]

    scene(tmp_path, played, gateway=GATEWAY, scopes={"search": OWN})


def test_whoever_asks_for_every_name_there_is_gets_those_of_the_resource_it_names(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        there = {**NAMED, "resource": f"{GATEWAY}/search"}
        told = (await app.redeem(await app.code(None, **there, scope="find sales"), resource=there["resource"])).json()
        assert (told["scope"], told["authorization_details"]) == ("find", [SEARCH])
        refused = await authorization_page(app, **there, scope="find nothing")
        assert "error=invalid_scope" in refused.headers["location"]  # a name that there is not is no name of elsewhere
        elsewhere = await authorization_page(app, **there, scope="warehouse")
        assert "error=invalid_target" in elsewhere.headers["location"]

    warehouse = ScopeTemplate("warehouse", details(TABLE), "read")
    _scene(tmp_path, played, ALONE | {"warehouse": warehouse})


def test_a_token_for_one_endpoint_is_taken_there_and_nowhere_else(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        made, agent, resource = app.made, app.agent, f"{GATEWAY}/search"
        made.taken((await app.redeem(await app.code(resource=resource))).json(), agent)
        assert (await made.call(agent, "GET", "/v1/self")).json()["code"] == "audience"

        async def at(name: str) -> str:
            url = f"{GATEWAY}/{name}/v1/x"
            proof = agent.proof("GET", url, made.world.now, made.verifier.nonce(), agent.token)
            headers = {"authorization": f"DPoP {agent.token}", "dpop": proof}
            return (await made.verifier.proven(headers, "GET", url, name)).grant

        assert await at("search") == agent.grant
        with pytest.raises(AudienceError):
            await at("warehouse")

    _scene(tmp_path, played)


@pytest.mark.parametrize(
    "resource",
    [
        "http://127.0.0.1:8472/search",
        "http://127.0.0.1:8471/search?x=1",
        "http://127.0.0.1:8471/search#x",
        "http://127.0.0.1:8471/Search",
        "http://127.0.0.1:8471//search",
        "https://127.0.0.1:8471/search",
        "http://10.0.0.1:8471/search",
        "http://127.0.0.1:8471@evil.test/search",
        "http://127.0.0.1:8471/search/../warehouse",
        "http://127.0.0.1:8471/search/..",
        "http://127.0.0.1:8471/search/./mcp",
        "http://127.0.0.1:8471/search/%2e%2E/warehouse",
        "http://127.0.0.1:8471/search/.%2e/warehouse",
        "http://127.0.0.1:8471/search/..%2fwarehouse",
        "http://127.0.0.1:8471/search/%252e%252e/warehouse",
        "http://127.0.0.1:8471/search\\..\\warehouse",
        "http://127.0.0.1:8471/search/..;/warehouse",
        "http://localhost:8471/..",
    ],
)
def test_what_is_no_endpoint_of_the_gateway_is_no_audience(tmp_path: Path, resource: str) -> None:
    async def played(app: App) -> None:
        sent = await authorization_page(app, **NAMED, resource=resource)
        assert "error=invalid_target" in sent.headers["location"]

    _scene(tmp_path, played)


def test_no_token_is_for_a_resource_that_its_grant_does_not_name(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        other = f"{GATEWAY}/other"
        sent = await authorization_page(app, resource=other)
        assert "error=invalid_target" in sent.headers["location"]
        assert (await app.redeem(await app.code(), resource=other)).json()["error"] == "invalid_target"

    _scene(tmp_path, played)


def test_metadata_names_the_scopes(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await app.made.web.get("/.well-known/oauth-authorization-server")).json()
        assert told["scopes_supported"] == ["find", "sales"]

    _scene(tmp_path, played)
