"""What a user task is granted, from the calls that solve it: the best that somebody careful could grant.

Three widths: the tools that the task needs; these with arguments bound as far as the user's own words say them; these
with each argument bound that names a place, a party or an amount. What a text says (``FREE``) is never bound.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

FREE = frozenset({"body", "content", "subject", "title", "description", "query", "location"})
Json = dict[str, Any]
Tools = dict[str, Any]  # of one detail: tool -> "any", or argument -> constraint


class Call(NamedTuple):
    """A call that is needed."""

    kit: str
    tool: str
    arguments: Mapping[str, object]


def by_tool(calls: Sequence[Call], _prompt: str) -> dict[str, list[Tools]]:
    """Return for each toolkit the tools that are needed, with any arguments."""
    found: dict[str, list[Tools]] = {}
    for call in calls:
        found.setdefault(call.kit, [{}])[0][call.tool] = "any"
    return found


def by_words(calls: Sequence[Call], prompt: str) -> dict[str, list[Tools]]:
    """Bind an argument where the user's own words have its value."""
    return _bound(calls, lambda _name, value: str(value).lower() in prompt.lower())


def by_argument(calls: Sequence[Call], _prompt: str) -> dict[str, list[Tools]]:
    """Bind each argument that is no text of its own."""
    return _bound(calls, lambda name, _value: name.partition("[")[0].partition(".")[0] not in FREE)


def _bound(calls: Sequence[Call], binds: Callable[[str, object], bool]) -> dict[str, list[Tools]]:
    """Return details in which each tool stands once, with what all of its calls of one shape need.

    Calls of one tool with other names of arguments are another shape, and go into the toolkit's next detail.
    """
    shapes: dict[tuple[str, str, tuple[str, ...]], dict[str, list[object]]] = {}
    for call in calls:
        leaves = dict(_leaves("", call.arguments))
        values = shapes.setdefault((call.kit, call.tool, tuple(sorted(leaves))), {})
        for name, value in leaves.items():
            values.setdefault(name, []).append(value)
    found: dict[str, list[Tools]] = {}
    for (kit, tool, _), values in shapes.items():
        details = found.setdefault(kit, [])
        detail = next((one for one in details if tool not in one), None)
        if detail is None:
            details.append(detail := {})
        detail[tool] = {name: _constraint(items, name, binds) for name, items in values.items()}
    return found


def _constraint(values: Iterable[object], name: str, binds: Callable[[str, object], bool]) -> object:
    """Return what values meet; ``any`` where one is not to be bound, or can be by no order: fractions, empty lists."""
    items = list(dict.fromkeys(values))
    whole = all(isinstance(value, str | bool | int) or value is None for value in items)
    return {"one_of": items} if whole and all(binds(name, value) for value in items) else "any"


def _leaves(name: str, value: object) -> Iterator[tuple[str, object]]:
    """Yield the arguments inside of one, named as grants name them; an empty container is one."""
    if isinstance(value, Mapping) and (value or not name):
        for key, item in value.items():
            yield from _leaves(f"{name}.{key}" if name else str(key), item)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _leaves(f"{name}[{index}]", item)
    else:
        yield name, () if isinstance(value, list | Mapping) else value


def details(granted: Mapping[str, list[Tools]], more: Iterable[str] = ()) -> list[Json]:
    """Return the details of a grant; ``more`` are tools that each toolkit's first one has, too."""
    return [
        {"type": "mcp", "resource": kit, "actions": ["tools/call"], "tools": {**tools, **dict.fromkeys(more, "any")}}
        for kit, some in granted.items()
        for tools in some
    ]
