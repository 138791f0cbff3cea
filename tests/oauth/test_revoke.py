"""Revocation (RFC 7009) by whoever holds a token, and introspection (RFC 7662) of what is one's own."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from remit.web.verifier import thumbprint
from tests.oauth.plane import Agent, Plane, later
from tests.oauth.test_exchange import GATEWAY, opened, opening, staged
from tests.web.fake_identity import (
    ALICE,
    BUILD,
    PLANNER,
    READER,
    FakeIdentity,
    assertion_of,
    certificate,
    with_certificate,
)


async def ended(plane: Plane, agent: Agent) -> bool:
    """Whether a grant has ended."""
    answer = await plane.call(agent, "GET", "/v1/self")
    return answer.status_code == 401 and answer.json()["code"] == "revoked"


async def revoke(plane: Plane, token: str, **more: str) -> int:
    """Revoke a token without a proof; return how many grants ended."""
    answer = await plane.web.post("/oauth/revoke", data={"token": token, **more})
    assert answer.status_code == 200, answer.text
    return int(answer.json().get("revoked", 0))


def test_whoever_finds_a_token_may_end_its_subtree_and_nothing_else(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        root, middle, leaf, other = Agent(), Agent(), Agent(), Agent()
        await opened(plane, root)
        await plane.delegated(root, middle, depth="1", fan_out="1")
        await plane.delegated(middle, leaf)
        await plane.delegated(root, other)
        assert await revoke(plane, middle.token) == 2
        assert [await ended(plane, agent) for agent in (root, middle, leaf, other)] == [False, True, True, False]
        assert await revoke(plane, middle.token) == 0

    staged(tmp_path, scene)


@pytest.mark.attack("REV-08")
def test_a_grant_that_cannot_be_read_for_now_is_not_answered_as_if_it_were_over(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        await opened(plane, agent)
        task = plane.broker._tasks.task_of(agent.grant).id
        heads = plane.broker._tasks
        heads.forget(task)
        heads._read_later(task)  # as after a commit that failed, on a medium that cannot be read either
        answers = [
            await plane.web.post("/oauth/revoke", data={"token": agent.token}),
            await plane.control.post(f"/v1/tasks/{task}/grants/{agent.grant}/revoke"),
            await plane.control.post(f"/v1/tasks/{task}/close"),
        ]
        assert [answer.status_code for answer in answers] == [503] * 3
        later(plane, 1)
        await plane.broker.sweep()
        assert await revoke(plane, agent.token) == 1

    staged(tmp_path, scene)


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "unheard_of"])
def test_a_hint_changes_nothing(tmp_path: Path, hint: str) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        await opened(plane, agent)
        assert await revoke(plane, agent.token, token_type_hint=hint) == 1

    staged(tmp_path, scene)


def test_a_token_that_is_none_or_has_expired_ends_nothing(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        await opened(plane, agent)
        for token in ("x", "a.b.c", agent.token[:-2], "é"):
            assert await revoke(plane, token) == 0
        later(plane, 601)
        assert await revoke(plane, agent.token) == 0
        assert plane.broker._tasks.check(agent.grant).grant.id == agent.grant

    staged(tmp_path, scene)


def test_a_token_for_the_gateway_alone_can_be_revoked_too(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        await opened(plane, agent, resource=GATEWAY)
        assert await revoke(plane, agent.token) == 1

    staged(tmp_path, scene)


@pytest.mark.parametrize("name", [PLANNER, BUILD])
def test_the_token_of_a_workload_is_revoked_by_that_workload(tmp_path: Path, name: str) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        await opened(plane, agent, **assertion_of(name))
        assert await revoke(plane, agent.token) == 0
        assert await revoke(plane, agent.token, client_id=name) == 0
        assert await revoke(plane, agent.token, **assertion_of(READER)) == 0
        assert await revoke(plane, agent.token, **assertion_of(name)) == 1

    staged(tmp_path, scene)


def test_a_revocation_needs_a_token_and_knows_its_parameters(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        unknown = {"token": "x", "scope": "all", "foo": "bar"}
        assert (await plane.web.post("/oauth/revoke", data=unknown)).status_code == 200
        for form in ({}, {"token": ""}):
            answer = await plane.web.post("/oauth/revoke", data=form or {"token_type_hint": "x"})
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")

    staged(tmp_path, scene)


def test_introspection_tells_the_claims_and_the_type(tmp_path: Path) -> None:
    async def scene(plane: Plane, known: FakeIdentity) -> None:
        agent = Agent()
        await opened(plane, agent)
        told = (await plane.call(agent, "POST", "/oauth/introspect", data={"token": agent.token})).json()
        assert (told["active"], told["token_type"], told["sub"]) == (True, "DPoP", ALICE)
        assert {"cnf", "act", "authorization_details", "exp", "iat", "aud", "iss", "jti", "client_id"} <= told.keys()
        der = certificate(PLANNER, plane.world.now + timedelta(minutes=5))
        known.certificates[der] = PLANNER
        async with with_certificate(plane, der) as client:
            form = opening("id-token-of-alice-again", client_id=PLANNER)
            token = (await client.post("/oauth/token", data=form)).json()["access_token"]
            headers = {"authorization": f"Bearer {token}"}
            told = (await client.post("/oauth/introspect", data={"token": token}, headers=headers)).json()
            assert (told["active"], told["token_type"]) == (True, "Bearer")
            assert told["cnf"] == {"x5t#S256": thumbprint(der)}

    staged(tmp_path, scene)


def test_a_token_that_ended_is_not_active_at_once_and_nothing_else_is_said(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        root, child, brief = Agent(), Agent(), Agent()
        await opened(plane, root)
        await plane.delegated(root, child)
        await plane.delegated(root, brief, ttl="5")
        await revoke(plane, child.token)
        later(plane, 6)
        for token in (child.token, brief.token, "x"):
            answer = await plane.call(root, "POST", "/oauth/introspect", data={"token": token})
            assert (answer.status_code, answer.json()) == (200, {"active": False})

    staged(tmp_path, scene)


def test_introspection_is_for_callers_who_prove_themselves(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        agent = Agent()
        await opened(plane, agent)
        answer = await plane.web.post("/oauth/introspect", data={"token": agent.token})
        assert (answer.status_code, answer.headers["www-authenticate"].split()[0]) == (401, "DPoP")

    staged(tmp_path, scene)
