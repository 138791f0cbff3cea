"""Redeeming what a human approved: codes once, by their own client, with their verifier; polling at its pace."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from starlette.types import Receive, Scope, Send

from remit import jose
from remit.compose.app import build
from remit.errors import LimitError, NotFoundError
from remit.ports.pending import AuthorizationCode, PendingStore
from remit.web.authentication import TokenAuth
from tests.attacks.forge import parts
from tests.broker.world import SEARCH, TABLE
from tests.oauth.consent_driver import ALICE, CIBA, DEVICE, App, answer_of, browser, decide, scene
from tests.oauth.plane import Agent, claims_of, later
from tests.web.fake_identity import certificate

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)


# -- codes ------------------------------------------------------------------------------------------------------------


def test_a_code_is_redeemed_for_a_token_and_a_refresh_token(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        told = (await app.redeem(await app.code())).json()
        assert told["token_type"] == "DPoP"
        assert told["authorization_details"] == [SEARCH]
        fresh = await app.token(grant_type="refresh_token", refresh_token=told["refresh_token"])
        assert fresh.json()["grant"] == told["grant"]
        stolen = await app.token(Agent(), grant_type="refresh_token", refresh_token=fresh.json()["refresh_token"])
        assert stolen.json()["error"] == "invalid_dpop_proof"

    scene(tmp_path, played)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"code": "guess"}, "invalid_grant"),
        ({"code": None}, "invalid_request"),
        ({"client_id": "tv"}, "invalid_grant"),
        ({"client_id": None}, "invalid_grant"),
        ({"redirect_uri": "http://127.0.0.1:9/cb"}, "invalid_grant"),
        ({"redirect_uri": None}, "invalid_grant"),
        ({"code_verifier": "v" * 43}, "invalid_grant"),
        ({"code_verifier": "short"}, "invalid_grant"),
        ({"code_verifier": None}, "invalid_grant"),
        ({"resource": "https://elsewhere.test"}, "invalid_target"),
    ],
)
def test_what_does_not_fit_opens_nothing(tmp_path: Path, wrong: dict[str, str | None], error: str) -> None:
    async def played(app: App) -> None:
        code = await app.code()
        answer = await app.token(**{**app.redeeming(code), **wrong})
        assert (answer.status_code, answer.json()["error"]) == (400, error)
        assert list(app.made.broker._tasks) == []

    scene(tmp_path, played)


def test_a_proof_without_a_nonce_does_not_use_up_the_code(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await app.code()
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": app.redirect}
        form |= {"code_verifier": app.verifier, "client_id": app.client_id}
        proof = app.agent.proof("POST", app.made.endpoint, app.made.world.now, "stale", None)
        answer = await app.made.web.post("/oauth/token", data=form, headers={"dpop": proof})
        assert answer.json()["error"] == "use_dpop_nonce"
        unproven = await app.made.web.post("/oauth/token", data=form)
        assert unproven.json()["error"] == "invalid_dpop_proof"
        assert (await app.redeem(code)).status_code == 200

    scene(tmp_path, played)


def test_a_code_used_twice_ends_what_it_opened(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await app.code()
        told = (await app.redeem(code)).json()
        app.agent.token = told["access_token"]
        assert (await app.made.call(app.agent, "GET", "/v1/self")).status_code == 200
        assert (await app.redeem(code)).json()["error"] == "invalid_grant"
        assert (await app.made.call(app.agent, "GET", "/v1/self")).status_code in {401, 403}
        refreshed = await app.token(grant_type="refresh_token", refresh_token=told["refresh_token"])
        assert refreshed.json()["error"] == "invalid_grant"
        said = [
            (one.event, one.action, one.code) for one in await app.made.world.events() if one.grant == told["grant"]
        ]
        assert ("resource.use", "redeem", "used") in said

    scene(tmp_path, played)


def test_what_a_code_opened_ends_when_its_use_fails_half_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def played(app: App) -> None:
        code, inner = await app.code(), PendingStore[AuthorizationCode].find

        async def full(kept: PendingStore[AuthorizationCode], name: str) -> object:
            if any(event.event == "task.open" for event in await app.made.world.events()):
                raise LimitError("too many requests wait at once", retry_after=60)
            return await inner(kept, name)

        with monkeypatch.context() as patched:
            patched.setattr(PendingStore, "find", full)
            assert (await app.redeem(code)).status_code == 429
        events = await app.made.world.events()
        opened = {event.grant for event in events if event.event == "task.open"}
        assert opened
        assert {event.grant for event in events if event.event == "grant.revoke"} == opened
        assert (await app.redeem(code)).json()["error"] == "invalid_grant"

    scene(tmp_path, played)


FOUND: dict[str, dict[str, str | None]] = {
    "another client": {"client_id": "tv"},
    "no client": {"client_id": None},
    "another redirect URI": {"redirect_uri": "http://127.0.0.1:9/cb"},
    "no redirect URI": {"redirect_uri": None},
    "another verifier": {"code_verifier": "v" * 43},
    "no verifier": {"code_verifier": None},
}


@pytest.mark.attack("OAU-13")
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("how", FOUND)
def test_who_found_a_code_neither_uses_it_up_nor_ends_what_it_opened(tmp_path: Path, how: str, *, first: bool) -> None:
    """A redirect is in a history, without the verifier (RFC 9700 §4.8): it is no second use of the client's."""

    async def played(app: App) -> None:
        code, thief = await app.code(), Agent()
        if first:
            assert (await app.redeem(code, thief, **FOUND[how])).json()["error"] == "invalid_grant"
        told = (await app.redeem(code)).json()
        app.agent.token = told["access_token"]
        if not first:
            assert (await app.redeem(code, thief, **FOUND[how])).json()["error"] == "invalid_grant"
        assert (await app.made.call(app.agent, "GET", "/v1/self")).status_code == 200

    scene(tmp_path, played)


