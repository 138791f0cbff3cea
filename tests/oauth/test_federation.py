from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from remit.web.scope_templates import ScopeTemplate
from tests.attacks.forge import parts
from tests.broker.world import SEARCH, TABLE, World, details
from tests.oauth.plane import Agent, Form, Plane, play
from tests.oauth.test_exchange import GATEWAY, last, refused, staged
from tests.web.fake_identity import (
    ALICE,
    BUILD,
    CLIENT,
    PLANNER,
    READER,
    FakeIdentity,
    assertion_of,
    certificate,
    with_certificate,
)

JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
NARROW = {**SEARCH, "paths": ["/v1/find"]}


def asserting(token: str = "id-jag-of-alice", client: str = PLANNER, **more: str) -> Form:
    """Return the form that opens a task by an identity assertion; the workload that it is for proves its name."""
    form = {"grant_type": JWT_BEARER, "assertion": token, "client_id": client, "purpose": "find it", "ttl": "60"}
    return {**form, **(assertion_of(client) if client in {PLANNER, READER} else {}), **more}


def bound(agent: Agent) -> str:
    """Return an identity assertion that is bound to an agent's key."""
    return f"id-jag-of-alice for {agent.signer.kid}"


def alone(**more: str) -> Form:
    """Return the form by which a workload opens a task for itself."""
    details = json.dumps([SEARCH])
    form = {"grant_type": "client_credentials", "purpose": "tidy up", "ttl": "60", "authorization_details": details}
    return {**form, **more}


# -- jwt-bearer -------------------------------------------------------------------------------------------------------


