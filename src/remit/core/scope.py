"""What is permitted: details, and which of them covers which.

A scope is a list of details (RFC 9396 ``authorization_details``). A detail type is a table, field -> order, which a
kind of resource brings (``ports.kind``); the orders are code, in ``core.orders`` alone: no kind can weaken attenuation.

- A child detail is covered by one single parent detail, field by field.
- Absent in the child but present in the parent is wider; unknown types, fields and values are refused.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from remit.core import orders
from remit.core.orders import Order, Value, json_text
from remit.errors import ConflictError, InvalidRequestError, UnknownDetailError

MAX_DETAILS = 64
MAX_ALIKE = 16  # details of one type and resource: each of a child is compared with each of its parent
MAX_ITEMS = 1_024  # of a scope that is asked for: paths, methods, tables, values of arguments
SEGMENTS = 4  # of a path that are one item
SLICE = 1 << 15  # characters of details that are compared at one go, about a millisecond
KEPT = 64  # comparisons: a request needs the same ones more than once, and other requests come in between
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
ENDPOINT = "mcp"  # of all MCP servers of a grant, at the gateway: no resource is called so


@dataclass(frozen=True, slots=True)
class Detail:
    """One typed item of authority."""

    type: str
    resource: str
    fields: tuple[tuple[str, Value], ...]  # sorted by name; values are in normal form
    json: str = field(default="", compare=False, repr=False)  # canonical JSON text, from when it was parsed

    def get(self, name: str) -> Value | None:
        """Return the normal form of a field, or None when it is absent."""
        for key, value in self.fields:
            if key == name:
                return value
        return None

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a set-valued field as a sorted tuple; empty when absent."""
        value = self.get(name)
        return value if isinstance(value, tuple) else ()

    def number(self, name: str) -> int | None:
        """Return an integer field, or None when it is absent."""
        value = self.get(name)
        return value if isinstance(value, int) else None


Scope = tuple[Detail, ...]


@dataclass(frozen=True, slots=True)
class Access:
    """One attempted use. ``path`` is canonical; ``args`` maps an argument's name to the JSON text of its value."""

    resource: str
    action: str
    path: str = ""
    args: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Field:
    """A row of a detail type's table."""

    order: Order
    required: bool = False
    default: Value | None = None  # the normal form of an absent field, if absence has one
    per: str | None = None  # the set field whose entries are this map's keys; a missing key is the top
    label: str = ""  # what a human reads in front of the value; empty: the field's name


DetailType = Mapping[str, Field]
_TYPES: dict[str, DetailType] = {}
# Those registered as this process was composed, before any is read (docs/decisions/0009-tables-are-registered.md)
TYPES: Mapping[str, DetailType] = MappingProxyType(_TYPES)


def register(name: str, table: DetailType) -> None:
    """Make a detail type known to this process, for good; ConflictError where what is known would change meaning."""
    check_name(name)
    if table["actions"].order.name != "subset" or not (table["actions"].required or table["actions"].default):
        raise InvalidRequestError(f"the detail type `{name}` must have a set of `actions`, required or with a default")
    for field_, row in table.items():
        if any(part.__module__ != orders.__name__ for part in (row.order.parse, row.order.dump, row.order.le)):
            raise InvalidRequestError(f"`{field_}` of `{name}` has an order that is not one of core.orders")
        if any(field_ in known and known[field_].order.name != row.order.name for known in _TYPES.values()):
            raise ConflictError(f"`{field_}` of `{name}` has another order than in other detail types")
    if _TYPES.setdefault(name, MappingProxyType(dict(table))) != table:
        raise ConflictError(f"the detail type `{name}` is known with other fields")


def parse(raw: object) -> Scope:
    """Read a scope that is asked for from decoded JSON; UnknownDetailError says what is wrong with which field."""
    # what it can cost to compare is bounded: the items of all its details together, and the details that are alike
    check_items(raw)
    found = read(raw)
    if max(Counter((detail.type, detail.resource) for detail in found).values()) > MAX_ALIKE:
        raise UnknownDetailError(f"at most {MAX_ALIKE} details may have the same type and resource")
    return found


def check_items(raw: object) -> None:
    """Raise UnknownDetailError for details in wire form that have more items together than may be asked for."""
    if _items(raw) > MAX_ITEMS:
        raise UnknownDetailError(
            f"the details have more than {MAX_ITEMS:,} items together", help=f"{SEGMENTS} segments of a path are one"
        )


def read(raw: object) -> Scope:
    """Read a scope that was accepted when it was asked for, within whatever bounds held then."""
    if not isinstance(raw, list) or not 1 <= len(raw) <= MAX_DETAILS:
        raise UnknownDetailError(f"`authorization_details` must be a list of 1 to {MAX_DETAILS} details")
    return tuple(parse_detail(item) for item in raw)


def _items(raw: object) -> int:
    """Return how many items details in wire form have. Defaults, which are empty or a number, make no difference."""
    details = [each for each in raw if isinstance(each, Mapping)] if isinstance(raw, list) else []
    return sum(_weight(value) for each in details for value in each.values() if value and not isinstance(value, int))


