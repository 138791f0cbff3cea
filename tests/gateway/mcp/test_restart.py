"""What a gateway handed out goes on at the next one, which knows nothing of it; to other grants it is worth nothing."""

from __future__ import annotations

import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

import pytest

from remit.core.secret import WHOLE
from remit.gateway.server import Channel
from tests.gateway.mcp.forge import CALLS, answer, call, events, forge, message, result
from tests.gateway.mcp.test_tasks import STATE, made
from tests.gateway.mcp.town import town
from tests.gateway.rig import Rig, play


async def stranger(rig: Rig, *details: Mapping[str, object]) -> int:
    """Return a listener of another grant."""
    return await rig.listen(Channel((await rig.opened(*details)).id, {}))


@pytest.mark.attack("MCP-02")
def test_a_session_goes_on_at_the_next_gateway_and_for_no_other_grant_there() -> None:
    async def scene() -> None:
        async with forge() as there:
            there.answers(answer({"jsonrpc": "2.0", "id": 1, "result": {}}, "Mcp-Session-Id: s-1"))
            first = await there.post(message("initialize", {"capabilities": {}}))
            mine = f"Mcp-Session-Id: {first.headers['mcp-session-id']}"
            await there.rig.restart()
            assert (await there.post(call("open", repo="acme"), mine)).status == 200
            assert there.seen[-1].headers["mcp-session-id"] == "s-1"
            port = await stranger(there.rig, CALLS)
            assert (await there.post(call("open", repo="acme"), mine, port=port)).status == 404
            assert (await there.post(call("open", repo="acme"), "Mcp-Session-Id: s-1")).status == 404
            assert len(there.seen) == 2

    play(scene)


@pytest.mark.attack("MCP-02")
def test_state_tasks_and_streams_go_on_at_the_next_gateway_and_for_no_other_grant_there() -> None:
    async def scene() -> None:
        async with forge() as there:
            task = await made(there)
            there.answers(result(resultType="input_required", requestState="state-1"))
            asked: Any = (await there.post(call("open", repo="acme"))).json()
            state = asked["result"]["requestState"]
            there.answers(events('id: e-1\ndata: {"jsonrpc":"2.0","method":"notifications/message"}\n\n'))
            told = (await (await there.opened()).reply()).body
            [line] = [line for line in told.split(b"\n") if line.startswith(b"id: ")]
            resume = f"Last-Event-ID: {line[4:].decode()}"

            await there.rig.restart()
            assert (await (await there.opened(resume)).reply()).status == 200
            assert there.seen[-1].headers["last-event-id"] == "e-1"
            there.answers(result(taskId="t-1", **STATE))
            got = message("tasks/get", {"taskId": task})
            assert (await there.post(got)).json()["result"] == {"taskId": task, **STATE}
            again = message("tools/call", {"name": "open", "arguments": {"repo": "acme"}, "requestState": state})
            await there.post(again)
            assert json.loads(there.seen[-1].body)["params"]["requestState"] == "state-1"

            port, reached = await stranger(there.rig, CALLS), len(there.seen)
            assert (await there.rig.get("/forge", resume, port=port)).status == 404
            for theirs in (got, again):
                assert "error" in (await there.post(theirs, port=port)).json()
            assert len(there.seen) == reached

    play(scene)


def test_a_session_of_many_servers_goes_on_at_the_next_gateway() -> None:
    async def scene() -> None:
        async with town("bank", "shop") as there:
            await there.begins()
            await there.rig.restart()
            listed = await there.says("tools/list")
            assert [tool["name"] for tool in listed["result"]["tools"]] == ["bank__look", "shop__look"]
            for server in there.servers.values():
                assert server.seen[-1].headers["mcp-session-id"] == f"s-{server.name}"

    play(scene)


def test_what_seals_shows_nowhere(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(0)

    async def scene() -> None:
        async with forge() as there:
            rig = there.rig
            key = (await rig.broker.handle_key(rig.grant.id)).parts()[WHOLE]
            there.answers(answer({"jsonrpc": "2.0", "id": 1, "result": {}}, "Mcp-Session-Id: s-1"))
            replies = [await there.post(message("initialize", {"capabilities": {}}))]
            replies += [await there.post(call(name, repo="acme"), "Mcp-Session-Id: x") for name in ("open", "drop")]
            route = rig.gateway.plane.routes.of(rig.grant.id, "forge")
            assert route is not None
            assert route.key == key
            said = [entry.leaf for entry in await rig.store.entries(0, 1_000)]
            said += [reply.raw for reply in replies] + [seen.raw for seen in there.seen]
            shown = (route, rig.gateway.plane, await rig.broker.handle_key(rig.grant.id), caplog.text)
            said += [repr(one).encode() for one in shown]
            for form in (key, repr(key)[2:-1].encode(), key.hex().encode(), b64encode(key), urlsafe_b64encode(key)):
                assert [one for one in said if form.rstrip(b"=") in one] == []

    play(scene)
