"""One JSON-RPC message (JSON-RPC 2.0, MCP basic protocol): read strictly, written anew. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeGuard

from remit.errors import InvalidRequestError
from remit.gateway import canon

META = "io.modelcontextprotocol/"  # in front of what the protocol itself says in `_meta` (2026-07-28)
CAPABILITIES = f"{META}clientCapabilities"
_METHOD = re.compile(r"[a-zA-Z$][a-zA-Z0-9_$./-]{0,127}")
_MEMBERS = (
    frozenset({"jsonrpc", "id", "method", "params"}),
    frozenset({"jsonrpc", "id", "result"}),
    frozenset({"jsonrpc", "id", "error"}),
)
_MAX_ID = 256  # characters of an id that is text

Json = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Message:
    """One message. ``method`` is None of an answer, ``id`` of a notification. ``body`` is all of it, as it was read."""

    body: Json
    method: str | None
    id: str | int | None

    @property
    def asks(self) -> bool:
        """Whether it is a request, which has an answer."""
        return self.method is not None and self.id is not None

    @property
    def params(self) -> Json:
        found = self.body.get("params")
        return found if isinstance(found, dict) else {}

    @property
    def result(self) -> Json:
        found = self.body.get("result")
        return found if isinstance(found, dict) else {}

    @property
    def meta(self) -> Json:
        found = self.params.get("_meta")
        return found if isinstance(found, dict) else {}

    @property
    def version(self) -> str | None:
        """The revision that a message itself says it is of; those before 2026-07-28 do not."""
        found = self.meta.get(f"{META}protocolVersion")
        return found if isinstance(found, str) else None

    @property
    def written(self) -> bytes:
        return canon.json_bytes(self.body)


def read(raw: bytes) -> Message:
    """Read what a client sends as one message, or raise InvalidRequestError: two readers must not read two things."""
    return message(canon.json_body(raw))


def message(value: object) -> Message:
    """Return a decoded JSON value as a message, or raise InvalidRequestError."""
    if isinstance(value, list):
        raise InvalidRequestError("a batch of messages is not accepted", help="send each message by itself")
    if not isinstance(value, dict) or value.get("jsonrpc") != "2.0":
        raise InvalidRequestError('what was sent is no message of JSON-RPC 2.0 (`"jsonrpc": "2.0"`)')
    method, id_ = value.get("method"), value.get("id")
    if not any(value.keys() <= members for members in _MEMBERS) or value.keys() <= {"jsonrpc", "id", "params"}:
        raise InvalidRequestError("a message has `method` and perhaps `params`, or `result`, or `error`, and no more")
    if "method" in value and not (isinstance(method, str) and _METHOD.fullmatch(method)):
        raise InvalidRequestError("the message's `method` is not the name of one")
    named = is_id(id_)
    if not (named or ("id" not in value and "method" in value) or (id_ is None and "error" in value)):
        raise InvalidRequestError("the message's `id` is not text or a whole number")
    if not isinstance(value.get("params", {}), dict) or not isinstance(value.get("result", {}), dict):
        raise InvalidRequestError("the message's `params` or `result` is not an object")
    if not isinstance(value.get("error", {}), dict):
        raise InvalidRequestError("the message's `error` is not an object")
    return Message(value, method if isinstance(method, str) else None, id_ if named else None)


def is_id(value: object) -> TypeGuard[str | int]:
    """Whether it can be the id of a request; Python takes `true` for 1, JSON-RPC does not."""
    short = isinstance(value, str) and len(value) <= _MAX_ID
    return short or (isinstance(value, int) and not isinstance(value, bool))


def shown(text: str) -> str:
    """Return what a stranger called something, as it can stand in a sentence."""
    return "".join(char for char in text[:64] if char.isprintable() and char != "`")
