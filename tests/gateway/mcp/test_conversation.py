"""An MCP server behind the gateway: what it sees, and what its client hears."""

from __future__ import annotations

import json
from typing import Any

import pytest

from remit.core.principal import Claims
from remit.gateway.fronts.discovery import Discovery
from remit.gateway.server import Channel
from tests.broker.world import OPERATOR
from tests.gateway.mcp.forge import (
    ASKED,
    CALLS,
    EVENTS,
    JSON,
    Forge,
    answer,
    call,
    event,
    events,
    forge,
    message,
    result,
)
from tests.gateway.rig import SECRET, Reply, bearing, borne, play
from tests.support.upstream import chunked, whole

PROGRESS = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
META = "io.modelcontextprotocol/"


def sent(scene: Forge) -> list[Any]:
    """Return the messages that the server got."""
    return [json.loads(seen.body) for seen in scene.seen if seen.body]


def told(reply: Reply) -> Any:
    """Return the problem of a refusal."""
    found = reply.json()
    holder = found["error"]["data"] if "error" in found else found["result"]["_meta"]  # type: ignore[index]
    return holder["remit/problem"]


def test_a_permitted_call_reaches_the_server_with_its_credential_and_comes_back() -> None:
    async def scene() -> None:
        async with forge() as there:
            there.answers(result(content=[{"type": "text", "text": "opened"}]))
            reply = await there.post(call("open", repo="acme"), "Authorization: Bearer sk-of-the-client", "X-Own: 1")
            assert reply.json()["result"] == {"content": [{"type": "text", "text": "opened"}]}
            [seen] = there.seen
            assert (seen.method, seen.target) == ("POST", "/mcp")
            assert json.loads(seen.body)["params"] == {"name": "open", "arguments": {"repo": "acme"}}
            assert seen.headers["authorization"] == f"Bearer {SECRET}"
            assert b"sk-of-the-client" not in seen.raw
            assert reply.headers["remit-dropped"] == "x-own"
            [use] = await there.rig.events("resource.use")
            assert (use.resource, use.action, use.decision) == ("forge", "tools/call open", "allow")

    play(scene)


def test_connections_to_a_server_are_used_again() -> None:
    async def scene() -> None:
        async with forge() as there:
            for _ in range(3):
                await there.post(call("open", repo="acme"))
            assert there.server.connections == 1

    play(scene)


@pytest.mark.parametrize("body", [call("drop", repo="acme"), call("open", repo="other"), call("open")])
def test_a_refused_call_reaches_nobody_and_is_a_result_that_is_an_error(body: bytes) -> None:
    async def scene() -> None:
        async with forge() as there:
            reply = await there.post(body)
            assert reply.status == 200
            found: Any = reply.json()
            assert (found["id"], found["result"]["isError"]) == (1, True)
            assert told(reply)["code"] == "scope"
            assert told(reply)["enough"]["type"] == "mcp"
            assert there.seen == []
            [denial] = await there.rig.events("resource.use")
            assert (denial.decision, denial.action) == ("deny", "tools/call")
            assert denial.path in {"drop", "open"}

    play(scene)


def test_a_page_of_another_origin_may_read_why_it_is_refused() -> None:
    async def scene() -> None:
        shown: list[Claims] = []
        async with forge(verify=bearing(shown), discovery=Discovery("https://remit.test", {})) as there:
            shown.append(borne(await there.rig.broker.grant(there.rig.grant.id), there.rig.now[0]))
            port = await there.rig.listen(None)
            reply = await there.post(call("drop"), "Origin: https://page.test", "Authorization: Bearer x", port=port)
            assert (reply.status, told(reply)["code"], there.seen) == (403, "denied", [])
            assert reply.headers["access-control-allow-origin"] == "*"
            apart = await there.post(call("drop"), "Authorization: Bearer x", port=port)
            assert (apart.status, told(apart)["code"]) == (200, "scope")
            assert not {"access-control-allow-origin", "www-authenticate"} & apart.headers.keys()  # it asks for no more

    play(scene)


def test_a_call_that_some_server_would_read_as_another_reaches_nobody() -> None:
    async def scene() -> None:
        async with forge() as there:
            params = {"name": "open", "arguments": {"repo": "acme"}, "Name": "drop"}
            found: Any = (reply := await there.post(message("tools/call", params))).json()
            assert (found["id"], told(reply)["code"]) == (1, "invalid-request")
            assert there.seen == []

    play(scene)


