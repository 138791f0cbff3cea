"""One canonical form of a host, of a target, query and JSON body; whatever could be read in two ways is refused. Pure.

Readers that were thought of: one that does not decode, one that decodes once, one that decodes twice, a WHATWG URL
parser, one that normalises paths and folds case, one that strips `;parameters`, one that applies compatibility
normalisation or a best-fit code page. A path is accepted only if all of them see the same segments.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import quote, unquote_to_bytes

from remit.core.orders import json_text
from remit.errors import InvalidRequestError, TooLargeError

MAX_HOST = 253  # characters (RFC 1035 §2.3.4)
MAX_PAIRS = 256
MAX_LEAVES = 1_024
MAX_CONTAINERS = 4_096  # objects and lists of a JSON body
MAX_DEPTH = 32
MAX_NAME = 1_024  # characters of an argument's name
MAX_DIGITS = 128  # of a whole number: to read and write one takes the square of them
SHORT = 1_024  # bytes of a target that is judged at once, and four times as many of headers: more take milliseconds
LIGHT = 8_192  # bytes of a body that is judged at once
_FEW = 64  # values of one

_HOST = re.compile(rb"(?:[A-Za-z0-9-]{1,63}\.)*[A-Za-z0-9-]{1,63}")
_PLAIN = re.compile(rb"(?:/[A-Za-z0-9\-_~!$&'()+,=:@][A-Za-z0-9\-._~!$&'()+,=:@]*)*/?")
_SEGMENT = re.compile(r"(?:[A-Za-z0-9\-._~!$&'()+,=:@]|%[0-9A-F]{2})+")
_QUERY = re.compile(rb"(?:[A-Za-z0-9\-._~!$&'()*+,=:@/?\[\]]|%[0-9A-Fa-f]{2})*")
_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ARGUMENT = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.\[\]-]{0,127}")
_ESCAPES = re.compile("(?:%[0-9A-F]{2})+")
_KEY = re.compile(r"[A-Za-z0-9_-]{1,128}")
_STRUCTURAL = frozenset("/\\.%;?#")
_LOOKALIKES = frozenset("\u00a5\u20a9\u2044\u2215\u2216\u29f5\u29f8\u29f9\u244a")  # some code page maps them to / or \


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """Where a request goes."""

    resource: str
    path: str  # canonical, at the upstream
    query: bytes | None  # raw; None: no `?`
    grant: str | None = None  # one that the target names too; it is no part of what is judged


def host(raw: bytes) -> str:
    """Return a host's name in lower case, or raise InvalidRequestError: resolvers end one at NUL, others decode one."""
    if len(raw) > MAX_HOST or not _HOST.fullmatch(raw):
        raise InvalidRequestError("what stands for a host is not the name of one")
    return raw.decode().lower()


def target(resource: str, raw_path: bytes, query: bytes | None, grant: str | None = None) -> RequestTarget:
    """Return a target that a front has taken apart, or raise InvalidRequestError for what is not canonical."""
    if raw_path and not raw_path.startswith(b"/"):
        raise InvalidRequestError("the path does not begin with `/`")
    if query is not None and not _QUERY.fullmatch(query):
        raise InvalidRequestError("the query is not in canonical form")
    return RequestTarget(resource, path(raw_path), query, grant)


@lru_cache(maxsize=1024)
def path(raw: bytes) -> str:
    """Return the canonical path of raw bytes, or raise InvalidRequestError. An empty path is `/`."""
    text = raw.decode("ascii") or "/"
    if _PLAIN.fullmatch(raw):
        return text
    segments = text[1:].split("/")
    for index, segment in enumerate(segments):
        if segment or index < len(segments) - 1:
            _check_segment(segment)
    return text


def _check_segment(segment: str) -> None:
    if ";" in segment:
        raise InvalidRequestError("the path has a segment with `;parameters`, which some readers take away")
    if not _SEGMENT.fullmatch(segment):
        raise InvalidRequestError("the path has an empty segment or an escape that is not canonical")
    try:
        escaped = "".join(unquote_to_bytes(run).decode("utf-8") for run in _ESCAPES.findall(segment))
        decoded = unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError("the path holds an escape that is not UTF-8") from error
    if not _UNRESERVED.isdisjoint(escaped):
        raise InvalidRequestError("the path escapes what needs no escape")
    if decoded.strip(". ") == "":
        raise InvalidRequestError("the path has a segment that some reader takes for a dot segment")
    if any(_ambiguous(char) for char in escaped):
        raise InvalidRequestError("the path escapes a character that some reader takes for a separator")


def _ambiguous(char: str) -> bool:
    if char in _LOOKALIKES or unicodedata.category(char) in {"Cc", "Cf", "Cn", "Co", "Cs", "Zl", "Zp"}:
        return True
    return not _STRUCTURAL.isdisjoint(unicodedata.normalize("NFKC", char))


