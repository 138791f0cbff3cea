from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from remit.compose.app import build
from remit.core.principal import Holder
from remit.web.authentication import SocketAuth
from remit.web.listen import serve
from tests.attacks import forge
from tests.broker.world import SEARCH, STRANGER, TABLE
from tests.gateway.rig import ALL, rig
from tests.gateway.rig import play as driven
from tests.oauth.plane import EXCHANGE, GRANT, Agent, Plane, _unix, b64, jws, play


async def _bobs(plane: Plane) -> Agent:
    """Open a task for another human, at a control socket of their own."""
    path = plane.directory / "bob.sock"
    plane.listeners.append(await serve(build(plane.deps), _unix(path), SocketAuth(STRANGER)))
    control, plane.control = plane.control, plane._client(path)
    agent = Agent()
    await plane.opened(agent)
    plane.control = control
    return agent


@pytest.mark.attack("DEL-03")
def test_a_chain_is_never_spliced_from_two(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        alices, bobs, child = Agent(), await _bobs(plane), Agent()
        await plane.opened(alices)
        for token, key in ((alices, bobs), (bobs, alices)):
            form = plane.delegation(token, child)
            answer = await plane.exchange(Agent(key.signer), form)
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_dpop_proof")
        refused = [event for event in await plane.world.events() if event.decision == "deny"]
        assert [(event.grant, event.action, event.code) for event in refused] == [
            (alices.grant, "prove", "wrong-key"),
            (bobs.grant, "prove", "wrong-key"),
        ]

    play(tmp_path, scene)


@pytest.mark.attack("DEL-03")
@pytest.mark.parametrize("name", ["actor_token", "actor_token_type", "client_assertion"])
def test_no_second_token_has_a_say_in_an_exchange(tmp_path: Path, name: str) -> None:
    async def scene(plane: Plane) -> None:
        alices, bobs, child = Agent(), await _bobs(plane), Agent()
        await plane.opened(alices)
        form = plane.delegation(alices, child)
        answer = await plane.exchange(alices, {**form, name: bobs.token})
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")

    play(tmp_path, scene)


def test_the_tokens_of_one_human_open_nothing_of_another(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        alices, bobs = Agent(), await _bobs(plane)
        await plane.opened(alices)
        assert (await plane.call(alices, "GET", f"/v1/tasks/{bobs.task}")).status_code == 404
        assert (await plane.control.get(f"/v1/tasks/{bobs.task}")).status_code == 200
        form = {"grant_type": EXCHANGE, "subject_token": bobs.grant, "subject_token_type": GRANT}
        answer = await plane.control.post("/oauth/token", data={**form, "authorization_details": json.dumps([SEARCH])})
        assert (answer.status_code, answer.json()["error"]) == (400, "access_denied")

    play(tmp_path, scene)


# -- a parent in its child's name -----------------------------------------------------------------------------------


def test_a_parent_is_handed_no_credential_of_a_child_that_is_bound_to_its_own_key(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        root, child = Agent(), Agent()
        await plane.opened(root, exercise="false")
        await plane.delegated(root, child, authorization_details=json.dumps([TABLE]), depth="1", fan_out="1")
        path = f"/v1/tasks/{root.task}/leases"
        asked = {"grant": child.grant, "detail": TABLE}
        refused = await plane.call(root, "POST", path, json=asked)
        assert (refused.status_code, refused.json()["code"]) == (403, "denied")
        assert "credential" not in refused.json()
        assert plane.world.target.accounts == {}
        lease = (await plane.call(child, "POST", path, json=asked)).json()["lease"]
        renewal = await plane.call(root, "POST", f"/v1/leases/{lease}/renew", json={"ttl": 60})
        assert (renewal.status_code, renewal.json()["code"]) == (403, "denied")
        denials = [event for event in await plane.world.events() if event.decision == "deny"]
        assert [(event.event, event.grant, event.cause) for event in denials] == [
            ("lease.issue", root.grant, f"under {child.grant}"),
            ("lease.renew", root.grant, f"under {child.grant}"),
        ]
        ended = await plane.call(root, "POST", f"/v1/tasks/{root.task}/grants/{child.grant}/revoke")
        assert (ended.status_code, ended.json()["revoked"]) == (200, 1)

    play(tmp_path, scene)


@pytest.mark.parametrize("proven", [False, True], ids=["in a run", "by a token"])
def test_nobody_names_a_descendant_at_the_gateway_that_is_bound_to_another_key(proven: bool) -> None:  # noqa: FBT001 - a case
    held: list[str] = []

    async def verify(_headers: Mapping[str, str], _method: str, _url: str, _resource: str) -> Holder:
        return Holder("task", held[0])

    async def scene() -> None:
        async with rig(verify=verify if proven else None) as r:
            held.append(r.grant.id)
            theirs = await r.child(ALL, jkt="R" * 43)
            attested = await r.child(ALL, attested=True)
            inner = await r.child(ALL)
            for grant in (theirs, attested):
                reply = await r.get("/api/v1/x", f"Remit-Grant: {grant.id}")
                assert (reply.status, reply.json()["code"]) == (403, "denied")
                last = (await r.events())[-1]
                assert (last.event, last.decision, last.grant) == ("resource.use", "deny", r.grant.id)  # who tried
                assert last.cause == f"under {grant.id}"
            assert r.upstream.seen == []
            assert (await r.get("/api/v1/x", f"Remit-Grant: {inner.id}")).status == 200

    driven(scene)


@pytest.mark.attack("DEL-04")
def test_a_token_cannot_be_cut_back_to_an_ancestor(tmp_path: Path) -> None:
    async def scene(plane: Plane, root: Agent) -> None:
        middle, leaf = Agent(), Agent()
        await plane.delegated(root, middle, depth="1", fan_out="3")
        await plane.delegated(middle, leaf)
        header, claims = forge.parts(leaf.token)
        about, act = claims["task"], claims["act"]
        assert isinstance(about, dict)
        assert isinstance(act, dict)
        cut = [
            {"act": act["act"]},
            {"act": {**act, "act": act}},
            {"act": {**act, "act": act["act"]["act"]}},
            {"task": {**about, "grant": root.grant, "parent": None}},
            {"task": {**about, "grant": middle.grant}},
            {"del_depth": 0, "del_max_depth": 3},
            {"par_hash": None},
        ]
        signature = leaf.token.rpartition(".")[2]
        texts = [jws(header, {**claims, **change}, lambda _: b"") + signature for change in cut]
        swapped = ".".join([leaf.token.split(".")[0], root.token.split(".")[1], signature])
        assert await forge.refused_everywhere(plane, leaf, [*texts, swapped]) == 8

    forge.walk(tmp_path, scene)


@pytest.mark.attack("DEL-04")
def test_an_ancestors_token_is_of_no_use_to_a_descendants_key(tmp_path: Path) -> None:
    async def scene(plane: Plane, root: Agent) -> None:
        leaf = Agent()
        await plane.delegated(root, leaf)
        assert await forge.at_the_api(plane, leaf, root.token) == 401

    forge.walk(tmp_path, scene)


@pytest.mark.attack("DEL-07")
@pytest.mark.parametrize("name", ["purpose", "actor_token", "client_id"])
def test_a_caller_cannot_name_an_actor(tmp_path: Path, name: str) -> None:
    async def scene(plane: Plane, root: Agent) -> None:
        form = plane.delegation(root, Agent(), **{name: json.dumps({"sub": "root"})})
        answer = await plane.exchange(root, form)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_request")

    forge.walk(tmp_path, scene)


@pytest.mark.attack("DEL-07")
@pytest.mark.parametrize("name", ["act", "may_act", "sub", "human", "claims"])
def test_a_claim_among_the_parameters_is_none_of_the_tokens(tmp_path: Path, name: str) -> None:
    async def scene(plane: Plane, root: Agent) -> None:
        told: list[dict[str, Any]] = []
        for more in ({}, {name: json.dumps({"sub": "root"})}):
            child = Agent()
            answer = plane.taken((await plane.exchange(root, plane.delegation(root, child, **more))).json(), child)
            told.append(dict(forge.parts(answer["access_token"])[1]))
        own = {"iat", "exp", "jti", "cnf", "sub", "task", "client_id", "status", "act"}  # of each token alone
        plain, tried = ({key: value for key, value in claims.items() if key not in own} for claims in told)
        assert tried == plain
        assert '"root"' not in json.dumps(told[1])
        assert told[1]["act"]["act"] == told[0]["act"]["act"]

    forge.walk(tmp_path, scene)


@pytest.mark.attack("DEL-07")
def test_the_chain_in_a_token_is_the_brokers_own(tmp_path: Path) -> None:
    lies: dict[str, object] = {
        "act": {"sub": "root"},
        "sub": "unix://host#0",
        "task": {"grant": "grt_0"},
        "del_depth": 0,
        "client_id": "root",
    }

    async def scene(plane: Plane, root: Agent) -> None:
        child = Agent()
        form = plane.delegation(root, child)
        form |= plane.confirmation(child, root.token, **lies)
        answer = plane.taken((await plane.exchange(root, form, **lies)).json(), child)
        _, claims = forge.parts(answer["access_token"])
        names = [f"spiffe://remit.local/task/{root.task}/{grant}" for grant in (child.grant, root.grant)]
        assert claims["act"] == {"sub": names[0], "act": {"sub": names[1]}}
        assert (claims["sub"], claims["client_id"], claims["del_depth"]) == ("unix://host#1000", names[0], 1)

    forge.walk(tmp_path, scene)


def test_a_child_must_prove_the_key_it_is_to_be_bound_to(tmp_path: Path) -> None:
    async def scene(plane: Plane, root: Agent) -> None:
        child, other = Agent(), Agent()
        good = plane.delegation(root, child)
        wrong = [
            {"req_cnf_proof": ""},
            {"req_cnf_proof": other.proof("POST", plane.endpoint, plane.world.now, plane.verifier.nonce(), root.token)},
            {"req_cnf_proof": child.proof("POST", plane.endpoint, plane.world.now, plane.verifier.nonce(), None)},
            {"req_cnf_proof": child.proof("POST", plane.base, plane.world.now, plane.verifier.nonce(), root.token)},
            {"req_cnf": json.dumps({"jwk": other.jwk})},
            {"req_cnf": json.dumps({"jkt": b64(b"k" * 32)})},
            {"req_cnf": json.dumps(child.jwk)},
            {"req_cnf": ""},
        ]
        answers = [await plane.exchange(root, {**good, **change}) for change in wrong]
        assert [answer.status_code for answer in answers] == [400] * 8
        both = await plane.exchange(root, {name: value for name, value in good.items() if "req_cnf" not in name})
        assert both.json()["error"] == "invalid_request"

    forge.walk(tmp_path, scene)


def test_the_form_that_those_differ_from_is_good(tmp_path: Path) -> None:
    async def scene(plane: Plane, root: Agent) -> None:
        answer = await plane.exchange(root, plane.delegation(root, Agent()))
        assert (answer.status_code, plane.delegation(root, Agent())["grant_type"]) == (200, EXCHANGE)

    forge.walk(tmp_path, scene)
