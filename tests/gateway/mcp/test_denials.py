"""A refusal is a message that no client takes for success."""

from __future__ import annotations

from remit.gateway.mcp.denials import MALFORMED, MISMATCH, PROBLEM, REFUSED, denied
from tests.gateway.mcp.talk import call, said

PROBLEM_DOCUMENT = {
    "detail": "the grant does not permit this",
    "help": "ask",
    "enough": {"type": "mcp", "resource": "forge", "actions": ["tools/call"]},
}


def test_a_tools_refusal_is_a_result_that_is_an_error() -> None:
    found = denied(call("drop", repo="a"), PROBLEM_DOCUMENT)
    result = found["result"]
    assert isinstance(result, dict)
    assert (found["id"], result["isError"], result["_meta"]) == (1, True, {PROBLEM: PROBLEM_DOCUMENT})
    text = result["content"][0]["text"]
    assert text.startswith("remit refused `tools/call` of `drop`: the grant does not permit this (ask).")
    assert '{"actions":["tools/call"],"resource":"forge","type":"mcp"}' in text
    assert "resultType" not in result


def test_the_newest_revision_is_told_that_a_result_is_complete() -> None:
    meta = {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}
    found = denied(said("tools/call", {"name": "drop", "_meta": meta}), PROBLEM_DOCUMENT)
    assert isinstance(found["result"], dict)
    assert found["result"]["resultType"] == "complete"


def test_any_other_refusal_is_an_error_with_the_problem() -> None:
    found = denied(said("resources/read", {"uri": "repo://a"}, "x"), PROBLEM_DOCUMENT)
    error = found["error"]
    assert isinstance(error, dict)
    assert (found["id"], error["code"], error["data"]) == ("x", REFUSED, {PROBLEM: PROBLEM_DOCUMENT})
    assert "`resources/read` of `repo://a`" in str(error["message"])


def test_a_message_that_could_not_be_read_has_an_answer_without_an_id() -> None:
    found = denied(None, PROBLEM_DOCUMENT, MALFORMED)
    assert found["id"] is None
    assert isinstance(found["error"], dict)
    assert found["error"]["code"] == MALFORMED


def test_a_call_whose_headers_say_something_else_is_an_error_of_the_protocol() -> None:
    assert "result" not in denied(call("drop"), PROBLEM_DOCUMENT, MISMATCH)


def test_a_name_is_repeated_as_far_as_it_shows() -> None:
    found = denied(said("resources/read", {"uri": "a`\n\u202eb"}), PROBLEM_DOCUMENT)
    assert isinstance(found["error"], dict)
    assert "of `ab`" in str(found["error"]["message"])
