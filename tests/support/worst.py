"""The dearest values that can be sent, made from the tables that say what can be: types, detail tables, JSON Schemas.

Nobody lists messages here. For a type every place that can grow is grown in turn, in several shapes: many small ones,
few large ones, deep ones, one repeated, texts that are dear to read. A detail is grown by the schemas of its table.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from enum import Enum

from remit.core import scope as scopes
from remit.core.orders import MAX_ITEMS as MOST
from remit.core.paths import MAX_TEXT
from remit.core.scope import MAX_ALIKE, TYPES, Access, Detail, Scope
from remit.core.secret import Secret
from remit.errors import RemitError, UnknownDetailError
from remit.link.values import fields_of, plain

Raw = dict[str, typing.Any]
Shape = tuple[str, typing.Any]  # its name, and a value in wire form

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
DEEP = 30  # levels: JSON is read to 32


# -- texts ----------------------------------------------------------------------------------------------------------


def texts(size: int) -> Iterator[tuple[str, str]]:
    """Yield texts of about so many bytes, each dear to somebody."""
    for name, part in (
        ("letters", "a"),
        ("percent", "%C3%A9"),
        ("accents", "é"),
        ("beyond the BMP", "\U0001f600"),
        ("quotes", '"'),
        ("backslashes", "\\u005c"),
        ("controls", "\x00"),
        ("from right to left", "\u05d0"),
        ("combining", "a\u0301"),
        ("digits", "9"),
        ("segments", "/a"),
        ("dots", "a."),
        ("brackets", "["),
        ("a JSON list", "[1],"),
        ("ampersands", "a&"),
        ("lines", "\n"),
        ("blanks", " "),
    ):
        yield name, part * (size // len(part.encode()))


def _bytes(size: int) -> Iterator[tuple[str, bytes]]:
    yield "zeros", bytes(size)
    yield "text", b"\xc3\xa9" * (size // 2)
    yield "maps", b"\x80" * size


def anything(size: int, items: int) -> Iterator[Shape]:
    """Yield values of no type in particular, as JSON and msgpack have them."""
    per = max(size // items, 1)
    yield "lists", [[]] * min(items, size // 2)
    yield "maps", [{}] * min(items, size // 2)
    yield "numbers", [1] * min(items, size // 2)
    yield "fractions", [0.1] * min(items, size // 9)
    yield "keys", {f"{n:x}": n for n in range(min(items, size // 8))}
    yield "long keys", {f"{'k' * (per // 2)}{n}": 1 for n in range(items // 2)}
    yield "texts", ["é" * (per // 3)] * items
    nested: object = 1
    for _ in range(DEEP):
        nested = [nested]
    yield "deep", [nested] * min(items // (DEEP + 1), size // (2 * DEEP))
    yield "one text", "é" * (size // 2)


# -- details --------------------------------------------------------------------------------------------------------

_TEXTS: tuple[Callable[[int, int], str], ...] = (  # by number and length; the first that a pattern takes counts
    lambda n, length: f"/{n}" + "/a" * ((length - 5) // 2),
    lambda n, length: f"a.b{n}_" + "x" * min(length - 9, 40),
    lambda n, length: f"a{n}_" + "x" * min(length - 9, 40),
    lambda n, _: f"M-{chr(65 + n // 676 % 26)}{chr(65 + n // 26 % 26)}{chr(65 + n % 26)}",
    lambda n, length: f"a{n}" + "x" * (length - 5),
    lambda n, length: f"a://{n}" + "/a" * ((length - 7) // 2),
    lambda n, length: f"a{n}" + ".a" * (min(length, 240) // 2 - 8) + ".a.example",
)
SPELLINGS: Mapping[str, Callable[[int, int], str]] = {  # paths, which are the dearest texts
    "percent": lambda n, length: f"/{n}/" + "%C3%A9" * ((length - 7) // 6),
    "a segment": lambda n, length: f"/{n}" + "a" * (length - 6),
    "wildcards": lambda n, length: f"/{n}" + "/*" * ((length - 7) // 2) + "/**",
}


def _text(schema: Mapping[str, typing.Any], n: int, length: int) -> str:
    pattern = schema.get("pattern")
    if "enum" in schema:
        return str(schema["enum"][n % len(schema["enum"])])
    for make in _TEXTS:
        if pattern is None or re.search(pattern, make(n, length)):
            return make(n, length)
    raise AssertionError(f"no text here is one of {pattern}: add one to tests/support/worst.py")


def grown(schema: Mapping[str, typing.Any], count: int, length: int, odd: int) -> Iterator[Shape]:
    """Yield values of a schema of a detail's field with ``count`` items; ``odd`` makes one of them another."""
    numbers = [*range(count - 1), 5_000 + odd]
    if "anyOf" in schema:
        for each in schema["anyOf"]:
            yield from grown(each, count, length, odd)
    elif "const" in schema:
        yield "a constant", schema["const"]
    elif schema.get("type") == "integer":
        yield "a number", min(schema.get("maximum", 1 << 40), 1 << 40) - odd
    elif schema.get("type") == "array":
        items = schema["items"]
        yield "items", _unlike(_text(items, n, length) for n in numbers)
        front = "a:/" if "://" in str(items.get("pattern")) else ""  # of a URI
        if front or str(items.get("pattern")).startswith("^/"):
            for name, spelt in SPELLINGS.items():
                yield name, _unlike(front + spelt(n, length - len(front)) for n in numbers)
    else:
        yield from _grown_map(schema["additionalProperties"], numbers, count, length, odd)


