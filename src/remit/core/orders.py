"""The orders on the fields of a detail: how a value is read, written back and compared. Pure.

Kinds contribute tables of fields (``core.scope``), never comparison code, so the laws of the orders are proven once.

- Strings compare byte for byte. Paths compare segment by segment (``core.paths``).
- URIs compare as paths do, below their scheme and their authority, which is one segment.
- Hosts are names, or ``*.`` and a name: all that is below it, however deep, and not that name itself.
- ``at_most`` means the whole numbers from 0 to the bound: at many APIs -1 asks for everything.
- Arguments are a closed world: named ones must be present unless ``any``, unnamed ones are refused; a child names what
  its parent requires, and nothing that its parent does not name. An ``any`` on an inner node frees what is inside it.
"""

from __future__ import annotations

import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from hashlib import sha256

from remit.core import paths
from remit.core.paths import MAX_TEXT, check_path, path_le
from remit.errors import UnknownDetailError

ANY = "any"
MAX_ITEMS = 256  # of a set or a map
MAX_SECONDS = 10**9  # of a ttl: what is added to an instant must still be one
MAX_INT = 2**53 - 1  # RFC 8259 §6: beyond it, readers disagree

Value = object  # a normal form, hashable: str, int, tuple[str, ...] or tuple of pairs
Constraint = tuple[str, ...]  # kind, then its values as text
Schema = Mapping[str, object]  # JSON Schema

_TEXT = json.JSONEncoder(ensure_ascii=True, separators=(",", ":"), sort_keys=True, allow_nan=False)
_IDENTIFIER = r"[A-Za-z_][A-Za-z0-9_$]{0,62}"
_HOST = r"(?=.{4,253}$)(?:\*\.)?(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z](?:[a-z0-9-]{0,61}[a-z0-9])"
_ARGUMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.\[\]-]{0,127}")
_HTTP_ARGUMENT = re.compile(r"(?:query|header)\.|body[.\[]|(?:query|body)$")
_DECIMAL = re.compile(r"0|[1-9][0-9]{0,15}")


@dataclass(frozen=True, slots=True)
class Order:
    """How a field is read, written back and compared. ``schema`` describes what is read, as far as JSON Schema can."""

    name: str
    parse: Callable[[str, object], Value]
    dump: Callable[[Value], object]
    le: Callable[[Value, Value], bool]
    schema: Schema


def _bad(name: str, what: str) -> UnknownDetailError:
    return UnknownDetailError(f"`{name}` {what}")


def _number(name: str, value: object, most: int = MAX_INT) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= most:
        raise _bad(name, f"must be a whole number from 1 to {most}")
    return value


def _items(name: str, value: object, what: str, least: int = 1) -> list[object]:
    if not isinstance(value, list) or not least <= len(value) <= MAX_ITEMS:
        raise _bad(name, f"must be a list of {least} to {MAX_ITEMS} {what}")
    return value


def _subset(child: Value, parent: Value) -> bool:
    return isinstance(child, tuple) and isinstance(parent, tuple) and set(child) <= set(parent)


def _at_most(child: Value, parent: Value) -> bool:
    return isinstance(child, int) and isinstance(parent, int) and child <= parent


def _paths(name: str, value: object) -> Value:
    return tuple(sorted({check_path(name, item) for item in _items(name, value, "paths")}))


def _paths_le(child: Value, parent: Value) -> bool:
    if not isinstance(child, tuple) or not isinstance(parent, tuple):
        return False
    wide = paths.places(parent)
    return all(paths.within(path, wide) for path in child)


def _uris(name: str, value: object) -> Value:
    return tuple(sorted({paths.check_uri(name, item) for item in _items(name, value, "URIs", 0)}))


def _uris_le(child: Value, parent: Value) -> bool:
    if not isinstance(child, tuple) or not isinstance(parent, tuple):
        return False
    wide = paths.places(tuple(map(paths.uri_path, parent)))
    return all(paths.within(paths.uri_path(uri), wide) for uri in child)


