"""Clients that authenticate by a key of their own: of the configuration, and known by a document alone."""

from __future__ import annotations

import itertools
import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from remit.core.policy import in_bounds
from remit.core.principal import JWT_BEARER
from remit.errors import UnavailableError
from remit.identity.keyed_clients import ClientKeys, KeyedClients
from remit.identity.workloads.attested import AttestedWorkloads
from remit.oauth.clients import Registry, audiences
from remit.ports.identity import Registered
from tests.attacks.forge import parts
from tests.broker.world import SEARCH, World
from tests.identity.issuing import ec, public, signed
from tests.oauth.consent_driver import (
    ALICE,
    REDIRECT,
    App,
    Issuer,
    answer_of,
    authorization_page,
    browser,
    decide,
    pushed,
    scene,
)
from tests.oauth.test_exchange import refused

BACKEND = "backend"
URL = "https://app.test/client.json"
KEYED = {"token_endpoint_auth_method": "private_key_jwt"}
NAMES = itertools.count()


class Web:
    """The document of a client, and its keys."""

    def __init__(self, **more: object) -> None:
        self.document = {"client_id": URL, "client_name": "Stranger", "redirect_uris": [REDIRECT], **KEYED, **more}
        self.keys: list[dict[str, object]] = [public(ec("d-1"))]
        self.fetched: list[str] = []

    async def fetch(self, url: str) -> bytes:
        self.fetched.append(url)
        if url == "https://keys.test/jwks":
            return json.dumps({"keys": self.keys}).encode()
        if url != URL:
            raise UnavailableError("no such document")
        return json.dumps(self.document).encode()


def assertion(app: App, client: str = BACKEND, kid: str = "b-1", **changes: object) -> dict[str, str | None]:
    """Return what a client authenticates with."""
    now = int(app.made.world.now.timestamp())
    claims = {"iss": client, "sub": client, "aud": app.made.base, "jti": f"assertion-{next(NAMES)}", "exp": now + 60}
    told = {name: value for name, value in {**claims, **changes}.items() if value is not None}
    return {"client_assertion": signed(told, ec(kid)), "client_assertion_type": JWT_BEARER}


def play(directory: Path, played: Callable[[App], Awaitable[None]], web: Web | None = None) -> None:
    """Run a scene in which ``backend`` has a key, and the client of a document one of its own."""
    world = World(now=datetime(2026, 11, 25, 12, tzinfo=UTC), decide=in_bounds)

    async def keys() -> bytes:
        return json.dumps({"keys": [public(ec("b-1"))]}).encode()

    def now() -> datetime:
        return world.now

    async def of_backend(app: App) -> None:
        meant = audiences(app.made.base)  # known once it listens
        clients = KeyedClients({BACKEND: ClientKeys(BACKEND, keys, now)}, meant, now)
        verifier.platforms = {JWT_BEARER: clients.assertion}
        app.client_id = BACKEND
        await played(app)

    verifier = AttestedWorkloads({}, "", now)
    registry = Registry(
        [Registered(BACKEND, "Back End", (REDIRECT,), keyed=True)], None if web is None else web.fetch, now
    )
    methods = ("private_key_jwt",)
    scene(
        directory, of_backend, world=world, issuer=Issuer(world), registry=registry, workloads=verifier, methods=methods
    )


async def redeemed(app: App, location: dict[str, str], **form: str | None) -> httpx.Response:
    """Have the human approve of what was pushed, and redeem the code."""
    visitor = browser(app.made)
    page = await visitor.get("/oauth/authorize", params={"client_id": app.client_id, **location})
    code = answer_of(await decide(visitor, app.issuer, page))["code"]
    return await app.redeem(code, **form)