def _grown_map(
    inner: Mapping[str, typing.Any], numbers: Sequence[int], count: int, length: int, odd: int
) -> Iterator[Shape]:
    if inner:  # of maps or lists
        yield "keys of one", {f"a.k{n}": next(grown(inner, 1, 5, n))[1] for n in numbers}
        for name, value in grown(inner, count, length, odd):
            yield f"one key of {name}", {"a.k": value}
        return
    yield "keys", {f"query.q{n}": "any" for n in numbers}
    yield "values", {"query.q": {"one_of": [f"{n}{'é' * (length // 12)}" for n in numbers]}}
    yield "paths as values", {"query.q": {"one_of": [SPELLINGS["percent"](n, length) for n in numbers]}}
    yield "paths", {f"query.q{n}": {"path": f"/{n}" + "/a" * (length // 2 - 5)} for n in numbers}


def _unlike(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _least(kind: str) -> Raw:
    """Return the smallest detail of a type."""
    table = TYPES[kind]
    needed = {name: row.order.schema for name, row in table.items() if row.required}
    first = {name: next(grown(each, 1, 5, 0))[1] for name, each in needed.items()}
    return {"type": kind, "resource": f"a-{kind}", **first}


class Pair(typing.NamedTuple):
    """A scope that is asked for, and the one that it is compared with: what covers it is the last of that."""

    child: scopes.Scope
    parent: scopes.Scope


def pairs(kind: str) -> Iterator[tuple[str, Pair]]:
    """Yield the dearest scopes of a type that can be asked for: each field with as many items as there may be."""
    for name, row in TYPES[kind].items():
        made = 0
        for shape in [shape for shape, _ in grown(row.order.schema, 2, 8, 0)]:
            seen = set[str]()
            for alike, length in ((1, 8), (1, 64), (1, MAX_TEXT), (MAX_ALIKE, 8), (MAX_ALIKE, 64), (MAX_ALIKE, 900)):
                pair = _most(kind, name, shape, alike, length)
                if pair is not None and scopes.text(pair.child) not in seen:
                    made += 1
                    seen.add(scopes.text(pair.child))
                    yield f"{kind}.{name}: {shape} of {length} characters in {alike} details", pair
        assert made, f"nothing dear was made of `{name}` of `{kind}`: see tests/support/worst.py"


def _most(kind: str, name: str, shape: str, alike: int, length: int) -> Pair | None:
    """Return the largest pair of a shape that is accepted, if one is."""
    least, most, found = 1, min(MOST, ROOM // (alike * length)), None
    while least <= most:
        count = (least + most) // 2
        pair = _pair(kind, name, shape, (alike, count, length))
        least, most, found = (least, count - 1, found) if pair is None else (count + 1, most, pair)
    return found


def _pair(kind: str, name: str, shape: str, size: tuple[int, int, int]) -> Pair | None:
    alike, count, length = size
    least, schema = _least(kind), TYPES[kind][name].order.schema

    def detail(odd: int, **more: object) -> Raw:
        return {**least, name: dict(grown(schema, count, length, odd))[shape], **more}

    per = TYPES[kind][name].per  # the field whose entries are its keys
    keys = {} if per is None else {per: list(detail(0)[name])}
    times = "uses" if "uses" in TYPES[kind] and name != "uses" else None
    child = [detail(0, **keys, **({times: n + 1} if times else {})) for n in range(alike)]
    parent = [*(detail(n + 1, **keys) for n in range(alike - 1)), detail(0, **keys)]
    try:
        made = Pair(scopes.parse(child), scopes.parse(parent))
    except UnknownDetailError:
        return None
    return made if None not in scopes.covering(*made) and scopes.size(made.child) <= ROOM else None


ROOM = 60_000  # characters of a scope: what a request of 64 KiB has room for


# -- values of any type ---------------------------------------------------------------------------------------------


class Given(typing.Protocol):
    """What is known of the values that are accepted: those that nothing but a broker can make."""

    def __call__(self, name: str, kind: object) -> Sequence[object]:
        """Return values in wire form for a place of this name and type; empty: any will do."""


class Grower:
    """Makes values of types in wire form: ``base`` ones that are small and well formed, and large ones."""

    def __init__(self, given: Given, size: int, items: int) -> None:
        """Grow them up to so many bytes, and so many items at all depths together."""
        self._given, self._size, self._items = given, size, items

    def base(self, name: str, kind: typing.Any) -> typing.Any:
        """Return a small value."""
        known, kind = self._given(name, kind), _SENT_AS.get(kind, kind)
        if known:
            return known[0]
        origin, args = typing.get_origin(kind), typing.get_args(kind)
        if origin is not None or args:
            return self._composed(name, kind, origin, args)
        if isinstance(kind, type) and issubclass(kind, Enum):
            return next(iter(kind)).value
        fields = fields_of(kind)
        return _PLAIN[kind] if fields is None else self._made(kind, self._fields(name, kind, fields))

    def _composed(self, name: str, kind: typing.Any, origin: typing.Any, args: Sequence[typing.Any]) -> typing.Any:
        if origin is typing.Annotated:
            return self.base(name, args[0])
        if origin in {typing.Union, types.UnionType}:
            return None if types.NoneType in args else self._tagged(kind, args[0], self.base(name, args[0]))
        if origin is typing.Literal:
            return args[0]
        if origin is tuple and args[-1] is not Ellipsis:
            return [self.base(name, each) for each in args]
        return {} if issubclass(origin, Mapping) else []

    def large(self, name: str, kind: typing.Any) -> Iterator[Shape]:
        """Yield large values: those that are given, and each place grown in turn."""
        for number, value in enumerate(self._given(name, kind)):
            yield f"{name} {number}", value
        if kind not in _WHOLE:
            yield from self._grown(name, _SENT_AS.get(kind, kind))

    def _grown(self, name: str, kind: typing.Any) -> Iterator[Shape]:
        origin, args = typing.get_origin(kind), typing.get_args(kind)
        if origin is typing.Annotated:
            yield from self._grown(name, args[0])
        elif origin in {typing.Union, types.UnionType}:
            for each in args:
                yield from ((shape, self._tagged(kind, each, value)) for shape, value in self.large(name, each))
        elif origin is tuple and args[-1] is not Ellipsis:
            yield from self._parts(name, args)
        elif origin is not None and origin is not typing.Literal:
            yield from self._many(name, origin, args)
        elif (fields := fields_of(kind)) is not None:
            rest = self._fields(name, kind, fields)
            for field, each in fields.items():
                for shape, value in self.large(field, each):
                    yield f"{field}: {shape}", self._made(kind, {**rest, field: value})
        else:
            yield from self._leaf(name, kind)

    def _parts(self, name: str, kinds: Sequence[object]) -> Iterator[Shape]:
        rest = [self.base(name, each) for each in kinds]
        for place, each in enumerate(kinds):
            for shape, value in self.large(name, each):
                yield shape, [*rest[:place], value, *rest[place + 1 :]]

    def _fields(self, name: str, kind: object, fields: Mapping[str, object]) -> Mapping[str, object]:
        """Return the small fields of a value of a class."""
        known = self._given(name, kind)
        if not known:
            return {field: self.base(field, each) for field, each in fields.items()}
        first = known[0]
        return (
            first if isinstance(first, Mapping) else dict(zip(fields, typing.cast("list[object]", first), strict=True))
        )

    def _leaf(self, name: str, kind: object) -> Iterator[Shape]:
        if kind is str:
            yield from ((f"{name} of {shape}", value) for shape, value in texts(self._size))
        elif kind is bytes:
            yield from ((f"{name} of {shape}", value) for shape, value in _bytes(self._size))
        elif kind is object:
            yield from ((f"{name} of {shape}", value) for shape, value in anything(self._size, self._items))
        elif kind is int:
            yield from ((f"{name} {value}", value) for value in (2**63 - 1, -(2**63)))
        elif kind is RemitError:
            for shape, value in texts(self._size):
                yield f"{name} of {shape}", [*_FAILED[:2], value, *_FAILED[3:]]
            for shape, value in anything(self._size, self._items - 16):
                yield f"{name} with {shape}", [*_FAILED[:4], [{"a": value}], *_FAILED[5:]]

    def _many(self, name: str, origin: typing.Any, args: Sequence[typing.Any]) -> Iterator[Shape]:
        """Yield many small ones, and few large ones, alike and unlike."""
        mapping = issubclass(origin, Mapping)
        inner = args[1] if mapping else args[0]
        small = self.base(name, inner)
        weight, length = _weight(small) + 1, max(len(repr(small)), 1) + (8 if mapping else 0)
        many = max(min(self._items // weight, self._size // length), 1)
        yield f"{many} in {name}", {f"{n:x}": small for n in range(many)} if mapping else [small] * many
        for few in (1, 16):
            part = Grower(self._given, self._size // few - 16, self._items // few - 1)
            for shape, value in part.large(name, inner):
                yield f"{few} of {shape}", {f"{n:x}": value for n in range(few)} if mapping else [value] * few
        if mapping or inner is str or issubclass(origin, AbstractSet):
            per = self._size // self._items
            keys = [f"{n:x}{'é' * (per // 3)}" for n in range(self._items)]
            yield f"unlike in {name}", dict.fromkeys(keys, small) if mapping else keys

    @staticmethod
    def _tagged(union: typing.Any, kind: typing.Any, value: object) -> object:
        """Return a value as it stands in a union: with its class, where that has to be said."""
        several = [each for each in typing.get_args(union) if each is not types.NoneType]
        return value if kind is types.NoneType or plain(union) or len(several) == 1 else [kind.__name__, value]

    @staticmethod
    def _made(kind: typing.Any, fields: Mapping[str, object]) -> object:
        return fields if plain(kind) and not _array(kind) else list(fields.values())


def _array(kind: typing.Any) -> bool:
    return bool(getattr(getattr(kind, "__struct_config__", None), "array_like", False))


def _weight(value: object) -> int:
    if isinstance(value, Mapping):
        return sum(_weight(each) + 1 for each in value.values())
    return sum(_weight(each) + 1 for each in value) if isinstance(value, list) else 0


_FAILED = [0, "DeniedError", "d", None, [], None, None]  # as ``link.values.Failure`` is written
_SENT_AS: Mapping[object, object] = {Access: tuple[str, str, str], Secret: Mapping[str, bytes]}
_WHOLE = {Detail, Scope}  # what they can hold, their tables say
_PLAIN: Mapping[object, object] = {
    RemitError: _FAILED,
    str: "a",
    bytes: b"a",
    int: 1,
    float: 0.5,
    bool: True,
    object: None,
    types.NoneType: None,
    datetime: NOW,
    timedelta: timedelta(minutes=5),
}
