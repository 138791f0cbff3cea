"""What several servers answered to one message, as one answer. Pure.

Who did not answer is left out, and that is said: in the instructions at the beginning, in `_meta` of a list.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from remit.errors import RemitError
from remit.gateway.mcp import answers
from remit.gateway.mcp.denials import REFUSED, UNKNOWN_METHOD
from remit.gateway.mcp.events import EventReader
from remit.gateway.mcp.messages import META, Json, Message, shown
from remit.gateway.mcp.servers import LEFT_OUT, MOST_CURSOR, MOST_SERVERS, SUBSCRIPTION, packed, prefix
from remit.gateway.mcp.tasks import EXTENSION, LIST

STATELESS = "2026-07-28"  # the first revision without a handshake
LISTS = {
    "tools/list": "tools",
    "prompts/list": "prompts",
    "resources/list": "resources",
    "resources/templates/list": "resourceTemplates",
    LIST: "tasks",
}
_ABLE = ("completions", "logging", "prompts", "resources", "tasks", "tools")
MOST_SESSION = 512  # characters of a session's id: those of all servers are one header
_SHOWN = 300  # characters of why a server is left out


@dataclass(frozen=True, slots=True)
class ServerAnswer:
    """An answer of one server's to its part, by its names here. ``session`` is a handle of it that came along."""

    status: int
    events: bool  # as a stream, else as a message
    body: bytes
    session: str | None = None

    def heard(self) -> Message | str:
        """Return what it answers, or why there is nothing."""
        if len(self.session or "") > MOST_SESSION:
            return "the id of its session is too long"
        try:
            pieces = [event.data for event in EventReader().feed(self.body)] if self.events else [self.body]
            said = [answers.read(piece) for piece in pieces if piece]
        except RemitError as error:
            return error.detail if self.status < 400 else f"it answered with status {self.status}"  # noqa: PLR2004
        return next((one for one in said if one.method is None), f"it answered with status {self.status} and no result")


def merged(said: Message, parts: Mapping[str, ServerAnswer], served: str) -> tuple[Message, dict[str, object]]:
    """Return the one answer, and each server's session and revision where a handshake began them.

    ``served`` is the version of what answers.
    """
    heard = {name: part.heard() for name, part in parts.items()}
    results = {
        name: dict(one.result) for name, one in heard.items() if isinstance(one, Message) and "result" in one.body
    }
    failed = {name: _why(one) for name, one in heard.items() if name not in results}
    unknown = {name for name, one in heard.items() if isinstance(one, Message) and _code(one) == UNKNOWN_METHOD}
    if said.method == "server/discover" and _goes_back(results, unknown):
        results = {}
    if not results and not (said.method in LISTS and failed.keys() <= unknown):
        told = "; ".join(f"{name}: {why}" for name, why in failed.items())
        code = UNKNOWN_METHOD if unknown else REFUSED
        return _answer(said, {"error": {"code": code, "message": f"no server answered ({told})"}}), {}
    sessions: dict[str, object] = {}
    if said.method in LISTS:
        missing = {name: why for name, why in failed.items() if name not in unknown}
        result = _list(LISTS[said.method], results, missing)
    elif said.method == "initialize":
        versions = {name: str(one.get("protocolVersion")) for name, one in results.items()}
        sessions = {name: [parts[name].session, version] for name, version in versions.items()}
        result = {"protocolVersion": min(versions.values()), **_introduced(results, failed, served)}
    elif said.method == "server/discover":
        offered = [set(map(str, _items(one.get("supportedVersions")))) for one in results.values()]
        result = {"supportedVersions": sorted(set.intersection(*offered)), **_introduced(results, failed, served)}
    else:
        result = {}
    return _answer(said, {"result": result | (_uncached(results) if said.version is not None else {})}), sessions


def acknowledged(said: Message, told: Iterable[Message]) -> Message:
    """Return what servers acknowledge of a subscription as one message."""
    wanted: dict[str, object] = {}
    for one in told:
        found = one.params.get("notifications")
        for name, value in found.items() if isinstance(found, dict) else ():
            before = wanted.get(name)
            wanted[name] = [*_items(before), *value] if isinstance(value, list) else bool(before or value)
    meta = {SUBSCRIPTION: said.id}
    method = "notifications/subscriptions/acknowledged"
    body = {"jsonrpc": "2.0", "method": method, "params": {"_meta": meta, "notifications": wanted}}
    return Message(body, method, None)


