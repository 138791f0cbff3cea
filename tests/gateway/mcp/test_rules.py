"""What a client says is permitted by one detail of its grant, or refused with the detail that would be enough."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from remit.compose.kinds import BUILT_IN
from remit.core import scope
from remit.errors import InvalidRequestError, RemitError, ScopeError
from remit.gateway.mcp import messages, rules, tasks
from remit.gateway.mcp.messages import Message
from remit.gateway.mcp.rules import ACTIONS, MessagePermit, MessageRules, judge, path
from tests.core.drawn import Raw, below, details
from tests.gateway.mcp import talk
from tests.gateway.mcp.talk import call, raw, said

OPEN = {"actions": ["tools/call"], "tools": {"create_issue": {"repo": "acme/app", "title": "any"}}}
EVERYTHING = {"actions": list(ACTIONS), "tools": "any", "prompts": "any", "resources": ["**"]}
META = "io.modelcontextprotocol/"


def judged(held: MessageRules, message: Message) -> MessagePermit:
    return judge(held, message, "mcp", "forge")


def refused(held: MessageRules, message: Message) -> dict[str, Any]:
    """Return the detail that would be enough for what is refused."""
    with pytest.raises(ScopeError) as caught:
        judged(held, message)
    return dict(caught.value.enough or {})


def test_the_actions_of_the_kind_are_those_that_are_judged() -> None:
    assert BUILT_IN["mcp"].table["actions"].order.schema["items"] == {"enum": sorted(ACTIONS, key=_order)}


def _order(action: str) -> int:
    kind = scope.json_schema("mcp")["properties"]
    assert isinstance(kind, dict)
    found: list[str] = kind["actions"]["items"]["enum"]
    return found.index(action)


def test_a_call_is_permitted_by_the_detail_that_names_its_tool_and_arguments() -> None:
    held = talk.rules({"actions": ["resources/read"], "resources": ["**"]}, OPEN)
    permit = judged(held, call("create_issue", repo="acme/app", title="a"))
    assert (permit.index, permit.action, permit.name) == (1, "tools/call", "create_issue")


@pytest.mark.parametrize(
    "message",
    [
        call("create_issue", repo="acme/other", title="a"),
        call("create_issue", title="a"),
        call("create_issue", repo="acme/app", labels=["x"]),
        call("create_issue", repo={"name": "acme/app"}),
        call("create_issue", repo=["acme/app"]),
        call("Create_issue", repo="acme/app"),
        call("create_issue ", repo="acme/app"),
        call("delete_repo", repo="acme/app"),
        said("resources/read", {"uri": "repo://acme"}),
        said("prompts/get", {"name": "create_issue"}),
    ],
)
def test_what_no_detail_permits_is_refused_with_what_would_be_enough(message: Message) -> None:
    held = talk.rules(OPEN)
    enough = refused(held, message)
    assert enough["resource"] == "forge"
    judged(rules.compile_messages(scope.parse([enough]), "forge"), message)


def test_what_would_be_enough_has_large_and_odd_arguments_left_open() -> None:
    held = talk.rules(OPEN)
    assert refused(held, call("other", text="a" * 3_000))["tools"] == {"other": "any"}
    assert refused(held, call("other", **{"a b": 1}))["tools"] == {"other": "any"}
    assert refused(held, call("other", n=1.5, s="any", l=[1]))["tools"] == {
        "other": {"n": "any", "s": {"exact": "any"}, "l[0]": 1}
    }
    assert refused(held, said("resources/read", {"uri": "a:b"}))["resources"] == ["**"]


def test_arguments_that_no_detail_names_are_not_taken_apart() -> None:
    held = talk.rules({"actions": ["tools/call"], "tools": {"search": "any"}})
    judged(held, call("search", **{"a b": [1, {"": 2}]}))


@pytest.mark.parametrize(
    ("uri", "permitted"),
    [
        ("repo://acme/app/1", True),
        ("repo://acme", True),
        ("repo://acm", False),
        ("repo://acme/app/../../other", False),
        ("repo://acme/%61pp", False),
        ("REPO://acme/app", False),
        ("repo:/acme/app", False),
        ("repo://acme/app?x=1", False),
        ("repo://acme/%C0%AE%C0%AE/x", False),
        ("repo://acme/..;/x", False),
        ("repo://acme/..%20/x", False),
        ("repo://acme/%EF%BC%8E%EF%BC%8E/x", False),
        ("repo://acme/a%E2%81%84b", False),
        ("repo://acme/a%3Fb", False),
        ("repo://acme/a%23b", False),
        ("repo://acme/*", False),
        ("repo://acme/caf%C3%A9", True),
    ],
)
def test_a_uri_is_read_as_it_is_written(uri: str, *, permitted: bool) -> None:
    held = talk.rules({"actions": ["resources/read"], "resources": ["repo://acme/**"]})
    message = said("resources/read", {"uri": uri})
    if permitted:
        assert judged(held, message).name == uri
    else:
        refused(held, message)
    judged(talk.rules(EVERYTHING), message)


def test_a_subscription_has_each_of_its_uris_permitted() -> None:
    held = talk.rules({"actions": ["resources/subscribe"], "resources": ["repo://acme/*"]})
    judged(held, said("resources/subscribe", {"uri": "repo://acme/a"}))
    judged(held, said("subscriptions/listen", {"notifications": {"toolsListChanged": True}}))
    both = said("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["repo://acme/a", "repo://b/c"]}})
    assert refused(held, both)["resources"] == ["repo://acme/a", "repo://b/c"]
    with pytest.raises(InvalidRequestError):
        judged(held, said("subscriptions/listen", {"notifications": {"resourceSubscriptions": "repo://acme/a"}}))


def test_a_completion_is_of_a_prompt_or_a_template_that_can_be_had() -> None:
    held = talk.rules({"actions": ["completion/complete"], "prompts": {"greet": {}}, "resources": ["repo://*/*"]})
    judged(held, said("completion/complete", {"ref": {"type": "ref/prompt", "name": "greet"}}))
    judged(held, said("completion/complete", {"ref": {"type": "ref/resource", "uri": "repo://{org}/{name}"}}))
    refused(held, said("completion/complete", {"ref": {"type": "ref/prompt", "name": "other"}}))
    refused(held, said("completion/complete", {"ref": {"type": "ref/resource", "uri": "repo://{org}/{+rest}/x"}}))
    with pytest.raises(InvalidRequestError):
        judged(held, said("completion/complete", {"ref": "greet"}))


@pytest.mark.parametrize(
    ("template", "permitted"),
    [
        ("file:///a/{p}", True),
        ("file:///a/{+p}", False),
        ("file:///a/{p*}", False),
        ("file:///a{/p*}", False),
        ("file:///a/{p}{?q}", False),
        ("file:///a/x{.p}", False),
        ("file:///b/{+p}", True),
        ("file:///b{/p*}", True),
        ("file:///b/{?p}", False),
    ],
)
def test_a_template_is_as_wide_as_what_it_can_become(template: str, *, permitted: bool) -> None:
    held = talk.rules({"actions": ["completion/complete"], "resources": ["file:///a/*", "file:///b/**"]})
    message = said("completion/complete", {"ref": {"type": "ref/resource", "uri": template}})
    if permitted:
        judged(held, message)
    else:
        refused(held, message)


@pytest.mark.parametrize(
    ("context", "argument", "permitted"),
    [
        ({"repo": "acme/app"}, {"name": "title", "value": "a"}, True),
        ({}, {"name": "title", "value": ""}, True),
        ({}, {"name": "repo", "value": "acme/app"}, True),
        ({"repo": "secret/repo"}, {"name": "title", "value": "a"}, False),
        ({"other": "x"}, {"name": "title", "value": "a"}, False),
        ({"repo": "acme/app"}, {"name": "repo", "value": "secret/"}, False),
        ({}, {"name": "other", "value": "a"}, False),
    ],
)
def test_a_completion_is_held_to_the_arguments_of_its_prompt(
    context: dict[str, str], argument: dict[str, str], *, permitted: bool
) -> None:
    held = talk.rules({"actions": ["completion/complete"], "prompts": {"p": {"repo": "acme/app", "title": "any"}}})
    ref = {"type": "ref/prompt", "name": "p"}
    message = said("completion/complete", {"ref": ref, "context": {"arguments": context}, "argument": argument})
    if permitted:
        judged(held, message)
    else:
        refused(held, message)


@pytest.mark.parametrize("method", sorted(rules.UPKEEP))
def test_what_keeps_the_protocol_going_needs_any_detail(method: str) -> None:
    id_ = None if method.startswith("notifications/") else 1
    assert judged(talk.rules(OPEN), said(method, None, id_)).index == 0


@pytest.mark.parametrize("method", ["tasks/delete", "tools/Call", "resources/delete", "x/y"])
def test_a_method_that_nobody_knows_is_refused(method: str) -> None:
    assert refused(talk.rules(EVERYTHING), said(method)) == {}


def test_a_method_of_the_revision_before_is_none_of_the_newest() -> None:
    held = talk.rules({"actions": ["resources/subscribe"], "resources": ["**"]})
    params = {"uri": "repo://acme/a", "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}
    with pytest.raises(rules.UnknownMethodError, match="subscriptions/listen"):
        judged(held, said("resources/subscribe", params))
    with pytest.raises(rules.UnknownMethodError):
        judged(held, said("resources/subscribe", {"_meta": params["_meta"]}))
    for method in ("tasks/list", "tasks/result"):
        with pytest.raises(rules.UnknownMethodError):
            judged(talk.rules(OPEN), said(method, {"_meta": params["_meta"]}))


@pytest.mark.parametrize("method", sorted({tasks.LIST, *tasks.OF_ONE}))
def test_the_answer_of_a_call_is_fetched_under_a_grant_that_may_call(method: str) -> None:
    params = {} if method == tasks.LIST else {"taskId": "t"}
    assert judged(talk.rules(OPEN), said(method, params)).body["params"] == params
    refused(talk.rules({"actions": ["resources/read"], "resources": ["**"]}), said(method, params))
    with pytest.raises(InvalidRequestError):
        judged(talk.rules(OPEN), said(method, {**params, "TaskId": "u"}))


def test_a_call_is_judged_as_one_however_its_answer_comes() -> None:
    task, opened = {"task": {"ttl": 1}}, call("create_issue", repo="acme/app", title="x")
    assert judged(talk.rules(OPEN), said("tools/call", {**opened.params, **task})).name == "create_issue"
    refused(talk.rules(OPEN), said("tools/call", {"name": "drop", **task}))
    for wrong in ({"name": "open", "task": {"ttl": 1, "for": "x"}}, {"uri": "a", "task": {}}):
        with pytest.raises(InvalidRequestError):
            judged(talk.rules(EVERYTHING), said("resources/read" if "uri" in wrong else "tools/call", wrong))


@pytest.mark.parametrize("params", [{}, {"name": 1}, {"name": ""}, {"name": "n" * 1_025}, {"uri": "a"}])
def test_a_call_of_nothing_is_refused(params: dict[str, Any]) -> None:
    message = said("tools/call", params)
    with pytest.raises(InvalidRequestError):
        judged(talk.rules(EVERYTHING), message)
    assert path(message) == ""


def test_a_client_is_capable_of_what_a_server_may_ask_for_and_no_more() -> None:
    able = {"sampling": {}, "elicitation": {}, "roots": {"listChanged": True}, "tasks": {}, "experimental": {"x": {}}}
    asks = {"actions": ["tools/call", "elicitation/create"], "tools": "any"}
    first = judged(talk.rules(asks), said("initialize", {"capabilities": able, "protocolVersion": "2025-11-25"}))
    assert first.body["params"] == {
        "capabilities": {"elicitation": {}, "experimental": {"x": {}}},
        "protocolVersion": "2025-11-25",
    }
    meta = {f"{META}clientCapabilities": able, "traceparent": "00"}
    later = judged(talk.rules(OPEN), said("tools/list", {"_meta": meta, "cursor": "a"}))
    params = later.body["params"]
    assert params == {
        "_meta": {f"{META}clientCapabilities": {"experimental": {"x": {}}}, "traceparent": "00"},
        "cursor": "a",
    }


ANSWERS: dict[str, dict[str, Any]] = {
    "elicitation/create": {"Action": "accept", "content": {}},
    "roots/list": {"roots": []},
    "sampling/createMessage": {"role": "assistant", "content": {}, "model": "m"},
}


def test_a_server_is_answered_only_where_one_may_ask() -> None:
    answer = messages.read(raw(id=1, result={"action": "accept", "content": {}}))
    assert refused(talk.rules(OPEN), answer)["actions"] == ["elicitation/create"]
    odd = messages.read(raw(id=1, result={"x": 1}))
    assert refused(talk.rules(OPEN), odd)["actions"] == sorted(rules.FROM_SERVERS)
    for action, result in ANSWERS.items():
        others = talk.rules({"actions": sorted(rules.FROM_SERVERS.keys() - {action})})
        params = {"name": "a", "arguments": {}, "inputResponses": {"b": result}}
        for message in (messages.read(raw(id=1, result=result)), said("tools/call", params)):
            assert refused(others, message)["actions"] == [action]
    assert judged(talk.rules(EVERYTHING), answer).action == "answer"
    judged(talk.rules(OPEN), messages.read(raw(id=1, result={})))  # to a ping
    judged(talk.rules(OPEN), messages.read(raw(id=1, error={"code": 1, "message": "no"})))
    again = said("tools/call", {"name": "create_issue", "arguments": {"repo": "acme/app"}, "inputResponses": {"a": {}}})
    refused(talk.rules(OPEN), again)


@given(details(("mcp",)).flatmap(lambda wide: below(wide).map(lambda narrow: (wide, narrow))))
def test_what_a_child_permits_its_parent_permits(both: tuple[Raw, Raw]) -> None:
    wide, narrow = (talk.rules({**each, "resource": "forge"}) for each in both)
    tried = [call("search"), call("close", repo="acme/app"), said("prompts/get", {"name": "greet"})]
    tried += [said("resources/read", {"uri": uri.replace("*", "a")}) for uri in both[1]["resources"]]
    for message in tried:
        try:
            judged(narrow, message)
        except RemitError:
            continue
        judged(wide, message)