def test_an_assertion_opens_a_task_for_its_human_in_the_clients_hands(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        answer = await plane.exchange(agent, asserting(authorization_details=json.dumps([SEARCH])))
        assert answer.status_code == 200, answer.text
        claims = parts(answer.json()["access_token"])[1]
        assert (claims["sub"], claims["cnf"]) == (ALICE, {"jkt": agent.signer.kid})
        assert (await last(plane)).subject == ALICE

    staged(tmp_path, scene)


FIND = ScopeTemplate("find", details(NARROW), "find what is asked for", ttl=120)


def by_scope(**more: str) -> Form:
    """Return what a client of cross-app access sends: the assertion, and who it is."""
    form = {"grant_type": JWT_BEARER, "assertion": "id-jag-of-alice", "client_id": PLANNER, **assertion_of(PLANNER)}
    return {**form, **more}


def test_an_assertion_by_scope_opens_what_the_operator_wrote_for_it(tmp_path: Path) -> None:
    async def scene(plane: Plane, known: FakeIdentity) -> None:
        known.scope, known.scopes["find"] = "find", FIND
        answer = await plane.exchange(Agent(), by_scope())
        assert answer.status_code == 200, answer.text
        told = answer.json()
        assert (told["authorization_details"], told["scope"], told["expires_in"]) == ([NARROW], "find", 120)
        assert parts(told["access_token"])[1]["sub"] == ALICE

    staged(tmp_path, scene)


@pytest.mark.parametrize(
    ("scope", "more", "error"),
    [
        ("find", {"authorization_details": json.dumps([SEARCH])}, "invalid_authorization_details"),
        ("find", {"scope": "wide"}, "invalid_authorization_details"),
        ("find unknown", {}, "invalid_grant"),
        ("theirs", {}, "invalid_grant"),
        ("offline_access", {}, "invalid_grant"),
    ],
)
def test_an_assertion_by_scope_opens_no_more_and_no_name_is_passed_over(
    tmp_path: Path, scope: str, more: Form, error: str
) -> None:
    async def scene(plane: Plane, known: FakeIdentity) -> None:
        known.scope = scope
        theirs = replace(FIND, name="theirs", clients=(READER,))
        known.scopes |= {"find": FIND, "theirs": theirs, "wide": replace(FIND, name="wide", details=details(SEARCH))}
        assert refused(await plane.exchange(Agent(), by_scope(**more)))[:2] == (400, error)

    staged(tmp_path, scene)


def test_an_assertion_opens_one_task(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        form = asserting(authorization_details=json.dumps([SEARCH]))
        assert (await plane.exchange(Agent(), form)).status_code == 200
        assert refused(await plane.exchange(Agent(), form)) == (400, "invalid_grant", "used")
        assert (await last(plane)).code == "used"

    staged(tmp_path, scene)


def test_an_assertion_for_another_audience_is_an_invalid_grant(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        form = asserting("id-jag-for-another-broker", authorization_details=json.dumps([SEARCH]))
        assert refused(await plane.exchange(Agent(), form)) == (400, "invalid_grant", "audience")  # RFC 7523 §3.1

    staged(tmp_path, scene)


@pytest.mark.parametrize(("token", "client"), [("id-jag-of-alice", READER), ("id-jag-of-mallory", PLANNER)])
def test_an_assertion_is_for_the_client_it_names_and_nobody_else(tmp_path: Path, token: str, client: str) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        form = asserting(token, client, authorization_details=json.dumps([SEARCH]))
        assert refused(await plane.exchange(Agent(), form)) == (400, "invalid_grant", "grant-token")
        assert ((await last(plane)).code, (await last(plane)).action) == ("grant-token", "prove")

    staged(tmp_path, scene)


@pytest.mark.attack("TOK-12")
def test_an_assertion_of_a_bearer_is_worth_nothing_to_a_client_that_proves_nothing(tmp_path: Path) -> None:
    async def scene(plane: Plane, known: FakeIdentity) -> None:
        details = json.dumps([SEARCH])
        for name in (PLANNER, BUILD):
            form = {**asserting(authorization_details=details), "client_id": name}
            del form["client_assertion"], form["client_assertion_type"]
            assert refused(await plane.exchange(Agent(), form))[:2] == (401, "invalid_client")
        known.bearer = True  # an issuer that made one for a public client
        form = asserting(client=CLIENT, authorization_details=details)
        assert refused(await plane.exchange(Agent(), form)) == (401, "invalid_client", "unauthenticated")
        assert ((await last(plane)).code, (await last(plane)).action) == ("unauthenticated", "prove")
        assert list(plane.broker._tasks) == []

    staged(tmp_path, scene)


@pytest.mark.attack("TOK-12")
def test_an_assertion_that_is_bound_to_a_key_opens_a_task_for_that_key_alone(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent, thief = Agent(), Agent()
        form = asserting(bound(agent), CLIENT, authorization_details=json.dumps([SEARCH]))
        assert refused(await plane.exchange(thief, form))[1:] == ("invalid_dpop_proof", "wrong-key")
        assert (await last(plane)).code == "wrong-key"
        cnf = plane.confirmation(thief, None)
        assert refused(await plane.exchange(agent, {**form, **cnf}))[1] == "invalid_request"
        answer = await plane.exchange(agent, form)
        assert answer.status_code == 200, answer.text
        assert parts(answer.json()["access_token"])[1]["cnf"] == {"jkt": agent.signer.kid}

    staged(tmp_path, scene)


def test_an_assertion_that_is_bound_to_a_key_is_none_for_a_certificate(tmp_path: Path) -> None:
    async def scene(plane: Plane, known: FakeIdentity) -> None:
        der = certificate(PLANNER, plane.world.now + timedelta(hours=1))
        known.certificates[der], known.bearer = PLANNER, True
        form = asserting(bound(Agent()), CLIENT, authorization_details=json.dumps([SEARCH]))
        async with with_certificate(plane, der) as client:
            assert refused(await client.post("/oauth/token", data=form))[1] == "invalid_dpop_proof"

    staged(tmp_path, scene)


def test_an_assertion_needs_a_client_that_has_a_name(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        form = asserting(client=CLIENT, authorization_details=json.dumps([SEARCH]))
        del form["client_id"]
        assert refused(await plane.exchange(Agent(), form))[1] == "invalid_client"
        form["client_id"] = PLANNER
        assert refused(await plane.exchange(Agent(), form))[1] == "invalid_client"

    staged(tmp_path, scene)


def test_what_an_assertion_limits_is_what_is_opened_when_nothing_else_is_asked_for(tmp_path: Path) -> None:
    async def scene(plane: Plane, known: FakeIdentity) -> None:
        known.details = [NARROW]
        answer = await plane.exchange(Agent(), asserting())
        assert [detail["paths"] for detail in answer.json()["authorization_details"]] == [["/v1/find"]]

    staged(tmp_path, scene)


@pytest.mark.parametrize("wide", [[SEARCH], [NARROW, TABLE], [{**NARROW, "actions": ["DELETE", "GET"]}]])
def test_more_than_an_assertion_allows_is_refused(tmp_path: Path, wide: list[object]) -> None:
    async def scene(plane: Plane, known: FakeIdentity) -> None:
        known.details = [NARROW]
        answer = await plane.exchange(Agent(), asserting(authorization_details=json.dumps(wide)))
        assert refused(answer) == (400, "invalid_authorization_details", "attenuation")
        assert answer.json()["offending"]
        assert (await plane.exchange(Agent(), asserting())).status_code == 200

    staged(tmp_path, scene)


def test_an_assertion_without_a_limit_needs_details(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        assert refused(await plane.exchange(Agent(), asserting()))[1] == "invalid_request"

    staged(tmp_path, scene)


# -- client_credentials -----------------------------------------------------------------------------------------------


def test_a_workload_opens_a_task_for_itself(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        answer = await plane.exchange(agent, alone(**assertion_of(PLANNER)))
        claims = parts(answer.json()["access_token"])[1]
        assert (claims["sub"], claims["client_id"], claims["acr"]) == (PLANNER, PLANNER, "workload")
        assert claims["act"] == {"sub": PLANNER}
        assert "auth_time" not in claims

    staged(tmp_path, scene)


def test_a_workloads_credential_may_open_again(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        for _again in range(2):
            assert (await plane.exchange(Agent(), alone(**assertion_of(PLANNER)))).status_code == 200

    staged(tmp_path, scene)


def test_a_client_that_proves_nothing_opens_nothing_for_itself(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        for form in (alone(), alone(client_id="somebody"), alone(client_id=PLANNER)):
            assert refused(await plane.exchange(Agent(), form)) == (401, "invalid_client", "unauthenticated")
        assert (await plane.world.events())[-1].event != "task.open"

    staged(tmp_path, scene)


def test_a_credential_that_is_refused_is_in_the_audit_and_a_flood_of_them_is_counted(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        nobody = assertion_of("spiffe://example.org/nobody")
        for _again in range(70):
            assert (await plane.web.post("/oauth/token", data=alone(**nobody))).status_code == 401
        denied = [event for event in await plane.world.events() if event.code == "unauthenticated"]
        assert {(event.action, event.decision, event.grant) for event in denied} == {("prove", "deny", None)}
        assert len(denied) == 20 + 2  # one by one, then 32 and 64

    staged(tmp_path, scene)


def test_a_workload_says_who_it_is_in_one_way(tmp_path: Path) -> None:
    async def scene(plane: Plane, known: FakeIdentity) -> None:
        der = certificate(PLANNER, plane.world.now.replace(year=2030))
        known.certificates[der] = PLANNER
        form = alone(**assertion_of(PLANNER), client_id=PLANNER)
        async with with_certificate(plane, der) as client:
            assert (await client.post("/oauth/token", data=form)).json()["error"] == "invalid_request"
        form = alone(**assertion_of(PLANNER), client_id=READER)
        assert refused(await plane.exchange(Agent(), form))[1] == "invalid_client"

    staged(tmp_path, scene)


def test_a_policy_that_denies_workloads_denies_them_by_name(tmp_path: Path) -> None:
    """Nobody but the owner of a state may open anything unless a policy says so."""
    world = World()
    known = FakeIdentity(world)

    async def scene(plane: Plane) -> None:
        answer = await plane.exchange(Agent(), alone(**assertion_of(PLANNER)))
        assert refused(answer) == (400, "access_denied", "policy")
        entry = await last(plane)
        assert (entry.event, entry.code, entry.subject) == ("task.open", "policy", PLANNER)

    play(tmp_path, scene, world, known.identity(), GATEWAY)