def test_a_client_with_a_key_is_who_it_says_it_is_from_the_push_to_the_refresh(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        push = await pushed(app, app.agent, **assertion(app))
        assert push.status_code == 201, push.text
        visitor = browser(app.made)
        page = await visitor.get("/oauth/authorize", params={"client_id": BACKEND, **push.json()})
        assert "Back End" in page.text
        assert "calls itself" not in page.text
        code = answer_of(await decide(visitor, app.issuer, page))["code"]
        told = (await app.redeem(code, **assertion(app))).json()
        claims = parts(told["access_token"])[1]
        assert (claims["sub"], claims["client_id"]) == (ALICE, BACKEND)
        assert claims["task"]["attested"] is True  # type: ignore[index]  # JSON
        refresh = {"grant_type": "refresh_token", "refresh_token": told["refresh_token"]}
        assert refused(await app.token(**refresh))[:2] == (401, "invalid_client")
        assert (await app.token(**refresh, **assertion(app))).status_code == 200

    play(tmp_path, played)


@pytest.mark.parametrize("path", ["par", "device_authorization", "bc-authorize", "token", "revoke"])
def test_a_client_with_a_key_is_nobody_without_it(tmp_path: Path, path: str) -> None:
    async def played(app: App) -> None:
        form = {**app.browser_request(login_hint=ALICE), "grant_type": "client_credentials", "ttl": "60", "token": "x"}
        answer = await app.made.web.post(f"/oauth/{path}", data=form, headers={"dpop": app.proof(f"/oauth/{path}")})
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")

    play(tmp_path, played)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": "https://other.test"},
        {"jti": None},
        {"exp": 1},
        {"sub": "other"},
        {"iss": "nobody", "sub": "nobody"},
    ],
    ids=str,
)
def test_an_assertion_that_is_not_right_is_an_invalid_client(tmp_path: Path, changes: dict[str, Any]) -> None:
    async def played(app: App) -> None:
        answer = await pushed(app, **assertion(app, **changes))
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        answer = await pushed(app, **assertion(app, kid="b-2"))
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")

    play(tmp_path, played)


