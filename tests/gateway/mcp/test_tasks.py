"""Tasks of MCP: an id is worth something to the grant alone that was given it, and the server sees none but its own."""

from __future__ import annotations

import json
from typing import Any

import pytest

from remit.gateway.mcp import messages, tasks
from remit.gateway.mcp.headers import encoded
from remit.gateway.mcp.seals import HandleSeal
from remit.gateway.mcp.tasks import EXTENSION, MOST, RELATED, TaskHandles
from remit.gateway.server import Channel
from tests.gateway.mcp import talk
from tests.gateway.mcp.forge import ASKED, CALLS, Forge, answer, call, events, forge, message, result
from tests.gateway.rig import play
from tests.support.upstream import whole

META = "io.modelcontextprotocol/"
STATE = {"status": "working", "createdAt": "2026-01-01T00:00:00Z", "lastUpdatedAt": "2026-01-01T00:00:00Z", "ttl": 1}
NEWEST = {f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": {"extensions": {EXTENSION: {}}}}


def params_seen(there: Forge) -> Any:
    return json.loads(there.seen[-1].body)["params"]


async def made(there: Forge, id_: str = "t-1") -> str:
    """Have the server make a task of a call; return its id as the client has it."""
    there.answers(result(task={"taskId": id_, **STATE}))
    asked = {"name": "open", "arguments": {"repo": "acme"}, "task": {"ttl": 60_000}}
    found: Any = (await there.post(message("tools/call", asked))).json()
    assert params_seen(there) == asked
    return str(found["result"]["task"]["taskId"])


@pytest.mark.attack("MCP-02")
@pytest.mark.parametrize("method", sorted(tasks.OF_ONE))
def test_a_task_is_worth_nothing_to_another_grant(method: str) -> None:
    async def scene() -> None:
        async with forge() as there:
            mine = await made(there)
            assert mine != "t-1"
            there.answers(result(taskId="t-1", **STATE))
            found: Any = (await there.post(message(method, {"taskId": mine}))).json()
            assert params_seen(there) == {"taskId": "t-1"}
            assert found["result"] == {"taskId": mine, **STATE}
            bob = await there.rig.opened(CALLS)
            port = await there.rig.listen(Channel(bob.id, {}))
            reached = len(there.seen)
            for taken in (mine, "t-1", f"{mine}x", ".t-1", ""):
                reply: Any = (await there.post(message(method, {"taskId": taken}), port=port)).json()
                assert reply["error"]["data"]["remit/problem"]["code"] == "denied"
            for wrong in ({"taskId": "t-1"}, {"taskId": 1}, {"taskId": mine, "TaskId": "t-1"}, {}):
                assert "error" in (await there.post(message(method, wrong))).json()
            assert len(there.seen) == reached

    play(scene)


def test_a_list_has_the_tasks_of_the_grant_alone() -> None:
    listed = [{"taskId": id_, **STATE} for id_ in ("t-1", "t-of-another", "t-2")] + ["t-1"]

    async def scene() -> None:
        async with forge() as there:
            own = [await made(there, id_) for id_ in ("t-1", "t-2")]
            there.answers(result(tasks=listed))
            found: Any = (await there.post(message("tasks/list", {"cursor": "c"}))).json()
            assert [task["taskId"] for task in found["result"]["tasks"]] == own
            bob = await there.rig.opened(CALLS)
            port = await there.rig.listen(Channel(bob.id, {}))
            theirs: Any = (await there.post(message("tasks/list"), port=port)).json()
            assert theirs["result"]["tasks"] == []

    play(scene)


def test_what_belongs_to_a_task_says_so_in_the_clients_words_and_the_servers() -> None:
    asks = {"message": "sure?", "_meta": {RELATED: {"taskId": "t-1"}, "own": 1}}

    async def scene() -> None:
        async with forge(ASKED) as there:
            mine = await made(there)
            there.answers(
                events(
                    {"jsonrpc": "2.0", "id": 7, "method": "elicitation/create", "params": asks},
                    {"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": {"taskId": "t-1", **STATE}},
                    {"jsonrpc": "2.0", "method": "notifications/tasks/status", "params": {"taskId": "t-9", **STATE}},
                    {"jsonrpc": "2.0", "id": 1, "result": {"content": [], "_meta": {RELATED: {"taskId": "t-1"}}}},
                )
            )
            reply = await there.post(message("tasks/result", {"taskId": mine}))
            said = [json.loads(line[6:]) for line in reply.body.decode().splitlines() if line.startswith("data: ")]
            assert said[0]["params"]["_meta"] == {"own": 1, RELATED: {"taskId": mine}}
            assert [each["params"]["taskId"] for each in said[1:-1]] == [mine]
            assert said[-1]["result"]["_meta"] == {RELATED: {"taskId": mine}}
            there.answers(whole("202 Accepted", b""))
            for id_, status in ((mine, 202), ("t-1", 403)):
                told = {"action": "decline", "_meta": {RELATED: {"taskId": id_}}}
                body = json.dumps({"jsonrpc": "2.0", "id": 7, "result": told}).encode()
                assert (await there.post(body)).status == status
            assert json.loads(there.seen[-1].body)["result"]["_meta"] == {RELATED: {"taskId": "t-1"}}

    play(scene)


def test_a_task_of_the_newest_revision_is_made_unasked_named_in_a_header_and_watched() -> None:
    async def scene() -> None:
        async with forge(ASKED) as there:
            lines = ["Mcp-Protocol-Version: 2026-07-28"]
            there.answers(result(resultType="task", taskId="t-1", **STATE))
            asked = {"name": "open", "arguments": {}, "_meta": NEWEST}
            reply = await there.post(message("tools/call", asked), *lines, "Mcp-Method: tools/call", "Mcp-Name: open")
            first: Any = reply.json()
            mine = first["result"]["taskId"]
            assert mine != "t-1"
            heads = [*lines, "Mcp-Method: tasks/update", f"Mcp-Name: {mine}"]
            update = {"taskId": mine, "inputResponses": {"a": {"action": "decline"}}, "_meta": NEWEST}
            assert (await there.post(message("tasks/update", update), *heads)).status == 200
            assert (params_seen(there)["taskId"], there.seen[-1].headers["mcp-name"]) == ("t-1", "t-1")
            for wrong in (heads[:2], [*heads[:2], "Mcp-Name: t-1"]):
                assert (await there.post(message("tasks/update", update), *wrong)).status == 400
            there.answers(answer({"jsonrpc": "2.0", "id": 1, "result": {}}))
            listen = {"notifications": {"taskIds": [mine]}, "_meta": NEWEST}
            await there.post(message("subscriptions/listen", listen), *lines, "Mcp-Method: subscriptions/listen")
            assert params_seen(there)["notifications"] == {"taskIds": ["t-1"]}

    play(scene)


def test_the_oldest_tasks_of_a_grant_are_forgotten_and_can_still_be_asked_for() -> None:
    handles = TaskHandles(HandleSeal(b"k", "task", "grt_1"))
    for number in range(MOST + 1):
        handles.told(messages.message({"jsonrpc": "2.0", "id": 1, "result": {"taskId": f"t-{number}"}}))
    assert len(handles.given) == MOST
    named = HandleSeal(b"k", "task", "grt_1").sealed("t-0")
    assert handles.said(talk.said("tasks/get", {"taskId": named})).params == {"taskId": "t-0"}
    status = messages.read(talk.raw(method="notifications/tasks", params={"taskId": "t-0"}))
    assert handles.told(status) is None


def test_without_a_seal_the_ids_are_the_servers() -> None:
    handles = TaskHandles()
    for said in (talk.said("tasks/get", {"taskId": "t"}), talk.said("notifications/tasks", {"taskId": "t"}, None)):
        assert handles.said(said) is said
        assert handles.told(said) is said


@pytest.mark.parametrize("text", ["t-1", "é", " t", "=?base64?eA==?=", "a\nb"])
def test_an_id_is_written_as_the_value_of_a_header(text: str) -> None:
    written = encoded(text)
    assert written.isascii()
    assert (written == text.encode()) is (text == "t-1")
    assert b"\n" not in written


def test_a_call_that_makes_a_task_is_judged_as_any() -> None:
    async def scene() -> None:
        async with forge() as there:
            refused = message("tools/call", {"name": "drop", "arguments": {}, "task": {}})
            found: Any = (await there.post(refused)).json()
            assert found["result"]["isError"] is True
            assert (await there.post(call("open", repo="acme"))).status == 200
            assert len(there.seen) == 1

    play(scene)
