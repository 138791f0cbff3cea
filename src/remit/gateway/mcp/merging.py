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
REVISIONS = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")  # with one
_ABLE: Json = {  # what servers can do, in the protocol's form
    "completions": {},
    "extensions": {EXTENSION: {}},
    "logging": {},
    "prompts": {"listChanged": True},
    "resources": {"listChanged": True, "subscribe": True},
    "tasks": {"cancel": {}, "list": {}, "requests": {"tools": {"call": {}}}},
    "tools": {"listChanged": True},
}
_NEEDED = {  # of an item, what it is known by first
    "prompts": ("name",),
    "resourceTemplates": ("uriTemplate", "name"),
    "resources": ("uri", "name"),
    "tasks": ("taskId", "status"),
    "tools": ("name", "inputSchema"),
}
_TYPES: Mapping[str, type] = {
    **dict.fromkeys(("createdAt", "description", "lastUpdatedAt", "mimeType", "name", "status", "statusMessage"), str),
    **dict.fromkeys(("taskId", "title", "uri", "uriTemplate"), str),
    **dict.fromkeys(("_meta", "annotations", "execution", "inputSchema", "outputSchema"), dict),
    **dict.fromkeys(("arguments", "icons"), list),
    "size": int,
}
_WATCHED = ("promptsListChanged", "resourcesListChanged", "toolsListChanged")  # and by what they are:
_WATCHED_EACH = ("resourceSubscriptions", "taskIds")
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
    heard = {name: _fitting(said, part.heard()) for name, part in parts.items()}
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
        offered = [set(_texts(one.get("supportedVersions"))) for one in results.values()]
        result = {"supportedVersions": sorted(set.intersection(*offered)), **_introduced(results, failed, served)}
    else:
        result = {}
    return _answer(said, {"result": result | (_uncached(results) if said.version is not None else {})}), sessions


def acknowledged(said: Message, told: Iterable[Message]) -> Message:
    """Return what servers acknowledge of a subscription as one message."""
    each = [found for one in told if isinstance(found := one.params.get("notifications"), dict)]
    wanted: dict[str, object] = {name: True for name in _WATCHED if any(one.get(name) is True for one in each)}
    for name in _WATCHED_EACH:
        items = [item for one in each for item in _items(one.get(name)) if isinstance(item, str)]
        wanted |= {name: items} if items else {}
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
    able = _able(_ABLE, [one.get("capabilities") for one in results.values()])
    lines = ["Several servers answer here. The names of what belongs to one begin so:"]
    lines += [f"- {name}: `{prefix(name)}`" for name in results]
    lines += [f"- {name} is left out: {why}" for name, why in failed.items()]
    for name, one in results.items():
        if isinstance(text := one.get("instructions"), str) and text.strip():
            lines += ["", f"{name} says of itself:", *(f"> {line}" for line in text.splitlines())]
    info, told = {"name": "remit", "version": served}, "\n".join(lines)
    return {"capabilities": able, "serverInfo": info, "_meta": {f"{META}serverInfo": info}, "instructions": told}


def _able(shape: Json, told: Iterable[object]) -> Json:
    """Return what can be done where any can, and nothing that is told in another form: a client would refuse all."""
    known = [one for one in told if isinstance(one, dict)]
    found: dict[str, object] = {}
    for name, inner in shape.items():
        each = [one[name] for one in known if name in one]
        if isinstance(inner, Mapping) and any(isinstance(one, dict) for one in each):
            found[name] = _able(inner, each)
        elif inner is True and any(one is True for one in each):
            found[name] = True
    return found


def _fitting(said: Message, answer: Message | str) -> Message | str:
    """Return an answer, or why it cannot be one with others': no server decides what all speak."""
    if isinstance(answer, str) or "result" not in answer.body:
        return answer
    if said.method == "initialize" and answer.result.get("protocolVersion") not in REVISIONS:
        return "it speaks no revision that is known here"
    if said.method == "server/discover" and said.version not in {None, *_texts(answer.result.get("supportedVersions"))}:
        return "it does not speak the revision that it was asked in"
    return answer


