from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from remit import jose
from remit.broker import broker as broker_module
from remit.core import tree
from remit.core.audit import Checkpoint, Entry, public_bytes, read, read_checkpoint
from remit.core.principal import Holder
from remit.core.request import Bounds, GrantRequest
from remit.core.tree import leaf_hash, verify_consistency, verify_inclusion
from remit.errors import LimitError
from remit.ports import Finding
from remit.web import middleware
from tests.broker.world import NOTE, OPERATOR, SEARCH, TABLE, details, holder
from tests.oauth.plane import GRANT, Agent, Plane, opening, play

HTTP = {"type": "http", "resource": "mail", "actions": ["POST"], "paths": ["/send"], "args": "any"}


async def channel_of(plane: Plane) -> tuple[dict[str, str], httpx.AsyncClient]:
    """Open a task; return the answer and a channel to its root."""
    opened = await plane.opened()
    return opened, await plane.channel(Holder(opened["task"], opened["grant"]))


def test_a_channel_says_whose_it_is_and_where_the_data_plane_is(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        opened, channel = await channel_of(plane)
        told = (await channel.get("/v1/self")).json()
        assert (told["grant"], told["gateway"], told["ports"]) == (
            opened["grant"],
            "http://127.0.0.1:8471",
            {"warehouse": 5433},
        )

    play(tmp_path, scene)


@pytest.mark.attack("REV-10")
def test_who_comes_after_its_task_is_over_is_told_that_it_expired_on_its_channel_and_over_tcp(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        await plane.opened(agent, ttl="300")
        channel = await plane.channel(Holder(agent.task, agent.grant))
        plane.world.later(301)
        await plane.broker.sweep()
        assert list(plane.broker._tasks) == []
        asked = {"grant": agent.grant, "detail": TABLE}
        child = {"subject_token": agent.grant, "subject_token_type": GRANT}
        form = {**opening(), **child}
        for answer in (
            await channel.get("/v1/self"),
            await channel.post(f"/v1/tasks/{agent.task}/leases", json=asked),
            await channel.get(f"/v1/tasks/{agent.task}"),
        ):
            assert (answer.status_code, answer.json()["code"]) == (403, "expired"), answer.text
        answer = await plane.call(agent, "GET", "/v1/self")  # a token ends with its grant at the latest
        assert (answer.status_code, answer.json()["detail"]) == (401, "it has expired"), answer.text
        del form["purpose"]
        delegated = await channel.post("/oauth/token", data=form)
        assert (delegated.status_code, delegated.json()["error"]) == (400, "invalid_request"), delegated.text
        revoked = await plane.web.post("/oauth/revoke", data={"token": agent.token})
        assert revoked.status_code == 200, revoked.text

    play(tmp_path, scene)


@pytest.mark.attack("REV-10")
def test_who_comes_after_its_task_was_closed_is_told_that_it_was_revoked(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        await plane.opened(agent)
        channel = await plane.channel(Holder(agent.task, agent.grant))
        await plane.control.post(f"/v1/tasks/{agent.task}/close", json={})
        await plane.broker.sweep()
        for answer, status in ((await channel.get("/v1/self"), 403), (await plane.call(agent, "GET", "/v1/self"), 401)):
            assert (answer.status_code, answer.json()["code"]) == (status, "revoked"), answer.text

    play(tmp_path, scene)


def test_the_operator_is_told_who_it_is_taken_for(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        told = (await plane.control.get("/v1/self")).json()
        assert (told["subject"], told["acr"]) == ("unix://host#1000", "local-uid")

    play(tmp_path, scene)


def test_an_agent_lists_its_own_task_alone(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        opened, channel = await channel_of(plane)
        other = await plane.opened()
        assert [task["task"] for task in (await channel.get("/v1/tasks")).json()["tasks"]] == [opened["task"]]
        everything = {task["task"] for task in (await plane.control.get("/v1/tasks")).json()["tasks"]}
        assert everything == {opened["task"], other["task"]}

    play(tmp_path, scene)


def test_issue_renew_and_revoke_a_lease(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        opened, channel = await channel_of(plane)
        asked = {"grant": opened["grant"], "detail": TABLE}
        issued = await channel.post(f"/v1/tasks/{opened['task']}/leases", json=asked)
        assert (issued.status_code, issued.json()["credential"]["password"]) == (201, "p4ss")
        lease = issued.json()["lease"]
        plane.world.later(60)
        renewed = await channel.post(f"/v1/leases/{lease}/renew", json={"ttl": 600})
        assert renewed.json()["expires_at"] == "2026-11-25T12:11:00.000Z"
        assert renewed.json()["ends_with_grant"] is False
        report = (await channel.post(f"/v1/leases/{lease}/revoke", json={})).json()
        assert (report["state"], report["revoked"]) == ("closed", 1)
        assert plane.world.target.accounts == {}

    play(tmp_path, scene)


def test_the_same_idempotency_key_supersedes_the_earlier_lease(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        opened, channel = await channel_of(plane)
        asked = {"grant": opened["grant"], "detail": TABLE}
        for _ in range(2):
            headers = {"idempotency-key": "a"}
            assert (await channel.post(f"/v1/tasks/{opened['task']}/leases", json=asked, headers=headers)).is_success
        assert len(plane.world.target.accounts) == 1

    play(tmp_path, scene)


@pytest.mark.parametrize("key", ["", "x" * 129, "a\tb"])
def test_an_idempotency_key_that_is_not_plain_is_refused(tmp_path: Path, key: str) -> None:
    async def scene(plane: Plane) -> None:
        opened, channel = await channel_of(plane)
        asked = {"grant": opened["grant"], "detail": TABLE}
        answer = await channel.post(f"/v1/tasks/{opened['task']}/leases", json=asked, headers={"idempotency-key": key})
        assert answer.status_code == 400

    play(tmp_path, scene)


def test_a_grant_of_another_task_is_not_found_under_this_one(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        one, two = await plane.opened(), await plane.opened()
        path = f"/v1/tasks/{one['task']}/grants/{two['grant']}/revoke"
        assert (await plane.control.post(path)).status_code == 404

    play(tmp_path, scene)


def test_a_task_shows_its_tree_its_uses_and_its_leases(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        opened, channel = await channel_of(plane)
        await channel.post(f"/v1/tasks/{opened['task']}/leases", json={"grant": opened["grant"], "detail": TABLE})
        told = (await plane.control.get(f"/v1/tasks/{opened['task']}")).json()
        assert (told["root"], told["closed"], told["purpose"]) == (opened["grant"], False, "draft the CFO summary")
        assert told["grants"][0]["used"] == [0, 0]
        assert told["leases"][0]["state"] == "active"
        assert "p4ss" not in json.dumps(told)

    play(tmp_path, scene)


def test_a_resource_is_put_shown_listed_and_removed(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        body = {
            "kind": "http",
            "destination": "https://mail.test",
            "bound": [HTTP],
            "settings": {"provider": "generic"},
        }
        put = await plane.control.put("/v1/resources/mail", json={**body, "secret": "k3y-of-mail-0123456789"})
        assert (put.status_code, put.json()["secret"]) == (200, True)
        listed = await plane.control.get("/v1/resources")
        assert [item["resource"] for item in listed.json()["resources"]] == ["mail", "search", "warehouse"]
        assert "k3y-of-mail" not in listed.text + put.text
        assert (await plane.control.delete("/v1/resources/mail")).status_code == 204
        assert (await plane.control.get("/v1/resources/mail")).status_code == 404

    play(tmp_path, scene)


def test_checking_a_resource_changes_neither_it_nor_the_log(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        before = (await plane.control.get("/v1/resources/warehouse")).json()
        size = await plane.broker._store.size()
        plane.world.target.findings = [Finding("login-superuser", "the login is a superuser", acceptable=False)]
        told = (await plane.control.post("/v1/resources/warehouse/check")).json()
        assert told["findings"] == [
            {
                "name": "login-superuser",
                "text": "the login is a superuser",
                "acceptable": False,
                "loud": False,
                "accepted": False,
            }
        ]
        assert told["contacted"] is True
        assert (await plane.control.get("/v1/resources/warehouse")).json() == before
        assert await plane.broker._store.size() == size

    play(tmp_path, scene)


def test_an_agent_may_not_check_a_resource(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        _, channel = await channel_of(plane)
        assert (await channel.post("/v1/resources/warehouse/check")).status_code == 403

    play(tmp_path, scene)


@pytest.mark.parametrize(
    "change", [{"kind": "ftp"}, {"bound": []}, {"settings": []}, {"destination": 7}, {"secret": ""}, {"extra": 1}]
)
def test_a_resource_that_is_not_right_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    async def scene(plane: Plane) -> None:
        body = {"kind": "http", "destination": "https://mail.test", "bound": [HTTP], **change}
        assert (await plane.control.put("/v1/resources/mail", json=body)).status_code == 400

    play(tmp_path, scene)


def test_a_secret_is_replaced_under_the_name_of_its_resource(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        good = {"resource": "search", "value": "n3w-0123456789abcdef"}
        assert (await plane.control.put("/v1/secrets/search", json=good)).status_code == 204
        assert (await plane.control.put("/v1/secrets/other", json=good)).status_code == 400
        assert (await plane.control.get("/v1/secrets/search")).status_code == 405

    play(tmp_path, scene)


@pytest.mark.parametrize(("content", "kind"), [("[]", "json"), ("", "json"), ("{}", "x-yaml"), ("{}", "json; q=1")])
def test_a_body_that_is_no_json_object_is_refused(tmp_path: Path, content: str, kind: str) -> None:
    async def scene(plane: Plane) -> None:
        headers = {"content-type": f"application/{kind}"}
        assert (await plane.control.put("/v1/resources/a", content=content, headers=headers)).status_code == 400

    play(tmp_path, scene)


def test_a_call_that_takes_no_body_refuses_one(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        opened = await plane.opened()
        answer = await plane.control.post(f"/v1/tasks/{opened['task']}/close", json={"force": True})
        assert answer.status_code == 400

    play(tmp_path, scene)


# -- audit ------------------------------------------------------------------------------------------------------------


def test_entries_are_the_leaves_as_they_were_hashed(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        await plane.opened()
        answer = await plane.control.get("/v1/audit?start=4&limit=1")
        leaf = answer.text.partition("[")[2][:-2].encode()
        assert (read(Entry(4, leaf)).event, answer.json()["size"]) == ("task.open", 5)

    play(tmp_path, scene)


def test_the_checkpoint_is_a_signed_note(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        answer = await plane.control.get("/v1/audit/checkpoint")
        assert answer.headers["content-type"].startswith("text/plain")
        found = read_checkpoint(answer.text, "remit.test/audit", [public_bytes(NOTE.public_jwk())])
        assert found.size == 4

    play(tmp_path, scene)


def test_the_proofs_prove(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        for _ in range(5):
            await plane.opened()
        leaves = await plane.world.store.leaves(0, 7)
        told = (await plane.control.get("/v1/audit/proof/inclusion?seq=2&size=7")).json()
        path = [jose.decode(node) for node in told["proof"]]
        verify_inclusion(leaf_hash((await plane.world.store.entries(2, 1))[0].leaf), 2, 7, path, tree.root_of(leaves))
        told = (await plane.control.get("/v1/audit/proof/consistency?from=3&to=7")).json()
        path = [jose.decode(node) for node in told["proof"]]
        verify_consistency(3, tree.root_of(leaves[:3]), 7, tree.root_of(leaves), path)

    play(tmp_path, scene)


@pytest.mark.parametrize(
    ("query", "status"),
    [("", 400), ("seq=1", 400), ("seq=9&size=2", 400), ("seq=0&size=99", 404), ("seq=x&size=1", 400)],
)
def test_a_proof_that_cannot_be_is_refused(tmp_path: Path, query: str, status: int) -> None:
    async def scene(plane: Plane) -> None:
        assert (await plane.control.get(f"/v1/audit/proof/inclusion?{query}")).status_code == status

    play(tmp_path, scene)


# -- problems ---------------------------------------------------------------------------------------------------------


def test_a_problem_names_a_page_that_is_there(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        answer = await plane.control.get("/v1/tasks/task_none")
        assert answer.headers["content-type"] == "application/problem+json"
        page = await plane.web.get(answer.json()["type"])
        assert (page.status_code, page.text.splitlines()[0]) == (200, "not-found")
        assert (await plane.web.get("/problems/nothing")).status_code == 404

    play(tmp_path, scene)


@pytest.mark.parametrize("code", sorted(middleware.error_classes()))
def test_every_error_renders_for_both_kinds_of_client(code: str) -> None:
    error = middleware.error_classes()[code](offending=[{"type": "http"}], enough={"type": "http"}, help="do this")
    told = json.loads(bytes(middleware.problem_document(error, "http://i", "urn:x").body))
    assert (told["code"], told["status"], told["offending"]) == (code, error.status, [{"type": "http"}])
    assert json.loads(bytes(middleware.oauth_error(error, "urn:x").body))["code"] == code


def test_what_was_not_foreseen_is_told_to_the_log_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def broken(_size: int, _root: bytes) -> Checkpoint:
        raise RuntimeError("inside")

    async def scene(plane: Plane) -> None:
        plane.broker._sign = broken
        answer = await plane.control.get("/v1/audit/checkpoint")
        assert (answer.status_code, answer.json()["code"]) == (500, "internal")
        assert "inside" not in answer.json()["detail"].replace("inside remit", "")
        assert answer.json()["instance"] in caplog.text
        assert "RuntimeError: inside" in caplog.text

    play(tmp_path, scene)


def test_an_error_that_passes_says_when_to_come_back() -> None:
    answer = middleware.problem_document(LimitError(retry_after=7), "http://i", "urn:x")
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "7")


def test_what_a_caller_wrote_is_harmless_in_a_description(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        answer = await plane.control.post("/oauth/token", data={**opening(), 't"t\\l\x00é`': "1"})
        description = answer.json()["error_description"]
        assert description.isascii()
        assert not set(description) & {'"', "\\", "\0"}

    play(tmp_path, scene)


def test_a_path_has_no_escapes(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        agent = Agent()
        await plane.opened(agent)
        assert (await plane.control.get("/v1/tasks/%74ask")).status_code == 400

    play(tmp_path, scene)


@pytest.mark.attack("DOS-11")
@pytest.mark.parametrize("bound", ["limit", "PAGE_SIZE"])
def test_a_task_is_told_in_pages_that_together_are_the_whole_tree(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    async def scene(plane: Plane) -> None:
        root = Agent()
        await plane.opened(root)
        for _ in range(3):
            child = Agent()
            await plane.delegated(root, child, depth="1", fan_out="2")
            await plane.delegated(child, Agent())
        path = f"/v1/tasks/{root.task}"
        whole = (await plane.call(root, "GET", path)).json()
        assert "next" not in whole
        monkeypatch.setattr(broker_module, "PAGE_SIZE", 1 if bound == "PAGE_SIZE" else broker_module.PAGE_SIZE)
        found, after = [], ""
        while True:
            query = {"after": after} if after else {}
            query |= {"limit": "2"} if bound == "limit" else {}
            page = (await plane.control.get(path, params=query)).json()
            assert 1 <= len(page["grants"]) <= 2
            assert (page["root"], page["task"]) == (whole["root"], whole["task"])
            found += page["grants"]
            if "next" not in page:
                break
            after = page["next"]
            await plane.delegated(root, Agent())  # what is made meanwhile hides nothing
        shown = [grant["grant"] for grant in found]
        assert {grant["grant"] for grant in whole["grants"]} <= set(shown)
        assert len(shown) == len(set(shown))
        for query in ({"after": "grt_none"}, {"limit": "1001"}, {"limit": "-1"}, {"page": "2"}):
            assert (await plane.control.get(path, params=query)).status_code in {400, 404}

    play(tmp_path, scene)


@pytest.mark.attack("DOS-11")
def test_a_page_is_short_though_each_grant_names_as_many_delegates_as_it_may(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        root = await plane.world.opened(plane.broker, SEARCH, depth=1, fan_out=200)
        patterns = tuple(f"spiffe://corp.example/{n:02d}/{'p' * 200}" for n in range(32))
        for _ in range(200):
            await plane.broker.delegate(OPERATOR, root.id, GrantRequest(details(SEARCH), Bounds(delegates=patterns)))
        answer = await plane.control.get(f"/v1/tasks/{plane.broker._tasks.task_of(root.id).id}")
        assert "next" in answer.json()
        assert len(answer.content) < 1.5 * broker_module.PAGE_SIZE

    play(tmp_path, scene)


def test_a_page_begins_after_no_grant_that_the_caller_may_not_see(tmp_path: Path) -> None:
    async def scene(plane: Plane) -> None:
        root, child = Agent(), Agent()
        await plane.opened(root)
        await plane.delegated(root, child)
        channel = await plane.channel(holder(plane.broker, plane.broker._tasks.check(child.grant).grant))
        path = f"/v1/tasks/{root.task}"
        assert (await channel.get(path, params={"after": root.grant})).status_code == 404
        assert (await channel.get(path, params={"after": child.grant})).json()["grants"] == []

    play(tmp_path, scene)