def query_pairs(raw: bytes | None) -> tuple[tuple[str, str], ...]:
    """Read a query as name-value pairs, each name once, or raise InvalidRequestError."""
    if not raw:
        return ()
    parts = raw.decode("ascii").split("&")
    if len(parts) > MAX_PAIRS:
        raise InvalidRequestError(f"the query has more than {MAX_PAIRS} arguments")
    pairs = []
    for part in parts:
        name, equals, value = part.partition("=")
        name = _unescape(name)
        if not equals or not _ARGUMENT.fullmatch(name):
            raise InvalidRequestError("the query has an argument without a proper name and `=`")
        pairs.append((name, _unescape(value)))
    if len(dict(pairs)) != len(pairs):
        raise InvalidRequestError("the query repeats an argument")
    return tuple(pairs)


def _unescape(text: str) -> str:
    try:
        decoded = unquote_to_bytes(text.replace("+", " ")).decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequestError("the query holds an escape that is not UTF-8") from error
    if any(unicodedata.category(char) in {"Cc", "Cs"} and char not in "\n\t" for char in decoded):
        raise InvalidRequestError("the query holds a control character")
    return decoded


def query_text(pairs: tuple[tuple[str, str], ...]) -> bytes:
    """Write pairs as the one query that says just that."""
    return "&".join(f"{quote(name, safe='[]')}={quote(value, safe='')}" for name, value in pairs).encode()


def heavy(raw: bytes) -> bool:
    """Whether a JSON body takes so long to judge that others should not wait for it."""
    return len(raw) > LIGHT or raw.count(b",") > _FEW


def json_body(raw: bytes) -> object:
    """Read a JSON body strictly: UTF-8, no duplicate names, no NaN, bounded depth and number of values."""
    check_structure(raw, MAX_LEAVES, MAX_CONTAINERS)
    try:
        value: object = json.loads(
            raw.decode("utf-8"),
            object_pairs_hook=_unique,
            parse_constant=number,
            parse_float=number,
            parse_int=whole,
        )
        _check_text(value, MAX_DEPTH)
    except (ValueError, RecursionError) as error:
        raise InvalidRequestError("the body is not JSON that every reader reads the same") from error
    return value


def check_structure(raw: bytes, leaves: int, containers: int) -> None:
    """Raise TooLargeError for more values than are to be made of JSON: each but one has a comma before it.

    Up to the first byte that no JSON has there, which is as far as a parser gets, the count is exact.
    """
    if raw.count(b",") < leaves and raw.count(b"[") + raw.count(b"{") <= containers:
        return
    pieces = raw.replace(rb"\\", b"").replace(rb"\"", b"").split(b'"', 4 * containers)
    bare = b"".join(pieces[::2])  # what stands outside of strings
    if bare.count(b",") >= leaves:
        raise TooLargeError(f"the body has more than {leaves} values to be judged")
    if bare.count(b"[") + bare.count(b"{") > containers or len(pieces) > 4 * containers:
        raise TooLargeError(f"the body has more than {containers} objects and lists to be judged")


def whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(text)
    return int(text)


def number(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):  # also NaN and Infinity, by name
        raise ValueError(text)
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _check_text(value: object, depth: int) -> None:
    if depth == 0:
        raise ValueError
    if isinstance(value, str):
        value.encode("utf-8")  # a lone surrogate has no UTF-8 (UnicodeEncodeError is a ValueError)
    elif isinstance(value, dict):
        for key, item in value.items():
            key.encode("utf-8")
            _check_text(item, depth - 1)
    elif isinstance(value, list):
        for item in value:
            _check_text(item, depth - 1)


def json_bytes(value: object) -> bytes:
    """Write a JSON body: the one that was judged."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def leaves(value: object, root: str = "body") -> Mapping[str, str]:
    """Flatten a JSON body to arguments: `body.a.b`, `body.a[0]` -> JSON text. Empty containers are leaves."""
    found: dict[str, str] = {}
    for name, text in _walk(root, value):
        if len(name) > MAX_NAME:
            raise TooLargeError(f"the body has a value whose name has more than {MAX_NAME} characters")
        if len(found) == MAX_LEAVES:
            raise TooLargeError(f"the body has more than {MAX_LEAVES} values to be judged")
        found[name] = text
    return found


def _walk(name: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and value:
        for key, item in value.items():
            if not _KEY.fullmatch(key):
                raise InvalidRequestError("the body has a name that cannot be told from a path of names")
            yield from _walk(f"{name}.{key}" if name else key, item)
    elif isinstance(value, list) and value:
        for index, item in enumerate(value):
            yield from _walk(f"{name}[{index}]", item)
    else:
        yield name, json_text(value)