def _list(member: str, results: Mapping[str, Json], missing: Mapping[str, str]) -> dict[str, object]:
    """Return the items of all, and where each goes on that has more."""
    going_on = {name: one["nextCursor"] for name, one in results.items() if isinstance(one.get("nextCursor"), str)}
    cursors = {
        name: cursor for name, cursor in going_on.items() if len(str(cursor)) <= MOST_CURSOR // MOST_SERVERS // 2
    }
    listed = {name: _items(one.get(member)) for name, one in results.items()}
    sound = {name: _sound(member, items) for name, items in listed.items()}
    odd = [name for name, items in listed.items() if len(sound[name]) < len(items)]
    missing = {**dict.fromkeys(odd, "some of it is not as the protocol has it, or stands twice"), **missing}
    missing |= {name: why for name, one in results.items() if (why := _unfit(one))}
    missing |= dict.fromkeys(going_on.keys() - cursors, "its list goes on at a cursor that is too long")
    found: dict[str, object] = {member: [item for items in sound.values() for item in items]}
    found |= {"nextCursor": packed(cursors)} if cursors else {}
    return found | ({"_meta": {LEFT_OUT: missing}} if missing else {})


def _unfit(result: Json) -> str:
    """Return what is said of the names that a server's part leaves out; empty if there are none."""
    meta = result.get("_meta")
    names = _items(meta.get(LEFT_OUT)) if isinstance(meta, dict) else []
    told = ", ".join(f"`{shown(str(name))}`" for name in names[:_SHOWN])
    return f"names that models cannot be given, too long or with other signs: {told}"[:_SHOWN] if names else ""


def _sound(member: str, items: Iterable[object]) -> list[object]:
    """Return the items that every client reads, each once: of one that it does not, all servers' would be lost."""
    found: dict[object, object] = {}
    for item in items:
        said = {name: value for name, value in item.items() if value is not None} if isinstance(item, dict) else {}
        if said.keys() >= {*_NEEDED[member]} and _is_sound(said):
            found.setdefault(said[_NEEDED[member][0]], said)
    return [*found.values()]


def _is_sound(item: Json) -> bool:
    typed = all(isinstance(item[name], is_) for name, is_ in _TYPES.items() if name in item)
    schema, notes = item.get("inputSchema", {"type": "object"}), item.get("annotations", {})
    named = [*_items(item.get("arguments")), *({"name": one.get("src")} for one in _dicts(item.get("icons", [])))]
    return (
        typed
        and not isinstance(item.get("size"), bool)
        and isinstance(schema, dict)
        and schema.get("type") == "object"
        and isinstance(properties := schema.get("properties", {}), dict)
        and len(_dicts(properties.values())) == len(properties)
        and isinstance(required := schema.get("required", []), list)
        and len(_texts(required)) == len(required)
        and isinstance(notes, dict)
        and all(isinstance(value, bool) for name, value in notes.items() if name.endswith("Hint"))
        and len(_dicts(item.get("icons", []))) == len(_items(item.get("icons")))
        and all(isinstance(one, dict) and isinstance(one.get("name"), str) for one in named)
    )


def _dicts(held: object) -> list[Json]:
    return [one for one in held if isinstance(one, dict)] if isinstance(held, Iterable) else []


def _texts(held: object) -> list[str]:
    return [one for one in _items(held) if isinstance(one, str)]


def _uncached(results: Mapping[str, Json]) -> dict[str, object]:
    """Return what the newest revision says of every result: nothing is kept for longer than any server lets it."""
    lasting = [one.get("ttlMs") for one in results.values()]
    known = [one for one in lasting if isinstance(one, int) and not isinstance(one, bool) and one > 0]
    least = min(known, default=0) if len(known) == len(lasting) else 0
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
