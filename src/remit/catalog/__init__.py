"""What is known of providers: where their keys go, where clients look for them, what keys look like. Pure data.

Example::

    provider = load()["openai"]
    value = placeholder(provider, secrets.token_bytes(32))
    environment(provider, "http://127.0.0.1:8471/openai", value)
    # {"OPENAI_API_KEY": "sk-proj-…", "OPENAI_BASE_URL": "http://127.0.0.1:8471/openai/v1"}
"""

from __future__ import annotations

import dataclasses
import math
import re
import tomllib
import unicodedata
from collections.abc import Container, Iterable, Mapping
from dataclasses import MISSING, dataclass
from difflib import get_close_matches
from functools import cache, lru_cache
from hashlib import sha256
from importlib.resources import files
from itertools import count
from types import MappingProxyType
from urllib.parse import unquote, urlsplit

from remit.catalog import positions
from remit.catalog.positions import Position
from remit.core import fields
from remit.core.paths import check_path, path_le
from remit.errors import InvalidRequestError

ALPHABETS: Mapping[str, str] = {
    "digit": "0123456789",
    "hex": "0123456789abcdef",
    "alphanumeric": "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
    "base64url": "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_",
}
MIN_ENTROPY = 128  # bits of a placeholder
MIN_RANDOM = 16  # bytes
_DEEP = 8  # segments before the word
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")
_LOWER = re.compile(r"[a-z][a-z0-9-]{0,63}")  # header names that are compared
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
_HOST = re.compile(r"(?:[a-z0-9-]+\.)+[a-z]{2,}")
_METHOD = re.compile(r"[A-Z]{1,20}|\*")
_BODILESS = re.compile(r"GET|HEAD|DELETE|OPTIONS")
_RANDOM = re.compile(r"<([a-z0-9]+):([1-9][0-9]{0,2})>")
_LITERAL = re.compile(r"[A-Za-z0-9._-]*")  # one spelling in a URL, a header and JSON
_PROBE = re.compile(r"(?:/[A-Za-z0-9._~@-]+)+/?(?:\?[A-Za-z0-9._~=&-]+)?")
_AUTHORIZATION = Position("header", "Authorization")


@dataclass(frozen=True, slots=True)
class Base:
    """The environment variable of a base URL, and its value with ``{}`` for the resource's URL at the gateway."""

    variable: str
    value: str


@dataclass(frozen=True, slots=True)
class Probe:
    """A GET that changes nothing and that a provider answers with 2xx for a key that works, and for no other."""

    path: str  # with its query
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """A kind of request: a method, or ``*`` for each, and a path pattern of ``core.scope``."""

    method: str
    path: str


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a key's shape: literal text, or ``count`` random characters of ``alphabet``."""

    text: str = ""
    alphabet: str = ""
    count: int = 0


@dataclass(frozen=True, slots=True)
class Provider:
    """One provider. Empty ``hosts``, None ``destination`` and ``base``: not known, or there is none."""

    name: str
    title: str
    key: Position
    shape: tuple[Part, ...]
    destination: str | None = None
    hosts: tuple[str, ...] = ()
    accepts: tuple[Position, ...] = ()
    variables: tuple[str, ...] = ()
    base: Base | None = None
    arguments: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    body_on: tuple[str, ...] = ()
    reads_bodies: bool = False
    mints: tuple[Operation, ...] = ()
    batches: tuple[Operation, ...] = ()
    check: Probe | None = None
    rotate: str | None = None


_REQUIRED = frozenset(field.name for field in dataclasses.fields(Provider) if field.default is MISSING) - {"name"}
_OPTIONAL = frozenset(field.name for field in dataclasses.fields(Provider) if field.default is not MISSING)

# Where servers by custom take requests that carry other requests, of any path and method: OData's and Microsoft Graph's
# `$batch`, `batch` as the last segment, Google's `/batch/api/version`, Elasticsearch's, whose lines name an index.
_BATCH_WORDS = ("$batch", "batch", "_bulk", "_mget", "_msearch")
BATCHES = (
    Operation("*", "/batch/**"),
    *(Operation("*", "/" + "*/" * depth + word) for word in _BATCH_WORDS for depth in range(_DEEP + 1)),
)
_MAY_BE_BATCH = re.compile("batch|/_(?:bulk|mget|msearch)$")


_known: dict[str, Provider] = {}


@cache
def shipped() -> Mapping[str, Provider]:
    """Return the providers that remit ships, by name."""
    found: dict[str, Provider] = {}
    for file in sorted(files(__name__).joinpath("providers").iterdir(), key=lambda file: file.name):
        found.update(read(file.read_text(encoding="utf-8"), found))
    return MappingProxyType(found)


def load() -> Mapping[str, Provider]:
    """Return the providers that remit ships and those that were added, by name."""
    if not _known:
        _known.update(shipped())
    return MappingProxyType(_known)