def _weight(value: object) -> int:
    """Return how many items a value in wire form has, names left out; texts count by their segments."""
    if isinstance(value, str):
        return -(-value.count("/") // SEGMENTS) or 1
    if isinstance(value, Mapping | list):
        return sum(map(_weight, value.values() if isinstance(value, Mapping) else value)) or 1
    return 1


def parse_detail(raw: object) -> Detail:
    """Read one detail from decoded JSON."""
    if not isinstance(raw, Mapping):
        raise UnknownDetailError("a detail must be an object")
    kind, resource = raw.get("type"), raw.get("resource")
    if not isinstance(kind, str) or kind not in TYPES:
        raise UnknownDetailError(f"`type` must be one of {', '.join(sorted(TYPES))}")
    if not isinstance(resource, str) or not _NAME.fullmatch(resource):
        raise UnknownDetailError("`resource` must be a name of lower-case letters, digits, `.`, `_` and `-`")
    table, values = TYPES[kind], dict[str, Value]()
    for name in raw:
        if name not in table and name not in {"type", "resource"}:
            known = ", ".join(sorted({"type", "resource", *table}))
            raise UnknownDetailError(f"`{name}` is not a field of a detail of type `{kind}`", help=f"fields: {known}")
    for name, row in table.items():
        if name in raw:
            values[name] = row.order.parse(name, raw[name])
        elif row.required:
            raise UnknownDetailError(f"`{name}` is missing")
        elif row.default is not None:
            values[name] = row.default
    _check_keys(table, values)
    fields = tuple(sorted(values.items()))
    return Detail(kind, resource, fields, json_text(_written(kind, resource, fields)))


def _check_keys(table: DetailType, values: Mapping[str, Value]) -> None:
    for name, row in table.items():
        if row.per is not None and name in values:
            entries, keyed = values[row.per], values[name]
            listed = isinstance(entries, tuple) and isinstance(keyed, tuple) and dict(keyed).keys() <= set(entries)
            if not listed:
                raise UnknownDetailError(f"`{name}` has a key that `{row.per}` does not list")


def _written(kind: str, resource: str, fields: Iterable[tuple[str, Value]]) -> dict[str, object]:
    table = TYPES[kind]
    return {"type": kind, "resource": resource, **{name: table[name].order.dump(value) for name, value in fields}}


def dump(scope: Scope) -> list[dict[str, object]]:
    """Write a scope as JSON values; ``parse`` reads it back to the same scope."""
    return [_written(detail.type, detail.resource, detail.fields) for detail in scope]


def shown(scope: Scope, resources: Collection[str]) -> str:
    """Return what a scope holds for some resources as one line of JSON, for people."""
    return text(tuple(d for d in scope if d.resource in resources))


def json_schema(name: str) -> dict[str, object]:
    """Return the JSON Schema of a detail type, as it is written on the wire."""
    table = TYPES[name]
    return {
        "type": "object",
        "required": ["type", "resource", *(field_ for field_, row in table.items() if row.required)],
        "additionalProperties": False,
        "properties": {
            "type": {"const": name},
            "resource": {"type": "string", "pattern": f"^{_NAME.pattern}$"},
            **{field_: dict(row.order.schema) for field_, row in table.items()},
        },
    }


def label(detail: Mapping[str, object], name: str) -> str:
    """Return what a human reads in front of a field of a detail in wire form."""
    row = TYPES.get(str(detail.get("type")), {}).get(name)
    return row.label or name if row is not None else name


def text(scope: Scope) -> str:
    """Return a scope as canonical JSON text: what is stored, hashed, and written into tokens and answers."""
    return f"[{','.join(detail.json for detail in scope)}]"


def size(scope: Scope) -> int:
    """Return how many characters the details of a scope have as JSON."""
    return sum(len(detail.json) for detail in scope)


def digest(scope: Scope) -> str:
    """Return the SHA-256 of a scope's canonical JSON, base64url without padding."""
    return orders.digest(text(scope))


def detail_le(child: Detail, parent: Detail) -> bool:
    """Whether ``parent`` alone covers ``child``."""
    if child.type != parent.type or child.resource != parent.resource:
        return False
    return all(_field_le(name, row, child, parent) for name, row in TYPES[child.type].items())


def _field_le(name: str, row: Field, child: Detail, parent: Detail) -> bool:
    narrow, wide = child.get(name), parent.get(name)
    if wide is None:
        return True
    if row.per is None:
        return narrow is not None and row.order.le(narrow, wide)
    inner, outer = (dict(value) if isinstance(value, tuple) else {} for value in (narrow, wide))
    return all(key in inner and row.order.le(inner[key], outer[key]) for key in child.texts(row.per) if key in outer)


def cover(child: Detail, scope: Scope) -> int | None:
    """Return the index of the first detail of ``scope`` that alone covers ``child``, or None."""
    return next((index for index, parent in enumerate(scope) if detail_le(child, parent)), None)


COMPARED: dict[tuple[Scope, Scope], tuple[int | None, ...]] = {}  # child and parent: what ``covering`` returns


def covering(child: Scope, parent: Scope) -> tuple[int | None, ...]:
    """Return, for each detail of ``child``, the index of the first of ``parent`` that alone covers it, or None."""
    for _ in comparing(child, parent):
        pass
    return COMPARED[child, parent]


def comparing(child: Scope, parent: Scope) -> Iterator[None]:
    """Work out what ``covering`` returns, which knows it for a while, and yield after each slice of the work."""
    if (child, parent) in COMPARED:
        return
    found, done = list[int | None](), 0
    for detail in child:
        index = None
        for at, held in enumerate(parent):
            if (held.type, held.resource) != (detail.type, detail.resource):
                continue
            done += len(detail.json) + len(held.json)
            if done > SLICE:
                done = 0
                yield
            if detail_le(detail, held):
                index = at
                break
        found.append(index)
    while len(COMPARED) >= KEPT:
        del COMPARED[next(iter(COMPARED))]
    COMPARED[child, parent] = tuple(found)


def check_name(name: object) -> str:
    """Return a resource or secret name, or raise InvalidRequestError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequestError("a name is 1 to 63 lower-case letters, digits, `.`, `_` and `-`")
    return name
