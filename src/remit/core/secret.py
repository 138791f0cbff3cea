"""Sensitive text that does not print, pickle, format or compare by accident.

A plain class on purpose: ``dataclasses.asdict`` and ``pickle`` leak a dataclass.
"""

from __future__ import annotations

import hmac
from typing import NoReturn


class Secret:
    """Holds sensitive text; ``reveal()`` is the only way to see it."""

    __slots__ = ("__value",)

    def __init__(self, value: str) -> None:
        """Wrap ``value``."""
        self.__value = value

    def reveal(self) -> str:
        """Return the sensitive text. Call it where the bytes leave, nowhere earlier."""
        return self.__value

    def __repr__(self) -> str:
        """Mask the value."""
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        """Mask the value in f-strings too."""
        return repr(self)

    def __eq__(self, other: object) -> bool:
        """Compare in constant time, and only with another Secret."""
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_octets(self.__value), _octets(other.reveal()))

    __hash__ = None  # type: ignore[assignment]  # a hash would be an oracle and would put secrets in sets

    def __reduce__(self) -> NoReturn:
        """Refuse to be pickled or copied."""
        msg = "a secret is not serialisable"
        raise TypeError(msg)


def _octets(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")  # an encoding error would carry the text