def add(more: Mapping[str, Provider]) -> None:
    """Add providers of the operator's own to those of this process."""
    load()
    _known.update(more)


def placeholder(provider: Provider, random_bytes: bytes) -> str:
    """Return a value that looks like a key of ``provider`` and is worth nothing. Pure: same bytes, same value.

    ``random_bytes`` are at least 16 fresh random bytes; ValueError if there are fewer.
    """
    if len(random_bytes) < MIN_RANDOM:
        raise ValueError(f"a placeholder needs {MIN_RANDOM} random bytes")
    seeds = (sha256(f"{provider.name} {index} ".encode() + random_bytes).digest() for index in count())
    return "".join(part.text or _draw(part, seed) for part, seed in zip(provider.shape, seeds, strict=False))


def _draw(part: Part, seed: bytes) -> str:
    # Four hash bytes a character: the bias of the modulus is below 2^-26, and placeholders are no keys.
    drawn = (sha256(seed + index.to_bytes(2)).digest() for index in range(part.count))
    return "".join(part.alphabet[int.from_bytes(octets[:4]) % len(part.alphabet)] for octets in drawn)


def environment(provider: Provider, url: str, key: str) -> dict[str, str]:
    """Return what a client reads: ``key`` as its key, and its base URL from ``url``, the resource's at the gateway."""
    variables = dict.fromkeys(provider.variables, key)
    if provider.base is not None:
        variables[provider.base.variable] = provider.base.value.replace("{}", url)
    return variables


def named(provider: Provider | None, method: str, path: str, patterns: Iterable[str]) -> bool:
    """Whether a grant's path patterns permit a request by name, if it makes standing credentials or carries others.

    True for every other request. Requests are compared as the most lenient server reads them. A pattern names an
    operation when all that it matches is that operation: ``/user/keys`` does, ``/user/*`` and ``/**`` do not.
    """
    said = plain(path)
    known = (*provider.mints, *provider.batches) if provider is not None else ()
    batches = BATCHES if method not in _SAFE and _MAY_BE_BATCH.search(said) else ()
    for operation in (*known, *batches):
        if operation.method in {"*", method} and path_le(said, operation.path):
            return any(path_le(path, wide) and path_le(plain(wide), operation.path) for wide in patterns)
    return True


def provider_of(name: object) -> Provider:
    """Return a provider by name, or raise InvalidRequestError that says which names are near."""
    found = load().get(name) if isinstance(name, str) else None
    if found is None:
        near = get_close_matches(str(name).lower(), load()) or ["generic"]
        raise InvalidRequestError("`provider` names none of the catalog", help=f"did you mean {' or '.join(near)}?")
    return found


@lru_cache(maxsize=1024)
def plain(path: str) -> str:
    """Return a path or pattern as the most lenient server reads it.

    Escapes are undone, compatible letters and case folded, marks on letters left out; `;parameters`, blanks and dots
    around a segment, and empty segments are left out.
    """
    return "/" + "/".join(segment for segment in map(_plain_segment, path.split("/")) if segment)


def _plain_segment(segment: str) -> str:
    if segment in {"*", "**"}:
        return segment
    text = unquote(segment)
    if not text.isascii():  # upper case first, as where a dotless i is an I
        apart = unicodedata.normalize("NFKD", text.upper())
        text = "".join(char for char in apart if unicodedata.category(char) not in {"Mn", "Me"})
    text = text.casefold()
    return text.partition(";")[0].strip(". ").replace("*", "%2a")


def read(text: str, known: Container[str] = ()) -> Mapping[str, Provider]:
    """Return the providers of a TOML text by name, as ``of`` does."""
    try:
        return of(tomllib.loads(text), known)
    except tomllib.TOMLDecodeError as error:
        raise InvalidRequestError("the catalog is not TOML") from error


def of(tables: Mapping[str, object], known: Container[str] = ()) -> Mapping[str, Provider]:
    """Return the providers of decoded TOML by name, or raise InvalidRequestError saying which key is wrong.

    One of ``known`` is refused unless its table says ``replaces = true``, and so is a table that says so in vain.
    """
    found = {}
    for name, table in tables.items():
        said = table.get("replaces", False) if isinstance(table, dict) else False
        if (replaces := fields.flag(f"{name}.replaces", said)) is not (name in known):
            what = "replaces no provider that there is" if replaces else "is a provider that there is already"
            raise InvalidRequestError(f"`{name}` {what}", help="`replaces = true` puts a provider in the place of one")
        found[name] = _provider(name, table)
    return MappingProxyType(found)


