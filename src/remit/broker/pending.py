"""What edges keep (``ports.pending``), in memory: after a restart clients ask anew, and proofs need a new nonce."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from remit.errors import LimitError, ReplayError
from remit.jose.proof import MAX_AGE, SKEW, Proof
from remit.ports import Clock
from remit.ports.pending import PendingKind

MOST = 20_000  # of one kind and room, at once
MAX_BYTES = 32 * 2**20  # of one kind and room, at once
OVERHEAD = 1_024  # bytes, about, beside a value: its entry, digest and times

MAX_SEEN = 500_000  # proofs remembered: 65 seconds of them at 7,000 a second
MAX_STRANGE = 100_000  # of these by strangers: 65 seconds of them at 1,500 a second


class PendingMemory:
    """Keeps values of every kind, and the proofs seen, each for as long as its ``iat`` would let it pass again."""

    def __init__(self, clock: Clock, most_seen: int = MAX_SEEN, most_strange: int = MAX_STRANGE) -> None:
        self._clock = clock
        self._kinds = {kind: _Values(clock) for kind in PendingKind}
        self._most = {False: most_seen, True: most_strange}
        self._count = {False: 0, True: 0}
        self._seen: dict[int, dict[tuple[str, str], bool]] = {}  # by iat; whether it is a stranger's

    async def keep(
        self, kind: PendingKind, digest: str, value: bytes, life: timedelta, room: str = "", most: int | None = None
    ) -> None:
        self._kinds[kind].keep(digest, value, life, room, most)

    async def kept(self, kind: PendingKind, digest: str) -> bytes | None:
        return self._kinds[kind].kept(digest)

    async def take(self, kind: PendingKind, digest: str) -> bytes | None:
        value = self._kinds[kind].kept(digest)
        self._kinds[kind].drop(digest)
        return value

    async def swap(self, kind: PendingKind, digest: str, before: bytes, after: bytes) -> bool:
        return self._kinds[kind].swap(digest, before, after)

    async def burn(self, proof: Proof, *, stranger: bool = False) -> None:
        if proof.iat not in self._seen:
            self._forget(int(self._clock().timestamp()))
        seen = self._seen.setdefault(proof.iat, {})
        key = (proof.jkt, proof.jti)
        if key in seen:
            raise ReplayError(help="make a new proof for every request")
        if self._count[stranger] >= self._most[stranger]:
            raise LimitError("too many requests with proofs", retry_after=MAX_AGE)
        seen[key] = stranger
        self._count[stranger] += 1

    def _forget(self, now: int) -> None:
        for iat in [iat for iat in self._seen if iat < now - MAX_AGE - SKEW]:
            for stranger in self._seen.pop(iat).values():
                self._count[stranger] -= 1


@dataclass(frozen=True, slots=True)
class _Entry:
    until: datetime
    room: str
    value: bytes

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.value)


class _Values:
    """The values of one kind, with how many and how large those of each room are."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._by_digest: dict[str, _Entry] = {}
        self._count: Counter[str] = Counter()  # by room
        self._bytes: Counter[str] = Counter()

    def keep(self, digest: str, value: bytes, life: timedelta, room: str, most: int | None) -> None:
        for over in [key for key, entry in islice(self._by_digest.items(), 2) if entry.until <= self._clock()]:
            self.drop(over)  # of rooms that nobody comes to any more
        if most is not None and self._count[room] >= most:
            self.drop(next(key for key, entry in self._by_digest.items() if entry.room == room))
        self.drop(digest)
        entry = _Entry(self._clock() + life, room, value)
        if not self._fits(entry):
            for over in [key for key, other in self._by_digest.items() if other.until <= self._clock()]:
                self.drop(over)
        if not self._fits(entry):
            raise LimitError("too many requests wait at once", retry_after=60)
        self._by_digest[digest] = entry
        self._count[room] += 1
        self._bytes[room] += entry.size

    def _fits(self, entry: _Entry) -> bool:
        return self._count[entry.room] < MOST and self._bytes[entry.room] + entry.size <= MAX_BYTES

    def kept(self, digest: str) -> bytes | None:
        entry = self._by_digest.get(digest)
        return entry.value if entry is not None and self._clock() < entry.until else None

    def swap(self, digest: str, before: bytes, after: bytes) -> bool:
        if self.kept(digest) != before:
            return False
        entry, more = self._by_digest[digest], len(after) - len(before)
        if self._bytes[entry.room] + more > MAX_BYTES:
            raise LimitError("too many requests wait at once", retry_after=60)
        self._by_digest[digest] = replace(entry, value=after)
        self._bytes[entry.room] += more
        return True

    def drop(self, digest: str) -> None:
        gone = self._by_digest.pop(digest, None)
        if gone is not None:
            self._count[gone.room] -= 1
            self._bytes[gone.room] -= gone.size
            if not self._count[gone.room]:
                del self._count[gone.room], self._bytes[gone.room]
