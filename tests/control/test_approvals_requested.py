"""What may be asked for over ``/v1/approvals``, and what asks nobody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remit.errors import WrongKeyError
from tests.control.approval_scene import NARROW, WIDE, Scene, form, problem, run
from tests.oauth.plane import Agent, Answer, Form

BAD: dict[str, dict[str, object]] = {
    "no details": {"authorization_details": None},
    "an unknown member": {"purpose": "x"},
    "a ttl that is text": {"ttl": "300"},
    "a depth that is true": {"depth": True},
    "a fan-out that is text": {"fan_out": "2"},
    "exercise that is text": {"exercise": "false"},
    "unattested that is text": {"unattested": "false"},
    "delegates that are text": {"delegates": "spiffe://prod.test/*"},
    "delegates that are numbers": {"delegates": [1]},
    "a pattern that is none": {"delegates": ["spiffe://*"]},
    "a label with a line break": {"label": "a\nb"},
    "half a confirmation": {"req_cnf": {"jwk": {}}},
    "another confirmation": {"req_cnf": {"x5t#S256": "x"}, "req_cnf_proof": "x"},
    "no parent": {"parent": None},
    "an actor where none is believed": {"actor_token": "x"},
}


@pytest.mark.parametrize("how", BAD)
def test_what_cannot_be_meant_is_a_bad_request_and_asks_nobody(tmp_path: Path, how: str) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        body = {name: value for name, value in at.body(None, **BAD[how]).items() if value is not None}
        answer = await at.made.call(at.agent, "POST", "/v1/approvals", json=body)
        assert answer.status_code == 400, answer.text
        assert (await at.made.control.get("/v1/approvals")).json() == {"approvals": []}

    run(tmp_path, scene)


def test_the_key_of_the_child_is_proven_for_this_url_and_by_itself(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        child = Agent()
        swapped = at.body(child, req_cnf={"jwk": Agent().jwk})
        elsewhere = {**at.body(), **_loaded(at.made.confirmation(child, at.agent.token))}
        twice = at.body(child)
        assert problem(await at.made.call(at.agent, "POST", "/v1/approvals", json=swapped))[1] == WrongKeyError.code
        assert (await at.made.call(at.agent, "POST", "/v1/approvals", json=elsewhere)).status_code == 401
        assert (await at.made.call(at.agent, "POST", "/v1/approvals", json=twice)).status_code == 201
        assert problem(await at.made.call(at.agent, "POST", "/v1/approvals", json=twice))[1] == "replay"

    run(tmp_path, scene)


def _loaded(form: Form) -> Answer:
    return {**form, "req_cnf": json.loads(form["req_cnf"])}


def test_what_the_grant_covers_needs_nobody_and_what_policy_refuses_asks_nobody(tmp_path: Path) -> None:
    async def scene(at: Scene) -> None:
        await at.opened()
        covered = at.body(authorization_details=[NARROW])
        answer = await at.made.call(at.agent, "POST", "/v1/approvals", json=covered)
        assert (answer.status_code, answer.json()["detail"]) == (400, "this needs no approval")
        beyond_bound = at.body(authorization_details=[{**WIDE, "paths": ["/admin"]}])
        refused = await at.made.call(at.agent, "POST", "/v1/approvals", json=beyond_bound)
        assert problem(refused) == (403, "policy")
        late = await at.made.call(at.agent, "POST", "/v1/approvals", json=at.body(ttl=901))
        assert problem(late)[1] == "attenuation"
        foreign = await at.made.call(at.agent, "POST", "/v1/approvals", json=at.body(parent="grt_999"))
        assert problem(foreign) == (404, "not-found")
        assert (await at.made.control.get("/v1/approvals")).json() == {"approvals": []}

    run(tmp_path, scene)


@pytest.mark.parametrize(
    ("opening", "more", "exceeds"),
    [
        ({"depth": "0"}, {"authorization_details": [NARROW]}, ["depth"]),
        ({"fan_out": "1"}, {"authorization_details": [NARROW], "fan_out": 2}, ["fan_out"]),
        ({}, {"authorization_details": [NARROW], "depth": 1}, ["depth"]),
        (
            {"delegates": '["spiffe://a.test/*"]'},
            {"authorization_details": [NARROW], "delegates": ["spiffe://b.test/*"]},
            ["delegates"],
        ),
        ({"unattested": "false"}, {"authorization_details": [NARROW]}, ["unattested"]),
        ({}, {"authorization_details": [NARROW, WIDE], "depth": 2}, ["authorization_details", "depth"]),
    ],
    ids=["no hop", "fan-out", "deeper", "delegates", "unattested", "two at once"],
)
def test_each_dimension_of_delegability_can_be_approved(
    tmp_path: Path, opening: Form, more: dict[str, object], exceeds: list[str]
) -> None:
    async def scene(at: Scene) -> None:
        await at.opened(None, **opening)
        refused = await at.made.exchange(at.agent, form(at, more))
        assert refused.status_code == 400, refused.text
        child = Agent()
        item = await at.asked(child, **more)
        assert item["exceeds"] == exceeds
        await at.decide(item)
        made = await at.made.exchange(at.agent, {**form(at, more, child), "approval": item["approval"]})
        assert made.status_code == 200, made.text
        grant = at.made.broker._tasks.check(made.json()["grant"]).grant
        assert grant.approval == item["approval"]
        assert (grant.bounds.depth, grant.bounds.fan_out) == (more.get("depth", 0), more.get("fan_out", 0))

    run(tmp_path, scene)
