"""A refusal as a message that no client takes for success, with the problem as data. Pure.

A tool's refusal is a result with `isError` (MCP, error handling of tools): clients show it to the model, which can so
ask for what would be enough. Any other is an error of JSON-RPC, and so is what only a client can mend.
"""

from __future__ import annotations

from collections.abc import Mapping

from remit.core.orders import json_text
from remit.gateway.mcp.messages import Json, Message, shown
from remit.gateway.mcp.rules import CALL

PROBLEM = "remit/problem"  # the member of `_meta`, or of an error's `data`, that has the problem document
REFUSED, MALFORMED, UNKNOWN_METHOD, INVALID_PARAMS, MISMATCH = -32_010, -32_600, -32_601, -32_602, -32_020


def denied(said: Message | None, problem: Mapping[str, object], code: int = REFUSED) -> Json:
    """Return what a client is told instead of an answer; ``said`` is None where it could not be read."""
    text = told(said, problem)
    head: Json = {"jsonrpc": "2.0", "id": None if said is None else said.id}
    if said is None or not said.asks or said.method != CALL or code != REFUSED:
        return {**head, "error": {"code": code, "message": text, "data": {PROBLEM: problem}}}
    result = {"content": [{"type": "text", "text": text}], "isError": True, "_meta": {PROBLEM: problem}}
    return {**head, "result": result if said.version is None else {"resultType": "complete", **result}}


def told(said: Message | None, problem: Mapping[str, object]) -> str:
    """Return a refusal in words: what was refused, why, what to do, and what would be enough."""
    name = "" if said is None else shown(str(said.params.get("name") or said.params.get("uri") or ""))
    what = "the message" if said is None else f"`{said.method or 'an answer'}`{f' of `{name}`' if name else ''}"
    help_ = f" ({problem['help']})" if problem.get("help") else ""
    more = f" This would be enough: {json_text(problem['enough'])}" if problem.get("enough") else ""
    return f"remit refused {what}: {problem['detail']}{help_}.{more}"