def _provider(name: str, table: object) -> Provider:
    if not _NAME.fullmatch(name) or not isinstance(table, dict):
        raise InvalidRequestError(f"`{name}` is not the table of a provider")
    for word, keys in (
        ("unknown", table.keys() - _REQUIRED - _OPTIONAL - {"replaces"}),
        ("missing", _REQUIRED - table.keys()),
    ):
        if keys:
            raise InvalidRequestError(f"`{name}`: {word}: {', '.join(f'`{key}`' for key in sorted(keys))}")
    where = f"{name}."
    return Provider(
        name=name,
        title=fields.text(where + "title", table["title"]),
        key=positions.read(where + "key", table["key"], _AUTHORIZATION),
        shape=_shape(where + "shape", table["shape"]),
        destination=_url(where + "destination", table["destination"]) if "destination" in table else None,
        hosts=_list(where + "hosts", table, _HOST),
        accepts=tuple(
            positions.read(where + "accepts", item, _AUTHORIZATION) for item in _items(where + "accepts", table)
        ),
        variables=_list(where + "variables", table, _VARIABLE),
        base=_base(where + "base", table["base"]) if "base" in table else None,
        arguments=_list(where + "arguments", table, _LOWER),
        headers=_list(where + "headers", table, _LOWER),
        body_on=_list(where + "body_on", table, _BODILESS),
        reads_bodies=fields.flag(where + "reads_bodies", table.get("reads_bodies", False)),
        mints=tuple(_operation(where + "mints", item) for item in _items(where + "mints", table)),
        batches=tuple(_operation(where + "batches", item) for item in _items(where + "batches", table)),
        check=_probe(where + "check", table["check"]) if "check" in table else None,
        rotate=_url(where + "rotate", table["rotate"]) if "rotate" in table else None,
    )


def _wrong(where: str, what: str) -> InvalidRequestError:
    return InvalidRequestError(f"`{where}` {what}")


def _items(where: str, table: Mapping[str, object]) -> list[object]:
    return fields.items(where, table.get(where.partition(".")[2], []))


def _list(where: str, table: Mapping[str, object], pattern: re.Pattern[str]) -> tuple[str, ...]:
    found = fields.texts(where, _items(where, table), pattern)
    if len(set(found)) != len(found):
        raise _wrong(where, "names something twice")
    return found


def _keys(where: str, value: object, keys: set[str]) -> dict[str, object]:
    if not isinstance(value, dict) or value.keys() != keys:
        raise _wrong(where, f"must have {' and '.join(f'`{key}`' for key in sorted(keys))}, and nothing else")
    return value


def _base(where: str, value: object) -> Base:
    table = _keys(where, value, {"variable", "value"})
    text = fields.text(f"{where}.value", table["value"])
    if not text.startswith("{}"):
        raise _wrong(f"{where}.value", "must start with `{}`")
    return Base(fields.text(f"{where}.variable", table["variable"], _VARIABLE), text)


def _probe(where: str, value: object) -> Probe:
    if not isinstance(value, dict) or "path" not in value or not value.keys() <= {"path", "headers"}:
        raise _wrong(where, "must have `path`, and may have `headers`")
    headers = value.get("headers", {})
    if not isinstance(headers, dict):
        raise _wrong(f"{where}.headers", "must be a table")
    found = ((fields.text(where, name, _LOWER), fields.text(where, text)) for name, text in headers.items())
    return Probe(fields.text(f"{where}.path", value["path"], _PROBE), tuple(found))


def _url(where: str, value: object) -> str:
    text = fields.text(where, value)
    parts = urlsplit(text)
    if parts.scheme != "https" or not _HOST.fullmatch(parts.netloc) or parts.query or parts.fragment:
        raise _wrong(where, "must be an https URL of a host")
    return text


def _operation(where: str, value: object) -> Operation:
    method, _, path = fields.text(where, value).partition(" ")
    if not _METHOD.fullmatch(method):
        raise _wrong(where, "must be a method, a space and a path")
    if plain(check_path(where, path)) != path:
        raise _wrong(where, "must have its path in lower case and plain text, as paths are compared")
    return Operation(method, path)


def _shape(where: str, value: object) -> tuple[Part, ...]:
    text, parts, at = fields.text(where, value), [], 0
    for found in _RANDOM.finditer(text):
        name, count = found.groups()
        if name not in ALPHABETS:
            raise _wrong(where, f"names no alphabet: `{name}`")
        parts += [Part(text=text[at : found.start()]), Part(alphabet=ALPHABETS[name], count=int(count))]
        at = found.end()
    parts.append(Part(text=text[at:]))
    if any(not _LITERAL.fullmatch(part.text) for part in parts):
        raise _wrong(where, "may hold letters, digits, `.`, `-` and `_` outside of `<alphabet:count>`")
    if sum(part.count * math.log2(len(part.alphabet) or 1) for part in parts) < MIN_ENTROPY:
        raise _wrong(where, f"must have {MIN_ENTROPY} random bits, so that nobody guesses a placeholder")
    return tuple(part for part in parts if part.text or part.count)
