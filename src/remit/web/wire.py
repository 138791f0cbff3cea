"""Reading requests strictly, writing answers: bounded bodies, no duplicate names.

What is unknown is refused in JSON and in queries of ``/v1``, and ignored in what OAuth has (RFC 6749 §3.1, §3.2), but
for what would limit a grant.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from urllib.parse import SplitResult, parse_qsl, urlsplit

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from remit.core.fields import MAX_URL
from remit.core.fields import whole as whole_number
from remit.core.orders import json_object
from remit.core.request import LIMITS
from remit.errors import InvalidRequestError, TargetError, TooLargeError, UnsupportedScopeError
from remit.jose.strict import read_json

Form = Mapping[str, str]  # fields, each once

LOCAL = frozenset({"127.0.0.1", "::1", "localhost"})
MAX_BODY = 65_536  # bytes
MAX_FIELDS = 32  # of a form or a query
MAX_KEY = 128  # characters of an Idempotency-Key
MAX_SECONDS = 10**9
MAX_QUERY = 4_096  # bytes of a query of ``/v1``
MAX_PAIRS = 2 * MAX_FIELDS  # of a query, those that mean nothing among them
SLICE = 32_768  # characters that are read or written, after which the loop may do something else

HEADERS = {"cache-control": "no-store", "referrer-policy": "no-referrer", "x-content-type-options": "nosniff"}

_UNSAFE = re.compile(r"[^!-~]|[\"'<>\\^`{|}]")  # what RFC 3986 has no place for
_NUMBER = re.compile(r"0|[1-9][0-9]{0,18}")
_LETTERS = re.compile(r"[^a-z]")
# what limits a grant is refused where it means nothing, or is written another way (`fanOut`, `ttl[]`), as ignoring it
# would give more; and so is what would bind it to a key
_SPELLED = frozenset(name.replace("_", "") for name in LIMITS | {"purpose", "req_cnf", "req_cnf_proof"})
_GRANTING = LIMITS | {"grant_type"}  # names that an endpoint has which gives authority, or asks for it
_TOO_LARGE = f"a body has at most {MAX_BODY} bytes"
_JSON = "application/json"
_FORM = "application/x-www-form-urlencoded"


async def body(request: Request) -> bytes:
    """Return the whole body, or raise TooLargeError as soon as it is too long."""
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared[:19]) > MAX_BODY:
        raise TooLargeError(_TOO_LARGE)
    data = bytearray()
    try:
        async for chunk in request.stream():
            data += chunk
            if len(data) > MAX_BODY:
                raise TooLargeError(_TOO_LARGE)
    except ClientDisconnect as error:
        raise InvalidRequestError("the request ended early") from error
    return bytes(data)


async def _give_way(raw: bytes) -> None:
    """Let others go on when much has been read, before it is acted on."""
    if len(raw) > SLICE:
        await asyncio.sleep(0)


def _typed(request: Request, wanted: str) -> None:
    given = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if given != wanted:
        raise InvalidRequestError(f"the content type must be `{wanted}`")


async def form(request: Request, known: frozenset[str], targets: frozenset[str] = frozenset()) -> dict[str, str]:
    """Return the fields of a form that mean something. One without a value counts as absent (RFC 6749 §3.2).

    ``targets`` name whom a token is for: TargetError when one is empty or given twice (RFC 8707 §2).
    """
    _typed(request, _FORM)
    _check_limits(name for name, _ in parse_qsl(request.scope["query_string"].decode("latin-1")))
    raw = await body(request)
    fields = pairs(raw, known, targets)
    await _give_way(raw)
    return fields


def pairs(
    raw: bytes, known: frozenset[str], targets: frozenset[str] = frozenset(), *, strict: bool = False
) -> dict[str, str]:
    """Return the fields of a form body or a query that are known, each at most once; ``strict`` refuses all others."""
    if not raw:
        return {}
    try:
        read = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=MAX_FIELDS
        )
    except ValueError as error:
        raise InvalidRequestError("the parameters are not well formed") from error
    told = read if strict else [(name, value) for name, value in read if name in known]
    fields = dict(told)
    asked = [name for name, _ in told if name in targets]
    if len(set(asked)) != len(asked) or not all(fields[name] for name in asked):
        raise TargetError("a token is for one audience; name one, or none")
    if len(fields) != len(told):
        raise InvalidRequestError("a parameter is given more than once")
    if strict:
        only(fields, known)
    return {name: value for name, value in meant(dict(read), known).items() if value}


def meant(fields: Mapping[str, str], known: frozenset[str]) -> dict[str, str]:
    """Return the fields that mean something here, where a grant may be asked for or used."""
    if known & _GRANTING:
        _check_limits(fields.keys() - known)
        if fields.get("scope") and "scope" not in known:
            raise UnsupportedScopeError
    return {name: value for name, value in fields.items() if name in known}


def _check_limits(names: Iterable[str]) -> None:
    """Refuse what would limit a grant where it means nothing."""
    for name in names:
        if _LETTERS.sub("", name.lower()) in _SPELLED:
            raise InvalidRequestError(f"`{printable(name)}` is not a parameter here")


def some(query: str, known: frozenset[str]) -> dict[str, str]:
    """Return the known fields of a query, each at most once; whatever else is in it means nothing (RFC 6749 §4.1.2)."""
    try:
        read = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=MAX_PAIRS)
    except ValueError as error:
        raise InvalidRequestError("the parameters are not well formed") from error
    given = [(name, value) for name, value in read if name in known]
    if len(dict(given)) != len(given):
        raise InvalidRequestError("a parameter is given more than once")
    return dict(given)


async def document(request: Request, known: frozenset[str], *, others: bool = False) -> dict[str, object]:
    """Return the body as a JSON object that has known members only; with ``others`` it may have more."""
    _typed(request, _JSON)
    read = read_json(raw := await body(request))
    await _give_way(raw)
    if not isinstance(read, dict):
        raise InvalidRequestError("the body must be a JSON object")
    if not others:
        only(read, known)
    return read


async def nothing(request: Request) -> None:
    """Read a body that has nothing to say: empty, or an empty object."""
    raw = await body(request)
    if raw and read_json(raw) != {}:
        raise InvalidRequestError("the body must be empty")


def only(fields: Mapping[str, object], known: frozenset[str]) -> None:
    """Refuse names that mean nothing here: ignoring them could ignore a limit."""
    unknown = fields.keys() - known
    if unknown:
        raise InvalidRequestError(f"`{printable(min(unknown))}` is not a parameter here")


def printable(text: str) -> str:
    """Return text of a caller short and harmless enough to be repeated."""
    return "".join(char if char.isprintable() and char not in '`"\\' else "?" for char in text[:64])


def text(fields: Mapping[str, object], name: str) -> str:
    """Return a required text field."""
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise InvalidRequestError(f"`{name}` is missing" if value is None else f"`{name}` must be text")
    return value


def whole(name: str, value: str, most: int = MAX_SECONDS) -> int:
    """Return a whole number written in decimal."""
    if not _NUMBER.fullmatch(value) or int(value) > most:
        raise InvalidRequestError(f"`{name}` must be a whole number from 0 to {most}")
    return int(value)


def seconds(name: str, value: object) -> timedelta:
    """Return a positive number of seconds from a decoded JSON value."""
    return timedelta(seconds=whole_number(name, value, 1, MAX_SECONDS))


def idempotency_key(request: Request) -> str | None:
    """Return the Idempotency-Key header, if there is one."""
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    if len(given) > 1 or not 1 <= len(given[0]) <= MAX_KEY or not given[0].isascii() or not given[0].isprintable():
        raise InvalidRequestError(f"`Idempotency-Key` must be 1 to {MAX_KEY} printable ASCII characters, given once")
    return given[0]


def instant(at: datetime) -> str:
    """Write an instant as RFC 3339 in UTC."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def answer(
    content: Mapping[str, object],
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    media: str = _JSON,
    **written: str,
) -> Response:
    """Write a JSON answer that no cache keeps; ``written`` are members whose JSON text is known."""
    text = json_object(content, **written) if written else _json(content)
    return Response(text.encode(), status, {**HEADERS, **(headers or {})}, media)


