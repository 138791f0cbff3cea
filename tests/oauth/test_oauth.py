from __future__ import annotations

import json
from pathlib import Path

import pytest

from remit import jose
from remit.core.principal import Holder
from remit.jose import public_key
from tests.attacks.forge import parts
from tests.broker.world import SEARCH, TABLE
from tests.oauth.plane import (
    ACCESS_TOKEN,
    EXCHANGE,
    GRANT,
    Agent,
    Answer,
    Form,
    Plane,
    ed25519_agent,
    later,
    opening,
    play,
)


def renewal(agent: Agent) -> Form:
    """Return the form that renews a token."""
    return {"grant_type": EXCHANGE, "subject_token": agent.token, "subject_token_type": ACCESS_TOKEN}


def here(parent: str, **more: str) -> Form:
    """Return the form that delegates on a unix socket."""
    form = {"grant_type": EXCHANGE, "subject_token": parent, "subject_token_type": GRANT}
    return {**form, "authorization_details": json.dumps([SEARCH]), **more}


def test_open_at_the_control_socket_answers_with_a_grant_and_no_token(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        answer = await plane.opened()
        assert answer.keys() == {"task", "grant", "expires_in", "authorization_details"}
        assert answer["expires_in"] == 900

    play(tmp_path, scene)


def test_open_with_a_key_answers_with_a_token_bound_to_it(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        answer = await plane.opened(agent)
        assert (answer["token_type"], answer["issued_token_type"]) == ("DPoP", ACCESS_TOKEN)
        assert parts(agent.token)[1]["cnf"] == {"jkt": agent.signer.kid}

    play(tmp_path, scene)


def test_an_agent_with_an_edwards_key_is_served_too(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        parent, child = ed25519_agent(), ed25519_agent()
        await plane.opened(parent)
        await plane.delegated(parent, child)
        assert (await plane.call(child, "GET", "/v1/self")).status_code == 200

    play(tmp_path, scene)


def test_delegate_hashes_the_parents_token_into_the_childs(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        parent, child = Agent(), Agent()
        await plane.opened(parent)
        await plane.delegated(parent, child, depth="1", fan_out="2", label="researcher")
        claims = parts(child.token)[1]
        assert claims["par_hash"] == jose.digest(parent.token)
        assert (claims["del_depth"], claims["del_max_depth"]) == (1, 2)

    play(tmp_path, scene)


def test_renew_gives_the_same_grant_a_later_token(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        parent, agent = Agent(), Agent()
        await plane.opened(parent)
        await plane.delegated(parent, agent)
        later(plane, 60)
        answer = (await plane.exchange(agent, renewal(agent))).json()
        old, new = parts(agent.token)[1], parts(answer["access_token"])[1]
        assert (new["task"], new["par_hash"]) == (old["task"], old["par_hash"])
        assert isinstance(old["exp"], int)
        assert new["exp"] == old["exp"] + 60

    play(tmp_path, scene)


def test_a_token_is_renewed_only_while_its_grant_lives(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        await plane.opened(agent)
        await plane.control.post(f"/v1/tasks/{agent.task}/close")
        answer = await plane.exchange(agent, renewal(agent))
        assert answer.status_code == 400
        assert (answer.json()["error"], answer.json()["code"]) == ("invalid_request", "revoked")

    play(tmp_path, scene)


def test_without_a_nonce_the_answer_brings_one(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        form = {**opening(), **plane.confirmation(agent, None, nonce=None)}
        answer = await plane.control.post("/oauth/token", data=form)
        assert (answer.status_code, answer.json()["error"]) == (400, "use_dpop_nonce")
        form |= plane.confirmation(agent, None, nonce=answer.headers["dpop-nonce"])
        assert (await plane.control.post("/oauth/token", data=form)).status_code == 200

    play(tmp_path, scene)


def test_delegate_on_a_channel_needs_no_token(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        opened = await plane.opened()
        channel = await plane.channel(Holder(opened["task"], opened["grant"]))
        answer = await channel.post("/oauth/token", data=here(opened["grant"]))
        assert answer.json().keys() == {"task", "grant", "expires_in", "authorization_details"}

    play(tmp_path, scene)


def test_a_channel_hands_out_no_token(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        opened = await plane.opened()
        channel = await plane.channel(Holder(opened["task"], opened["grant"]))
        form = {**here(opened["grant"]), **plane.confirmation(Agent(), None)}
        assert (await channel.post("/oauth/token", data=form)).json()["error"] == "invalid_request"

    play(tmp_path, scene)


def test_a_channel_reaches_no_grant_above_or_beside_its_own(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        opened = await plane.opened()
        root = await plane.channel(Holder(opened["task"], opened["grant"]))
        child = (await root.post("/oauth/token", data=here(opened["grant"]))).json()["grant"]
        channel = await plane.channel(Holder(opened["task"], child))
        for grant in (opened["grant"], "grt_none", (await plane.opened())["grant"]):
            answer = await channel.post("/oauth/token", data=here(grant))
            assert (answer.status_code, answer.json()["error"]) == (400, "invalid_target")

    play(tmp_path, scene)


def test_a_wider_child_is_refused_with_what_is_too_wide(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        parent = Agent()
        await plane.opened(parent)
        wide = {**TABLE, "actions": ["insert", "select"]}
        form = plane.delegation(parent, Agent(), authorization_details=json.dumps([SEARCH, wide]))
        answer = await plane.exchange(parent, form)
        assert (answer.status_code, answer.json()["error"]) == (400, "invalid_authorization_details")
        assert [detail["resource"] for detail in answer.json()["offending"]] == ["warehouse"]

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"subject_token_type": "urn:ietf:params:oauth:token-type:id_token"}, "invalid_request"),
        ({"subject_token_type": ACCESS_TOKEN}, "invalid_request"),
        ({"requested_token_type": "urn:ietf:params:oauth:token-type:jwt"}, "invalid_request"),
        ({"audience": "https://other.test"}, "invalid_target"),
        ({"resource": "https://other.test"}, "invalid_target"),
        ({"subject_token": "root"}, "invalid_request"),
        ({"purpose": ""}, "invalid_request"),
        ({"ttl": ""}, "invalid_request"),
        ({"ttl": "0"}, "invalid_request"),
        ({"ttl": "1e3"}, "invalid_request"),
        ({"ttl": "99999999999999999999"}, "invalid_request"),
        ({"depth": "-1"}, "invalid_request"),
        ({"exercise": "yes"}, "invalid_request"),
        ({"label": "x" * 201}, "invalid_request"),
        ({"authorization_details": "[]"}, "invalid_authorization_details"),
        ({"authorization_details": '{"a":1,"a":2}'}, "invalid_request"),
        ({"Depth": "1"}, "invalid_request"),
        ({"fan-out": "1"}, "invalid_request"),
        ({"fanOut": "1"}, "invalid_request"),
        ({"exercise[]": "false"}, "invalid_request"),
        ({"authorization_details[0]": "[]"}, "invalid_request"),
        ({"delegates ": "[]"}, "invalid_request"),
        ({"scope": "x"}, "invalid_scope"),
    ],
)
def test_a_form_that_is_not_right_is_refused_by_name(tmp_path: Path, change: Form, error: str) -> None:
    async def scene(plane: Plane) -> None:
        answer = await plane.control.post("/oauth/token", data=opening(**change))
        assert (answer.status_code, answer.json()["error"]) == (400, error)

    play(tmp_path, scene)


@pytest.mark.parametrize("query", ["exercise=false", "fanOut=0", "a=b&authorization_details%5B%5D=x"])
def test_a_limit_in_the_query_of_a_form_is_refused_and_whatever_else_is_there_ignored(
    tmp_path: Path, query: str
) -> None:
    async def scene(plane: Plane) -> None:
        refused = await plane.control.post(f"/oauth/token?{query}", data=opening())
        assert (refused.status_code, refused.json().get("error")) == (400, "invalid_request")
        assert (await plane.control.post("/oauth/token?api-version=2&grant_type=x", data=opening())).status_code == 200

    play(tmp_path, scene)


def test_a_parameter_given_twice_is_refused(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        headers = {"content-type": "application/x-www-form-urlencoded"}
        answer = await plane.control.post("/oauth/token", content="ttl=1&ttl=2", headers=headers)
        assert answer.json()["error_description"] == "a parameter is given more than once"

    play(tmp_path, scene)


def test_details_too_long_for_a_token_are_refused(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        detail = {**SEARCH, "paths": [f"/v1/{'x' * 900}{n}" for n in range(20)]}
        form = {**opening(authorization_details=json.dumps([detail])), **plane.confirmation(Agent(), None)}
        assert (await plane.control.post("/oauth/token", data=form)).status_code == 413

    play(tmp_path, scene)


def test_delegate_over_tcp_needs_a_key_for_the_child(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        await plane.opened(agent)
        answer = await plane.exchange(agent, {**renewal(agent), "authorization_details": json.dumps([SEARCH])})
        assert "req_cnf" in answer.json()["error_description"]

    play(tmp_path, scene)


# -- revoke, introspect -----------------------------------------------------------------------------------------------


async def ask(plane: Plane, agent: Agent, path: str, token: str) -> tuple[int, Answer]:
    """Post a token to an endpoint as ``agent``."""
    answer = await plane.call(agent, "POST", path, data={"token": token})
    return answer.status_code, answer.json()


def test_revoking_a_token_ends_its_subtree(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        root, middle, leaf = Agent(), Agent(), Agent()
        await plane.opened(root)
        await plane.delegated(root, middle, depth="1", fan_out="2")
        await plane.delegated(middle, leaf)
        status, report = await ask(plane, root, "/oauth/revoke", middle.token)
        assert (status, report["state"], report["revoked"]) == (200, "closed", 2)
        ended = await plane.call(leaf, "GET", "/v1/self")
        assert (ended.status_code, ended.json()["code"]) == (401, "revoked")
        assert ended.headers["www-authenticate"].startswith('DPoP error="invalid_token", ')
        assert (await plane.call(root, "GET", "/v1/self")).status_code == 200

    play(tmp_path, scene)


def test_a_token_that_has_expired_can_still_end_its_grant(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        root, child = Agent(), Agent()
        await plane.opened(root)
        await plane.delegated(root, child)
        later(plane, 599)
        root.token = (await plane.exchange(root, renewal(root))).json()["access_token"]
        later(plane, 10)
        assert (await ask(plane, root, "/oauth/revoke", child.token))[1]["revoked"] == 1

    play(tmp_path, scene)


def test_a_token_that_is_not_ones_own_is_revoked_by_nobody_else(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        root, child, other = Agent(), Agent(), Agent()
        await plane.opened(root)
        await plane.opened(other)
        await plane.delegated(root, child)
        for token in (root.token, other.token, "no.such.token", "é"):
            assert await ask(plane, child, "/oauth/revoke", token) == (200, {})
        assert (await plane.call(root, "GET", "/v1/self")).status_code == 200

    play(tmp_path, scene)


def test_a_live_token_of_ones_own_subtree_is_active(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        root, child = Agent(), Agent()
        await plane.opened(root)
        await plane.delegated(root, child)
        status, told = await ask(plane, root, "/oauth/introspect", child.token)
        assert (status, told["active"], told["sub"]) == (200, True, "unix://host#1000")

    play(tmp_path, scene)


def test_of_any_other_token_nothing_is_told(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        root, child, other = Agent(), Agent(), Agent()
        await plane.opened(root)
        await plane.opened(other)
        await plane.delegated(root, child)
        await plane.call(root, "POST", f"/v1/tasks/{root.task}/grants/{child.grant}/revoke")
        for token in (child.token, other.token, "no.such.token"):
            assert await ask(plane, root, "/oauth/introspect", token) == (200, {"active": False})

    play(tmp_path, scene)


# -- well-known -------------------------------------------------------------------------------------------------------


def test_the_metadata_is_true(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        told = (await plane.web.get("/.well-known/oauth-authorization-server")).json()
        assert told["issuer"] == plane.base
        for name in ("token_endpoint", "revocation_endpoint", "introspection_endpoint"):
            assert (await plane.web.post(told[name])).status_code in {400, 401}
            assert (await plane.web.get(told[name])).status_code in {401, 405}  # those for clients: RFC 9126 §2.3
        assert (await plane.control.get("/oauth/token")).status_code == 405
        keys = (await plane.web.get(told["jwks_uri"])).json()["keys"]
        assert [public_key(key).thumbprint for key in keys] == [plane.signer.kid]
        for algorithm, agent in (("ES256", Agent()), ("Ed25519", ed25519_agent())):
            assert algorithm in told["dpop_signing_alg_values_supported"]
            await plane.opened(agent)
        assert told["grant_types_supported"] == [EXCHANGE]
        assert told["authorization_details_types_supported"] == sorted(plane.broker.kinds)
        assert {"http", "postgres", "spiffe"} <= plane.broker.kinds.keys()
        resource = (await plane.web.get("/.well-known/oauth-protected-resource")).json()
        assert (resource["resource"], resource["authorization_servers"]) == (plane.base, [told["issuer"]])
        assert resource["dpop_bound_access_tokens_required"] is True

    play(tmp_path, scene)


def test_a_client_that_could_not_be_authenticated_is_told_how_proofs_are_made(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        for tried, first in (("Basic YTpi", "Basic "), ("Bearer x", "Bearer "), ("x", "DPoP ")):
            answer = await plane.web.post("/oauth/token", data=opening(), headers={"authorization": tried})
            assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")
            assert answer.headers["www-authenticate"].startswith(first)
            assert "DPoP algs=" in answer.headers["www-authenticate"]

    play(tmp_path, scene)
