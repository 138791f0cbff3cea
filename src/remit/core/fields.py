"""Fields of a decoded document, read strictly: a value of its own type, or a refusal that names the field. Pure."""

from __future__ import annotations

import re

from remit.errors import InvalidRequestError


def text(name: str, value: object, pattern: re.Pattern[str] | None = None) -> str:
    """Return text that prints and is not empty; all of it matches ``pattern``."""
    if not isinstance(value, str) or not value or not value.isprintable():
        raise InvalidRequestError(f"`{name}` must be text")
    if pattern is not None and not pattern.fullmatch(value):
        raise InvalidRequestError(f"`{name}` has an impossible value")
    return value


def texts(name: str, value: object, pattern: re.Pattern[str] | None = None) -> tuple[str, ...]:
    """Return a list of text."""
    return tuple(text(name, item, pattern) for item in items(name, value))


def items(name: str, value: object) -> list[object]:
    """Return a list, or the items of a tuple."""
    if not isinstance(value, list | tuple):
        raise InvalidRequestError(f"`{name}` must be a list")
    return list(value)


def flag(name: str, value: object) -> bool:
    """Return true or false."""
    if not isinstance(value, bool):
        raise InvalidRequestError(f"`{name}` must be true or false")
    return value


def whole(name: str, value: object, least: int = 0, most: int = 2**53 - 1) -> int:
    """Return a whole number from ``least`` to ``most``."""
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InvalidRequestError(f"`{name}` must be a whole number from {least} to {most}")
    return value