def test_an_assertion_counts_once_at_whatever_endpoint(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        shown = assertion(app)
        assert (await pushed(app, **shown)).status_code == 201
        answer = await app.token(grant_type="client_credentials", purpose="x", ttl="60", **shown)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        assert "was used" in answer.json()["error_description"]

    play(tmp_path, played)


def test_a_code_of_a_client_with_a_key_is_redeemed_by_that_client_alone(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await app.code()
        answer = await app.redeem(code)
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
        assert (await app.redeem(code, **assertion(app))).status_code == 200

    play(tmp_path, played)


def test_a_client_with_a_key_opens_a_task_for_itself(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        details = json.dumps([SEARCH])
        form = {"grant_type": "client_credentials", "purpose": "tidy up", "ttl": "60", "authorization_details": details}
        answer = await app.token(**form, **assertion(app))
        assert answer.status_code == 200, answer.text
        claims = parts(answer.json()["access_token"])[1]
        assert (claims["sub"], claims["client_id"]) == (BACKEND, BACKEND)

    play(tmp_path, played)


def test_a_client_with_a_key_asks_from_afar(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        asked = app.polled_request(login_hint=ALICE, **assertion(app))
        answer = await app.made.web.post("/oauth/bc-authorize", data=asked)
        assert answer.status_code == 200, answer.text

    play(tmp_path, played)


# -- by a document ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "where",
    [{"jwks": {"keys": [public(ec("d-1"))]}}, {"jwks_uri": "https://keys.test/jwks"}],
    ids=["in it", "elsewhere"],
)
def test_a_client_may_publish_the_key_it_authenticates_by(tmp_path: Path, where: dict[str, object]) -> None:
    async def played(app: App) -> None:
        app.client_id = URL
        assert refused(await pushed(app))[:2] == (401, "invalid_client")
        push = await pushed(app, **assertion(app, URL, "d-1"))
        assert push.status_code == 201, push.text
        told = await redeemed(app, push.json(), **assertion(app, URL, "d-1"))
        assert told.status_code == 200, told.text
        assert parts(told.json()["access_token"])[1]["task"]["attested"] is False  # type: ignore[index]  # JSON

    play(tmp_path, played, Web(**where))


def test_what_a_document_vouches_for_counts_once_and_not_for_long(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        app.client_id = URL
        shown = assertion(app, URL, "d-1")
        assert (await pushed(app, **shown)).status_code == 201
        for bad in (
            shown,
            assertion(app, URL, "d-2"),
            assertion(app, URL, "d-1", aud="https://other.test"),
            assertion(app, URL, "d-1", exp=int(app.made.world.now.timestamp()) + 71),
            {**assertion(app, URL, "d-1"), "client_id": "somebody-else"},
        ):
            answer = await pushed(app, **bad)
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client"), bad
        edge = assertion(app, URL, "d-1", exp=int(app.made.world.now.timestamp()) + 70)
        assert (await pushed(app, **edge)).status_code == 201
        app.made.world.now += timedelta(seconds=69)
        assert refused(await pushed(app, **edge))[:2] == (401, "invalid_client")

    play(tmp_path, played, Web(jwks={"keys": [public(ec("d-1"))]}))


@pytest.mark.parametrize(("client", "kid"), [(BACKEND, "b-1"), (URL, "d-1")])
def test_a_request_that_lacks_but_the_nonce_uses_nothing_up(tmp_path: Path, client: str, kid: str) -> None:
    async def played(app: App) -> None:
        app.client_id, shown = client, assertion(app, client, kid)
        data, url = app.browser_request(**shown), f"{app.made.base}/oauth/par"
        proof = app.agent.proof("POST", url, app.made.world.now, "", None, nonce=None)
        answer = await app.made.web.post("/oauth/par", data=data, headers={"dpop": proof})
        assert (answer.status_code, answer.json()["error"]) == (400, "use_dpop_nonce")
        assert (await pushed(app, app.agent, **shown)).status_code == 201

    play(tmp_path, played, Web(jwks={"keys": [public(ec("d-1"))]}))


def test_a_code_of_such_a_client_is_redeemed_by_that_client_alone(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        app.client_id = URL
        page = await authorization_page(app)
        visitor = browser(app.made)
        page = await visitor.get("/oauth/authorize", params=app.browser_request())
        code = answer_of(await decide(visitor, app.issuer, page))["code"]
        assert refused(await app.redeem(code))[:2] == (401, "invalid_client")
        assert (await app.redeem(code, **assertion(app, URL, "d-1"))).status_code == 200

    play(tmp_path, played, Web(jwks={"keys": [public(ec("d-1"))]}))


def test_such_a_client_asks_nobody_from_afar(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        app.client_id = URL
        asked = app.polled_request(login_hint=ALICE, **assertion(app, URL, "d-1"))
        answer = await app.made.web.post("/oauth/bc-authorize", data=asked)
        assert (answer.status_code, answer.json()["error"]) == (400, "unauthorized_client")  # CIBA Core §13

    play(tmp_path, played, Web(jwks={"keys": [public(ec("d-1"))]}))


def test_a_new_key_of_a_document_is_looked_for_and_not_all_the_time(tmp_path: Path) -> None:
    web = Web(jwks={"keys": [public(ec("d-1"))]})

    async def played(app: App) -> None:
        app.client_id = URL
        assert (await pushed(app, **assertion(app, URL, "d-1"))).status_code == 201
        web.document["jwks"] = {"keys": [public(ec("d-2"))]}
        for _ in range(5):
            assert refused(await pushed(app, **assertion(app, URL, "d-2")))[0] == 401
        assert web.fetched == [URL]
        app.made.world.now += timedelta(seconds=11)
        assert (await pushed(app, **assertion(app, URL, "d-2"))).status_code == 201
        assert web.fetched == [URL, URL]

    play(tmp_path, played, web)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"jwks": {"keys": []}, "jwks_uri": "https://keys.test/jwks"},
        {"jwks_uri": 7},
        {"jwks_uri": "https://gone.test/jwks"},
        {"jwks": {"keys": []}},
        {"jwks": "x"},
    ],
    ids=str,
)
def test_a_document_without_usable_keys_lets_nobody_in(tmp_path: Path, changes: dict[str, object]) -> None:
    async def played(app: App) -> None:
        app.client_id = URL
        answer = await pushed(app, **assertion(app, URL, "d-1"))
        assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client"), answer.text

    play(tmp_path, played, Web(**changes))
