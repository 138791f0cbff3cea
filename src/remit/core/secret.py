"""Sensitive bytes that do not print, pickle, format or compare by accident.

A plain class on purpose: ``dataclasses.asdict`` and ``pickle`` leak a dataclass.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import NoReturn

from remit.errors import InvalidRequestError

WHOLE = ""  # the name of the one part of a secret that has no named parts


class Secret:
    """Holds a text, bytes, or named parts (user and password, say); only ``reveal`` and ``parts`` show them."""

    __slots__ = ("__parts",)

    def __init__(self, value: str | bytes | Mapping[str, str | bytes]) -> None:
        named = value if isinstance(value, Mapping) else {WHOLE: value}
        self.__parts = {
            name: part if isinstance(part, bytes) else part.encode("utf-8", "surrogatepass")  # an error would carry it
            for name, part in named.items()
        }

    def reveal(self) -> str:
        """Return the sensitive text, where it leaves and nowhere earlier; InvalidRequestError if it is not one text."""
        try:
            return self.__parts[WHOLE].decode("utf-8", "surrogatepass")
        except (KeyError, UnicodeDecodeError):  # the error would carry the bytes
            raise InvalidRequestError("the secret is not one text") from None

    def parts(self) -> Mapping[str, bytes]:
        """Return all sensitive bytes by name; a secret without named parts is one, ``WHOLE``."""
        return dict(self.__parts)

    def __repr__(self) -> str:
        return "Secret(…)"

    __str__ = __repr__

    def __format__(self, spec: str) -> str:
        return repr(self)

    def __eq__(self, other: object) -> bool:
        """Compare in constant time, and only with another Secret."""
        if not isinstance(other, Secret):
            return NotImplemented
        mine, theirs = self.__parts, other.parts()
        if mine.keys() != theirs.keys():
            return False
        same = [hmac.compare_digest(part, theirs[name]) for name, part in mine.items()]  # all, whatever the first says
        return all(same)

    __hash__ = None  # type: ignore[assignment]  # a hash would be an oracle and would put secrets in sets

    def __reduce__(self) -> NoReturn:
        msg = "a secret is not serialisable"
        raise TypeError(msg)
