from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remit import jose
from remit.oauth.clients import OAuthClient
from remit.oauth.token_requests import RefreshTokenGrantType, TokenIssuer
from tests.attacks.forge import parts
from tests.oauth.consent_driver import Issuer
from tests.oauth.plane import Agent, Form, Plane, later, play
from tests.oauth.test_exchange import GATEWAY, last, opened, refused
from tests.web import fake_identity
from tests.web.fake_identity import BUILD, PLANNER, READER, FakeIdentity, assertion_of

APP = "https://app.test/client"


def staged(directory: Path, scene: Any) -> None:
    """Run a scene on a control plane with browser flows, as refresh tokens are for them alone."""
    world = fake_identity.world()
    known = FakeIdentity(world)
    identity = replace(known.identity(), logins=Issuer(world))

    async def run(plane: Plane) -> None:
        await scene(plane)

    play(directory, run, world, identity, GATEWAY)


async def begun(plane: Plane, agent: Agent, client: str = APP, audience: str | None = None, **proving: str) -> str:
    """Open a task for ``agent`` and hand out the first refresh token."""
    await opened(plane, agent, f"id-token-of-alice-{agent.signer.kid}", **proving)
    refreshes = RefreshTokenGrantType(plane.deps, TokenIssuer(plane.verifier, {}))
    return await refreshes.begin(agent.grant, OAuthClient(client, proven=bool(proving)), audience)


def refreshing(token: str, client: str = APP, **more: str) -> Form:
    return {"grant_type": "refresh_token", "refresh_token": token, "client_id": client, **more}


