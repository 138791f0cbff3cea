"""What strangers can make the broker keep in memory, until its time is up: bounded in number, bytes and time."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Generic, TypeVar

from remit.core import jose
from remit.errors import LimitError

MOST = 20_000  # of one kind, at once
MAX_BYTES = 32 * 2**20  # of one kind, at once
USUAL = 1_024  # bytes, unless it is said: some names, digests and times

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    until: datetime
    size: int
    value: T


class Held(Generic[T]):
    """Things in memory until their time is up, found by what only their client knows. Only its SHA-256 is kept."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        """Hold nothing."""
        self._now = now
        self._by_digest: dict[str, _Entry[T]] = {}
        self._bytes = 0

    def put(self, value: T, life: timedelta, name: str | None = None, *, size: int = USUAL) -> str:
        """Hold a value of about ``size`` bytes; return its new name, of 256 random bits, unless one is given.

        LimitError while there is no room.
        """
        name = name or secrets.token_urlsafe(32)
        digest = jose.digest(name)
        self._drop(digest)
        if not self._room(size):
            for over in [key for key, entry in self._by_digest.items() if entry.until <= self._now()]:
                self._drop(over)
        if not self._room(size):
            raise LimitError("too many requests wait at once", retry_after=60)
        self._by_digest[digest] = _Entry(self._now() + life, size, value)
        self._bytes += size
        return name

    def get(self, name: str) -> T | None:
        """Return what is held by this name, if its time is not up."""
        entry = self._by_digest.get(jose.digest(name))
        return entry.value if entry is not None and self._now() < entry.until else None

    def pop(self, name: str) -> T | None:
        """Return what is held by this name, once."""
        value = self.get(name)
        self._drop(jose.digest(name))
        return value

    def _room(self, size: int) -> bool:
        return len(self._by_digest) < MOST and self._bytes + size <= MAX_BYTES

    def _drop(self, digest: str) -> None:
        gone = self._by_digest.pop(digest, None)
        if gone is not None:
            self._bytes -= gone.size