def test_another_refusal_is_an_error_of_the_protocol() -> None:
    async def scene() -> None:
        async with forge() as there:
            reply = await there.post(message("resources/read", {"uri": "repo://acme"}))
            found: Any = reply.json()
            assert (reply.status, found["id"]) == (200, 1)
            assert told(reply)["enough"]["resources"] == ["repo://acme"]

    play(scene)


@pytest.mark.parametrize(
    ("lines", "body", "status"),
    [
        ((JSON,), b"[" + call("open", repo="acme") + b"]", 400),
        ((JSON,), b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}', 400),
        ((JSON,), message("tools/x", id_=None), 400),
        ((JSON,), message("tools/call", {"name": "open", "arguments": {"repo": "acme"}}, id_=None), 400),
        (("Content-Type: text/plain",), call("open", repo="acme"), 400),
        ((JSON, "Content-Encoding: gzip"), call("open", repo="acme"), 400),
        ((JSON,), b'"' + b"a" * 262_144 + b'"', 413),
    ],
)
def test_what_cannot_be_judged_is_refused_with_a_status(lines: tuple[str, ...], body: bytes, status: int) -> None:
    async def scene() -> None:
        async with forge() as there:
            reply = await there.rig.get("/forge", *lines, method="POST", body=body)
            assert reply.status == status
            assert "error" in reply.json()
            assert there.seen == []

    play(scene)


@pytest.mark.parametrize(
    ("method", "target", "status"),
    [("PUT", "/forge", 405), ("GET", "/forge/x", 404), ("GET", "/forge?x=1", 404), ("POST", "/forge", 400)],
)
def test_there_is_one_endpoint(method: str, target: str, status: int) -> None:
    async def scene() -> None:
        async with forge() as there:
            assert (await there.rig.get(target, method=method)).status == status
            assert there.seen == []

    play(scene)


@pytest.mark.parametrize("origin", ["http://evil.test", "null", "http://127.0.0.1:1"])
def test_a_page_of_another_origin_is_refused(origin: str) -> None:
    async def scene() -> None:
        async with forge() as there:
            reply = await there.post(call("open", repo="acme"), f"Origin: {origin}")
            assert reply.status == 403
            assert there.seen == []
            own = await there.post(call("open", repo="acme"), f"Origin: http://127.0.0.1:{there.rig.port}")
            assert own.status == 200
            assert "origin" not in there.seen[0].headers

    play(scene)


def test_lists_are_reduced_as_json_and_as_events() -> None:
    tools = [{"name": "open", "inputSchema": {}}, {"name": "drop", "inputSchema": {}}]
    listed = {"jsonrpc": "2.0", "id": 1, "result": {"tools": tools}}

    async def scene() -> None:
        async with forge() as there:
            for raw in (
                answer(listed),
                events(listed),
                chunked([json.dumps(listed).encode()[:40], json.dumps(listed).encode()[40:]], JSON),
            ):
                there.answers(raw)
                reply = await there.post(message("tools/list"))
                assert b'"open"' in reply.body
                assert b"drop" not in reply.body
            assert there.server.connections == 1

    play(scene)


@pytest.mark.parametrize("size", [100, 70_000, 300_000, 3_000_000])
def test_an_answer_of_any_size_comes_after_its_head(size: int) -> None:
    async def scene() -> None:
        async with forge() as there:
            there.answers(result(content=[{"type": "text", "text": "x" * size}]))
            found: Any = (await there.post(call("open", repo="acme"))).json()
            assert len(found["result"]["content"][0]["text"]) == size

    play(scene)


HEADS: dict[str, tuple[list[str], str]] = {
    "another method": (["Mcp-Method: tools/list"], "mcp-method"),
    "another name": (["Mcp-Name: drop"], "mcp-name"),
    "a name twice": (["Mcp-Name: open", "Mcp-Name: open"], "mcp-name"),
    "a name in another code": (["Mcp-Name: =?base64?ZHJvcA==?="], "mcp-name"),
    "a name in no code": (["Mcp-Name: =?base64?!?="], "base64"),
    "an argument that is not there": (["Mcp-Param-Repo: other"], "mcp-param-repo"),
    "an argument that is another's": (["Mcp-Param-R-Epo: here"], "mcp-param-r-epo"),
    "no revision": (["Mcp-Protocol-Version: a b"], "mcp-protocol-version"),
}


