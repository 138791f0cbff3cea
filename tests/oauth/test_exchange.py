"""Token exchange over TCP for humans and workloads that are believed: open, delegate with an actor, audiences."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from remit.core.audit import Event
from remit.web.verifier import thumbprint
from tests.attacks.forge import parts
from tests.broker.world import SEARCH, TABLE
from tests.oauth.plane import ACCESS_TOKEN, EXCHANGE, Agent, Form, Plane, later, play
from tests.web import fake_identity
from tests.web.fake_identity import (
    ALICE,
    PLANNER,
    READER,
    FakeIdentity,
    assertion_of,
    certificate,
    svid,
    with_certificate,
)

GATEWAY = "http://127.0.0.1:8471"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"
JWT = "urn:ietf:params:oauth:token-type:jwt"

Scene = Callable[[Plane, FakeIdentity], Awaitable[None]]


def staged(directory: Path, scene: Scene) -> None:
    """Run a scene on a control plane that believes Alice, and two workloads."""
    world = fake_identity.world()
    known = FakeIdentity(world)

    async def run(plane: Plane) -> None:
        await scene(plane, known)

    play(directory, run, world, known.identity(), GATEWAY)


def opening(token: str = "id-token-of-alice", **more: str) -> Form:
    """Return the form that opens a task by an ID token."""
    form = {
        "grant_type": EXCHANGE,
        "subject_token": token,
        "subject_token_type": ID_TOKEN,
        "purpose": "draft the CFO summary",
        "ttl": "900",
        "depth": "3",
        "fan_out": "5",
        "authorization_details": json.dumps([SEARCH, TABLE]),
    }
    return {**form, **more}


def renewal(agent: Agent, **more: str) -> Form:
    return {"grant_type": EXCHANGE, "subject_token": agent.token, "subject_token_type": ACCESS_TOKEN, **more}


async def opened(plane: Plane, agent: Agent, token: str = "id-token-of-alice", **more: str) -> dict[str, Any]:
    answer = await plane.exchange(agent, opening(token, **more))
    assert answer.status_code == 200, answer.text
    return plane.taken(answer.json(), agent)


async def last(plane: Plane) -> Event:
    return (await plane.world.events())[-1]


def refused(answer: httpx.Response) -> tuple[int, str, str]:
    return answer.status_code, answer.json()["error"], answer.json()["code"]


# -- open -------------------------------------------------------------------------------------------------------------


def test_an_id_token_opens_a_task_for_its_human(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        answer = await opened(plane, agent)
        assert (answer["token_type"], answer["issued_token_type"]) == ("DPoP", ACCESS_TOKEN)
        claims = parts(agent.token)[1]
        assert (claims["sub"], claims["acr"], claims["amr"]) == (ALICE, "urn:test:two-factors", ["pwd", "otp"])
        assert claims["auth_time"] == int(plane.world.now.timestamp())
        assert claims["cnf"] == {"jkt": agent.signer.kid}
        assert ((await last(plane)).event, (await last(plane)).subject) == ("task.open", ALICE)

    staged(tmp_path, scene)


def test_one_id_token_opens_one_task(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        await opened(plane, Agent())
        answer = await plane.exchange(Agent(), opening())
        assert refused(answer) == (400, "invalid_request", "used")
        entry = await last(plane)
        assert (entry.event, entry.decision, entry.code, entry.subject) == ("task.open", "deny", "used", ALICE)

    staged(tmp_path, scene)


def test_a_request_that_is_refused_does_not_use_up_the_id_token(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        for wrong in ({"ttl": ""}, {"purpose": ""}, {"resource": "https://other.test"}, {"depth": "x"}):
            assert (await plane.exchange(agent, opening(**wrong))).status_code == 400
        wide = json.dumps([{**SEARCH, "actions": ["DELETE"]}])
        assert (await plane.exchange(agent, opening(authorization_details=wide))).status_code == 400
        assert (await plane.web.post("/oauth/token", data=opening())).status_code == 400
        await opened(plane, agent)

    staged(tmp_path, scene)


@pytest.mark.parametrize(
    ("token", "code"), [("id-token-of-mallory", "grant-token"), ("id-token-of-alice-for-another", "audience")]
)
def test_an_id_token_that_is_not_for_remit_opens_nothing(tmp_path: Path, token: str, code: str) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        answer = await plane.exchange(Agent(), opening(token))
        assert (answer.status_code, answer.json()["code"]) == (400, code)
        assert list(plane.broker._tasks) == []
        entry = await last(plane)
        assert (entry.decision, entry.code, entry.action, entry.grant) == ("deny", code, "prove", None)

    staged(tmp_path, scene)


def test_without_a_proof_there_is_no_token(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        answer = await plane.web.post("/oauth/token", data=opening())
        assert refused(answer) == (400, "invalid_dpop_proof", "bearer")

    staged(tmp_path, scene)


def test_a_workload_that_brings_an_id_token_acts_in_its_own_name(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        await opened(plane, agent, **assertion_of(PLANNER))
        claims = parts(agent.token)[1]
        assert (claims["sub"], claims["client_id"], claims["act"]) == (ALICE, PLANNER, {"sub": PLANNER})
        assert claims["task"]["attested"] is True  # type: ignore[index]  # a claim is an object

    staged(tmp_path, scene)


def test_a_name_that_nobody_proved_is_refused(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        answer = await plane.exchange(Agent(), opening(client_id=PLANNER))
        assert refused(answer) == (401, "invalid_client", "unauthenticated")

    staged(tmp_path, scene)


def test_an_id_token_at_the_control_socket_is_the_operators_to_bring(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        form = {**opening(), **plane.confirmation(agent, None)}
        answer = await plane.control.post("/oauth/token", data=form)
        assert answer.status_code == 200, answer.text
        assert parts(answer.json()["access_token"])[1]["sub"] == ALICE

    staged(tmp_path, scene)


def test_an_id_token_at_the_control_socket_needs_no_key_and_the_operator_acts_in_the_task(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        answer = await plane.control.post("/oauth/token", data=opening())
        assert answer.status_code == 200, answer.text
        assert "access_token" not in answer.json()
        grant = answer.json()["grant"]
        child = {"grant_type": EXCHANGE, "subject_token_type": "urn:remit:grant", "subject_token": grant}
        more = {"authorization_details": json.dumps([SEARCH])}
        assert (await plane.control.post("/oauth/token", data={**child, **more})).status_code == 200
        elsewhere = await plane.web.post("/oauth/token", data=opening())
        assert refused(elsewhere)[1] == "invalid_dpop_proof"

    staged(tmp_path, scene)


@pytest.mark.parametrize("over", [{"resource": "payroll"}, {"paths": ["/v2/**"]}])
def test_bounds_and_resources_are_told_at_the_control_socket_and_to_nobody_elsewhere(
    tmp_path: Path, over: dict[str, object]
) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        wanted = {**SEARCH, **over}
        form = opening(authorization_details=json.dumps([wanted]))
        elsewhere = await plane.exchange(Agent(), form)
        assert refused(elsewhere) == (400, "access_denied", "policy")
        told = elsewhere.json()["error_description"]
        assert told == f"there is no `{wanted['resource']}` here, or not as much of it as this asks for"
        assert elsewhere.json()["help"] == "whoever runs this broker sees what there is by `remit resource list`"
        assert elsewhere.json()["offending"] == [wanted]
        here = (await plane.control.post("/oauth/token", data=form)).json()
        assert here["error_description"] in {"there is no resource `payroll`", "wider than the bound of `search`"}
        assert "resource list" in here["help"] or '"paths":["/v1/**"]' in here["help"]

    staged(tmp_path, scene)


# -- delegate ---------------------------------------------------------------------------------------------------------


def test_a_child_with_a_name_of_its_own_keeps_it(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        root, child = Agent(), Agent()
        await opened(plane, root, **assertion_of(PLANNER))
        await plane.delegated(root, child, actor_token=svid(READER), actor_token_type=JWT)
        claims = parts(child.token)[1]
        assert (claims["sub"], claims["client_id"]) == (ALICE, READER)
        assert claims["act"] == {"sub": READER, "act": {"sub": PLANNER}}
        assert (await last(plane)).attested is True

    staged(tmp_path, scene)


@pytest.mark.parametrize(
    ("more", "error"),
    [
        ({"actor_token": svid(READER)}, "invalid_request"),
        ({"actor_token_type": JWT}, "invalid_request"),
        ({"actor_token": svid(READER), "actor_token_type": ID_TOKEN}, "invalid_request"),
        ({"actor_token": svid("spiffe://example.org/nobody"), "actor_token_type": JWT}, "invalid_client"),
    ],
)
def test_an_actor_that_is_not_proven_makes_no_child(tmp_path: Path, more: Form, error: str) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        root = Agent()
        await opened(plane, root)
        answer = await plane.exchange(root, plane.delegation(root, Agent(), **more))
        assert answer.json()["error"] == error

    staged(tmp_path, scene)


def test_an_actor_whose_credential_has_a_key_is_bound_to_that_key(tmp_path: Path) -> None:
    async def scene(plane: Plane, known: FakeIdentity) -> None:
        root, reader = Agent(), Agent()
        await opened(plane, root)
        known.keyed[READER] = reader.signer.kid
        actor: Form = {"actor_token": svid(READER), "actor_token_type": JWT}
        answer = await plane.exchange(root, plane.delegation(root, Agent(), **actor))
        assert answer.json()["code"] == "wrong-key"
        assert ((await last(plane)).code, (await last(plane)).grant) == ("wrong-key", root.grant)
        await plane.delegated(root, reader, **actor)

    staged(tmp_path, scene)


def test_a_token_is_used_by_the_agent_it_was_given_to(tmp_path: Path) -> None:
    """Splicing (RFC 8693 §4.4): the presenter proves the key, and is still not whom the token names."""

    async def scene(plane: Plane, _: FakeIdentity) -> None:
        root = Agent()
        await opened(plane, root, **assertion_of(PLANNER))
        answer = await plane.exchange(root, {**renewal(root), **assertion_of(READER)})
        assert refused(answer) == (400, "invalid_request", "spliced")
        assert ((await last(plane)).code, (await last(plane)).grant) == ("spliced", root.grant)
        answer = await plane.exchange(root, {**renewal(root), "client_id": READER})
        assert answer.json()["error"] == "invalid_client"
        assert (await plane.exchange(root, {**renewal(root), **assertion_of(PLANNER)})).status_code == 200

    staged(tmp_path, scene)


def test_the_key_of_a_child_has_to_be_proven(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        root, child = Agent(), Agent()
        await opened(plane, root)
        good = plane.delegation(root, child)
        other = {**good, "req_cnf": json.dumps({"jwk": Agent().jwk})}
        assert (await plane.exchange(root, other)).json()["code"] == "wrong-key"
        for wrong in ('{"jwk":{}}', '{"jkt":"x"}', "[]", '{"jwk":{},"kid":"x"}'):
            answer = await plane.exchange(root, {**plane.delegation(root, child), "req_cnf": wrong})
            assert answer.json()["error"] == "invalid_request"
        stale = {**plane.delegation(root, child), **plane.confirmation(child, "of.another.token")}
        assert (await plane.exchange(root, stale)).json()["code"] == "proof"

    staged(tmp_path, scene)


# -- for whom: RFC 8707 -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["resource", "audience"])
def test_a_token_can_be_for_the_gateway_alone_and_is_refused_at_the_api(tmp_path: Path, name: str) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        await opened(plane, agent, **{name: GATEWAY})
        assert parts(agent.token)[1]["aud"] == GATEWAY
        answer = await plane.call(agent, "GET", "/v1/self")
        assert (answer.status_code, answer.json()["code"]) == (401, "audience")
        assert ((await last(plane)).code, (await last(plane)).grant) == ("audience", agent.grant)
        url = "http://127.0.0.1:8471/search/v1/x"
        proof = agent.proof("GET", url, plane.world.now, plane.verifier.nonce(), agent.token)
        headers = {"Authorization": f"DPoP {agent.token}", "DPoP": proof}
        assert (await plane.verifier.proven(headers, "GET", url, "search")).grant == agent.grant

    staged(tmp_path, scene)


def test_a_token_for_the_broker_is_for_its_gateway_too(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        await opened(plane, agent, resource=plane.base)
        assert parts(agent.token)[1]["aud"] == plane.base
        assert (await plane.call(agent, "GET", "/v1/self")).status_code == 200
        url = "http://127.0.0.1:8471/search/v1/x"
        proof = agent.proof("GET", url, plane.world.now, plane.verifier.nonce(), agent.token)
        shown = {"authorization": f"DPoP {agent.token}", "dpop": proof}
        assert (await plane.verifier.proven(shown, "GET", url, "search")).grant == agent.grant

    staged(tmp_path, scene)


@pytest.mark.parametrize("named", ["resource", "audience"])
def test_a_target_may_be_written_with_the_slash_that_url_libraries_add(tmp_path: Path, named: str) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        await opened(plane, agent, **{named: f"{GATEWAY}/"})
        assert parts(agent.token)[1]["aud"] == GATEWAY

    staged(tmp_path, scene)


@pytest.mark.parametrize(
    "body",
    [
        "resource=https%3A%2F%2Fother.test",
        "audience=https%3A%2F%2Fother.test",
        "resource=",
        f"resource={GATEWAY}&audience=http%3A%2F%2F127.0.0.1",
        f"resource={GATEWAY}&resource={GATEWAY}",
        f"resource={GATEWAY}/Elsewhere",
        f"resource={GATEWAY}%23fragment",
    ],
)
def test_any_other_target_is_refused_by_its_own_name(tmp_path: Path, body: str) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        await opened(plane, agent)
        form = httpx.QueryParams(renewal(agent))
        proof = agent.proof("POST", plane.endpoint, plane.world.now, plane.verifier.nonce(), None)
        headers = {"dpop": proof, "content-type": "application/x-www-form-urlencoded"}
        answer = await plane.web.post("/oauth/token", content=f"{form}&{body}", headers=headers)
        assert refused(answer) == (400, "invalid_target", "target")

    staged(tmp_path, scene)


# -- bound to a certificate: RFC 8705 ---------------------------------------------------------------------------------


def test_a_token_can_be_bound_to_the_certificate_of_the_handshake(tmp_path: Path) -> None:
    async def scene(plane: Plane, known: FakeIdentity) -> None:
        der = certificate(PLANNER, plane.world.now + timedelta(minutes=5))
        known.certificates[der] = PLANNER
        async with with_certificate(plane, der) as client:
            answer = await client.post("/oauth/token", data=opening(client_id=PLANNER))
            assert answer.status_code == 200, answer.text
            told, claims = answer.json(), parts(answer.json()["access_token"])[1]
            assert (told["token_type"], told["expires_in"]) == ("Bearer", 300)
            assert (claims["cnf"], claims["client_id"]) == ({"x5t#S256": thumbprint(der)}, PLANNER)
            bearer = {"authorization": f"Bearer {told['access_token']}"}
            assert (await client.get("/v1/self", headers=bearer)).status_code == 200
            wrong = {"authorization": f"DPoP {told['access_token']}"}
            assert (await client.get("/v1/self", headers=wrong)).status_code == 401

    staged(tmp_path, scene)


def test_a_token_of_a_certificate_is_worth_nothing_without_it_with_another_or_after_its_end(tmp_path: Path) -> None:
    async def scene(plane: Plane, known: FakeIdentity) -> None:
        ends = plane.world.now + timedelta(minutes=5)
        mine, other = certificate(PLANNER, ends), certificate(PLANNER, ends)
        known.certificates |= {mine: PLANNER, other: PLANNER}
        async with with_certificate(plane, mine) as client:
            answer = await client.post("/oauth/token", data=opening(client_id=PLANNER))
            token = answer.json()["access_token"]
        bearer = {"authorization": f"Bearer {token}"}
        assert (await plane.web.get("/v1/self", headers=bearer)).json()["code"] == "token"
        async with with_certificate(plane, other) as client:
            answer = await client.get("/v1/self", headers=bearer)
            assert (answer.status_code, answer.json()["code"]) == (401, "wrong-key")
            assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token", ')  # RFC 8705 §3
        assert (await last(plane)).code == "wrong-key"
        later(plane, 301)
        async with with_certificate(plane, mine) as client:
            assert (await client.get("/v1/self", headers=bearer)).json()["code"] == "token"
        assert (await last(plane)).code == "expired"

    staged(tmp_path, scene)


def test_a_token_that_is_bound_to_a_key_is_no_bearer_token(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        await opened(plane, agent)
        headers = {**plane.headers(agent, "GET", "/v1/self"), "authorization": f"Bearer {agent.token}"}
        assert (await plane.web.get("/v1/self", headers=headers)).status_code == 401

    staged(tmp_path, scene)


def test_a_token_of_a_certificate_renews_and_delegates_through_its_handshake(tmp_path: Path) -> None:
    async def scene(plane: Plane, known: FakeIdentity) -> None:
        der, child = certificate(PLANNER, plane.world.now + timedelta(hours=1)), Agent()
        known.certificates[der] = PLANNER
        async with with_certificate(plane, der) as client:
            answer = await client.post("/oauth/token", data=opening(client_id=PLANNER))
            root = Agent(token=answer.json()["access_token"])
            again = await client.post("/oauth/token", data=renewal(root))
            assert (again.status_code, again.json()["token_type"]) == (200, "Bearer")
            made = await client.post("/oauth/token", data=plane.delegation(root, child))
            assert (made.status_code, made.json()["token_type"]) == (200, "DPoP")
        assert refused(await plane.exchange(Agent(token=root.token), renewal(root)))[2] == "token"

    staged(tmp_path, scene)