@pytest.mark.attack("OAU-13")
def test_a_code_for_one_key_is_not_used_up_by_another(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await app.code(dpop_jkt=app.agent.signer.kid)
        assert (await app.redeem(code, Agent())).status_code == 400
        told = (await app.redeem(code)).json()
        app.agent.token = told["access_token"]
        assert (await app.redeem(code, Agent())).status_code == 400
        assert (await app.made.call(app.agent, "GET", "/v1/self")).status_code == 200

    scene(tmp_path, played)


def test_of_two_uses_at_once_no_grant_is_left(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await app.code()
        answers = await asyncio.gather(app.redeem(code), app.redeem(code))
        assert "invalid_grant" in {answer.json().get("error") for answer in answers}
        task = next(iter(app.made.broker._tasks))
        assert all(grant.revoked for grant in task.grants.values())

    scene(tmp_path, played)


def test_a_code_is_over_after_a_minute(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await app.code()
        later(app.made, 60)
        assert (await app.redeem(code)).json()["error"] == "invalid_grant"

    scene(tmp_path, played)


def test_what_policy_forbids_is_not_opened_even_if_a_human_approved(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        code = await app.code(
            authorization_details='[{"type":"http","resource":"none","actions":["GET"],"paths":["/a"]}]'
        )
        answer = await app.redeem(code)
        assert answer.json()["code"] == "policy"

    scene(tmp_path, played)


# -- certificates -----------------------------------------------------------------------------------------------------


def certified(app: App, shown: list[bytes]) -> httpx.AsyncClient:
    """Return a client of an application of its own, whose requests come in TLS with the certificate in ``shown``."""
    served = build(app.made.deps)
    host = app.made.base.removeprefix("http://")
    authority = TokenAuth(frozenset({host}), app.made.verifier.holder)

    async def called(scope: Scope, receive: Receive, send: Send) -> None:
        state = {"listener": authority, "certificates": tuple(shown)}
        await served({**scope, "state": state}, receive, send)

    client = httpx.AsyncClient(transport=httpx.ASGITransport(called), base_url=app.made.base)
    app.made.clients.append(client)
    return client


def test_a_code_can_be_redeemed_for_a_token_of_a_certificate(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        ends = NOW + timedelta(hours=1)
        own = certificate("app", ends)
        shown = [own]
        client = certified(app, shown)
        last = await decide(client, app.issuer, await client.get("/oauth/authorize", params=app.browser_request()))
        form = {**app.redeeming(answer_of(last)["code"]), "client_id": app.client_id}
        told = (await client.post("/oauth/token", data=form)).json()
        assert told["token_type"] == "Bearer"
        assert app.made.verifier.signed(told["access_token"]).x5t == jose.encode(sha256(own).digest())
        refresh = {"grant_type": "refresh_token", "refresh_token": told["refresh_token"], "client_id": app.client_id}
        shown[:] = [certificate("other", ends)]
        assert (await client.post("/oauth/token", data=refresh)).json()["error"] == "invalid_dpop_proof"
        shown[:] = [own]
        assert (await client.post("/oauth/token", data=refresh)).json()["token_type"] == "Bearer"

    scene(tmp_path, played)


def test_a_certificate_is_no_key_that_a_human_approved_of(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        client = certified(app, [certificate("app", NOW + timedelta(hours=1))])
        asked = app.browser_request(dpop_jkt=app.agent.signer.kid)
        last = await decide(client, app.issuer, await client.get("/oauth/authorize", params=asked))
        form = {**app.redeeming(answer_of(last)["code"]), "client_id": app.client_id}
        assert (await client.post("/oauth/token", data=form)).json()["error"] == "invalid_dpop_proof"
        assert list(app.made.broker._tasks) == []

    scene(tmp_path, played)


# -- polling ----------------------------------------------------------------------------------------------------------


async def device(app: App, **more: str | None) -> dict[str, str]:
    """Ask as a device; return the two codes."""
    answer = await app.made.web.post("/oauth/device_authorization", data=app.polled_request(**more))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def polled(app: App, code: str, agent: Agent | None = None, **more: str | None) -> tuple[int, str]:
    """Poll; return the status and the error."""
    answer = await app.token(agent, grant_type=DEVICE, device_code=code, **more)
    return answer.status_code, answer.json().get("error", "")


async def confirm(app: App, codes: dict[str, str], decision: str = "approve") -> None:
    """Type the code, and decide."""
    visitor = browser(app.made)
    shown = await visitor.post("/oauth/device", data={"user_code": codes["user_code"]})
    assert (await decide(visitor, app.issuer, shown, decision)).status_code == 200


def test_polling_waits_slows_down_and_ends_with_a_token(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        codes = await device(app)
        assert await polled(app, codes["device_code"]) == (400, "authorization_pending")
        assert await polled(app, codes["device_code"]) == (400, "slow_down")
        later(app.made, 9)
        assert await polled(app, codes["device_code"]) == (400, "slow_down")  # ten by now
        later(app.made, 15)
        assert await polled(app, codes["device_code"]) == (400, "authorization_pending")
        await confirm(app, codes)
        later(app.made, 15)
        told = (await app.token(grant_type=DEVICE, device_code=codes["device_code"])).json()
        assert told["refresh_token"]
        assert app.made.broker._tasks.task_of(told["grant"]).head.subject.sub == ALICE
        later(app.made, 15)
        assert await polled(app, codes["device_code"]) == (400, "invalid_grant")

    scene(tmp_path, played)


def test_a_refusal_and_the_end_of_time_are_told(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        refused, forgotten = await device(app), await device(app, purpose="something else")
        await confirm(app, refused, "deny")
        assert await polled(app, refused["device_code"]) == (400, "access_denied")
        later(app.made, 600)
        assert await polled(app, forgotten["device_code"]) == (400, "expired_token")
        later(app.made, 1_300)
        await device(app)  # by which the broker forgets what nobody decided on
        assert await polled(app, forgotten["device_code"]) == (400, "expired_token")

    scene(tmp_path, played)


def test_a_device_code_is_of_its_client_alone(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        codes = await device(app)
        await confirm(app, codes)
        assert await polled(app, codes["device_code"], client_id="tv") == (400, "invalid_grant")
        assert await polled(app, "guess") == (400, "invalid_grant")
        assert await polled(app, codes["device_code"]) == (200, "")

    scene(tmp_path, played)


# -- approvals of a grant ---------------------------------------------------------------------------------------------


async def child_requested(app: App, child: Agent) -> dict[str, str]:
    """Have an agent of Alice's ask for what it has not; return the answer."""
    told = (await app.redeem(await app.code(depth="2", fan_out="2"))).json()
    app.agent.token = told["access_token"]
    proof = child.proof(
        "POST", f"{app.made.base}/v1/approvals", app.made.world.now, app.made.verifier.nonce(), app.agent.token
    )
    body = {"parent": told["grant"], "authorization_details": [TABLE], "ttl": 60}
    body |= {"req_cnf": {"jwk": child.jwk}, "req_cnf_proof": proof}
    answer = await app.made.call(app.agent, "POST", "/v1/approvals", json=body)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def test_an_agent_goes_on_by_the_name_of_its_approval(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        child = Agent()
        item = await child_requested(app, child)
        form: dict[str, str | None] = {"grant_type": CIBA, "auth_req_id": item["approval"]}
        assert (await app.token(child, **form)).json()["error"] == "authorization_pending"
        assert (await app.token(Agent(), **form)).json()["error"] == "invalid_grant"
        visitor = browser(app.made)
        shown = await visitor.get(f"/approvals/{item['approval']}")
        assert (await decide(visitor, app.issuer, shown)).status_code == 200
        later(app.made, 5)
        told = (await app.token(child, **form)).json()
        assert told["authorization_details"] == [TABLE]
        assert "refresh_token" not in told
        claims = parts(told["access_token"])[1]
        parent = claims_of(app.made.verifier, app.agent.token).grant
        assert claims_of(app.made.verifier, told["access_token"]).parent == parent
        assert "par_hash" not in claims  # no token of the parent's was presented
        later(app.made, 5)
        assert (await app.token(child, **form)).json()["error"] == "invalid_grant"

    scene(tmp_path, played)


def test_what_an_approval_is_redeemed_for_is_what_the_token_is_for_or_nothing_is_used_up(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        child, gateway = Agent(), "http://127.0.0.1:8471"
        item = await child_requested(app, child)
        form: dict[str, str | None] = {"grant_type": CIBA, "auth_req_id": item["approval"]}
        visitor = browser(app.made)
        await decide(visitor, app.issuer, await visitor.get(f"/approvals/{item['approval']}"))
        answer = await app.token(child, **form, resource=f"{gateway}/search")
        assert answer.json()["error"] == "invalid_target"
        later(app.made, 5)
        told = (await app.token(child, **form, resource=f"{gateway}/warehouse")).json()
        assert parts(told["access_token"])[1]["aud"] == f"{gateway}/warehouse"

    scene(tmp_path, played, gateway="http://127.0.0.1:8471")


def test_an_approval_nobody_asked_for_is_no_way_to_a_token(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        answer = await app.token(grant_type=CIBA, auth_req_id="apr_guess")
        assert answer.json()["error"] == "invalid_grant"
        with pytest.raises(NotFoundError):
            app.made.broker._approvals.get("apr_guess")

    scene(tmp_path, played)


def test_the_issuer_is_asked_to_prove_the_human_anew_only_where_there_is_one(tmp_path: Path) -> None:
    async def played(app: App) -> None:
        child = Agent()
        item = await child_requested(app, child)
        visitor = browser(app.made)
        await decide(visitor, app.issuer, await visitor.get(f"/approvals/{item['approval']}"))
        assert [one.since is not None for one in app.issuer.begun] == [False, True]

    scene(tmp_path, played)