@pytest.mark.parametrize("name", HEADS)
def test_headers_that_say_something_else_are_refused(name: str) -> None:
    lines, named = HEADS[name]

    async def scene() -> None:
        async with forge() as there:
            reply = await there.post(call("open", repo="acme", note="here"), *lines)
            found: Any = reply.json()
            assert (reply.status, found["error"]["code"], found["id"]) == (400, -32_020, 1)
            assert named in found["error"]["message"]
            assert there.seen == []

    play(scene)


@pytest.mark.parametrize(("version", "status"), [(None, 200), ("2026-07-28", 404)])
def test_a_method_that_no_grant_has_is_not_found(version: str | None, status: int) -> None:
    meta = {} if version is None else {"_meta": {f"{META}protocolVersion": version}}
    lines = () if version is None else (f"Mcp-Protocol-Version: {version}", "Mcp-Method: tasks/delete")

    async def scene() -> None:
        async with forge() as there:
            reply = await there.post(message("tasks/delete", meta), *lines)
            found: Any = reply.json()
            assert (reply.status, found["error"]["code"]) == (status, -32_601)
            assert there.seen == []

    play(scene)


@pytest.mark.parametrize("method", ["tasks/result", "tasks/list"])
def test_a_method_that_the_newest_revision_has_not_is_not_found_whatever_it_names(method: str) -> None:
    named = {"taskId": "x"} if method == "tasks/result" else {}
    params = {**named, "_meta": {f"{META}protocolVersion": "2026-07-28"}}
    lines = ("Mcp-Protocol-Version: 2026-07-28", f"Mcp-Method: {method}")

    async def scene() -> None:
        async with forge() as there:
            reply = await there.post(message(method, params), *lines)
            found: Any = reply.json()
            assert (reply.status, found["error"]["code"]) == (404, -32_601)
            assert there.seen == []

    play(scene)


def test_headers_that_say_the_same_go_on() -> None:
    lines = ("Mcp-Protocol-Version: 2026-07-28", "Mcp-Method: tools/call", "Mcp-Name: open", "Mcp-Param-Repo: acme")
    meta = {f"{META}protocolVersion": "2026-07-28", f"{META}clientCapabilities": {"sampling": {}}}
    body = message("tools/call", {"name": "open", "arguments": {"repo": "acme"}, "_meta": meta})

    async def scene() -> None:
        async with forge() as there:
            assert (await there.post(body, *lines)).status == 200
            [seen] = there.seen
            assert (seen.headers["mcp-method"], seen.headers["mcp-name"]) == ("tools/call", "open")
            assert seen.headers["mcp-param-repo"] == "acme"
            assert sent(there)[0]["params"]["_meta"][f"{META}clientCapabilities"] == {}
            for left in range(3):  # of the newest revision none may be missing
                reply = await there.post(body, *lines[:left], *lines[left + 1 :])
                assert reply.status == 400
            assert len(there.seen) == 1

    play(scene)


@pytest.mark.attack("MCP-02")
def test_a_session_is_worth_nothing_to_another_grant() -> None:
    async def scene() -> None:
        async with forge() as there:
            there.answers(answer({"jsonrpc": "2.0", "id": 1, "result": {}}, "Mcp-Session-Id: s-1"))
            first = await there.post(message("initialize", {"capabilities": {}}))
            session = first.headers["mcp-session-id"]
            assert session != "s-1"
            mine = f"Mcp-Session-Id: {session}"
            assert (await there.post(call("open", repo="acme"), mine)).status == 200
            assert there.seen[-1].headers["mcp-session-id"] == "s-1"
            bob = await there.rig.opened(CALLS)
            port = await there.rig.listen(Channel(bob.id, {}))
            tried = [mine, "Mcp-Session-Id: s-1", f"Mcp-Session-Id: {session}x", "Mcp-Session-Id: .s-1"]
            for line in tried:
                reply = await there.post(call("open", repo="acme"), line, port=port)
                assert (reply.status, told(reply)["code"]) == (404, "not-found")
            for line in tried[1:]:
                assert (await there.post(call("open", repo="acme"), line)).status == 404
            gone = await there.rig.get("/forge", mine, method="DELETE", port=port)
            assert gone.status == 404
            assert len(there.seen) == 2
            assert (await there.rig.get("/forge", mine, method="DELETE")).status == 200
            assert (there.seen[-1].method, there.seen[-1].headers["mcp-session-id"]) == ("DELETE", "s-1")

    play(scene)


