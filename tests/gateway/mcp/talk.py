"""Messages as tests write them, and the rules of a detail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from remit.core import scope
from remit.core.description import Described
from remit.gateway.mcp import messages
from remit.gateway.mcp.answers import Relay
from remit.gateway.mcp.messages import Message
from remit.gateway.mcp.rules import MessageRules, compile_messages
from tests.support import kinds

kinds.register()


def rules(*details: dict[str, Any]) -> MessageRules:
    """Return the compiled details, each of ``forge``."""
    raw = [{"type": "mcp", "resource": "forge", **detail} for detail in details]
    return compile_messages(scope.parse(raw), "forge")


def raw(**members: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", **members}).encode()


def said(method: str, params: dict[str, Any] | None = None, id_: str | int | None = 1) -> Message:
    members: dict[str, object] = {"method": method} | ({} if id_ is None else {"id": id_})
    return messages.read(raw(**members, **({} if params is None else {"params": params})))


def call(name: str, **arguments: object) -> Message:
    return said("tools/call", {"name": name, "arguments": arguments})


def everything(items: Sequence[Described]) -> Sequence[bool]:
    """Show all that a server says of itself."""
    return [True] * len(items)


def relay(*details: dict[str, Any], **more: Any) -> Relay:
    return Relay(rules(*details), "mcp", "forge", **{"shows": everything, "home": "", **more})


def heard(end: Relay, **members: object) -> dict[str, Any] | None:
    """Return what a client hears of a server's message."""
    found = end.heard(raw(**members))
    return None if found is None else json.loads(found)
