"""Who may be a child, on the wire: named workloads, attested ones alone, and what a human approves beyond that."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from tests.broker.world import SEARCH
from tests.oauth.plane import EXCHANGE, Agent, Answer, Form, Plane, play
from tests.web import fake_identity
from tests.web.fake_identity import ALICE, PLANNER, READER, FakeIdentity, svid

JWT = "urn:ietf:params:oauth:token-type:jwt"
ID_TOKEN = "urn:ietf:params:oauth:token-type:id_token"

Scene = Callable[[Plane, FakeIdentity], Awaitable[None]]


def staged(directory: Path, scene: Scene) -> None:
    """Run a scene on a control plane that believes Alice, and two workloads."""
    world = fake_identity.world()
    known = FakeIdentity(world)

    async def run(plane: Plane) -> None:
        await scene(plane, known)

    play(directory, run, world, known.identity())


async def opened(plane: Plane, agent: Agent, **more: str) -> None:
    """Open a task for Alice, with one hop."""
    form: Form = {
        "grant_type": EXCHANGE,
        "subject_token": "id-token-of-alice",
        "subject_token_type": ID_TOKEN,
        "purpose": "draft the CFO summary",
        "ttl": "900",
        "depth": "1",
        "fan_out": "2",
        "authorization_details": json.dumps([SEARCH]),
        **more,
    }
    answer = await plane.exchange(agent, form)
    assert answer.status_code == 200, answer.text
    plane.taken(answer.json(), agent)


def actor(name: str) -> Form:
    """Return the form fields by which a child says which workload it is."""
    return {"actor_token": svid(name), "actor_token_type": JWT}


@pytest.mark.parametrize(
    ("opening", "child", "code"),
    [
        ({"delegates": json.dumps([READER])}, actor(PLANNER), "delegate"),
        ({"delegates": "[]"}, actor(READER), "delegate"),
        ({"unattested": "false"}, {}, "delegate"),
        ({"unattested": "false", "depth": "2"}, {**actor(READER), "depth": "1"}, "attenuation"),
        ({"delegates": json.dumps([READER]), "depth": "2"}, {"delegates": '["*"]', "depth": "1"}, "attenuation"),
        ({"depth": "0"}, {}, "depth"),
        ({}, {"depth": "1"}, "depth"),
        ({}, {"fan_out": "3"}, "depth"),
    ],
    ids=["another workload", "no workload", "nobody's word", "nobody's word below", "wider", "no hop", "deep", "many"],
)
def test_what_exceeds_delegability_is_refused_with_a_code_of_its_own_and_recorded(
    tmp_path: Path, opening: Form, child: Form, code: str
) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        root = Agent()
        await opened(plane, root, **opening)
        answer = await plane.exchange(root, plane.delegation(root, Agent(), **child))
        assert answer.json()["code"] == code
        last = (await plane.world.events())[-1]
        assert (last.event, last.decision, last.code, last.grant) == ("grant.delegate", "deny", code, root.grant)
        assert len(plane.broker._tasks.task_of(root.grant).grants) == 1

    staged(tmp_path, scene)


def test_one_more_child_than_there_may_be_is_refused_until_one_has_ended(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        root, kids = Agent(), [Agent(), Agent()]
        await opened(plane, root)
        for kid in kids:
            await plane.delegated(root, kid)
        refused = await plane.exchange(root, plane.delegation(root, Agent()))
        assert refused.json()["code"] == "fan-out"
        await plane.call(root, "POST", f"/v1/tasks/{root.task}/grants/{kids[0].grant}/revoke", json={})
        await plane.delegated(root, Agent())

    staged(tmp_path, scene)


def test_those_that_are_named_or_attested_are_let_in(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        root, reader = Agent(), Agent()
        pattern = json.dumps(["spiffe://example.org/agent/*"])
        await opened(plane, root, delegates=pattern, unattested="false", exercise="false")
        await plane.delegated(root, reader, **actor(READER))
        child = plane.broker._tasks.check(reader.grant).grant
        assert (child.agent, child.attested, child.bounds.unattested) == (READER, True, False)
        shown = (await plane.call(root, "GET", f"/v1/tasks/{root.task}")).json()["grants"]
        above, below = (next(g for g in shown if g["grant"] == name) for name in (root.grant, reader.grant))
        assert (above["unusable"], above["exercise"], above["delegates"]) == ("advisory", False, json.loads(pattern))
        assert (below["unusable"], below["attested"]) == (None, True)

    staged(tmp_path, scene)


def body(plane: Plane, root: Agent, child: Agent, **more: Any) -> Answer:
    """Return what is asked for: a child that is a workload, bound to its key."""
    proof = child.proof("POST", f"{plane.base}/v1/approvals", plane.world.now, plane.verifier.nonce(), root.token)
    asked = {"parent": root.grant, "authorization_details": [SEARCH], "actor_token": svid(PLANNER)}
    return {**asked, "req_cnf": {"jwk": child.jwk}, "req_cnf_proof": proof, **more}


def test_a_human_lets_in_one_workload_and_that_one_alone(tmp_path: Path) -> None:
    async def scene(plane: Plane, _: FakeIdentity) -> None:
        root, child = Agent(), Agent()
        await opened(plane, root, delegates=json.dumps([READER]))
        asked = await plane.call(root, "POST", "/v1/approvals", json=body(plane, root, child))
        assert asked.status_code == 201, asked.text
        item = asked.json()
        assert (item["exceeds"], item["request"]["agent"], item["approver"]) == (["delegates"], PLANNER, ALICE)
        decided = {
            "digest": plane.broker._approvals.get(item["approval"]).digest,
            "id_token": "id-token-of-alice-again",
        }
        done = await plane.web.post(f"/v1/approvals/{item['approval']}/approve", json=decided)
        assert done.status_code == 200, done.text
        approved: Form = {"approval": item["approval"]}
        for other in ({}, actor(READER)):
            answer = await plane.exchange(root, plane.delegation(root, child, **approved, **other))
            assert answer.json()["code"] == "approval"
        key = await plane.exchange(root, plane.delegation(root, Agent(), **approved, **actor(PLANNER)))
        assert key.json()["code"] == "approval"
        await plane.delegated(root, child, **approved, **actor(PLANNER))
        made = plane.broker._tasks.check(child.grant).grant
        assert (made.agent, made.attested, made.approval) == (PLANNER, True, item["approval"])

    staged(tmp_path, scene)


def test_a_workload_with_a_key_of_its_own_is_asked_for_with_that_key(tmp_path: Path) -> None:
    async def scene(plane: Plane, known: FakeIdentity) -> None:
        root, child = Agent(), Agent()
        await opened(plane, root, delegates="[]")
        known.keyed[PLANNER] = child.signer.kid
        wrong = await plane.call(root, "POST", "/v1/approvals", json=body(plane, root, Agent()))
        assert wrong.json()["code"] == "wrong-key"
        assert (await plane.control.get("/v1/approvals")).json() == {"approvals": []}
        right = await plane.call(root, "POST", "/v1/approvals", json=body(plane, root, child))
        assert right.status_code == 201, right.text

    staged(tmp_path, scene)