@pytest.mark.attack("MCP-02")
def test_state_that_a_server_hands_out_is_worth_nothing_to_another_grant() -> None:
    asks = {"resultType": "input_required", "requestState": "state-1"}

    async def scene() -> None:
        async with forge() as there:
            there.answers(result(**asks))
            first: Any = (await there.post(call("open", repo="acme"))).json()
            state = first["result"]["requestState"]
            assert state != "state-1"
            again = {"name": "open", "arguments": {"repo": "acme"}, "requestState": state}
            await there.post(message("tools/call", again))
            assert sent(there)[-1]["params"]["requestState"] == "state-1"
            bob = await there.rig.opened(CALLS)
            port = await there.rig.listen(Channel(bob.id, {}))
            reply = await there.post(message("tools/call", again), port=port)
            assert told(reply)["code"] == "denied"
            found: Any = reply.json()
            assert found["error"]["code"] == -32_602  # no result: a client takes one for the end of the call
            plain = await there.post(message("tools/call", {**again, "requestState": "state-1"}))
            assert told(plain)["code"] == "denied"
            assert len(there.seen) == 2

    play(scene)


@pytest.mark.attack("MCP-05")
def test_a_stream_is_taken_up_again_by_its_own_grant_alone_and_ends_with_it() -> None:
    async def scene() -> None:
        async with forge() as there:
            there.answers(events('id: e-1\nretry: 5\ndata: {"jsonrpc":"2.0","method":"notifications/message"}\n\n'))
            wire = await there.opened()
            reply = await wire.reply()
            [line] = [line for line in reply.body.split(b"\n") if line.startswith(b"id: ")]
            assert b"e-1" not in line.split(b".")[0]
            resume = f"Last-Event-ID: {line[4:].decode()}"
            wire = await there.opened(resume)
            assert (await wire.reply()).status == 200
            assert there.seen[-1].headers["last-event-id"] == "e-1"
            bob = await there.rig.opened(CALLS)
            port = await there.rig.listen(Channel(bob.id, {}))
            for theirs in (resume, "Last-Event-ID: e-1", "Last-Event-ID: e-2"):
                assert (await there.rig.get("/forge", theirs, port=port)).status == 404
            assert len(there.seen) == 2

    play(scene)


@pytest.mark.attack("MCP-05")
def test_an_open_stream_is_cut_when_its_grant_ends() -> None:
    async def scene() -> None:
        async with forge() as there:
            there.server.pieces = [b": open\n\n"]
            there.server.ends = False
            wire = await there.opened()
            assert b"text/event-stream" in await wire.reader.readuntil(b":\n\n")  # the comment
            await there.rig.broker.revoke(OPERATOR, there.rig.grant.id)
            assert b"0\r\n\r\n" not in await wire.rest()
            await there.server.cut.wait()

    play(scene)


def test_what_a_server_says_by_itself_ends_with_a_bearers_token_and_an_answer_when_it_is_whole() -> None:
    shown: list[Claims] = []

    async def scene() -> None:
        async with forge() as there:
            shown.append(borne(await there.rig.broker.grant(there.rig.grant.id), there.rig.now[0]))
            there.rig.gateway._verify = bearing(shown)
            there.rig.port = await there.rig.listen(None)
            there.server.pieces, there.server.ends = [b": open\n\n"], False
            wire = await there.opened()
            await wire.reader.readuntil(b":\n\n")
            there.rig.gateway.connections.lapse(shown[0].expires_at - 1)
            await wire.reader.readuntil(b":\n\n")
            there.rig.gateway.connections.lapse(shown[0].expires_at)
            assert b"0\r\n\r\n" not in await wire.rest()
            await there.server.cut.wait()
            there.server.pieces, there.server.ends = [b": open\n\n"] * 9, True
            wire = await there.rig.wire()
            await wire.send(there.rig.request("/forge", JSON, method="POST", body=call("open", repo="acme")))
            await wire.reader.readuntil(b":\n\n")
            there.rig.gateway.connections.lapse(shown[0].expires_at)
            await wire.reader.readuntil(b"0\r\n\r\n")

    play(scene)