async def turned(plane: Plane, agent: Agent, token: str, **more: str) -> dict[str, Any]:
    answer = await plane.exchange(agent, refreshing(token, **more))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_a_refresh_token_brings_an_access_token_and_the_next_one(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        first = await begun(plane, agent)
        later(plane, 700)
        told = await turned(plane, agent, first)
        assert told["refresh_token"] not in {first, ""}
        assert (told["token_type"], told["grant"], told["expires_in"]) == ("DPoP", agent.grant, 200)
        agent.token = told["access_token"]
        assert (await plane.call(agent, "GET", "/v1/self")).status_code == 200
        await turned(plane, agent, told["refresh_token"])

    staged(tmp_path, scene)


def test_a_spent_one_ends_the_grant_and_the_tokens_of_both(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        first = await begun(plane, agent)
        told = await turned(plane, agent, (await turned(plane, agent, first))["refresh_token"])
        assert refused(await plane.exchange(agent, refreshing(first))) == (400, "invalid_grant", "used")
        agent.token = told["access_token"]
        assert (await plane.call(agent, "GET", "/v1/self")).json()["code"] == "revoked"
        assert refused(await plane.exchange(agent, refreshing(told["refresh_token"])))[1:] == (
            "invalid_grant",
            "revoked",
        )
        assert [e.cause for e in await plane.world.events() if e.event == "grant.revoke"] == [
            "a refresh token was used twice"
        ]

    staged(tmp_path, scene)


def test_a_client_that_did_not_get_the_answer_asks_again(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent, thief = Agent(), Agent()
        first = await begun(plane, agent)
        await turned(plane, agent, first)
        assert refused(await plane.exchange(thief, refreshing(first)))[2] == "wrong-key"
        told = await turned(plane, agent, first)
        agent.token = told["access_token"]
        assert (await plane.call(agent, "GET", "/v1/self")).status_code == 200
        await turned(plane, agent, told["refresh_token"])

    staged(tmp_path, scene)


def test_a_copy_is_worth_nothing_without_the_key_and_spends_nothing(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent, thief = Agent(), Agent()
        first = await begun(plane, agent)
        assert refused(await plane.exchange(thief, refreshing(first)))[2] == "wrong-key"
        assert ((await last(plane)).code, (await last(plane)).key) == ("wrong-key", thief.signer.kid)
        assert (await plane.web.post("/oauth/token", data=refreshing(first))).json()["error"] == "invalid_dpop_proof"
        await turned(plane, agent, first)

    staged(tmp_path, scene)


@pytest.mark.parametrize("client", ["https://other.test/client", ""])
def test_a_refresh_token_is_for_the_client_it_was_given_to(tmp_path: Path, client: str) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        first = await begun(plane, agent)
        assert refused(await plane.exchange(agent, refreshing(first, client)))[1:] == ("invalid_grant", "grant-token")

    staged(tmp_path, scene)


@pytest.mark.parametrize("name", [PLANNER, BUILD])
def test_a_client_that_was_attested_has_to_prove_it_to_refresh(tmp_path: Path, name: str) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        first = await begun(plane, agent, name, **assertion_of(name))
        assert refused(await plane.exchange(agent, refreshing(first, name)))[1] == "invalid_client"
        form = {"grant_type": "refresh_token", "refresh_token": first}
        assert refused(await plane.exchange(agent, {**form, **assertion_of(READER)}))[1] == "invalid_grant"
        assert (await plane.exchange(agent, {**form, **assertion_of(name)})).status_code == 200

    staged(tmp_path, scene)


@pytest.mark.parametrize("token", ["no-such-token", "é"])
def test_a_guess_is_an_invalid_grant(tmp_path: Path, token: str) -> None:
    async def scene(plane: Plane) -> None:
        answer = await plane.exchange(Agent(), refreshing(token))
        assert refused(answer) == (400, "invalid_grant", "grant-token")

    staged(tmp_path, scene)


def test_a_token_that_is_refreshed_stays_for_whom_it_was_unless_another_is_named(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        first = await begun(plane, agent, audience=GATEWAY)
        told = await turned(plane, agent, first)
        assert parts(told["access_token"])[1]["aud"] == GATEWAY
        answer = await plane.exchange(agent, refreshing(told["refresh_token"], resource="https://other.test"))
        assert refused(answer)[1] == "invalid_target"
        await turned(plane, agent, told["refresh_token"])

    staged(tmp_path, scene)


def test_authority_cannot_be_asked_for_in_a_refresh(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        first = await begun(plane, agent)
        for name in ("authorization_details", "ttl", "depth", "purpose", "scope"):
            answer = await plane.exchange(agent, refreshing(first, **{name: "1"}))
            assert refused(answer)[1] == ("invalid_scope" if name == "scope" else "invalid_request")
        assert (await plane.exchange(agent, refreshing(first, foo="1", scope="", claims="{}"))).status_code == 200

    staged(tmp_path, scene)


def test_revoking_a_refresh_token_ends_its_grant(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        first = await begun(plane, agent)
        nobody = await plane.web.post("/oauth/revoke", data={"token": first, "client_id": "https://other.test"})
        assert (nobody.status_code, nobody.json()) == (200, {})
        assert plane.broker._tasks.check(agent.grant).grant.id == agent.grant
        answer = await plane.web.post("/oauth/revoke", data={"token": first, "client_id": APP})
        assert answer.json()["state"] == "closed"
        assert refused(await plane.exchange(agent, refreshing(first)))[2] == "revoked"

    staged(tmp_path, scene)


def test_a_refresh_token_is_not_kept_as_it_is(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        first = await begun(plane, Agent())
        (record,) = await plane.world.store.records("refresh")
        assert first.encode() not in record.body
        assert jose.digest(first).encode() in record.body

    staged(tmp_path, scene)


def test_without_browser_flows_there_are_no_refresh_tokens(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        assert refused(await plane.exchange(Agent(), refreshing("x")))[1] == "unsupported_grant_type"

    play(tmp_path, scene)


def test_a_refresh_token_has_256_random_bits(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        drawn = [await begun(plane, agent)]
        for _ in range(10):
            drawn.append((await turned(plane, agent, drawn[-1]))["refresh_token"])
        assert len(set(drawn)) == 11
        assert {len(token) for token in drawn} == {43}

    staged(tmp_path, scene)
