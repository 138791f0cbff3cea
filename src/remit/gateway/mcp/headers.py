"""What the headers of a message say beside it, which must be what it says itself (MCP 2026-07-28, transports). Pure.

Whoever routes by a header would else see another call than the one that was judged. Older revisions have no such
headers: where they stand all the same, they are held to the same.
"""

from __future__ import annotations

import binascii
import re
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator

from remit.errors import InvalidRequestError
from remit.gateway.mcp import tasks
from remit.gateway.mcp.messages import Message
from remit.gateway.mcp.rules import NAMED_BY, SUBSCRIBE

VERSION, METHOD, NAME, PARAM = b"mcp-protocol-version", b"mcp-method", b"mcp-name", b"mcp-param-"
BY_NAME = {method: key for method, key in NAMED_BY.items() if method != SUBSCRIBE} | dict.fromkeys(
    tasks.OF_ONE, "taskId"
)
_VERSION = re.compile(rb"[0-9A-Za-z.-]{1,32}")
_ODD = re.compile("[^0-9A-Za-z]+")
_CODED = re.compile(r"=\?base64\?(.*)\?=", re.DOTALL)


class MismatchError(InvalidRequestError):
    """a header says something else than the message"""  # noqa: D400 - the message


def spoken(items: Iterable[tuple[bytes, bytes]], said: Message | None) -> Iterator[tuple[bytes, bytes]]:
    """Yield the header fields that are the protocol's and go on, or raise MismatchError; None: there is no message."""
    found: dict[bytes, bytes] = {}
    for name, value in items:
        if name in {VERSION, METHOD, NAME} or name.startswith(PARAM):
            if name in found:
                raise MismatchError(f"`{name.decode()}` stands twice")
            found[name] = value
    if VERSION in found and not _VERSION.fullmatch(found[VERSION]):
        raise MismatchError("`mcp-protocol-version` is no revision of the protocol")
    if said is not None:
        _check(found, said)
    yield from found.items() if said is not None else ((VERSION, found[VERSION]),) if VERSION in found else ()


def _check(found: dict[bytes, bytes], said: Message) -> None:
    newest = said.version is not None
    if newest and found.get(VERSION, b"").decode() != said.version:
        raise MismatchError("`mcp-protocol-version` is not the revision that the message says")
    if (newest or METHOD in found) and _decoded(found.get(METHOD)) != said.method:
        raise MismatchError("`mcp-method` is not the method of the message")
    key = None if tasks.removed(said) else BY_NAME.get(said.method or "")
    named = None if key is None else said.params.get(key)
    told = (newest and isinstance(named, str)) or NAME in found
    if told and _decoded(found.get(NAME)) != named:
        raise MismatchError("`mcp-name` is not what the message is about")
    given = [*_scalars(said.params.get("arguments"))]
    for header, value in found.items():
        if header.startswith(PARAM):
            own = [scalar for name, scalar in given if _same(name, header.removeprefix(PARAM))]
            if _decoded(value) not in {_rendered(scalar) for scalar in own or [scalar for _, scalar in given]}:
                raise MismatchError(f"`{header.decode()}` is not the argument of the message")


def _same(argument: str, header: bytes) -> bool:
    """Whether a header is named as an argument is. A tool's schema may name it otherwise, which nobody knows here."""
    return _ODD.sub("", argument).lower() == _ODD.sub("", header.decode("latin-1")).lower()


def _decoded(value: bytes | None) -> str | None:
    if value is None:
        return None
    text = value.decode("latin-1")
    coded = _CODED.fullmatch(text)
    if coded is None:
        return text
    try:
        return b64decode(coded[1], validate=True).decode("utf-8")
    except (binascii.Error, ValueError):
        raise MismatchError("a header holds what is no base64 of UTF-8") from None


def encoded(text: str) -> bytes:
    """Write text as the value of a header, as it is where that can be (SEP-2243)."""
    if text.isascii() and text.isprintable() and text == text.strip() and not _CODED.fullmatch(text):
        return text.encode()
    return b"=?base64?%b?=" % b64encode(text.encode())


def _scalars(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for inner, item in value.items():
            yield from _scalars(item, inner)
    elif not isinstance(value, list):
        yield name, value


def _rendered(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
