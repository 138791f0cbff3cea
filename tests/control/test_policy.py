"""Policies on the wire: shown, reloaded and explained, to the operator alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import httpx

from remit.compose.app import build
from remit.compose.policy import PolicyDirectory
from remit.core.principal import Holder
from remit.web.authentication import SocketAuth
from remit.web.listen import serve
from tests.broker.world import OPERATOR
from tests.oauth.plane import Agent, Plane, _unix, opening, play

ALL = '@id("all")\npermit (principal, action, resource);\n'
NO_TABLE = ALL + '@id("no-table")\nforbid (principal, action, resource == Resource::"warehouse");\n'

Write = Callable[[str], object]
Scene = Callable[[Plane, httpx.AsyncClient, Write], Awaitable[None]]


def ruled(tmp_path: Path, scene: Scene) -> None:
    """Play a scene on a plane that decides by the policies of a directory."""
    directory = tmp_path / "policies"
    directory.mkdir(mode=0o755)
    (directory / "main.cedar").write_text(ALL)
    policies = PolicyDirectory(directory)

    async def main(plane: Plane) -> None:
        policies.broker = plane.broker
        await plane.broker.policy.reload(OPERATOR, policies.decide, "first")
        plane.deps = replace(plane.deps, policies=policies)
        path = tmp_path / "ruled.sock"
        plane.listeners.append(await serve(build(plane.deps), _unix(path), SocketAuth(OPERATOR)))
        await scene(plane, plane._client(path), (directory / "main.cedar").write_text)

    play(tmp_path, main)


def test_the_operator_is_shown_what_holds(tmp_path: Path) -> None:
    async def scene(_: Plane, control: httpx.AsyncClient, write: Write) -> None:
        del write
        answer = await control.get("/v1/policy")
        assert answer.status_code == 200
        shown = answer.json()
        assert shown.keys() == {"directory", "version", "policies", "failing", "problems"}
        assert shown["directory"] == str(tmp_path / "policies")
        assert shown["policies"] == [{"id": "all", "effect": "permit", "file": "main.cedar", "line": 1}]

    ruled(tmp_path, scene)


def test_a_reload_has_ended_what_is_not_allowed_when_it_answers(tmp_path: Path) -> None:
    async def scene(plane: Plane, control: httpx.AsyncClient, write: Write) -> None:
        opened = await plane.opened()
        write(NO_TABLE)
        answer = await control.post("/v1/policy/reload")
        assert answer.status_code == 200
        told = answer.json()
        assert (told["reloaded"], told["ended"]) == (True, 1)
        assert [item["id"] for item in told["policies"]] == ["all", "no-table"]
        task = (await control.get(f"/v1/tasks/{opened['task']}")).json()
        assert task["closed"]

    ruled(tmp_path, scene)


def test_a_bad_set_is_told_with_what_is_wrong_and_changes_nothing(tmp_path: Path) -> None:
    async def scene(plane: Plane, control: httpx.AsyncClient, write: Write) -> None:
        opened = await plane.opened()
        write("nonsense")
        told = (await control.post("/v1/policy/reload")).json()
        assert (told["reloaded"], told["ended"]) == (False, 0)
        said = "the policy has no end: a `;` is missing, or a string is not closed"
        assert told["problems"] == [{"file": "main.cedar", "line": 1, "text": said}]
        assert [item["id"] for item in told["policies"]] == ["all"]
        assert (await control.get("/v1/policy")).json()["problems"] == told["problems"]
        assert not (await control.get(f"/v1/tasks/{opened['task']}")).json()["closed"]

    ruled(tmp_path, scene)


def test_a_refusal_by_policy_is_a_problem_that_names_what_decided(tmp_path: Path) -> None:
    async def scene(_: Plane, control: httpx.AsyncClient, write: Write) -> None:
        write(NO_TABLE)
        await control.post("/v1/policy/reload")
        answer = await control.post("/oauth/token", data=opening())
        assert answer.status_code == 400
        refused = answer.json()
        assert (refused["error"], refused["code"]) == ("access_denied", "policy")
        assert refused["error_description"] == "`no-table` forbids `warehouse`"
        assert [detail["resource"] for detail in refused["offending"]] == ["warehouse"]

    ruled(tmp_path, scene)


def test_a_grant_says_by_which_policies_it_was_allowed(tmp_path: Path) -> None:
    async def scene(_: Plane, control: httpx.AsyncClient, write: Write) -> None:
        version = (await control.get("/v1/policy")).json()["version"]
        opened = (await control.post("/oauth/token", data=opening())).json()
        write(f"// another version\n{ALL}")
        assert (await control.post("/v1/policy/reload")).json()["version"] != version
        task = (await control.get(f"/v1/tasks/{opened['task']}")).json()
        assert [grant["policy"] for grant in task["grants"]] == [version]

    ruled(tmp_path, scene)


def test_a_grant_is_explained_whether_it_is_live_or_not(tmp_path: Path) -> None:
    async def scene(plane: Plane, control: httpx.AsyncClient, write: Write) -> None:
        opened = await plane.opened()
        for text, allowed, outcomes in ((ALL, True, ["permits"]), (NO_TABLE, False, ["permits", "forbids"])):
            write(text)
            version = (await control.post("/v1/policy/reload")).json()["version"]
            answer = await control.get(f"/v1/policy/explain/{opened['grant']}")
            told = answer.json()
            assert (told["grant"], told["verb"], told["allowed"]) == (opened["grant"], "open", allowed)
            assert told["version"] == version
            table = next(detail for detail in told["details"] if detail["resource"] == "warehouse")
            assert [step["outcome"] for step in table["policies"]] == outcomes
            step = {"policy", "place", "effect", "outcome", "because", "attributes"}
            assert all(item.keys() == step for item in table["policies"])

    ruled(tmp_path, scene)


def test_an_unknown_grant_is_not_explained(tmp_path: Path) -> None:
    async def scene(_: Plane, control: httpx.AsyncClient, write: Write) -> None:
        del write
        assert (await control.get("/v1/policy/explain/grt_none")).status_code == 404

    ruled(tmp_path, scene)


def test_nothing_may_be_said_to_a_reload(tmp_path: Path) -> None:
    async def scene(_: Plane, control: httpx.AsyncClient, write: Write) -> None:
        write(NO_TABLE)
        assert (await control.post("/v1/policy/reload", json={"policies": ALL})).status_code == 400
        assert [item["id"] for item in (await control.get("/v1/policy")).json()["policies"]] == ["all"]

    ruled(tmp_path, scene)


def test_an_agent_neither_sees_nor_reloads_policies(tmp_path: Path) -> None:
    async def scene(plane: Plane, control: httpx.AsyncClient, write: Write) -> None:
        opened = await plane.opened()
        channel = await plane.channel(Holder(opened["task"], opened["grant"]))
        write(NO_TABLE)
        for method, path in (
            ("GET", "/v1/policy"),
            ("POST", "/v1/policy/reload"),
            ("GET", f"/v1/policy/explain/{opened['grant']}"),
        ):
            assert (await channel.request(method, path)).status_code in {403, 404}
            assert (await plane.web.request(method, path)).status_code == 401
        assert [item["id"] for item in (await control.get("/v1/policy")).json()["policies"]] == ["all"]

    ruled(tmp_path, scene)


def test_where_nothing_is_told_of_policies_an_agent_is_refused_as_elsewhere(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        assert (await plane.control.get("/v1/policy")).status_code == 404
        agent = Agent()
        await plane.opened(agent)
        answer = await plane.call(agent, "GET", "/v1/policy")
        assert (answer.status_code, answer.json()["code"]) == (403, "denied")

    play(tmp_path, scene)


def test_without_policies_there_is_nothing_to_reload(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        policies = PolicyDirectory(None)
        policies.broker = plane.broker
        plane.deps = replace(plane.deps, policies=policies)
        path = tmp_path / "ruled.sock"
        plane.listeners.append(await serve(build(plane.deps), _unix(path), SocketAuth(OPERATOR)))
        control = plane._client(path)
        assert (await control.get("/v1/policy")).json()["version"] == "local-1"
        answer = await control.post("/v1/policy/reload")
        assert (answer.status_code, answer.json()["detail"]) == (404, "no policies are configured")
        assert "start the broker anew: it reads that when it starts" in answer.json()["help"]

    play(tmp_path, scene)
