"""A message has one reading, or none."""

from __future__ import annotations

import pytest

from remit.errors import InvalidRequestError, TooLargeError
from remit.gateway.mcp import messages
from tests.gateway.mcp.talk import raw, said

REFUSED = {
    "a batch": b'[{"jsonrpc":"2.0","id":1,"method":"ping"}]',
    "a member twice": b'{"jsonrpc":"2.0","id":1,"method":"ping","method":"tools/call"}',
    "a member twice inside": b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","name":"b"}}',
    "a member that nobody knows": raw(id=1, method="ping", Method="tools/call"),
    "method and result": raw(id=1, method="ping", result={}),
    "result and error": raw(id=1, result={}, error={"code": 1, "message": ""}),
    "nothing said": raw(id=1),
    "params alone": raw(id=1, params={}),
    "params of a list": raw(id=1, method="ping", params=[1]),
    "params of nothing": raw(id=1, method="ping", params=None),
    "a result of a list": raw(id=1, result=[]),
    "an error of text": raw(id=1, error="no"),
    "another version": b'{"jsonrpc":"1.0","id":1,"method":"ping"}',
    "no version": b'{"id":1,"method":"ping"}',
    "an id of nothing": raw(id=None, method="ping"),
    "an id of a fraction": raw(id=1.5, method="ping"),
    "an id of truth": raw(id=True, method="ping"),
    "an id of length": raw(id="i" * 257, method="ping"),
    "an answer to nobody": raw(result={}),
    "a method of a number": raw(id=1, method=7),
    "a method of nothing": raw(id=1, method=""),
    "a method with a blank": raw(id=1, method="tools/call "),
    "no object": b'"ping"',
    "no JSON": b"ping",
    "two messages": raw(id=1, method="ping") * 2,
    "not a number": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":NaN}}',
    "a lone surrogate": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":{"a":"\\ud800"}}',
    "depth": b'{"jsonrpc":"2.0","id":1,"method":"ping","params":' + b'{"a":' * 40 + b"1" + b"}" * 41,
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_two_readers_could_read_as_two_things_is_refused(name: str) -> None:
    with pytest.raises(InvalidRequestError):
        messages.read(REFUSED[name])


def test_more_values_than_are_judged_are_refused() -> None:
    with pytest.raises(TooLargeError):
        messages.read(raw(id=1, method="tools/call", params={"name": "a", "arguments": {"a": [1] * 1_025}}))


def test_a_message_is_written_as_it_was_read() -> None:
    body = raw(id="a", method="tools/call", params={"name": "é", "arguments": {"n": 1}})
    assert messages.read(messages.read(body).written) == messages.read(body)


def test_requests_notifications_and_answers_are_told_apart() -> None:
    assert said("ping").asks
    assert not said("notifications/initialized", id_=None).asks
    answer = messages.read(raw(id=3, result={"ok": True}))
    assert (answer.method, answer.id, answer.asks) == (None, 3, False)
    assert messages.read(raw(id=None, error={"code": -32700, "message": "no"})).id is None


def test_a_message_of_the_newest_revision_says_so() -> None:
    assert said("ping").version is None
    assert said("ping", {"_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28"}}).version == "2026-07-28"