def test_what_a_server_asks_without_leave_ends_the_stream_with_a_refusal() -> None:
    progress = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": 1, "progress": 1}}
    asks = {"jsonrpc": "2.0", "id": 7, "method": "sampling/createMessage", "params": {}}

    async def scene() -> None:
        async with forge() as there:
            there.server.pieces = [event(progress), event(asks)]
            reply = await there.post(call("open", repo="acme"))
            said = [json.loads(line[6:]) for line in reply.body.decode().split("\n") if line.startswith("data: ")]
            assert said[0] == progress
            assert (said[1]["id"], said[1]["result"]["isError"]) == (1, True)
            assert "sampling" in said[1]["result"]["content"][0]["text"]
            assert len(said) == 2
            for raw in (answer(asks), events(progress, asks)):  # nothing has gone out yet
                there.answers(raw)
                found: Any = (await there.post(call("open", repo="acme"))).json()
                assert found["result"]["isError"] is True

    play(scene)


def test_what_a_server_asks_by_leave_goes_on_and_its_answer_too() -> None:
    asks = {"jsonrpc": "2.0", "id": 7, "method": "elicitation/create", "params": {"message": "sure?"}}

    async def scene() -> None:
        async with forge(ASKED) as there:
            there.answers(events(asks, {"jsonrpc": "2.0", "id": 1, "result": {}}))
            reply = await there.post(call("open", repo="acme"))
            assert b"elicitation/create" in reply.body
            there.answers(whole("202 Accepted", b""))
            said = json.dumps({"jsonrpc": "2.0", "id": 7, "result": {"action": "accept", "content": {}}}).encode()
            assert (await there.post(said)).status == 202
            assert sent(there)[-1]["result"]["action"] == "accept"

    play(scene)


@pytest.mark.parametrize(
    "raw",
    [
        result(content=[{"type": "text", "text": f"key {SECRET}"}]),
        events({"jsonrpc": "2.0", "id": 1, "result": {"text": SECRET}}),
        whole("401 Unauthorized", b"", 'WWW-Authenticate: Bearer resource_metadata="https://evil.test/"'),
        whole("307 Temporary Redirect", b"", "Location: https://evil.test/mcp"),
        whole("200 OK", b"<html>", "Content-Type: text/html"),
        whole("200 OK", b'{"method":', JSON),
    ],
)
def test_what_must_not_reach_a_client_does_not(raw: bytes) -> None:
    async def scene() -> None:
        async with forge() as there:
            there.answers(raw)
            reply = await there.post(call("open", repo="acme"))
            assert SECRET.encode() not in reply.raw
            assert b"evil.test" not in reply.raw
            found: Any = json.loads(reply.body.decode().removeprefix("event: message\ndata: ").strip())
            assert found["result"]["isError"] is True

    play(scene)


ASKS = event({"jsonrpc": "2.0", "id": 9, "method": "elicitation/create", "params": {}})


@pytest.mark.parametrize("status", ["200 OK", "201 Created", "203 Other", "206 Part"])
@pytest.mark.parametrize("kind", ["text/plain", "application/jsonx", "text/event-streams", ""])
def test_what_is_neither_json_nor_events_is_no_answer_whatever_its_status(status: str, kind: str) -> None:
    async def scene() -> None:
        async with forge() as there:
            there.answers(whole(status, ASKS, *([f"Content-Type: {kind}"] if kind else [])))
            assert b"elicitation" not in (await there.rig.get("/forge", "Accept: text/event-stream")).raw
            assert b"elicitation/create" not in (await there.post(call("open", repo="acme"))).raw

    play(scene)


@pytest.mark.parametrize("status", ["201 Created", "203 Other", "400 Bad Request"])
def test_what_a_client_takes_for_json_is_judged_whatever_its_status(status: str) -> None:
    asks = {"jsonrpc": "2.0", "id": 9, "method": "elicitation/create", "params": {}}

    async def scene() -> None:
        async with forge() as there:
            there.answers(whole(status, json.dumps(asks).encode(), JSON + "; charset=utf-16"))
            reply = await there.post(call("open", repo="acme"))
            assert reply.headers["content-type"] == "application/json"
            assert told(reply)["code"] == "scope"

    play(scene)


