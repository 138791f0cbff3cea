"""Details as a client may write them: a resource's name and what is to be narrower.

Nothing is decided here. The name is expanded to the only detail that is there for it, named overrides are applied, and
the broker judges the result: an override that widens is refused there.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from typing import TypeGuard

from remit.errors import InvalidRequestError, ScopeError

Detail = dict[str, object]
Details = Sequence[Detail]
DetailLike = str | Mapping[str, object]  # a resource's name, a name with overrides, or a whole detail
Wishes = Iterable[DetailLike]
TTL = str | int | timedelta

_TTL = re.compile(r"([0-9]{1,9})([smhd]?)")
_UNIT = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}


def detail(resource: str, **overrides: object) -> Detail:
    """Name a resource, with what is to be narrower than the detail that is there for it."""
    return {"resource": resource, **overrides}


def seconds(ttl: TTL) -> int:
    """Return whole seconds of a duration: ``900``, ``"900"``, ``"15m"``, ``"1h"``, or a timedelta."""
    if isinstance(ttl, timedelta):
        return int(ttl.total_seconds())
    if isinstance(ttl, int) and not isinstance(ttl, bool):
        return ttl
    found = _TTL.fullmatch(ttl) if isinstance(ttl, str) else None
    if found is None:
        raise InvalidRequestError("`ttl` must be a number with a unit, such as `90s`, `15m` or `1h`")
    return int(found[1]) * _UNIT[found[2]]


def whole(wish: DetailLike) -> TypeGuard[Mapping[str, object]]:
    """Whether a wish is a detail that needs no expansion."""
    return not isinstance(wish, str) and "type" in wish


def name_of(wish: DetailLike) -> str:
    """Return the resource that a wish names."""
    name = wish if isinstance(wish, str) else wish.get("resource")
    if not isinstance(name, str) or not name:
        raise InvalidRequestError("a detail must name its `resource`")
    return name


def expand(wishes: Wishes, known: Sequence[Mapping[str, object]]) -> list[Detail]:
    """Return whole details for wishes, from the details of the grant or of the resources' bounds."""
    return [expand_one(wish, known) for wish in wishes]


def expand_one(wish: DetailLike, known: Sequence[Mapping[str, object]]) -> Detail:
    """Return the whole detail for one wish; ScopeError when nothing or more than one detail is there for it."""
    if whole(wish):
        return dict(wish)
    name = name_of(wish)
    found = [item for item in known if item.get("resource") == name]
    if not found:
        near = meant(name, [str(item.get("resource")) for item in known])
        raise ScopeError(f"there is no detail for `{name}` here", help=near or "ask whoever delegates for it")
    if len(found) > 1:
        raise ScopeError(f"there are {len(found)} details for `{name}` here", help="write the whole detail")
    return _narrowed(found[0], {} if isinstance(wish, str) else wish)


def meant(name: str, known: Iterable[str]) -> str | None:
    """Return a question for the name that may have been meant, among those that the caller may see."""
    near = get_close_matches(name, known, 1)
    return f"did you mean `{near[0]}`?" if near else None


def _narrowed(found: Mapping[str, object], overrides: Mapping[str, object]) -> Detail:
    """Drop what is keyed by items that an override left out, as the columns of tables are by their tables."""
    merged = {**found, **overrides}
    for name, keyed in found.items():
        if name in overrides or not isinstance(keyed, Mapping) or not keyed:
            continue
        for field, items in overrides.items():
            before = found.get(field)
            if isinstance(items, list | tuple) and isinstance(before, list | tuple) and keyed.keys() <= {*before}:
                kept = {key: value for key, value in keyed.items() if key in items}
                merged = {**merged, name: kept} if kept else {k: v for k, v in merged.items() if k != name}
    return merged
