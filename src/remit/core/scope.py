"""What is permitted: details, the orders on their fields, ``<=`` and ``permits``.

A scope is a list of details (RFC 9396 ``authorization_details``). A detail type is a table, field -> order; the orders
are code, here alone, so that nothing added later can weaken attenuation. Rules:

- A child detail is covered by one single parent detail, field by field.
- Absent in the child but present in the parent is wider; unknown types, fields and values are refused.
- Strings compare byte for byte. Paths compare segment by segment: a literal, ``*`` for one segment that is not empty,
  a final ``**`` for the rest, which may be empty.
- Arguments are a closed world: named ones must be present unless ``any``, unnamed ones are refused. A child's names lie
  between what its parent requires and what its parent names.

Example::

    parent = parse([{"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"]}])
    child = parse([{"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/search"]}])
    assert cover(child[0], parent) == 0
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from remit.errors import InvalidRequestError, UnknownDetailError

ANY = "any"
MAX_DETAILS = 64
MAX_ITEMS = 256  # of a set or a map
MAX_TEXT = 1_024  # characters of one string
MAX_INT = 2**53 - 1  # RFC 8259 §6: beyond it, readers disagree

Text = str | int | bool
Value = object  # a normal form, hashable: str, int, tuple[str, ...] or tuple of pairs

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_METHOD = re.compile(r"[A-Z][A-Z-]{0,19}")
_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_$]{0,62}"
_TABLE = re.compile(rf"{_IDENTIFIER}\.{_IDENTIFIER}")
_COLUMN = re.compile(_IDENTIFIER)
_ARGUMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.\[\]-]{0,127}")
_SEGMENT = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()+,;=:@]|%[0-9A-F]{2})*")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]{0,15})")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_FORBIDDEN_OCTETS = frozenset({0x2F, 0x5C, 0x25, *range(0x20), 0x7F})  # / \ % and controls, however encoded


@dataclass(frozen=True, slots=True)
class Detail:
    """One typed item of authority. ``fields`` is sorted by name; values are in normal form."""

    type: str
    resource: str
    fields: tuple[tuple[str, Value], ...]

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
    """One attempted use. ``args`` maps an argument's name to the JSON text of its value."""

    type: str
    resource: str
    action: str
    path: str = ""  # http: canonical path
    tool: str = ""  # mcp: tool name
    args: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Order:
    """How one kind of field is read, written back and compared."""

    parse: Callable[[str, object], Value]
    dump: Callable[[Value], object]
    le: Callable[[Value, Value], bool]


@dataclass(frozen=True, slots=True)
class Field:
    """A row of a detail type's table. ``default`` is the normal form of an absent field, if absence has one."""

    order: Order
    required: bool = False
    default: Value | None = None
    per: str | None = None  # the set field whose entries are this map's keys; a missing key is the top


DetailType = Mapping[str, Field]


# -- the four orders, and arguments ---------------------------------------------------------------------------------


def _bad(name: str, what: str) -> UnknownDetailError:
    return UnknownDetailError(f"`{name}` {what}")


def _text(name: str, value: object) -> str:
    if not isinstance(value, str) or not value or len(value) > MAX_TEXT or not value.isprintable():
        raise _bad(name, f"must hold printable text of 1 to {MAX_TEXT} characters")
    return value


