"""The members of what a client says, so that no reader of it finds others than were judged. Pure.

Readers that were thought of: one that takes a name without regard to case (Go's encoding/json, with U+017F for `s` and
U+212A for `k`; Java's, with U+0131 and U+0130 for `i`), one that ends a name at NUL, one that takes a second spelling
(`input_responses`), one that takes the first or the last of two. So where the protocol names the members there are no
others; where a client names them, no two are alike to any of those, and none is alike to one that is judged.
"""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping

from remit.errors import InvalidRequestError
from remit.gateway.mcp.messages import META, Message, shown

_AGAIN = "inputResponses requestState"  # of a request that is made again, with answers (2026-07-28)
_PARAMS = {  # of what clients say in either revision, beside `_meta`
    "completion/complete": "ref argument context",
    "initialize": "protocolVersion capabilities clientInfo",
    "logging/setLevel": "level",
    "notifications/cancelled": "requestId reason",
    "notifications/initialized": "",
    "notifications/progress": "progressToken progress total message",
    "notifications/roots/list_changed": "",
    "ping": "",
    "prompts/get": f"name arguments {_AGAIN}",
    "prompts/list": "cursor",
    "resources/list": "cursor",
    "resources/read": f"uri {_AGAIN}",
    "resources/subscribe": "uri",
    "resources/templates/list": "cursor",
    "resources/unsubscribe": "uri",
    "server/discover": "",
    "subscriptions/listen": "notifications",
    "tasks/cancel": "taskId",
    "tasks/get": "taskId",
    "tasks/list": "cursor",
    "tasks/result": "taskId",
    "tasks/update": "taskId inputResponses",
    "tools/call": f"name arguments task {_AGAIN}",
    "tools/list": "cursor",
}
MEMBERS = {method: frozenset(names.split()) | {"_meta"} for method, names in _PARAMS.items()}
_INNER = {  # of what those hold, where the protocol names it
    "ref/prompt": frozenset({"type", "name", "title"}),
    "ref/resource": frozenset({"type", "uri"}),
    "argument": frozenset({"name", "value"}),
    "context": frozenset({"arguments"}),
    "notifications": frozenset(
        {"toolsListChanged", "promptsListChanged", "resourcesListChanged", "resourceSubscriptions", "taskIds"}
    ),
    "task": frozenset({"ttl"}),
}


def folded(name: str) -> str:
    """Return what every name has in common that some reader takes for this one."""
    name = name.partition("\0")[0]
    return name.lower() if name.isascii() else name.replace("\u0130", "i").upper().casefold()


def folds(names: Iterable[str]) -> Mapping[str, str]:
    """Return names by what they have in common with those that some reader takes for them."""
    return {folded(name): name for name in names}


def alike(names: Iterable[str], others: Mapping[str, str]) -> list[str]:
    """Return the names that some reader takes for one of others (``folds``), which they are not."""
    return [name for name in names if others.get(folded(name), name) != name]


_OF_META = ("protocolVersion", "clientInfo", "clientCapabilities", "related-task")
_IN_META = folds(["progressToken", *(META + name for name in _OF_META)])


def check(said: Message) -> None:
    """Raise InvalidRequestError for members that two readers could read as two things.

    A method that is not known goes nowhere, whatever it says.
    """
    params = said.params
    if said.method not in MEMBERS:
        return
    _check_closed("params", params, MEMBERS[said.method])
    for name, inner in params.items():
        if isinstance(inner, dict):
            _check_closed(name, inner, _INNER.get(str(inner.get("type")) if name == "ref" else name, inner.keys()))
    if others := alike(said.meta, _IN_META):
        raise InvalidRequestError(f"some reader takes `{shown(others[0])}` in `_meta` for a name of the protocol")
    _check_apart(params)


def _check_closed(where: str, held: Mapping[str, object], names: frozenset[str] | KeysView[str]) -> None:
    if others := held.keys() - names:
        raise InvalidRequestError(
            f"`{where}` has `{shown(min(others))}`, which the protocol does not have there",
            help="leave it out: what is a client's own goes into `_meta`",
        )


def _check_apart(value: object) -> None:
    """Raise for two members of one object that differ in case alone, in arguments too that a detail leaves open."""
    if isinstance(value, dict):
        if len({folded(name) for name in value}) != len(value):
            raise InvalidRequestError("an object has two members whose names some reader takes for one")
        for item in value.values():
            _check_apart(item)
    elif isinstance(value, list):
        for item in value:
            _check_apart(item)
