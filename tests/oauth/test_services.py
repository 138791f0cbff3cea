"""Tokens for a resource server elsewhere: for it alone, told of by it alone, and worth nothing here."""

from __future__ import annotations

import hmac
import json
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from authlib.jose import JsonWebKey, JsonWebToken
from authlib.oauth2.rfc9068.claims import JWTAccessTokenClaims
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet, RSAKey
from joserfc.jwt import JWTClaimsRegistry

from remit.core.audience import Service
from remit.errors import AudienceError, TokenError
from remit.ports import Resource
from remit.web.scope_templates import ScopeTemplate
from tests.attacks.forge import parts
from tests.broker.world import OPERATOR, SEARCH, details
from tests.oauth.consent_driver import App, authorization_page, clients, scene, svid
from tests.oauth.plane import jws, later

GATEWAY, URI, OTHER = "http://127.0.0.1:8471", "https://orders.test", "https://orders.test/bills"
SERVING, BILLING = "spiffe://agents.test/orders/api", "spiffe://agents.test/bills/api"
SERVICES = {
    "orders": Service("orders", URI, "spiffe://agents.test/orders/*"),
    "bills": Service("bills", OTHER, BILLING, rsa=True),
}
ORDERS: dict[str, object] = {"type": "elsewhere", "resource": "orders", "actions": ["read"], "datatypes": ["order"]}
BILLS: dict[str, object] = {"type": "elsewhere", "resource": "bills", "actions": ["read"]}
TEMPLATES = {"orders": ScopeTemplate("orders", details(ORDERS), "look at orders", "Read orders")}
Played = Callable[[App], Awaitable[None]]


def _scene(tmp_path: Path, played: Played, *, bear: bool = False) -> None:
    async def whole(app: App) -> None:
        await _put(app, bear=bear)
        await played(app)

    scene(tmp_path, whole, gateway=GATEWAY, services=SERVICES, registry=clients(), scopes=TEMPLATES)


async def _put(app: App, *, bear: bool = False) -> None:
    for one, raw in ((SERVICES["orders"], ORDERS), (SERVICES["bills"], BILLS)):
        bound, settings = details({**raw, "actions": ["read", "write"]}), {"bearer": True} if bear else {}
        resource = Resource(one.resource, "elsewhere", f"elsewhere:{one.uri}", bound, None, settings)
        await app.made.broker.put_resource(OPERATOR, resource)


def _asked(*raw: dict[str, object]) -> str:
    return json.dumps(list(raw))


async def _got(app: App, resource: str | None = URI, *raw: dict[str, object]) -> dict[str, Any]:
    code = await app.code(authorization_details=_asked(*(raw or (ORDERS,))), resource=resource)
    answer = await app.redeem(code)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def _introspected(app: App, token: str, by: str = SERVING) -> httpx.Response:
    form = {"token": token, **{name: value for name, value in svid(by).items() if value is not None}}
    return await app.made.web.post("/oauth/introspect", data=form)


async def _said(app: App, token: str, by: str = SERVING) -> dict[str, Any]:
    answer = await _introspected(app, token, by)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


