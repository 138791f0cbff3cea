"""Tokens that work for whoever has them: for one resource that says so, for minutes, and shown wherever it counts."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest

from remit.core.policy import Decision, Question, in_bounds
from remit.core.secret import Secret
from remit.errors import AudienceError, RevokedError, TokenError, UnauthenticatedError
from remit.ports import Resource
from tests.attacks.forge import parts
from tests.broker.world import OPERATOR, SEARCH, TABLE, World, details, search
from tests.oauth.consent_driver import DEVICE, App, authorization_page, browser, clients, decide, scene, svid
from tests.oauth.plane import jws, later

GATEWAY = "http://127.0.0.1:8471"
ENDPOINT = f"{GATEWAY}/search"
Played = Callable[[App], Awaitable[None]]


async def _let(app: App, *, bear: bool) -> None:
    """Have the operator say whether the resource `search` takes bearers."""
    resource = replace(search(), settings={**search().settings, "bearer": bear})
    await app.made.broker.put_resource(OPERATOR, resource, Secret("api-key-0123456789ab"))


def _scene(tmp_path: Path, played: Played, *, bear: bool = True, **more: Any) -> None:
    async def whole(app: App) -> None:
        await _let(app, bear=bear)
        await played(app)

    scene(tmp_path, whole, gateway=GATEWAY, registry=clients(), **more)


async def _unproven(app: App, **form: str | None) -> httpx.Response:
    """Call the token endpoint as a client does that makes no proof."""
    given = {"client_id": app.client_id, **form}
    return await app.made.web.post("/oauth/token", data={k: v for k, v in given.items() if v is not None})


async def _borne(app: App, **more: str | None) -> dict[str, Any]:
    answer = await _unproven(app, **app.redeeming(await app.code(None, **more)))
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def _used(app: App, token: str, name: str = "search", **more: str) -> str:
    headers = {"authorization": f"Bearer {token}", **more}
    return (await app.made.verifier.proven(headers, "GET", f"{GATEWAY}/{name}/v1/x", name)).grant


def test_a_client_that_proves_nothing_gets_a_token_for_one_endpoint_for_minutes(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = await _borne(app)
        assert (told["token_type"], told["expires_in"]) == ("Bearer", 600)
        claims: dict[str, Any] = parts(told["access_token"])[1]
        assert (claims["aud"], "cnf" in claims, claims["task"]["posture"]["custody"]) == (ENDPOINT, False, "bearer")
        assert await _used(app, told["access_token"]) == told["grant"]

    _scene(tmp_path, played)


def test_it_is_worth_nothing_anywhere_else(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        token = (await _borne(app))["access_token"]
        with pytest.raises(AudienceError):
            await _used(app, token, "warehouse")
        for scheme in ("Bearer", "DPoP"):
            headers = {"authorization": f"{scheme} {token}"}
            assert (await app.made.web.get("/v1/self", headers=headers)).status_code == 401
        kind = "urn:ietf:params:oauth:token-type:access_token"
        exchange = {"grant_type": "urn:ietf:params:oauth:grant-type:token-exchange", "subject_token_type": kind}
        answer = await app.token(**{**exchange, "subject_token": token}, client_id=None)
        assert answer.status_code == 400
        assert (await app.made.web.get(f"/v1/self?access_token={token}")).status_code == 400
        with pytest.raises(UnauthenticatedError):
            await app.made.verifier.proven({}, "GET", f"{ENDPOINT}?access_token={token}", "search")

    _scene(tmp_path, played)


def test_it_is_no_token_for_a_key_and_none_for_a_key_is_it(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        token = (await _borne(app))["access_token"]
        proof = app.agent.proof("GET", f"{ENDPOINT}/v1/x", app.made.world.now, app.made.verifier.nonce(), token)
        with pytest.raises(TokenError):
            await _used(app, token, dpop=proof)
        keyed = (await app.redeem(await app.code(resource=ENDPOINT), resource=ENDPOINT)).json()
        assert (keyed["token_type"], parts(keyed["access_token"])[1]["aud"]) == ("DPoP", ENDPOINT)
        with pytest.raises(TokenError):
            await _used(app, keyed["access_token"])

    _scene(tmp_path, played)


@pytest.mark.parametrize(
    ("asked", "bear"),
    [([SEARCH], False), ([SEARCH, TABLE], True), ([TABLE], True)],
    ids=["not said", "and another resource", "another resource"],
)
def test_whoever_asks_for_anything_else_is_told_the_two_ways(
    tmp_path: Path, asked: list[dict[str, object]], *, bear: bool
) -> None:
    async def played(app: App) -> None:
        code = await app.code(authorization_details=json.dumps(asked))
        answer = await _unproven(app, **app.redeeming(code))
        told = answer.json()
        assert (answer.status_code, told["error"], told["code"]) == (400, "invalid_dpop_proof", "bearer")
        assert told["error_description"].startswith("there is no DPoP proof and no client certificate")
        assert all(way in told["help"] for way in ("DPoP", "certificate", "`bearer = true`"))
        assert (await app.redeem(code)).status_code == 200  # nothing was used up

    _scene(tmp_path, played, bear=bear)


def test_another_audience_than_its_endpoint_is_refused(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await app.code(resource=GATEWAY)
        assert (await _unproven(app, **app.redeeming(code))).json()["error"] == "invalid_target"
        assert (await app.redeem(code)).status_code == 200  # by a key it can be for that, and nothing was used up
        assert parts((await _borne(app, resource=f"{ENDPOINT}/"))["access_token"])[1]["aud"] == ENDPOINT

    _scene(tmp_path, played)


def test_the_human_reads_that_it_works_for_whoever_has_it(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = "works for whoever has it"
        assert told in unescape((await authorization_page(app)).text)
        assert told not in unescape((await authorization_page(app, dpop_jkt="k" * 43)).text)
        await _let(app, bear=False)
        assert told not in unescape((await authorization_page(app)).text)

    _scene(tmp_path, played)


def test_what_a_human_approved_for_a_key_is_not_borne(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        await _let(app, bear=False)
        before = await app.code()
        await _let(app, bear=True)  # the human was told nothing of it
        assert (await _unproven(app, **app.redeeming(before))).json()["code"] == "bearer"
        keyed = await app.code(dpop_jkt=app.agent.signer.kid)
        assert (await _unproven(app, **app.redeeming(keyed))).json()["error"] == "invalid_dpop_proof"

    _scene(tmp_path, played)


async def _removed(app: App) -> None:
    await app.made.broker.delete_resource(OPERATOR, "search")


async def _stopped(app: App) -> None:
    await _let(app, bear=False)


@pytest.mark.parametrize("change", [_stopped, _removed], ids=["said so", "removed"])
def test_it_ends_for_good_when_the_resource_takes_bearers_no_more(tmp_path: Path, change: Played) -> None:
    async def played(app: App) -> None:
        told, keyed = await _borne(app), (await app.redeem(await app.code())).json()
        await change(app)
        ended = next(event for event in reversed(await app.made.world.events()) if event.grant == told["grant"])
        assert (ended.event, ended.decision) == ("task.close", "done")
        await _let(app, bear=True)
        with pytest.raises(RevokedError):
            await _used(app, told["access_token"])
        form = {"grant_type": "refresh_token", "refresh_token": told["refresh_token"]}
        assert (await _unproven(app, **form)).json()["error"] == "invalid_grant"
        if change is _stopped:  # one for a key goes on
            await app.made.broker.grant(keyed["grant"])
            assert ended.cause == "the resource was changed: `search` takes no bearers any more"

    _scene(tmp_path, played)


def test_its_refresh_token_rotates_and_a_second_use_ends_the_task(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = await _borne(app)
        form: dict[str, str | None] = {"grant_type": "refresh_token", "refresh_token": told["refresh_token"]}
        assert (await app.token(**form)).json()["error"] == "invalid_dpop_proof"  # a bearer proves no key
        fresh = (await _unproven(app, **form)).json()
        assert await _used(app, fresh["access_token"]) == told["grant"]
        assert (await _unproven(app, **form, resource=GATEWAY)).json()["error"] == "invalid_grant"  # used
        with pytest.raises(RevokedError):
            await _used(app, fresh["access_token"])

    _scene(tmp_path, played)


FORGED: list[dict[str, Any]] = [{}, {"exp": 10**8}, {"jti": "tok_forged"}, {"exp": -60, "jti": "tok_forged"}]


@pytest.mark.parametrize("changes", FORGED, ids=str)
def test_whoever_has_the_key_that_signs_makes_none(tmp_path: Path, changes: dict[str, Any]) -> None:
    async def played(app: App) -> None:
        told = await _borne(app, ttl="28800")
        head, claims = parts(told["access_token"])[:2]
        forged = jws(head, {**claims, **changes, "exp": claims["exp"] + changes.get("exp", 0)}, app.made.signer.sign)
        if not changes:
            app.made.tokens.keys_changed()  # its digest is forgotten
            assert await _used(app, forged) == told["grant"]
            app.made.tokens._key = bytes(32)  # the process is another
            app.made.tokens.keys_changed()
        with pytest.raises(TokenError, match="since this broker started"):
            await _used(app, forged)
        last = (await app.made.world.events())[-1]
        assert (last.decision, last.code, last.grant) == ("deny", "token", told["grant"])

    _scene(tmp_path, played)


def test_a_refresh_that_cannot_be_answered_spends_nothing(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = await _borne(app)
        form: dict[str, str | None] = {"grant_type": "refresh_token", "refresh_token": told["refresh_token"]}
        for resource in (GATEWAY, f"{GATEWAY}/warehouse"):
            assert (await _unproven(app, **form, resource=resource)).json()["error"] == "invalid_target"
        told = (await _unproven(app, **form)).json()
        assert await _used(app, told["access_token"]) == told["grant"]

    _scene(tmp_path, played)


def test_a_code_that_comes_while_the_resource_takes_no_bearers_is_not_used_up(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        form = app.redeeming(await app.code())
        await _let(app, bear=False)
        assert (await _unproven(app, **form)).json()["code"] == "bearer"
        await _let(app, bear=True)
        assert (await _unproven(app, **form)).json()["token_type"] == "Bearer"

    _scene(tmp_path, played)


def test_it_is_over_in_ten_minutes(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        token = (await _borne(app))["access_token"]
        later(app.made, 599)
        await _used(app, token)
        later(app.made, 1)
        with pytest.raises(TokenError):
            await _used(app, token)

    _scene(tmp_path, played)


def test_policies_and_the_audit_see_a_bearer(tmp_path: Path) -> None:
    seen: list[str] = []

    def keyed(question: Question) -> Decision:
        seen.append(question.posture.custody)
        return Decision(allowed=False, reasons=("no bearers",)) if seen[-1] == "bearer" else in_bounds(question)

    async def played(app: App) -> None:
        answer = await _unproven(app, **app.redeeming(await app.code()))
        assert answer.json()["code"] == "policy"
        assert seen[-1] == "bearer"
        assert (await app.made.world.events())[-1].posture == "none/bearer/kek-file"

    _scene(tmp_path, played, world=World(now=datetime(2026, 11, 25, 12, tzinfo=UTC), decide=keyed))


def test_a_device_and_a_workload_can_be_bearers_too(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        asked = app.polled_request(client_id="tv")
        codes = (await app.made.web.post("/oauth/device_authorization", data=asked)).json()
        visitor = browser(app.made)
        page = await visitor.post("/oauth/device", data={"user_code": codes["user_code"]})
        await decide(visitor, app.issuer, page)
        form = {"grant_type": DEVICE, "device_code": codes["device_code"], "client_id": "tv"}
        assert (await _unproven(app, **form)).json()["token_type"] == "Bearer"
        own = {**app.polled_request(**svid()), "grant_type": "client_credentials", "ttl": "60", "client_id": None}
        told = (await _unproven(app, **own)).json()
        about: Any = parts(told["access_token"])[1]["task"]
        assert (told["token_type"], about["attested"]) == ("Bearer", True)

    _scene(tmp_path, played)


SERVERS = tuple(
    {"type": "mcp", "resource": name, "actions": ["tools/call"], "tools": "any"} for name in ("bank", "forge")
)
MANY = f"{GATEWAY}/mcp"


async def _serve(app: App, name: str, *, bear: bool = True) -> None:
    [detail] = (one for one in SERVERS if one["resource"] == name)
    there = Resource(name, "mcp", f"mcp+https://{name}.test/mcp", details(detail), None, {"bearer": bear})
    await app.made.broker.put_resource(OPERATOR, there)


def _among_servers(tmp_path: Path, played: Played) -> None:
    async def whole(app: App) -> None:
        for name in ("bank", "forge"):
            await _serve(app, name)
        await played(app)

    _scene(tmp_path, whole)


async def _at_many(app: App, *asked: object, **more: str | None) -> httpx.Response:
    code = await app.code(None, authorization_details=json.dumps(asked or SERVERS), **more)
    return await _unproven(app, **app.redeeming(code))


@pytest.mark.parametrize("resource", [MANY, None])
def test_one_for_servers_of_mcp_works_at_their_one_endpoint_and_at_none_of_theirs(
    tmp_path: Path, resource: str | None
) -> None:
    async def played(app: App) -> None:
        told = (await _at_many(app, resource=resource)).json()
        token = told["access_token"]
        claims: dict[str, Any] = parts(token)[1]
        assert (claims["aud"], "cnf" in claims, claims["task"]["posture"]["custody"]) == (MANY, False, "bearer")
        assert await _used(app, token, "mcp") == told["grant"]
        for name in ("bank", "forge", "search"):
            with pytest.raises(AudienceError):
                await _used(app, token, name)
        assert (await app.made.web.get("/v1/self", headers={"authorization": f"Bearer {token}"})).status_code == 401
        form: dict[str, str | None] = {"grant_type": "refresh_token", "refresh_token": told["refresh_token"]}
        wrong = await _unproven(app, **form, resource=f"{GATEWAY}/bank")
        assert wrong.json()["error"] == "invalid_target"
        fresh = (await _unproven(app, **form)).json()
        assert await _used(app, fresh["access_token"], "mcp") == told["grant"]

    _among_servers(tmp_path, played)


def test_one_for_one_server_can_be_for_that_endpoint_instead(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        token = (await _at_many(app, SERVERS[0], resource=MANY)).json()["access_token"]
        await _used(app, token, "mcp")
        with pytest.raises(AudienceError):
            await _used(app, token, "bank")

    _among_servers(tmp_path, played)


def test_what_is_not_all_of_servers_that_take_bearers_has_none(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        assert (await _at_many(app, *SERVERS, SEARCH)).json()["code"] == "bearer"
        await _serve(app, "forge", bear=False)
        assert (await _at_many(app)).json()["code"] == "bearer"

    _among_servers(tmp_path, played)


@pytest.mark.parametrize("name", ["bank", "forge"])
def test_it_ends_when_one_of_the_servers_takes_bearers_no_more(tmp_path: Path, name: str) -> None:
    async def played(app: App) -> None:
        told = (await _at_many(app)).json()
        await _serve(app, name, bear=False)
        ended = next(event for event in reversed(await app.made.world.events()) if event.grant == told["grant"])
        assert ended.cause == f"the resource was changed: `{name}` takes no bearers any more"
        await _serve(app, name)
        with pytest.raises(RevokedError):
            await _used(app, told["access_token"], "mcp")

    _among_servers(tmp_path, played)


def test_the_human_reads_that_it_works_at_the_endpoint_of_all(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        page = unescape((await authorization_page(app, authorization_details=json.dumps(SERVERS))).text)
        assert "works for whoever has it" in page
        assert "the one endpoint of all these" in page

    _among_servers(tmp_path, played)


def test_a_key_s_token_can_be_for_that_endpoint_too(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await app.code(authorization_details=json.dumps(SERVERS), resource=MANY)
        token = (await app.redeem(code, resource=MANY)).json()["access_token"]
        assert parts(token)[1]["aud"] == MANY
        for name, accepted in (("mcp", True), ("bank", False)):
            url = f"{GATEWAY}/{name}"
            proof = app.agent.proof("POST", url, app.made.world.now, app.made.verifier.nonce(), token)
            asked = app.made.verifier.proven({"authorization": f"DPoP {token}", "dpop": proof}, "POST", url, name)
            if accepted:
                await asked
                continue
            with pytest.raises(AudienceError):
                await asked

    _among_servers(tmp_path, played)