def _goes_back(results: Mapping[str, Json], unknown: set[str]) -> bool:
    """Whether a client reaches more servers by the handshake: some know nothing else, and all others know it too."""
    return bool(unknown) and all(
        any(str(version) < STATELESS for version in _items(one.get("supportedVersions"))) for one in results.values()
    )


def _introduced(results: Mapping[str, Json], failed: Mapping[str, str], served: str) -> dict[str, object]:
    """Return what servers can do, and what they say of themselves, each in its own name."""
    able: Json = {}
    for one in results.values():
        found = one.get("capabilities")
        known = found if isinstance(found, dict) else {}
        extensions = known.get("extensions")
        own = {name: known[name] for name in _ABLE if name in known}
        if isinstance(extensions, dict) and EXTENSION in extensions:
            own["extensions"] = {EXTENSION: extensions[EXTENSION]}
        able = _joined(able, own)
    lines = ["Several servers answer here. The names of what belongs to one begin so:"]
    lines += [f"- {name}: `{prefix(name)}`" for name in results]
    lines += [f"- {name} is left out: {why}" for name, why in failed.items()]
    for name, one in results.items():
        if isinstance(text := one.get("instructions"), str) and text.strip():
            lines += ["", f"{name} says of itself:", *(f"> {line}" for line in text.splitlines())]
    info, told = {"name": "remit", "version": served}, "\n".join(lines)
    return {"capabilities": able, "serverInfo": info, "_meta": {f"{META}serverInfo": info}, "instructions": told}


def _joined(one: Json, other: Json) -> Json:
    """Return what can be done where either can."""
    found = dict(one)
    for name, value in other.items():
        if isinstance(value, dict):
            before = found.get(name)
            found[name] = _joined(before if isinstance(before, dict) else {}, value)
        elif value is True:
            found[name] = True
    return found


def _list(member: str, results: Mapping[str, Json], missing: Mapping[str, str]) -> dict[str, object]:
    """Return the items of all, and where each goes on that has more."""
    going_on = {name: one["nextCursor"] for name, one in results.items() if isinstance(one.get("nextCursor"), str)}
    cursors = {
        name: cursor for name, cursor in going_on.items() if len(str(cursor)) <= MOST_CURSOR // MOST_SERVERS // 2
    }
    missing = {**missing, **{name: why for name, one in results.items() if (why := _unfit(one))}}
    missing |= dict.fromkeys(going_on.keys() - cursors, "its list goes on at a cursor that is too long")
    found: dict[str, object] = {member: [item for one in results.values() for item in _items(one.get(member))]}
    found |= {"nextCursor": packed(cursors)} if cursors else {}
    return found | ({"_meta": {LEFT_OUT: missing}} if missing else {})


def _unfit(result: Json) -> str:
    """Return what is said of the names that a server's part leaves out; empty if there are none."""
    meta = result.get("_meta")
    names = _items(meta.get(LEFT_OUT)) if isinstance(meta, dict) else []
    told = ", ".join(f"`{shown(str(name))}`" for name in names[:_SHOWN])
    return f"names that models cannot be given, too long or with other signs: {told}"[:_SHOWN] if names else ""


def _uncached(results: Mapping[str, Json]) -> dict[str, object]:
    """Return what the newest revision says of every result: nothing is kept for longer than any server lets it."""
    lasting = [one.get("ttlMs") for one in results.values()]
    least = min((one for one in lasting if isinstance(one, int)), default=0) if None not in lasting else 0
    return {"resultType": "complete", "ttlMs": least, "cacheScope": "private"}


def _answer(said: Message, told: Mapping[str, object]) -> Message:
    return Message({"jsonrpc": "2.0", "id": said.id, **told}, None, said.id)


def _code(answer: Message) -> object:
    error = answer.body.get("error")
    return error.get("code") if isinstance(error, dict) else None


def _why(answer: Message | str) -> str:
    error = answer.body.get("error") if isinstance(answer, Message) else None
    told = answer if isinstance(answer, str) else str(error.get("message")) if isinstance(error, dict) else "no result"
    return " ".join(told.split())[:_SHOWN]


def _items(held: object) -> list[object]:
    return held if isinstance(held, list) else []