def test_a_token_is_for_the_service_alone_and_tells_of_what_is_granted_there_alone(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = await _got(app, URI, ORDERS, SEARCH)
        header, claims = parts(told["access_token"])[:2]
        assert (header["typ"], claims["aud"], claims["authorization_details"]) == ("at+jwt", URI, [ORDERS])
        assert told["authorization_details"] == [ORDERS]
        assert (told["token_type"], "jkt" in str(claims["cnf"])) == ("DPoP", True)

    _scene(tmp_path, played)


def test_the_human_sees_whom_the_token_is_for(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        assert URI in (await authorization_page(app, authorization_details=_asked(ORDERS), resource=URI)).text

    _scene(tmp_path, played)


@pytest.mark.parametrize("named", [URI, f"{URI}/"])
def test_a_client_that_knows_no_details_asks_by_the_resource(tmp_path: Path, named: str) -> None:
    async def played(app: App) -> None:
        code = await app.code(authorization_details=None, purpose=None, resource=named)
        claims = parts((await app.redeem(code)).json()["access_token"])[1]
        assert (claims["aud"], claims["authorization_details"]) == (URI, [ORDERS])

    _scene(tmp_path, played)


@pytest.mark.parametrize(
    "named",
    [
        OTHER,
        f"{URI}/x",
        f"{URI}//",
        f"{URI}?x",
        f"{GATEWAY}/orders",
        "https://orders.test.evil.test",
        "HTTPS://orders.test",
    ],
)
def test_any_other_name_is_no_target(tmp_path: Path, named: str) -> None:
    async def played(app: App) -> None:
        page = await authorization_page(app, authorization_details=_asked(ORDERS), resource=named)
        assert "invalid_target" in (page.headers.get("location") or page.text), page.text

    _scene(tmp_path, played)


def test_what_was_asked_for_one_service_is_not_redeemed_or_refreshed_for_another(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await app.code(authorization_details=_asked(ORDERS, BILLS), resource=URI)
        for other in (OTHER, app.made.base, GATEWAY):
            assert (await app.redeem(code, resource=other)).json()["error"] == "invalid_target"
        told = (await app.redeem(code)).json()
        refresh: dict[str, str | None] = {"grant_type": "refresh_token", "refresh_token": told["refresh_token"]}
        for other in (OTHER, app.made.base, GATEWAY):
            assert (await app.token(**refresh, resource=other)).json()["error"] == "invalid_target"
        again = (await app.token(**refresh)).json()
        assert parts(again["access_token"])[1]["aud"] == URI

    _scene(tmp_path, played)


def test_a_token_for_a_service_opens_nothing_here_and_one_of_ours_nothing_there(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        made, token = app.made, (await _got(app, URI, ORDERS, SEARCH))["access_token"]
        app.agent.token = token
        assert (await made.call(app.agent, "GET", "/v1/self")).status_code == 401
        kind = "urn:ietf:params:oauth:token-type:access_token"
        exchange = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token_type": kind}
        assert (await app.token(**exchange, subject_token=token, client_id=None)).status_code == 400
        for name in ("search", "orders"):
            url = f"{GATEWAY}/{name}/v1/x"
            proof = app.agent.proof("GET", url, made.world.now, made.verifier.nonce(), token)
            with pytest.raises(AudienceError):
                await made.verifier.proven({"authorization": f"DPoP {token}", "dpop": proof}, "GET", url, name)
        for whom in (None, made.base, GATEWAY, f"{GATEWAY}/search"):
            ours = (await _got(app, whom, ORDERS, SEARCH))["access_token"]
            assert await _said(app, ours) == {"active": False}

    _scene(tmp_path, played)


def test_a_service_introspects_the_tokens_that_are_for_it_and_no_others(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = await _got(app)
        said = await _said(app, told["access_token"])
        assert (said["active"], said["token_type"], said["aud"]) == (True, "DPoP", URI)
        assert said["authorization_details"] == [ORDERS]
        for other in (BILLING, "spiffe://agents.test/orders", "spiffe://agents.test/orders/api/x"):
            assert await _said(app, told["access_token"], other) == {"active": False}
        theirs = (await _got(app, OTHER, BILLS))["access_token"]
        assert await _said(app, theirs) == {"active": False}
        assert (await _said(app, theirs, BILLING))["active"] is True
        for junk in ("x", "a.b.c", told["refresh_token"], told["access_token"][:-8] + "AAAAAAAA"):
            assert await _said(app, junk) == {"active": False}

    _scene(tmp_path, played)


def test_what_is_over_is_not_active(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        first, second = await _got(app), await _got(app)
        await app.made.broker.revoke(OPERATOR, first["grant"])
        assert await _said(app, first["access_token"]) == {"active": False}
        assert (await _said(app, second["access_token"]))["active"] is True
        later(app.made, 601)
        assert await _said(app, second["access_token"]) == {"active": False}

    _scene(tmp_path, played)


def test_whoever_introspects_proves_who_it_is(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        token = (await _got(app))["access_token"]
        for form in ({}, {"client_id": app.client_id}, {"client_id": SERVING}):
            answer = await app.made.web.post("/oauth/introspect", data={"token": token, **form})
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client"), answer.text
        app.agent.token = token  # it is not for the broker, so it is no holder's here
        assert (await app.made.call(app.agent, "POST", "/oauth/introspect", data={"token": token})).status_code == 401

    _scene(tmp_path, played)


def test_a_client_that_makes_no_proof_gets_a_bearers_token_where_the_service_says_so(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await app.code(authorization_details=None, purpose=None, resource=URI)
        form = {"client_id": app.client_id, **app.redeeming(code)}
        told = (await app.made.web.post("/oauth/token", data=form)).json()
        claims = parts(told["access_token"])[1]
        assert (told["token_type"], told["expires_in"], claims["aud"], "cnf" in claims) == ("Bearer", 600, URI, False)
        said = await _said(app, told["access_token"])
        assert (said["active"], said["token_type"]) == (True, "Bearer")
        headers = {"authorization": f"Bearer {told['access_token']}"}
        for name in ("search", "orders"):
            with pytest.raises(AudienceError):
                await app.made.verifier.proven(headers, "GET", f"{GATEWAY}/{name}/v1/x", name)
        await _put(app, bear=False)
        assert await _said(app, told["access_token"]) == {"active": False}

    _scene(tmp_path, played, bear=True)


def test_without_a_word_of_the_service_there_are_no_bearers(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await app.code(authorization_details=None, purpose=None, resource=URI)
        answer = await app.made.web.post("/oauth/token", data={"client_id": app.client_id, **app.redeeming(code)})
        assert (answer.status_code, answer.json()["code"]) == (400, "bearer")

    _scene(tmp_path, played)


def test_rs256_is_for_the_service_that_wants_it_and_every_confusion_of_algorithms_is_refused(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        made = app.made
        token, ours = (await _got(app, OTHER, BILLS))["access_token"], (await _got(app))["access_token"]
        jwks = {jwk["alg"]: jwk for jwk in (await made.web.get("/oauth/jwks")).json()["keys"]}
        assert [parts(one)[0]["alg"] for one in (token, ours)] == ["RS256", "ES256"]
        assert set(jwks) == {"RS256", "ES256"}
        assert (await _said(app, token, BILLING))["active"] is True
        claims = parts(token)[1]
        pem = RSAKey.import_key(jwks["RS256"]).as_pem(private=False)
        rs, es, mac = jwks["RS256"]["kid"], jwks["ES256"]["kid"], partial(hmac.digest, pem, digest="sha256")
        forged = [
            jws({"typ": "at+jwt", "alg": "HS256", "kid": rs}, claims, mac),
            jws({"typ": "at+jwt", "alg": "HS256", "kid": es}, claims, mac),
            jws({"typ": "at+jwt", "alg": "none", "kid": rs}, claims, lambda _: b""),
            jws({"typ": "at+jwt", "alg": "ES256", "kid": rs}, claims, made.signer.sign),
            jws({"typ": "at+jwt", "alg": "RS256", "kid": es}, claims, made.signer.sign),
            jws({"typ": "at+jwt", "alg": "PS256", "kid": rs}, claims, made.signer.sign),
            jws({"typ": "JWT", "alg": "ES256", "kid": es}, claims, made.signer.sign),
        ]
        for one in forged:
            assert await _said(app, one, BILLING) == {"active": False}
            for whom in (made.base, GATEWAY):
                header, told = parts(one)[0], {**claims, "aud": whom}
                app.agent.token = jws(header, told, mac)
                assert (await made.call(app.agent, "GET", "/v1/self")).status_code == 401

    _scene(tmp_path, played)


def test_the_key_of_rs256_opens_nothing_here(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        made = app.made
        claims = parts((await _got(app, OTHER, BILLS))["access_token"])[1]
        by_rsa = made.tokens._by_rsa
        assert by_rsa is not None
        signer = by_rsa.signer
        header = {"typ": "at+jwt", "alg": "RS256", "kid": signer.kid}
        for whom in (made.base, GATEWAY, f"{GATEWAY}/search", URI):
            app.agent.token = jws(header, {**claims, "aud": whom}, signer.sign)
            assert (await made.call(app.agent, "GET", "/v1/self")).status_code == 401
            assert await _said(app, app.agent.token) == {"active": False}
            url = f"{GATEWAY}/search/v1/x"
            proof = app.agent.proof("GET", url, made.world.now, made.verifier.nonce(), app.agent.token)
            told = {"authorization": f"DPoP {app.agent.token}", "dpop": proof}
            with pytest.raises(TokenError, match="signs nothing for its audience"):
                await made.verifier.proven(told, "GET", url, "search")

    _scene(tmp_path, played)


@pytest.mark.parametrize(("uri", "raw", "serving"), [(URI, ORDERS, SERVING), (OTHER, BILLS, BILLING)])
def test_a_token_that_a_service_was_shown_ends_nothing_and_its_client_ends_it_by_the_refresh_token(
    tmp_path: Path, uri: str, raw: dict[str, object], serving: str
) -> None:
    async def played(app: App) -> None:
        told = await _got(app, uri, raw, SEARCH)
        for who in ({}, {"client_id": app.client_id}, svid(serving), svid(BILLING)):
            form = {"token": told["access_token"], **{name: str(value) for name, value in who.items() if value}}
            answer = await app.made.web.post("/oauth/revoke", data=form)
            assert (answer.status_code, answer.json()["error"]) == (400, "unsupported_token_type"), answer.text
        assert (await _said(app, told["access_token"], serving))["active"] is True
        mine = {"token": told["refresh_token"], "client_id": app.client_id}
        assert (await app.made.web.post("/oauth/revoke", data=mine)).json()["revoked"] == 1
        assert await _said(app, told["access_token"], serving) == {"active": False}

    _scene(tmp_path, played)


def test_the_workload_that_a_token_for_a_service_was_given_to_ends_it_by_proving_who_it_is(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        mine = "spiffe://agents.test/planner"
        asked = {"authorization_details": _asked(ORDERS), "resource": URI, "purpose": "p", "ttl": "600"}
        made = await app.token(grant_type="client_credentials", **asked, **svid(mine))
        assert made.status_code == 200, made.text
        for who, ended in (({}, None), (svid(SERVING), None), (svid(mine), 1)):
            form = {"token": made.json()["access_token"], **{name: str(value) for name, value in who.items() if value}}
            answer = await app.made.web.post("/oauth/revoke", data=form)
            assert (answer.status_code, answer.json().get("revoked")) == (200, ended), answer.text

    _scene(tmp_path, played)


@pytest.mark.parametrize("gone", [False, True])
def test_a_token_is_not_active_where_its_service_has_moved_or_gone(tmp_path: Path, *, gone: bool) -> None:
    async def played(app: App) -> None:
        told, broker = await _got(app), app.made.broker
        if gone:
            await broker.delete_resource(OPERATOR, "orders")
        else:
            moved = Resource("orders", "elsewhere", "elsewhere:https://new.test", details(ORDERS), None, {})
            await broker.put_resource(OPERATOR, moved)
        assert await _said(app, told["access_token"]) == {"active": False}

    _scene(tmp_path, played)


def test_libraries_that_services_have_verify_a_token_for_theirs_alone(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        keys = (await app.made.web.get("/oauth/jwks")).json()
        now, issuer = int(app.made.world.now.timestamp()), app.made.base
        for uri, raw, alg in ((URI, ORDERS, "ES256"), (OTHER, BILLS, "RS256")):
            token = (await _got(app, uri, raw))["access_token"]
            key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(token)["kid"]]
            untimed: Any = {"verify_exp": False, "verify_iat": False}  # the broker's clock is a test's
            told = jwt.decode(token, key, algorithms=[alg], issuer=issuer, audience=uri, options=untimed)
            assert told["authorization_details"] == [raw]
            with pytest.raises(jwt.InvalidAudienceError):
                jwt.decode(token, key, algorithms=[alg], issuer=issuer, audience=f"{uri}/x", options=untimed)
            read = joserfc_jwt.decode(token, KeySet.import_key_set(keys), algorithms=[alg])
            wanted = {"iss": {"essential": True, "value": issuer}, "aud": {"essential": True, "value": uri}}
            JWTClaimsRegistry(now, **wanted).validate(read.claims)  # type: ignore[arg-type]  # what it takes
            options = {"iss": {"value": issuer}, "aud": {"value": uri}}
            found = JsonWebToken([alg]).decode(token, JsonWebKey.import_key_set(keys), JWTAccessTokenClaims, options)
            found["exp"] += int(time.time()) - now
            found.validate()
            assert found["cnf"] == told["cnf"]

    _scene(tmp_path, played)


def test_metadata_says_how_services_introspect(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await app.made.web.get("/.well-known/oauth-authorization-server")).json()
        assert told["introspection_endpoint_auth_methods_supported"] == ["DPoP", "private_key_jwt"]
        assert "ES256" in told["introspection_endpoint_auth_signing_alg_values_supported"]

    async def whole(app: App) -> None:
        await played(app)

    scene(tmp_path, whole, services=SERVICES, methods=("private_key_jwt",))
