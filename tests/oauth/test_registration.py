"""Clients that register themselves: nothing is kept of them, nobody believes them, and a browser is their one way."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from remit import jose
from remit.compose.app import build
from remit.oauth.clients import Registry
from remit.oauth.registration import RegistrationRules, SelfRegistration
from remit.ports.identity import Registered
from remit.web.authentication import TokenAuth
from remit.web.listen import serve
from tests.attacks.forge import parts
from tests.broker.world import SEARCH
from tests.oauth.consent_driver import APP, REDIRECT, App, answer_of, authorization_page, browser, decide, scene
from tests.oauth.plane import _tcp, later

RULES = RegistrationRules(frozenset({"app.test", "*.corp.test"}), life=timedelta(days=1), most=5)
BACK = "http://127.0.0.1:8123/cb"
Played = Callable[[App], Awaitable[None]]


def _scene(tmp_path: Path, played: Played, rules: RegistrationRules = RULES) -> None:
    """Play on a plane where clients register themselves by ``rules``."""
    known = [Registered(APP, "Research App", (REDIRECT,))]

    async def whole(app: App) -> None:
        made = app.made
        own = SelfRegistration(rules, made.verifier.tokens.client_mac, made.verifier.clock, known)
        identity = replace(
            made.deps.identity,
            clients=Registry(known, None, made.verifier.clock, own.known),
            registration=own.routes(),
        )
        sock = _tcp()
        host = f"127.0.0.1:{sock.getsockname()[1]}"
        made.verifier.issuer = made.tokens._issuer = made.base = f"http://{host}"
        served = build(replace(made.deps, identity=identity))
        made.listeners.append(await serve(served, sock, TokenAuth(frozenset({host}), made.verifier.holder)))
        made.web = httpx.AsyncClient(base_url=made.base)
        made.clients.append(made.web)
        await played(app)

    scene(tmp_path, whole)


async def _asked(app: App, **more: object) -> httpx.Response:
    told = {"redirect_uris": [BACK], "client_name": "My Agent", **more}
    content = json.dumps({name: value for name, value in told.items() if value is not None})
    return await app.made.web.post("/oauth/register", content=content, headers={"content-type": "application/json"})


async def _registered(app: App, **more: object) -> str:
    answer = await _asked(app, **more)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["client_id"])


def test_a_client_registers_itself_and_gets_a_token_by_its_human(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        answer = await _asked(app, token_endpoint_auth_method="client_secret_post", scope="x", software_id="y")
        told = answer.json()
        assert (answer.status_code, answer.headers["cache-control"]) == (201, "no-store")
        assert told.keys() == {
            *("client_id", "client_id_issued_at", "client_name", "redirect_uris"),
            *("token_endpoint_auth_method", "grant_types", "response_types"),
        }
        assert (told["token_endpoint_auth_method"], told["redirect_uris"]) == ("none", [BACK])
        app.client_id = told["client_id"]
        page = unescape((await authorization_page(app)).text)
        assert "A program that calls itself “My Agent”" in page
        assert "it registered itself, which anybody can, and nobody has checked anything of it" in page
        redeemed = await app.redeem(await app.code())
        assert redeemed.status_code == 200, redeemed.text
        assert parts(redeemed.json()["access_token"])[1]["authorization_details"] == [SEARCH]

    _scene(tmp_path, played)


def test_metadata_has_the_endpoint_and_pages_of_any_origin_may_call_it(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await app.made.web.get("/.well-known/oauth-authorization-server")).json()
        assert told["registration_endpoint"] == f"{app.made.base}/oauth/register"
        asked = await app.made.web.options("/oauth/register", headers={"origin": "https://page.test"})
        assert (asked.status_code, asked.headers["access-control-allow-origin"]) == (204, "*")
        assert "Content-Type" in asked.headers["access-control-allow-headers"]

    _scene(tmp_path, played)


def test_nobody_registers_where_no_operator_says_so(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await app.made.web.get("/.well-known/oauth-authorization-server")).json()
        assert "registration_endpoint" not in told
        assert (await _asked(app)).status_code == 401  # as every path that is none

    scene(tmp_path, played)


@pytest.mark.parametrize(
    "uri",
    [
        "https://evil.test/cb",
        "https://app.test.evil.test/cb",
        "https://evilapp.test/cb",
        "https://corp.test/cb",
        "https://user@app.test/cb",
        "https://app.test@evil.test/cb",
        "https://app.test\\@evil.test/cb",
        "https://app.test\\.evil.test/cb",
        "https://app.test/cb#x",
        "https://app.test/cb#",
        "https://APP.test/cb",
        "https://app.test./cb",
        "https://app%2etest/cb",
        "https://\u0430pp.test/cb",
        "https://app.test:0/cb",
        "https://app.test:99999/cb",
        "https://app.test /cb",
        "https://app.test/c\tb",
        "https://app.test/\ncb",
        "https://[::ffff:127.0.0.1]/cb",
        "https:app.test/cb",
        "https:///app.test/cb",
        "//app.test/cb",
        "http://app.test/cb",
        "http://127.0.0.2/cb",
        "http://127.1/cb",
        "http://2130706433/cb",
        "http://0.0.0.0/cb",
        "http://[::]/cb",
        "http://[::ffff:7f00:1]/cb",
        "http://[0:0:0:0:0:0:0:1]/cb",
        "http://localhost.evil.test/cb",
        "http://localhost@evil.test/cb",
        "http://127.0.0.1:8123@evil.test/cb",
        "http://LOCALHOST/cb",
        "javascript:alert(1)",
        "data:text/html,x",
        "com.example.app:/cb",
        "cursor://cb",
        "",
        7,
        None,
    ],
)
def test_no_redirect_uri_leads_elsewhere_by_a_second_reading(tmp_path: Path, uri: object) -> None:
    async def played(app: App) -> None:
        answer = await _asked(app, redirect_uris=[BACK, uri])
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_redirect_uri"), answer.text

    _scene(tmp_path, played)


@pytest.mark.parametrize(
    "uri",
    [
        "https://app.test/cb?x=1",
        "https://a.corp.test/cb",
        "https://app.test:8443/",
        "http://localhost:33418/",
        "http://[::1]/cb",
    ],
)
def test_what_the_rules_name_may_be_registered(tmp_path: Path, uri: str) -> None:
    async def played(app: App) -> None:
        app.client_id, app.redirect = await _registered(app, redirect_uris=[uri]), uri
        assert (await authorization_page(app)).status_code == 200
        app.redirect = uri.replace("cb", "cc") if "cb" in uri else f"{uri}x"
        refused = await authorization_page(app)
        assert refused.status_code == 400
        assert "location" not in refused.headers

    _scene(tmp_path, played)


@pytest.mark.parametrize("given", [None, [], "http://127.0.0.1/cb", [BACK] * 11, {}])
def test_redirect_uris_are_a_short_list(tmp_path: Path, given: object) -> None:
    async def played(app: App) -> None:
        assert (await _asked(app, redirect_uris=given)).json()["error"] == "invalid_redirect_uri"

    _scene(tmp_path, played)


@pytest.mark.parametrize(
    "more",
    [
        {"client_name": "Research App"},
        {"client_name": "research-app"},
        {"client_name": " RESEARCH  app"},
        {"client_name": "R\u0435search App"},  # one letter is Cyrillic
        {"client_name": "App\u202eppA"},
        {"client_name": "App\u200b"},
        {"client_name": "App\n"},
        {"client_name": ""},
        {"client_name": "x" * 101},
        {"client_name": ["x"]},
        {"token_endpoint_auth_method": "private_key_jwt", "jwks": {"keys": []}},
        {"token_endpoint_auth_method": "tls_client_auth"},
        {"token_endpoint_auth_method": 7},
        {"token_endpoint_auth_method": []},
        {"grant_types": ["client_credentials"]},
        {"grant_types": "authorization_code"},
        {"response_types": ["token"]},
        {"redirect_uris": [f"https://app.test/{'x' * 400}"]},
    ],
)
def test_what_a_client_cannot_be_is_told_by_the_name_of_the_rfc(tmp_path: Path, more: dict[str, object]) -> None:
    async def played(app: App) -> None:
        answer = await _asked(app, **more)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata"), answer.text

    _scene(tmp_path, played)


def test_an_id_is_worth_nothing_when_it_is_changed_over_or_of_another_broker(tmp_path: Path) -> None:
    async def refused(app: App, client_id: str) -> None:
        app.client_id = client_id
        page = await authorization_page(app)
        assert page.status_code == 400, page.text
        assert "location" not in page.headers
        pushed = await app.made.web.post("/oauth/par", data=app.browser_request())
        assert (pushed.status_code, pushed.json()["error"]) == (401, "invalid_client"), pushed.text

    async def played(app: App) -> None:
        good = await _registered(app)
        body, _, mac = good.removeprefix("itself.").partition(".")
        said: list[Any] = json.loads(jose.decode(body))
        longer = jose.encode(json.dumps([said[0] + 1, *said[1:]]).encode())
        other = SelfRegistration(RULES, _elsewhere, app.made.verifier.clock)
        for forged in (
            f"itself.{longer}.{mac}",
            f"itself.{body}.",
            f"itself.{body}",
            f"itself.{body}.{mac[:-1]}",
            f"itself.{body}.{mac}.",
            "itself.",
            "itself..",
            f"itself.{body}.{await _elsewhere(body)}",
            good.upper(),
        ):
            await refused(app, forged)
        with pytest.raises(Exception, match="not known here"):
            await other.known(good)
        app.client_id = good
        assert (await authorization_page(app)).status_code == 200
        later(app.made, 86_401)
        await refused(app, good)

    _scene(tmp_path, played)


def test_what_a_worker_had_made_that_was_taken_over_is_held_to_the_rules_too(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        now, mac = app.made.verifier.clock().timestamp(), app.made.verifier.tokens.client_mac
        for until, name, uri, told in (
            (253_402_300_799, "My Agent", BACK, "is over"),
            (int(now) + 86_400 + 90, "My Agent", BACK, "is over"),
            (int(now) + 60, "Research-App", BACK, "that of a client which an operator set up"),
            (int(now) + 60, "Research App\u200b", BACK, "printable"),
            (int(now) + 60, "My Agent", "https://evil.test/cb", "may bring by itself"),
        ):
            body = jose.encode(json.dumps([until, name, [uri]]).encode())
            app.client_id = f"itself.{body}.{await mac(body)}"
            page = await authorization_page(app, redirect_uri=uri)
            assert (page.status_code, told in unescape(page.text)) == (400, True), page.text

    _scene(tmp_path, played)


async def _elsewhere(statement: str) -> str:
    return jose.digest(statement)


def test_narrower_rules_count_for_who_has_registered_before(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        good = await _registered(app)
        tokens, clock = app.made.verifier.tokens, app.made.verifier.clock
        narrower = SelfRegistration(replace(RULES, loopback=False), tokens.client_mac, clock)
        with pytest.raises(Exception, match="may bring by itself"):
            await narrower.known(good)

    _scene(tmp_path, played)


def test_a_flood_is_refused_and_forgotten_and_pushes_nobody_out(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        app.client_id = await _registered(app)
        answers = [await _asked(app, client_name=f"Agent {each}") for each in range(6)]
        assert [one.status_code for one in answers] == [201] * 4 + [429] * 2
        assert answers[-1].headers["retry-after"] == "60"
        assert (await authorization_page(app)).status_code == 200
        later(app.made, 60)
        assert (await _asked(app)).status_code == 201

    _scene(tmp_path, played)


def test_it_asks_in_a_browser_alone(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        app.client_id = await _registered(app)
        for path in ("/oauth/device_authorization", "/oauth/bc-authorize"):
            answer = await app.made.web.post(path, data=app.polled_request(login_hint="alice"))
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client"), answer.text

    _scene(tmp_path, played)


def test_an_error_goes_nowhere_before_somebody_has_logged_in(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        app.client_id = await _registered(app)
        page = await authorization_page(app, response_type="token")
        assert page.status_code == 400
        assert "location" not in page.headers
        visitor = browser(app.made)
        asked = await visitor.get("/oauth/authorize", params=app.browser_request())
        last = await decide(visitor, app.issuer, asked, "deny")
        assert answer_of(last)["error"] == "access_denied"

    _scene(tmp_path, played)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"redirect_uris": [], "redirect_uris": []}', b"\xff"])
def test_what_is_no_json_object_is_told(tmp_path: Path, content: bytes) -> None:
    async def played(app: App) -> None:
        headers = {"content-type": "application/json"}
        answer = await app.made.web.post("/oauth/register", content=content, headers=headers)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_client_metadata"), answer.text

    _scene(tmp_path, played)