@pytest.mark.parametrize("kind", [JSON, "Content-Type: text/html", EVENTS + "x"])
def test_an_error_that_is_no_message_is_text(kind: str) -> None:
    async def scene() -> None:
        async with forge() as there:
            there.answers(whole("429 Too Many Requests", b'{"error": "slowly"}', kind))
            reply = await there.post(call("open", repo="acme"))
            assert (reply.status, reply.body) == (429, b'{"error": "slowly"}')
            assert reply.headers["content-type"] == "text/plain"

    play(scene)


def test_events_of_other_names_say_nothing() -> None:
    async def scene() -> None:
        async with forge() as there:
            said = "event: message\n" + event(PROGRESS).decode()
            there.answers(events("event: endpoint\nid: 1\ndata: /other/x\n\n", said))
            reply = await there.rig.get("/forge", "Accept: text/event-stream")
            assert b"/other/x" not in reply.body
            assert b"endpoint" not in reply.body
            assert b"notifications/progress" in reply.body

    play(scene)


def test_a_notification_is_accepted_as_the_server_accepts_it() -> None:
    async def scene() -> None:
        async with forge() as there:
            there.answers(whole("202 Accepted", b""))
            reply = await there.post(message("notifications/initialized", id_=None))
            assert (reply.status, reply.body) == (202, b"")
            there.answers(whole("405 Method Not Allowed", b"no", EVENTS))
            assert (await there.rig.get("/forge", "Accept: text/event-stream")).status == 405

    play(scene)


@pytest.mark.parametrize("lines", [(), (JSON,), ("Content-Type: text/plain",)])
@pytest.mark.parametrize("body", [b"", b"{}", b'{"jsonrpc":"2.0","id":9,"method":"elicitation/create"}'])
def test_an_answer_that_says_no_more_than_that_a_message_has_come_has_no_body(
    body: bytes, lines: tuple[str, ...]
) -> None:
    async def scene() -> None:
        async with forge() as there:
            there.answers(chunked([body], *lines).replace(b"200 OK", b"202 Accepted"))
            reply = await there.post(message("notifications/initialized", id_=None))
            assert (reply.status, reply.body) == (202, b"")

    play(scene)


def test_a_sub_agents_endpoint_has_its_own_tools() -> None:
    async def scene() -> None:
        async with forge(ASKED) as there:
            child = await there.rig.child(CALLS)
            own = await there.post(call("drop"))
            assert "isError" not in str(own.json())
            narrow = await there.post(call("drop"), target=f"/@{child.id}/forge")
            found: Any = narrow.json()
            assert found["result"]["isError"] is True
            assert len(there.seen) == 1

    play(scene)


def test_an_answer_of_more_than_one_turn_comes_with_its_head() -> None:
    async def scene() -> None:
        async with forge(ASKED) as there:
            there.answers(result(content=[{"type": "text", "text": "x" * 200_000}]))
            found: Any = (await there.post(call("open"))).json()
            assert len(found["result"]["content"][0]["text"]) == 200_000

    play(scene)


def test_what_is_long_is_judged_in_its_place_and_what_is_not_reduced_for_its_length_comes_whole() -> None:
    async def scene() -> None:
        async with forge() as there:
            tools = [{"name": name, "description": "x" * 30_000} for name in ("open", "drop")]
            said = [{"jsonrpc": "2.0", "id": n, "result": {"tools": tools} if n == 1 else {}} for n in range(3)]
            there.answers(events(*said))
            wire = await there.post(message("tools/list"))
            told = [json.loads(line[6:]) for line in wire.body.decode().splitlines() if line.startswith("data: ")]
            assert [each["id"] for each in told] == [0, 1, 2]
            assert told[1]["result"]["tools"] == tools[:1]
            there.answers(answer(said[1]))
            assert (await there.post(message("tools/list"))).json()["result"] == {"tools": tools[:1]}
            there.answers(events("id: " + "1" * 1_025 + "\n\n", said[2]))
            assert b'"id":2' not in (await there.post(message("tools/list"))).body

    play(scene)