def wider(host: str) -> Iterator[str]:
    """Yield what covers a host, or a pattern of hosts: itself, and `*.` with each name that it is below."""
    yield host
    yield from (f"*{host[at:]}" for at, char in enumerate(host) if char == ".")


def _hosts_le(child: Value, parent: Value) -> bool:
    if not isinstance(child, tuple) or not isinstance(parent, tuple):
        return False
    return all(map(set(parent).intersection, map(wider, child)))


def json_text(value: object) -> str:
    """Return the JSON text of a value: one spelling per value, so that texts compare as values."""
    return _TEXT.encode(value)


def json_object(members: Mapping[str, object], **written: str) -> str:
    """Return the JSON text of an object; ``written`` are members whose own JSON text is known."""
    texts = {name: json_text(value) for name, value in members.items()} | written
    return f"{{{','.join(f'{json_text(name)}:{texts[name]}' for name in sorted(texts))}}}"


def base64url(data: bytes) -> str:
    """Return base64url without padding (RFC 7515 §2)."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def digest(text: str) -> str:
    """Return the SHA-256 of text, base64url (``ath``, ``par_hash``, ``purpose_s256``)."""
    return base64url(sha256(text.encode("utf-8", "surrogatepass")).digest())


def _constraint(name: str, value: object, *, wire: bool) -> Constraint:
    if value == ANY:
        return (ANY,)
    bounds = value if isinstance(value, Mapping) else {"exact": value}
    if len(bounds) != 1:
        raise _bad(name, "must have exactly one of `exact`, `one_of`, `at_most`, `path`")
    [(kind, bound)] = bounds.items()
    match kind:
        case "exact":
            return ("one_of", _scalar(name, bound, wire=wire))
        case "one_of" if isinstance(bound, list) and 1 <= len(bound) <= MAX_ITEMS:
            return ("one_of", *sorted({_scalar(name, item, wire=wire) for item in bound}))
        case "at_most" if isinstance(bound, int) and not isinstance(bound, bool) and 0 <= bound <= MAX_INT:
            return ("at_most_text" if wire else "at_most", str(bound))
        case "path":
            return ("path", check_path(name, bound))
    raise _bad(name, "must have exactly one of `exact`, `one_of`, `at_most`, `path`, with a fitting value")


def _scalar(name: str, value: object, *, wire: bool) -> str:
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return json_text(value)
    if isinstance(value, bool) or value is None or (isinstance(value, int) and abs(value) <= MAX_INT):
        if wire:
            raise _bad(name, "is text on the wire: write its value as a string")
        return json_text(value)
    raise _bad(name, "must be text, a whole number, true, false or null")


def constraint_le(child: Constraint, parent: Constraint) -> bool:
    """Whether every value that meets ``child`` meets ``parent``."""
    match child[0], parent[0]:
        case _, "any":
            return True
        case "one_of", "one_of":
            return set(child[1:]) <= set(parent[1:])
        case "one_of", _:
            return all(_meets(text, parent) for text in child[1:])
        case ("at_most", "at_most") | ("at_most_text", "at_most_text"):
            return int(child[1]) <= int(parent[1])
        case "path", "path":
            return path_le(child[1], parent[1])
    return False


def _meets(text: str, constraint: Constraint) -> bool:
    match constraint[0]:
        case "any":
            return True
        case "one_of":
            return text in constraint[1:]
        case "at_most":
            return _within(text, int(constraint[1]))
        case "at_most_text":  # a query or a header: the number is inside a JSON string
            return text.startswith('"') and _within(text[1:-1], int(constraint[1]))
        case "path":
            path = _path_in(text)
            return path is not None and path_le(path, constraint[1])
    return False


def _within(text: str, bound: int) -> bool:
    return _DECIMAL.fullmatch(text) is not None and int(text) <= bound


@lru_cache(maxsize=2_048)  # more than a scope has
def _path_in(text: str) -> str | None:
    """Return the literal path in canonical form that a JSON text holds, if it does."""
    value = json.loads(text)
    if not isinstance(value, str) or "*" in value:
        return None
    try:
        return check_path("path", value)
    except UnknownDetailError:
        return None


def _args(name: str, value: object, *, http: bool = False) -> Value:
    if value == ANY:
        return ANY
    if not isinstance(value, Mapping) or len(value) > MAX_ITEMS:
        raise _bad(name, f'must be "any" or a map of at most {MAX_ITEMS} arguments')
    for key in value:
        if not isinstance(key, str) or not _ARGUMENT.fullmatch(key):
            raise _bad(name, "has an argument with an impossible name")
        if any(inner in value for inner in _outer(key)):
            raise _bad(name, f"names `{key}` and something that it is inside of")
    for key in value if http else ():
        if key.startswith("header.") and key != key.lower():
            raise _bad(key, "must be in lower case, as header names are compared")
    wire = ("query.", "header.") if http else ()
    return tuple(sorted((key, _constraint(key, item, wire=key.startswith(wire))) for key, item in value.items()))


def _http_args(name: str, value: object) -> Value:
    for key in value if isinstance(value, Mapping) else ():
        if not isinstance(key, str) or not _HTTP_ARGUMENT.match(key):
            raise _bad(name, "must name arguments as `query.…`, `header.…` or `body.…`")
    return _args(name, value, http=True)


def _outer(key: str) -> Iterator[str]:
    """Yield the nodes that a name is inside of, inmost first: `body.a[0].b` is in `body.a[0]`, `body.a` and `body`."""
    for index in range(len(key) - 1, 0, -1):
        if key[index] in ".[":
            yield key[:index]


def _args_le(child: Value, parent: Value) -> bool:
    if parent == ANY:
        return True
    if not isinstance(child, tuple) or not isinstance(parent, tuple):
        return False
    narrow, wide = dict(child), dict(parent)
    required = {key for key, constraint in parent if constraint[0] != ANY}
    if not required <= narrow.keys() <= wide.keys():
        return False
    return all(constraint_le(narrow[key], wide[key]) for key in narrow)


def args_permit(constraints: Value, args: Mapping[str, str]) -> bool:
    """Whether ``args`` (name -> JSON text) meet the arguments of a detail, in normal form."""
    if constraints == ANY:
        return True
    if not isinstance(constraints, tuple):
        return False
    named = dict(constraints)
    if any(constraint[0] != ANY and key not in args for key, constraint in constraints):
        return False
    for key, text in args.items():
        if key in named:
            met = _meets(text, named[key])
        else:
            outer = next((inner for inner in _outer(key) if inner in named), None)
            met = outer is not None and named[outer][0] == ANY  # a free inner node frees what is inside it
        if not met:
            return False
    return True


def _dump_constraint(constraint: Constraint) -> object:
    match constraint[0]:
        case "one_of":
            values = [json.loads(text) for text in constraint[1:]]
            return {"one_of": values} if len(values) > 1 else {"exact": values[0]}
        case "at_most" | "at_most_text":
            return {"at_most": int(constraint[1])}
        case "path":
            return {"path": constraint[1]}
    return ANY


def _dump_args(value: Value) -> object:
    return {key: _dump_constraint(constraint) for key, constraint in value} if isinstance(value, tuple) else ANY


def _dump_set(value: Value) -> object:
    return list(value) if isinstance(value, tuple) else []


def _list(items: Schema, least: int = 1) -> Schema:
    return {"type": "array", "minItems": least, "maxItems": MAX_ITEMS, "items": items}


def _map(values: Schema, least: int = 1) -> Schema:
    return {"type": "object", "minProperties": least, "maxProperties": MAX_ITEMS, "additionalProperties": values}


def _set(expression: str, what: str, least: int = 1, name: str = "subset") -> Order:
    pattern = re.compile(expression)

    def parse_set(field: str, value: object) -> Value:
        found = set[str]()
        for item in _items(field, value, what, least):
            if not isinstance(item, str) or not pattern.fullmatch(item):
                other = item.swapcase() if isinstance(item, str) else ""
                meant = f"did you mean `{other}`?" if pattern.fullmatch(other) else None
                raise UnknownDetailError(f"`{field}` must hold {what}", help=meant)
            found.add(item)
        return tuple(sorted(found))

    schema = _list({"type": "string", "pattern": f"^(?:{expression})$"}, least)
    return Order(name, parse_set, _dump_set, _subset, schema)


def _map_of(name: str, what: str, values: Order, least: int = 1) -> Order:
    def parse_map(field: str, value: object) -> Value:
        if not isinstance(value, Mapping) or not least <= len(value) <= MAX_ITEMS:
            raise _bad(field, f"must be a map of {least} to {MAX_ITEMS} {what}")
        found = {}
        for key, item in value.items():
            if not isinstance(key, str) or not 1 <= len(key) <= MAX_TEXT or not key.isprintable():
                raise _bad(field, f"must hold printable text of 1 to {MAX_TEXT} characters")
            found[key] = values.parse(field, item)
        return tuple((key, found[key]) for key in sorted(found))

    def dump_map(value: Value) -> object:
        return {key: values.dump(item) for key, item in value} if isinstance(value, tuple) else {}

    def map_le(child: Value, parent: Value) -> bool:
        if not isinstance(child, tuple) or not isinstance(parent, tuple):
            return False
        wide = dict(parent)
        return all(key in wide and values.le(item, wide[key]) for key, item in child)

    return Order(name, parse_map, dump_map, map_le, _map(values.schema, least))


def _or_any(order: Order) -> Order:
    """Return an order with the text `any` as its top."""
    return Order(
        order.name,
        lambda field, value: ANY if value == ANY else order.parse(field, value),
        lambda value: ANY if value == ANY else order.dump(value),
        lambda child, parent: parent == ANY or order.le(child, parent),
        {"anyOf": [{"const": ANY}, order.schema]},
    )


def among(*names: str) -> Order:
    """Return the order of subsets of ``names``."""
    order = _set("|".join(re.escape(name) for name in names), "of " + ", ".join(names))
    return replace(order, schema=_list({"enum": list(names)}))


def seconds(most: int) -> Order:
    """Return the order of durations of at most ``most`` seconds."""
    schema = {"type": "integer", "minimum": 1, "maximum": most}
    return replace(AT_MOST, parse=lambda name, value: _number(name, value, most), schema=schema)


AT_MOST = Order(
    "at_most", _number, lambda value: value, _at_most, {"type": "integer", "minimum": 1, "maximum": MAX_INT}
)
SECONDS = seconds(MAX_SECONDS)
PATHS = Order("paths", _paths, _dump_set, _paths_le, _list({"type": "string", "pattern": "^/"}))
ARGS = Order("arguments", _http_args, _dump_args, _args_le, {"anyOf": [{"const": ANY}, _map({}, 0)]})
TOOLS = _or_any(_map_of("tools", "tools", replace(ARGS, parse=_args), 0))
PROMPTS = _or_any(_map_of("tools", "prompts", replace(ARGS, parse=_args), 0))
METHODS = _set(r"[A-Z][A-Z-]{0,19}", "HTTP methods, such as `GET`")
TABLES = _set(rf"{_IDENTIFIER}\.{_IDENTIFIER}", "tables as schema.table", name="tables")
WORDS = _set(r"[!-~]{1,128}", "words in printable ASCII")
AUDIENCES = _set(r"[!-~]{1,512}", "audiences in printable ASCII", least=0)
_URIS = _list({"type": "string", "pattern": r"^(?:\*\*|[a-z][a-z0-9+.-]{0,31}://.*)$"}, 0)
URIS = Order("uris", _uris, _dump_set, _uris_le, _URIS)
HOSTS = replace(_set(_HOST, "hosts by name in lower case, as `a.example` or `*.a.example`", name="hosts"), le=_hosts_le)
COLUMNS = replace(_map_of("columns", "tables", _set(_IDENTIFIER, "column names")), le=_subset)  # for each table