def listing(head: Mapping[str, object] | None = None, **lists: Iterable[object]) -> StreamingResponse:
    """Write lists as they are made, and ``head`` beside them: others go on in between, however long they are."""
    return StreamingResponse(_pieces(_json(head or {})[1:-1], lists), 200, HEADERS, _JSON)


async def _pieces(text: str, lists: Mapping[str, Iterable[object]]) -> AsyncIterator[bytes]:
    text = "{" + text
    for name, items in lists.items():
        text += f'{"" if text == "{" else ","}"{name}":['
        between = ""
        for item in items:
            text, between = f"{text}{between}{_json(item)}", ","
            if len(text) > SLICE:
                yield text.encode()
                text = ""
                await asyncio.sleep(0)
        text += "]"
    yield f"{text}}}".encode()


def _json(content: object) -> str:
    return json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)


def split_url(url: str, name: str) -> SplitResult:
    """Return the parts of a URL that has one reading, or raise InvalidRequestError."""
    try:
        parts = urlsplit(url)
        parts.port  # noqa: B018 - raises when it is no port
    except ValueError:
        parts = None
    if parts is None or len(url) > MAX_URL or _UNSAFE.search(url):
        raise InvalidRequestError(f"`{name}` is not a URL")
    return parts


def check_login_page(url: str) -> str:
    """Return a URL that a browser may be sent to for a login, https or loopback http; or raise (RED-05)."""
    parts = split_url(url, "authorization_endpoint")
    if not parts.hostname or "@" in parts.netloc:
        raise InvalidRequestError("the issuer names no place to log in at")
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in LOCAL):
        raise InvalidRequestError("the issuer's login page must be https")
    return url
