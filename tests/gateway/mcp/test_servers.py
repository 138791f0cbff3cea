"""Names of several servers behind one endpoint: whatever a server calls something, it alone is asked for it."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import InvalidRequestError, ScopeError, UpstreamError
from remit.gateway.mcp import messages
from remit.gateway.mcp.merging import ServerAnswer, merged
from remit.gateway.mcp.rules import UnknownMethodError
from remit.gateway.mcp.seals import HandleSeal
from remit.gateway.mcp.servers import ServerNames, addressed, packed, prefix, unpacked
from tests.gateway.mcp.talk import said

KEY = bytes(32)
TOOL = {"name": "b__x", "inputSchema": {"type": "object"}}
RESOURCES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,9}|[a-z0-9][_.U-]{0,5}", fullmatch=True).map(str.lower)
SERVERS = st.sets(RESOURCES, min_size=1, max_size=5)
IDS = st.one_of(st.integers(-(2**53), 2**53), st.text(max_size=40).filter(lambda text: text.isprintable()))


def names(*resources: str) -> dict[str, ServerNames]:
    """Return how servers of one grant are told apart."""
    return {
        one: ServerNames(one, HandleSeal(KEY, "id m", f"g {one}"), HandleSeal(KEY, "progress m", f"g {one}"))
        for one in resources
    }


def outward(one: ServerNames, **result: object) -> Any:
    """Return the result that a client hears of a server."""
    told = one.outward(messages.message({"jsonrpc": "2.0", "id": one.ids.sealed("1"), "result": result}))
    assert told is not None
    return told.result


@given(SERVERS)
def test_no_two_servers_begin_alike_and_none_has_the_mark_before_its_end(resources: set[str]) -> None:
    begins = [prefix(one) for one in resources]
    assert len(set(begins)) == len(begins)
    for begin in begins:
        assert re.fullmatch(r"[A-Za-z0-9_-]+__", begin)
        assert begin.index("__") == len(begin) - 2


@given(SERVERS, st.data())
def test_a_tool_is_called_of_the_server_that_listed_it_by_the_name_it_gave(resources: set[str], data: Any) -> None:
    servers = names(*resources)
    mine = data.draw(st.sampled_from(sorted(resources)))
    tool = data.draw(st.text("abUD_-", min_size=1, max_size=8))
    one = servers[mine]
    [shown] = outward(one, tools=[{"name": tool}])["tools"]
    [(name, heard)] = addressed(said("tools/call", {"name": shown["name"]}), servers).items()
    assert (name, heard.params["name"]) == (mine, tool)


@given(SERVERS, st.data(), st.text(max_size=30))
def test_a_resource_is_read_of_the_server_that_listed_it_by_its_own_uri(
    resources: set[str], data: Any, uri: str
) -> None:
    servers = names(*resources)
    mine = data.draw(st.sampled_from(sorted(resources)))
    one = servers[mine]
    listed = outward(one, resources=[{"uri": uri}], resourceTemplates=[{"uriTemplate": uri}])
    [shown], [template] = listed["resources"], listed["resourceTemplates"]
    for method in ("resources/read", "resources/subscribe", "resources/unsubscribe"):
        [(name, heard)] = addressed(said(method, {"uri": shown["uri"]}), servers).items()
        assert (name, heard.params["uri"]) == (mine, uri)
    ref = {"type": "ref/resource", "uri": template["uriTemplate"]}
    [(name, heard)] = addressed(said("completion/complete", {"ref": ref}), servers).items()
    assert (name, heard.params["ref"]) == (mine, {**ref, "uri": uri})


@given(IDS, IDS)
def test_ids_and_tokens_come_back_from_the_server_that_has_them_and_from_no_other(id_: Any, token: Any) -> None:
    servers = names("a", "b")
    asked = said("tools/call", {"name": "a__x", "_meta": {"progressToken": token}}, id_)
    [heard] = addressed(asked, servers).values()
    result = messages.message({"jsonrpc": "2.0", "id": heard.id, "result": {}})
    progress = said("notifications/progress", {"progressToken": heard.meta["progressToken"]}, None)
    told, moved = servers["a"].outward(result), servers["a"].outward(progress)
    assert told is not None
    assert moved is not None
    assert (told.id, moved.params["progressToken"]) == (id_, token)
    assert servers["b"].outward(result) is servers["b"].outward(progress) is None
    crossed = said("notifications/progress", {"progressToken": heard.id}, None)
    assert servers["a"].outward(crossed) is None


@given(IDS)
def test_a_servers_question_is_answered_by_its_own_id(id_: Any) -> None:
    servers = names("a", "a-b", "b")
    asks = servers["a"].outward(said("elicitation/create", {"message": "?", "_meta": {"progressToken": id_}}, id_))
    assert asks is not None
    reply = messages.message({"jsonrpc": "2.0", "id": asks.id, "result": {}})
    [(name, heard)] = addressed(reply, servers).items()
    assert (name, heard.id) == ("a", id_)
    moves = said("notifications/progress", {"progressToken": asks.meta["progressToken"], "progress": 1}, None)
    [(name, heard)] = addressed(moves, servers).items()
    assert (name, heard.params["progressToken"]) == ("a", id_)


@pytest.mark.parametrize("token", ["z", "a/", "a/x", 7, None, [], {}])
def test_a_token_of_progress_means_nothing_in_any_other_message(token: Any) -> None:
    asked = said("tools/call", {"name": "a__x", "progressToken": token})
    [heard] = addressed(asked, names("a", "b")).values()
    assert heard.params == {"name": "x", "progressToken": token}


@pytest.mark.parametrize("id_", ["\ud800.1", "\u00e9.1", "\ud800", "a.\ud800", "."])
def test_an_answer_by_an_id_that_nobody_made_is_none(id_: str) -> None:
    one = names("a")["a"]
    assert one.outward(messages.message({"jsonrpc": "2.0", "id": id_, "result": {}})) is None
    assert one.outward(said("notifications/progress", {}, None)) is None
    told = {"jsonrpc": "2.0", "method": "notifications/progress", "params": {"progressToken": id_}}
    assert one.outward(messages.message(told)) is None


@given(st.dictionaries(RESOURCES, st.text(max_size=20), max_size=4))
def test_handles_of_several_are_one_that_is_read_again(held: dict[str, object]) -> None:
    assert unpacked(packed(held)) == held


@pytest.mark.parametrize("text", ["", "x", "\u00e9", "W10", "MQ", "=", "A" * 5_000, "W1tb" * 9_000])
def test_what_is_no_handle_of_several_is_none(text: str) -> None:
    assert unpacked(text) is None


def test_a_cursor_goes_on_at_its_servers_alone() -> None:
    servers = names("a", "b")
    heard = addressed(said("tools/list", {"cursor": packed({"b": "c"})}), servers)
    assert {name: one.params for name, one in heard.items()} == {"b": {"cursor": "c"}}
    for cursor in ("c", packed({"d": "c"})):
        with pytest.raises(InvalidRequestError, match="cursor"):
            addressed(said("tools/list", {"cursor": cursor}), servers)


def test_what_servers_ask_is_asked_by_no_client() -> None:
    for method in ("sampling/createMessage", "tasks/run"):
        with pytest.raises(UnknownMethodError):
            addressed(said(method), names("a"))
    with pytest.raises(ScopeError):
        addressed(said("completion/complete", {"ref": 1}), names("a"))


def test_a_task_is_fetched_from_the_server_that_made_it() -> None:
    servers = names("a", "b")
    task, related = {"taskId": "t/1"}, {"io.modelcontextprotocol/related-task": {"taskId": "t/1"}}
    made = outward(servers["b"], task=task, taskId="t/1", tasks=[task], _meta=related)
    ids = [made["taskId"], made["task"]["taskId"], made["tasks"][0]["taskId"], *made["_meta"].values()]
    assert ids == ["b/t/1"] * 3 + [{"taskId": "b/t/1"}]
    [(name, heard)] = addressed(said("tasks/get", {"taskId": "b/t/1", "_meta": made["_meta"]}), servers).items()
    assert (name, heard.params) == ("b", {"taskId": "t/1", "_meta": related})
    told = servers["b"].outward(said("notifications/tasks/status", {"taskId": "t/1"}, None))
    assert told is not None
    assert told.params == {"taskId": "b/t/1"}
    wanted = {"notifications": {"taskIds": ["b/t/1", "a/x", "t/1"]}}
    heard_by = addressed(said("subscriptions/listen", wanted), servers)
    assert {name: one.params["notifications"] for name, one in heard_by.items()} == {
        "a": {"taskIds": ["x"]},
        "b": {"taskIds": ["t/1"]},
    }
    for id_ in ("t/1", "c/t/1", 1):
        with pytest.raises(ScopeError):
            addressed(said("tasks/get", {"taskId": id_}), servers)


def test_what_the_newest_revision_removed_is_for_no_server() -> None:
    newest = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    for method, params in (
        ("tasks/result", {"taskId": "b/t/1"}),
        ("tasks/result", {"taskId": "t/1"}),
        ("tasks/list", {}),
    ):
        with pytest.raises(UnknownMethodError):
            addressed(said(method, {**params, "_meta": newest}), names("a", "b"))


def test_what_any_server_can_do_the_endpoint_can() -> None:
    tasks = "io.modelcontextprotocol/tasks"
    one = {"tasks": {"list": {}, "requests": {"tools": {"call": {}}}}, "experimental": {"x": {}}, "tools": {}}
    other = {
        "tasks": {"cancel": {}},
        "extensions": {tasks: {}, "x": {}},
        "tools": {"listChanged": True, "y": 1},
        "z": 1,
    }
    able = {"a": one, "b": other}
    parts = {name: _json({"protocolVersion": "2025-11-25", "capabilities": each}) for name, each in able.items()}
    answer, _ = merged(said("initialize"), parts, "1")
    assert answer.result["capabilities"] == {
        "tasks": {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}},
        "extensions": {tasks: {}},
        "tools": {"listChanged": True},
    }


def test_an_id_of_a_servers_that_no_client_could_send_back_is_refused() -> None:
    with pytest.raises(UpstreamError, match="too long"):
        names("a")["a"].outward(said("elicitation/create", {}, "x" * 256))


def test_pages_and_content_that_are_nested_are_named_by_their_server() -> None:
    one = names("a")["a"]
    link = {"type": "resource_link", "uri": "x:y"}
    nested = {"type": "tool_result", "content": [link, {"type": "resource", "resource": {"uri": "x:y"}}]}
    params = {"messages": [{"role": "user", "content": nested}]}
    again = {"k": {"method": "elicitation/create", "params": {"elicitationId": "e"}}, "l": 1}
    told = outward(one, inputRequests=again, content=[nested], structuredContent={"uri": "x:y"})
    asks = one.outward(said("sampling/createMessage", params))
    assert asks is not None
    assert json.dumps([told, asks.body]).count('"remit:a/x:y"') == 4
    assert told["inputRequests"]["k"]["params"] == {"elicitationId": "a: e"}
    assert told["structuredContent"] == {"uri": "x:y"}


def _json(result: object, status: int = 200) -> ServerAnswer:
    return ServerAnswer(status, False, json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode())


@pytest.mark.parametrize(
    "part",
    [
        ServerAnswer(0, False, b""),
        ServerAnswer(502, False, b"<html>"),
        ServerAnswer(200, False, b"{"),
        ServerAnswer(200, True, b"data: {\n\n"),
        ServerAnswer(200, True, b": nothing\n\n"),
        ServerAnswer(200, False, b'{"jsonrpc":"2.0","id":1,"error":{"code":-32603,"message":"a\\nb"}}'),
        ServerAnswer(200, False, json.dumps({"jsonrpc": "2.0", "id": 1, "result": {"tools": 1}}).encode(), "x" * 600),
    ],
)
def test_a_part_that_is_no_answer_is_left_out_and_said(part: ServerAnswer) -> None:
    answer, _ = merged(said("tools/list"), {"a": part, "b": _json({"tools": [TOOL]})}, "1")
    left: Any = answer.result["_meta"]
    assert answer.result["tools"] == [TOOL]
    assert left["remit/left-out"].keys() == {"a"}
    assert "\n" not in left["remit/left-out"]["a"]


def test_a_list_that_goes_on_at_too_long_a_cursor_ends_and_that_is_said() -> None:
    parts = {"a": _json({"tools": [], "nextCursor": "x" * 5_000}), "b": _json({"tools": [], "nextCursor": "y"})}
    answer, _ = merged(said("tools/list"), parts, "1")
    assert unpacked(str(answer.result["nextCursor"])) == {"b": "y"}
    left: Any = answer.result["_meta"]
    assert left["remit/left-out"].keys() == {"a"}


def test_an_older_revision_is_spoken_where_one_server_knows_no_newer() -> None:
    parts = {"a": _json({"protocolVersion": "2025-11-25"}), "b": _json({"protocolVersion": "2025-06-18"})}
    answer, sessions = merged(said("initialize"), parts, "1")
    assert answer.result["protocolVersion"] == "2025-06-18"
    assert sessions == {"a": [None, "2025-11-25"], "b": [None, "2025-06-18"]}
