"""What a model reads of a server: its items as canonical text, by which they are pinned. Pure.

All that an item says counts, in whatever order and spelling: only what changes by itself, the size of a resource and
when it was changed, is left out. Texts that differ are two, also where they look alike (normal forms, 1 and 1.0).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from remit.core.description import MAX_NAME, MAX_TEXT, Described, Key, What
from remit.core.orders import json_text
from remit.errors import DescriptionError
from remit.gateway.mcp.messages import Json, Message, shown
from remit.gateway.mcp.rules import CALL, COMPLETE, GET_PROMPT, LISTEN, READ, SUBSCRIBE, subscribed

LISTS: Mapping[str, tuple[What, str]] = {  # member of a result -> what it lists, and what names one
    "prompts": ("prompt", "name"),
    "resourceTemplates": ("template", "uriTemplate"),
    "resources": ("resource", "uri"),
    "tools": ("tool", "name"),
}
INSTRUCTIONS = "instructions"
MOST = 1_024  # items of one message that are looked at
_CALLED: Mapping[str | None, tuple[What, str]] = {
    CALL: ("tool", "name"),
    GET_PROMPT: ("prompt", "name"),
    READ: ("resource", "uri"),
    SUBSCRIBE: ("resource", "uri"),
}
_COMPLETED: Sequence[tuple[What, str]] = (("prompt", "name"), ("template", "uri"))
_INSTANT = re.compile(r"\d{4}-\d\d-\d\d(?:T\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:\d\d)?)?", re.ASCII)

T = TypeVar("T")
Shows = Callable[[Sequence[Described]], Sequence[bool]]  # which items are as they were accepted


class UndescribedError(Exception):
    """Items of which nobody here knows yet whether they were accepted."""

    def __init__(self, items: Sequence[Described]) -> None:
        super().__init__()
        self.items = items


def nothing(items: Sequence[Described]) -> Sequence[bool]:
    """Return that no item is: of what answers nothing that a server says."""
    return [False] * len(items)


def described(what: What, name: object, said: object) -> Described | None:
    """Return an item as it is pinned; None for what can be none, as it has no name."""
    if not isinstance(name, str) or len(name) > MAX_NAME or not _is_text(name):
        return None
    try:
        text = json_text(_lasting(said) if what in {"resource", "template"} and isinstance(said, dict) else said)
    except RecursionError:
        text = ""
    return Described(what, name, text if len(text) <= MAX_TEXT else "")


def _is_text(name: str) -> bool:
    return not any("\ud800" <= char <= "\udfff" for char in name)


def _lasting(said: Json) -> Json:
    """Return what a resource is described by, without what changes with each of its versions."""
    left = dict(said)
    if isinstance(left.get("size"), int):
        del left["size"]
    notes = left.get("annotations")
    if isinstance(notes, dict) and _INSTANT.fullmatch(str(notes.get("lastModified"))):
        left["annotations"] = {name: note for name, note in notes.items() if name != "lastModified"}
    return left


def reduced(result: Json, shows: Shows) -> Json:
    """Return a result with what it describes as it was accepted, and nothing else of that."""
    found: list[tuple[str, object, Described]] = []
    for member, (what, key) in LISTS.items():
        listed = result.get(member)
        each = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
        known = [(item, described(what, item.get(key), item)) for item in each[:MOST]]
        found += [(member, item, it) for item, it in known if it is not None]
    if INSTRUCTIONS in result and (it := described("instructions", "", result[INSTRUCTIONS])) is not None:
        found.append((INSTRUCTIONS, result[INSTRUCTIONS], it))
    del found[MOST:]
    verdicts = shows([known for _, _, known in found]) if found else ()
    kept = [(member, item) for (member, item, _), accepted in zip(found, verdicts, strict=True) if accepted]
    left = {name: [item for member, item in kept if member == name] for name in LISTS if name in result}
    gone = INSTRUCTIONS not in {member for member, _ in kept}
    return {name: left.get(name, value) for name, value in result.items() if not (gone and name == INSTRUCTIONS)}


def used(said: Message) -> list[Key]:
    """Return what a message of a client uses that a server describes."""
    if said.method == LISTEN:
        return [("resource", uri) for uri in subscribed(said)]
    if said.method == COMPLETE:
        ref = said.params.get("ref")
        return [(what, str(ref[key])) for what, key in _COMPLETED if key in ref] if isinstance(ref, dict) else []
    what, key = _CALLED.get(said.method, (None, ""))
    return [] if what is None else [(what, str(said.params.get(key)))]


def held(key: Key, resource: str) -> DescriptionError:
    """Return what a client is told that uses an item which a human has yet to look at."""
    what, name = key[0], shown(key[1])
    return DescriptionError(
        f"how `{resource}` describes the {what} `{name}` was not accepted, or is not what was",
        help=f"a human looks at it on the broker's host, and accepts it or not: `remit resource accept {resource}`",
    )
