"""No reader finds members in a message other than those that were judged."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any, get_args

import pytest

from remit.errors import InvalidRequestError
from remit.gateway.mcp import members, messages, rules, tasks
from remit.gateway.mcp.rules import ACTIONS, judge
from tests.gateway.mcp import talk
from tests.gateway.mcp.talk import said

EVERYTHING = {"actions": list(ACTIONS), "tools": "any", "prompts": "any", "resources": ["**"]}
META = messages.META
CALL = {"name": "get_me", "arguments": {}}
PROMPT = {"type": "ref/prompt", "name": "greet"}
ARGUMENT = {"name": "a", "value": "b"}
# each is carried out otherwise than it reads, by a server that takes names without regard to case, or by halves
ALIKE: dict[str, tuple[str, dict[str, Any]]] = {
    "the name of a tool": ("tools/call", {**CALL, "Name": "delete_file"}),
    "a long s": ("tools/call", {**CALL, "Argument\u017f": {"path": "a"}}),
    "a kelvin sign": ("tools/call", {**CALL, "tas\u212a": {"ttl": 1}}),
    "a task": ("tools/call", {**CALL, "Task": {"ttl": 1}}),
    "answers": ("tools/call", {**CALL, "InputResponses": {"a": {}}}),
    "another spelling": ("tools/call", {**CALL, "input_responses": {"a": {}}}),
    "a name that ends at NUL": ("tools/call", {**CALL, "name\0": "delete_file"}),
    "what no revision has": ("tools/call", {**CALL, "more": 1}),
    "the name of a prompt": ("prompts/get", {"name": "greet", "NAME": "other"}),
    "a place": ("resources/read", {"uri": "repo://acme/a", "Uri": "repo://other/a"}),
    "a place without a dot": ("resources/read", {"uri": "repo://acme/a", "ur\u0131": "repo://other/a"}),
    "a subscription": ("resources/subscribe", {"uri": "repo://acme/a", "URI": "repo://other/a"}),
    "what is subscribed to": ("subscriptions/listen", {"notifications": {"ResourceSubscriptions": ["repo://b"]}}),
    "all of what is": ("subscriptions/listen", {"notifications": {}, "Notifications": {}}),
    "what is completed": ("completion/complete", {"ref": PROMPT, "Ref": PROMPT, "argument": ARGUMENT}),
    "its name": ("completion/complete", {"ref": {**PROMPT, "Name": "other"}, "argument": ARGUMENT}),
    "two things": ("completion/complete", {"ref": {**PROMPT, "uri": "repo://acme"}, "argument": ARGUMENT}),
    "its argument": ("completion/complete", {"ref": PROMPT, "argument": {**ARGUMENT, "Value": "c"}}),
    "capabilities": ("initialize", {"capabilities": {}, "Capabilities": {"sampling": {}}}),
    "capabilities in what a client adds": ("tools/list", {"_meta": {f"{META}ClientCapabilities": {"sampling": {}}}}),
    "a revision": ("tools/list", {"_meta": {"io.modelContextProtocol/protocolVersion": "2026-07-28"}}),
    "an argument": ("tools/call", {"name": "get_me", "arguments": {"repo": "a", "Repo": "b"}}),
    "an argument of an argument": ("tools/call", {"name": "get_me", "arguments": {"a": [{"k": 1, "\u212a": 2}]}}),
    "what a client adds": ("ping", {"_meta": {"trace": "a", "Trace": "b"}}),
    "what keeps the protocol going": ("tools/list", {"cursor": "a", "Cursor": "b"}),
}


@pytest.mark.parametrize("name", ALIKE)
def test_members_that_some_reader_takes_for_others_are_refused(name: str) -> None:
    method, params = ALIKE[name]
    message = said(method, params)
    with pytest.raises(InvalidRequestError):
        judge(talk.rules(EVERYTHING), message, "mcp", "forge")


def test_no_case_of_a_capability_is_offered_to_a_server() -> None:
    able = ["Sampling", "\u017fampling", "TAS\u212aS", "roots", "Elicitation"]
    held = talk.rules({"actions": ["tools/call"], "tools": "any"})
    for name in able:
        permit = judge(held, said("initialize", {"capabilities": {name: {}, "experimental": {}}}), "mcp", "forge")
        assert permit.body["params"] == {"capabilities": {"experimental": {}}}


def test_a_member_that_the_protocol_does_not_have_is_named() -> None:
    with pytest.raises(InvalidRequestError, match="`Name`") as caught:
        judge(talk.rules(EVERYTHING), said("tools/call", {**CALL, "Name": "delete_file"}), "mcp", "forge")
    assert "_meta" in str(caught.value.help)


def test_what_a_client_adds_of_its_own_goes_on() -> None:
    meta = {"progressToken": 1, "traceparent": "00", "vendor/id": "t", f"{META}protocolVersion": "2026-07-28"}
    params = {"name": "get_me", "arguments": {"URI": 1, "+1": 1, "-1": 2, "a_b": 1, "aB": 2}, "_meta": meta}
    permit = judge(talk.rules(EVERYTHING), said("tools/call", params), "mcp", "forge")
    assert permit.body["params"] == params


def test_each_method_that_goes_on_has_its_members() -> None:
    asked = {*rules.UPKEEP, *rules.ACTIONS, rules.LISTEN, tasks.LIST, *tasks.OF_ONE}
    assert members.MEMBERS.keys() == asked - rules.FROM_SERVERS.keys()


@pytest.mark.parametrize("revision", ["_v2025_11_25", "_v2026_07_28"])
def test_no_member_is_missing_that_a_revision_has(revision: str) -> None:
    seen = set()
    for method, names in _requests(importlib.import_module(f"mcp_types.{revision}")):
        if method in members.MEMBERS:
            seen.add(method)
            assert names <= members.MEMBERS[method], method
    assert len(seen) > 10


def _requests(types: Any) -> Iterator[tuple[str, set[str]]]:
    """Yield the methods of the protocol's own types, each with the members of its parameters."""
    for found in vars(types).values():
        fields = getattr(found, "model_fields", {})
        if "method" in fields and "params" in fields:
            params = fields["params"].annotation
            for one in get_args(params) or (params,):
                names = {field.alias or name for name, field in getattr(one, "model_fields", {}).items()}
                yield from ((method, names) for method in get_args(fields["method"].annotation))
