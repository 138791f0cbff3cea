"""Claims picked by name: plainly, or by a JSON Pointer (RFC 6901) where they are nested."""

from __future__ import annotations

import re
from collections.abc import Mapping

from remit.errors import InvalidRequestError

MAX_NAME = 200  # characters

_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])+)+")


def check_name(value: object, what: str) -> str:
    """Return the name of a claim: plain text, or a JSON Pointer from a slash on; or raise InvalidRequestError."""
    whole = isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()
    if not isinstance(value, str) or not whole or (value.startswith("/") and not _POINTER.fullmatch(value)):
        raise InvalidRequestError(f"{what} is not the name of a claim, nor a JSON Pointer to one")
    return value


def find(claims: Mapping[str, object], name: str) -> object:
    """Return the value of a claim, or None where it is absent. Lists are not entered."""
    if not name.startswith("/"):
        return claims.get(name)
    value: object = claims
    for step in name.split("/")[1:]:
        if not isinstance(value, Mapping):
            return None
        value = value.get(step.replace("~1", "/").replace("~0", "~"))
    return value


def plain(value: object) -> str | None:
    """Return a value as the text that rules compare it with, or None where it is none: absent, nested, a fraction."""
    match value:
        case bool():
            return "true" if value else "false"
        case str() | int():
            return str(value)
    return None
