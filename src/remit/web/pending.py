"""What strangers can make the broker keep in memory, until its time is up: bounded in number, bytes and time."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice
from typing import Generic, TypeVar

from remit import jose
from remit.core.principal import Holder
from remit.errors import LimitError

MOST = 20_000  # of one kind and room, at once
MAX_BYTES = 32 * 2**20  # of one kind and room, at once
USUAL = 1_024  # bytes, unless it is said: some names, digests and times

CODE_LIFE = timedelta(seconds=60)
REMEMBERED = timedelta(hours=1)  # a used code, so that its second use ends what it opened
INTERVAL = timedelta(seconds=5)  # RFC 8628 §3.2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Entry(Generic[T]):
    until: datetime
    size: int
    room: str
    value: T


class PendingStore(Generic[T]):
    """Things in memory until their time is up, found by what only their client knows. Only its SHA-256 is kept."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._by_digest: dict[str, _Entry[T]] = {}
        self._count: Counter[str] = Counter()  # by room
        self._bytes: Counter[str] = Counter()

    def put(
        self,
        value: T,
        life: timedelta,
        name: str | None = None,
        *,
        size: int = USUAL,
        room: str = "",
        most: int | None = None,
    ) -> str:
        """Hold a value of about ``size`` bytes; return its new name, of 256 random bits, unless one is given.

        LimitError while its room is full; what is in one takes no place of what is in another. With ``most`` the room
        is for so many, and the oldest makes way for the newest.
        """
        for over in [key for key, entry in islice(self._by_digest.items(), 2) if entry.until <= self._now()]:
            self._drop(over)  # of rooms that nobody comes to any more
        if most is not None and self._count[room] >= most:
            self._drop(next(key for key, entry in self._by_digest.items() if entry.room == room))
        name = name or secrets.token_urlsafe(32)
        digest = jose.digest(name)
        self._drop(digest)
        if not self._fits(size, room):
            for over in [key for key, entry in self._by_digest.items() if entry.until <= self._now()]:
                self._drop(over)
        if not self._fits(size, room):
            raise LimitError("too many requests wait at once", retry_after=60)
        self._by_digest[digest] = _Entry(self._now() + life, size, room, value)
        self._count[room] += 1
        self._bytes[room] += size
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

    def _fits(self, size: int, room: str) -> bool:
        return self._count[room] < MOST and self._bytes[room] + size <= MAX_BYTES

    def _drop(self, digest: str) -> None:
        gone = self._by_digest.pop(digest, None)
        if gone is not None:
            self._count[gone.room] -= 1
            self._bytes[gone.room] -= gone.size
            if not self._count[gone.room]:
                del self._count[gone.room], self._bytes[gone.room]


@dataclass(slots=True)
class AuthorizationCode:
    """What an authorization code stands for. ``opened`` is the grant that it was redeemed for."""

    approval: str
    client_id: str
    redirect_uri: str
    challenge: str
    until: datetime
    audience: str | None = None
    used: int = 0
    opened: Holder | None = None


@dataclass(slots=True)
class Poll:
    """A device code or a back-channel request whose client comes back to ask."""

    approval: str
    client_id: str
    next_at: datetime
    interval: timedelta = INTERVAL
    audience: str | None = None


class PendingCodes:
    """What clients come back with while a human decides: codes, device codes and back-channel requests, delegations."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self.codes: PendingStore[AuthorizationCode] = PendingStore(now)
        self.polls: PendingStore[Poll] = PendingStore(now)
        self.delegations: PendingStore[Poll] = PendingStore(now)  # by the approval's id