def _number(name: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_INT:
        raise _bad(name, "must be a whole number of at least 1")
    return value


def _set_of(pattern: re.Pattern[str], what: str) -> Callable[[str, object], Value]:
    def parse_set(name: str, value: object) -> Value:
        if not isinstance(value, list) or not 1 <= len(value) <= MAX_ITEMS:
            raise _bad(name, f"must be a list of 1 to {MAX_ITEMS} {what}")
        for item in value:
            if not isinstance(item, str) or not pattern.fullmatch(item):
                raise _bad(name, f"must hold {what}")
        return tuple(sorted(set(value)))

    return parse_set


def _subset(child: Value, parent: Value) -> bool:
    return isinstance(child, tuple) and isinstance(parent, tuple) and set(child) <= set(parent)


def _at_most(child: Value, parent: Value) -> bool:
    return isinstance(child, int) and isinstance(parent, int) and child <= parent


def check_path(name: str, path: object) -> str:
    """Return a path pattern in canonical form, or raise UnknownDetailError."""
    if not isinstance(path, str) or not path.startswith("/") or len(path) > MAX_TEXT:
        raise _bad(name, "must hold paths that start with `/`")
    segments = path[1:].split("/")
    for index, segment in enumerate(segments):
        last = index == len(segments) - 1
        if segment == "*" or (segment == "**" and last) or (segment == "" and last):
            continue
        if not segment or segment in {".", ".."} or not _SEGMENT.fullmatch(segment) or not _encoded_well(segment):
            raise _bad(name, f"has a path that is not whole segments in canonical form: `{path}`")
    return path


def _encoded_well(segment: str) -> bool:
    octets = (int(segment[i + 1 : i + 3], 16) for i, char in enumerate(segment) if char == "%")
    return all(octet not in _FORBIDDEN_OCTETS and chr(octet) not in _UNRESERVED for octet in octets)


def _paths(name: str, value: object) -> Value:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_ITEMS:
        raise _bad(name, f"must be a list of 1 to {MAX_ITEMS} paths")
    return tuple(sorted({check_path(name, item) for item in value}))


def path_le(child: str, parent: str) -> bool:
    """Whether every path that ``child`` matches is matched by ``parent``. A path is its own pattern."""
    narrow, wide = child[1:].split("/"), parent[1:].split("/")
    for index, segment in enumerate(wide):
        if segment == "**":
            return True
        if index >= len(narrow) or narrow[index] == "**":
            return False
        if segment == "*" and narrow[index] != "":
            continue
        if narrow[index] != segment:
            return False
    return len(narrow) == len(wide)


def _paths_le(child: Value, parent: Value) -> bool:
    if not isinstance(child, tuple) or not isinstance(parent, tuple):
        return False
    return all(any(path_le(narrow, wide) for wide in parent) for narrow in child)


def json_text(value: object) -> str:
    """Return the JSON text of a value: one spelling per value, so that texts compare as values."""
    return json.dumps(value, ensure_ascii=True, separators=(",", ":"), sort_keys=True, allow_nan=False)


def _constraint(name: str, value: object) -> tuple[str, ...]:
    if value == ANY:
        return (ANY,)
    if isinstance(value, Mapping):
        return _bounded(name, value)
    return ("one_of", _scalar(name, value))


def _bounded(name: str, value: Mapping[str, object]) -> tuple[str, ...]:
    if len(value) != 1:
        raise _bad(name, "must have exactly one of `exact`, `one_of`, `at_most`, `path`")
    [(kind, bound)] = value.items()
    match kind:
        case "exact":
            return ("one_of", _scalar(name, bound))
        case "one_of" if isinstance(bound, list) and 1 <= len(bound) <= MAX_ITEMS:
            return ("one_of", *sorted({_scalar(name, item) for item in bound}))
        case "at_most" if isinstance(bound, int) and not isinstance(bound, bool) and abs(bound) <= MAX_INT:
            return ("at_most", str(bound))
        case "path":
            return ("path", check_path(name, bound))
    raise _bad(name, "must have exactly one of `exact`, `one_of`, `at_most`, `path`, with a fitting value")


def _scalar(name: str, value: object) -> str:
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return json_text(value)
    if isinstance(value, bool) or value is None or (isinstance(value, int) and abs(value) <= MAX_INT):
        if name.startswith(("query.", "header.")):
            raise _bad(name, "is text on the wire: write its value as a string")
        return json_text(value)
    raise _bad(name, "must be text, a whole number, true, false or null")


def _constraint_le(child: tuple[str, ...], parent: tuple[str, ...], name: str) -> bool:
    if parent[0] == ANY:
        return True
    match child[0], parent[0]:
        case "one_of", _:
            return all(_meets(name, value, parent) for value in child[1:])
        case "at_most", "at_most":
            return int(child[1]) <= int(parent[1])
        case "path", "path":
            return path_le(child[1], parent[1])
    return False


def _meets(name: str, text: str, constraint: tuple[str, ...]) -> bool:
    match constraint[0]:
        case "any":
            return True
        case "one_of":
            return text in constraint[1:]
        case "at_most":
            number = _whole(name, text)
            return number is not None and number <= int(constraint[1])
        case "path":
            value = json.loads(text)
            return isinstance(value, str) and _is_path(value) and path_le(value, constraint[1])
    return False


def _whole(name: str, text: str) -> int | None:
    if name.startswith(("query.", "header.")):
        text = text[1:-1]
    return int(text) if _DECIMAL.fullmatch(text) and text != "-0" and abs(int(text)) <= MAX_INT else None


def _is_path(value: str) -> bool:
    if "*" in value:
        return False
    try:
        check_path("path", value)
    except UnknownDetailError:
        return False
    return True


def _args(name: str, value: object) -> Value:
    if value == ANY:
        return ANY
    if not isinstance(value, Mapping) or len(value) > MAX_ITEMS:
        raise _bad(name, f'must be "any" or a map of at most {MAX_ITEMS} arguments')
    for key in value:
        if not isinstance(key, str) or not _ARGUMENT.fullmatch(key):
            raise _bad(name, "has an argument with an impossible name")
        if any(other != key and other.startswith(f"{key}.") for other in value):
            raise _bad(name, f"names `{key}` and something inside it")
    return tuple(sorted((key, _constraint(key, item)) for key, item in value.items()))


def _args_le(child: Value, parent: Value) -> bool:
    if parent == ANY:
        return True
    if not isinstance(child, tuple) or not isinstance(parent, tuple):
        return False
    narrow, wide = dict(child), dict(parent)
    required = {key for key, constraint in parent if constraint[0] != ANY}
    if not required <= narrow.keys() <= wide.keys():
        return False
    return all(_constraint_le(narrow[key], wide[key], key) for key in narrow)


def args_permit(constraints: Value, args: Mapping[str, str]) -> bool:
    """Whether ``args`` (name -> JSON text) meet the arguments of a detail, in normal form."""
    if constraints == ANY:
        return True
    if not isinstance(constraints, tuple):
        return False
    named = dict(constraints)
    if any(constraint[0] != ANY and key not in args for key, constraint in constraints):
        return False
    return all(_argument_permitted(key, text, named) for key, text in args.items())


def _argument_permitted(key: str, text: str, named: Mapping[str, tuple[str, ...]]) -> bool:
    if key in named:
        return _meets(key, text, named[key])
    while "." in key:  # a free inner node frees what is inside it
        key = key.rpartition(".")[0]
        if key in named:
            return named[key][0] == ANY
    return False


def _dump_constraint(constraint: tuple[str, ...]) -> object:
    match constraint[0]:
        case "one_of":
            values = [json.loads(text) for text in constraint[1:]]
            return {"one_of": values} if len(values) > 1 else {"exact": values[0]}
        case "at_most":
            return {"at_most": int(constraint[1])}
        case "path":
            return {"path": constraint[1]}
    return ANY


def _dump_args(value: Value) -> object:
    if not isinstance(value, tuple):
        return ANY
    return {key: _dump_constraint(constraint) for key, constraint in value}


def _tools(name: str, value: object) -> Value:
    if not isinstance(value, Mapping) or not 1 <= len(value) <= MAX_ITEMS:
        raise _bad(name, f"must be a map of 1 to {MAX_ITEMS} tools")
    return tuple(sorted((_text(name, tool), _args(name, args)) for tool, args in value.items()))


def _tools_le(child: Value, parent: Value) -> bool:
    if not isinstance(child, tuple) or not isinstance(parent, tuple):
        return False
    wide = dict(parent)
    return all(tool in wide and _args_le(args, wide[tool]) for tool, args in child)


def _columns(name: str, value: object) -> Value:
    if not isinstance(value, Mapping) or not 1 <= len(value) <= MAX_ITEMS:
        raise _bad(name, f"must be a map of 1 to {MAX_ITEMS} tables")
    parse_columns = _set_of(_COLUMN, "column names")
    return tuple(sorted((_text(name, table), parse_columns(name, columns)) for table, columns in value.items()))


def _dump_map_of_sets(value: Value) -> object:
    return {key: list(items) for key, items in value} if isinstance(value, tuple) else {}


def _dump_tools(value: Value) -> object:
    return {tool: _dump_args(args) for tool, args in value} if isinstance(value, tuple) else {}


def _dump_set(value: Value) -> object:
    return list(value) if isinstance(value, tuple) else []


def _same(value: Value) -> object:
    return value


_AT_MOST = Order(_number, _same, _at_most)
_PATHS = Order(_paths, _dump_set, _paths_le)
_ARGS = Order(_args, _dump_args, _args_le)
_TOOLS = Order(_tools, _dump_tools, _tools_le)
_COLUMN_SETS = Order(_columns, _dump_map_of_sets, _subset)


def _among(*names: str) -> Order:
    pattern = re.compile("|".join(re.escape(name) for name in names))
    return Order(_set_of(pattern, "of " + ", ".join(names)), _dump_set, _subset)


TYPES: Mapping[str, DetailType] = MappingProxyType(
    {
        "http": {
            "actions": Field(Order(_set_of(_METHOD, "HTTP methods"), _dump_set, _subset), required=True),
            "paths": Field(_PATHS, required=True),
            "args": Field(_ARGS, default=()),
            "ttl": Field(_AT_MOST),
            "uses": Field(_AT_MOST),
        },
        "postgres": {
            "actions": Field(_among("select", "insert", "update", "delete"), required=True),
            "tables": Field(Order(_set_of(_TABLE, "tables as schema.table"), _dump_set, _subset), required=True),
            "columns": Field(_COLUMN_SETS, per="tables"),
            "ttl": Field(_AT_MOST),
        },
        "mcp": {
            "actions": Field(_among("tools/call", "tools/list"), required=True),
            "tools": Field(_TOOLS, required=True),
            "ttl": Field(_AT_MOST),
            "uses": Field(_AT_MOST),
        },
    }
)


# -- details and scopes ---------------------------------------------------------------------------------------------


def parse(raw: object, types: Mapping[str, DetailType] = TYPES) -> Scope:
    """Read a scope from decoded JSON, or raise UnknownDetailError saying what is wrong with which field."""
    if not isinstance(raw, list) or not 1 <= len(raw) <= MAX_DETAILS:
        raise UnknownDetailError(f"`authorization_details` must be a list of 1 to {MAX_DETAILS} details")
    return tuple(parse_detail(item, types) for item in raw)


def parse_detail(raw: object, types: Mapping[str, DetailType] = TYPES) -> Detail:
    """Read one detail from decoded JSON."""
    if not isinstance(raw, Mapping):
        raise UnknownDetailError("a detail must be an object")
    kind, resource = raw.get("type"), raw.get("resource")
    if not isinstance(kind, str) or kind not in types:
        raise UnknownDetailError(f"`type` must be one of {', '.join(sorted(types))}")
    if not isinstance(resource, str) or not _NAME.fullmatch(resource):
        raise UnknownDetailError("`resource` must be a name of lower-case letters, digits, `.`, `_` and `-`")
    table = types[kind]
    for name in raw:
        if name not in table and name not in {"type", "resource"}:
            raise UnknownDetailError(f"`{name}` is not a field of a detail of type `{kind}`")
    values = {name: value for name, row in table.items() if (value := _value(name, row, raw)) is not None}
    _check_keys(table, values)
    return Detail(kind, resource, tuple(sorted(values.items())))


def _value(name: str, row: Field, raw: Mapping[str, object]) -> Value | None:
    if name in raw:
        return row.order.parse(name, raw[name])
    if row.required:
        raise _bad(name, "is missing")
    return row.default


def _check_keys(table: DetailType, values: Mapping[str, Value]) -> None:
    for name, row in table.items():
        if row.per is None or name not in values:
            continue
        entries, keyed = values[row.per], values[name]
        if not isinstance(entries, tuple) or not isinstance(keyed, tuple) or not {key for key, _ in keyed} <= set(entries):
            raise _bad(name, f"has a key that `{row.per}` does not list")


def dump(scope: Scope, types: Mapping[str, DetailType] = TYPES) -> list[dict[str, object]]:
    """Write a scope as JSON values; ``parse`` reads it back to the same scope."""
    return [
        {
            "type": detail.type,
            "resource": detail.resource,
            **{name: types[detail.type][name].order.dump(value) for name, value in detail.fields},
        }
        for detail in scope
    ]


def digest(scope: Scope) -> str:
    """Return the SHA-256 of a scope's canonical JSON, base64url without padding."""
    hashed = hashlib.sha256(json_text(dump(scope)).encode()).digest()
    return base64.urlsafe_b64encode(hashed).rstrip(b"=").decode()


def detail_le(child: Detail, parent: Detail, types: Mapping[str, DetailType] = TYPES) -> bool:
    """Whether ``parent`` alone covers ``child``."""
    if child.type != parent.type or child.resource != parent.resource:
        return False
    return all(_field_le(name, row, child, parent) for name, row in types[child.type].items())


def _field_le(name: str, row: Field, child: Detail, parent: Detail) -> bool:
    narrow, wide = child.get(name), parent.get(name)
    if wide is None:
        return True
    if row.per is not None:
        return _keyed_le(row, child.texts(row.per), narrow, wide)
    return narrow is not None and row.order.le(narrow, wide)


def _keyed_le(row: Field, keys: Sequence[str], child: Value | None, parent: Value) -> bool:
    narrow, wide = _as_map(child), _as_map(parent)
    return all(key in narrow and row.order.le(narrow[key], wide[key]) for key in keys if key in wide)


def _as_map(value: Value | None) -> dict[str, Value]:
    return dict(value) if isinstance(value, tuple) else {}


def cover(child: Detail, scope: Scope) -> int | None:
    """Return the index of the first detail of ``scope`` that alone covers ``child``, or None."""
    for index, parent in enumerate(scope):
        if detail_le(child, parent):
            return index
    return None


def permits(detail: Detail, access: Access) -> bool:
    """Whether ``detail`` permits one use."""
    if detail.type != access.type or detail.resource != access.resource:
        return False
    if access.action not in detail.texts("actions"):
        return False
    match detail.type:
        case "http":
            in_path = any(path_le(access.path, wide) for wide in detail.texts("paths"))
            return in_path and args_permit(detail.get("args"), access.args)
        case "mcp":
            tools = _as_map(detail.get("tools"))
            return access.tool in tools and args_permit(tools[access.tool], access.args)
    return False


def permitting(scope: Scope, access: Access) -> int | None:
    """Return the index of the first detail of ``scope`` that permits ``access``, or None."""
    for index, detail in enumerate(scope):
        if permits(detail, access):
            return index
    return None


def check_name(name: object) -> str:
    """Return a resource or secret name, or raise InvalidRequestError."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidRequestError("a name is 1 to 63 lower-case letters, digits, `.`, `_` and `-`")
    return name
