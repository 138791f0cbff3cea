"""``ports.pending`` in memory: after a restart clients ask anew, and proofs need a new nonce."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import islice

from remit.errors import InvalidRequestError, LimitError, ProofError, ReplayError
from remit.jose.proof import MAX_AGE, SKEW, Proof
from remit.ports import Clock
from remit.ports.pending import PendingKind

MOST = 20_000  # of one kind and room, at once
MAX_BYTES = 32 * 2**20  # of one kind and room, at once
MAX_ALL = 4 * MAX_BYTES  # of one kind, at once
MAX_NAME = 256  # characters of a digest, or of a proof's `jti` and its key's thumbprint
MAX_ROOM = 2_048  # characters of the name of a room
MAX_LIFE = timedelta(days=1)
OVERHEAD = 1_024  # bytes, about, beside a value: its entry, digest and times
_FULL = "too many requests wait at once"

MAX_SEEN = 500_000  # proofs remembered: 65 seconds of them at 7,000 a second
MAX_STRANGE = 100_000  # of these by strangers: 65 seconds of them at 1,500 a second


@dataclass(frozen=True, slots=True)
class _Entry:
    until: datetime
    room: str
    value: bytes

    @property
    def size(self) -> int:
        return OVERHEAD + len(self.room) + len(self.value)


class _Entries(dict[str, _Entry]):
    """The values of one kind by digest, the oldest first, with how many and how large those of each room are."""

    def __init__(self) -> None:
        super().__init__()
        self.count: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()
        self.all = 0  # bytes

    def fits(self, entry: _Entry) -> bool:
        room = self.bytes[entry.room] + entry.size <= MAX_BYTES and self.all + entry.size <= MAX_ALL
        return room and self.count[entry.room] < MOST

    def drop(self, digests: Iterable[str]) -> None:
        for gone in [self.pop(digest) for digest in digests if digest in self]:
            self.count[gone.room] -= 1
            self.bytes[gone.room] -= gone.size
            self.all -= gone.size
            if not self.count[gone.room]:
                del self.count[gone.room], self.bytes[gone.room]


class PendingMemory:
    """Keeps values of every kind, and the proofs seen, each for as long as its ``iat`` would let it pass again."""

    def __init__(self, clock: Clock, most_seen: int = MAX_SEEN, most_strange: int = MAX_STRANGE) -> None:
        self._clock = clock
        self._kinds = {kind: _Entries() for kind in PendingKind}
        self._most = {False: most_seen, True: most_strange}
        self._count = {False: 0, True: 0}
        self._seen: dict[int, dict[tuple[str, str], bool]] = {}  # by iat; whether it is a stranger's

    async def keep(
        self, kind: PendingKind, digest: str, value: bytes, life: timedelta, room: str = "", most: int | None = None
    ) -> None:
        entries, now = self._kinds[kind], self._clock()
        if len(digest) > MAX_NAME or len(room) > MAX_ROOM or not timedelta(0) <= life <= MAX_LIFE:
            raise InvalidRequestError("nothing of this name is kept, or for so long")
        # of rooms that nobody comes to any more
        entries.drop([key for key, entry in islice(entries.items(), 2) if entry.until <= now])
        if most is not None and entries.count[room] >= most:
            entries.drop([next(key for key, entry in entries.items() if entry.room == room)])
        entries.drop([digest])
        kept = _Entry(now + life, room, value)
        if not entries.fits(kept):
            entries.drop([key for key, entry in entries.items() if entry.until <= now])
        if not entries.fits(kept):
            raise LimitError(_FULL, retry_after=60)
        entries[digest] = kept
        entries.count[room] += 1
        entries.bytes[room] += kept.size
        entries.all += kept.size

    async def kept(self, kind: PendingKind, digest: str) -> bytes | None:
        entry = self._kinds[kind].get(digest)
        return entry.value if entry is not None and self._clock() < entry.until else None

    async def take(self, kind: PendingKind, digest: str) -> bytes | None:
        value = await self.kept(kind, digest)
        self._kinds[kind].drop([digest])
        return value

    async def swap(self, kind: PendingKind, digest: str, before: bytes, after: bytes) -> bool:
        if await self.kept(kind, digest) != before:
            return False
        entries, more = self._kinds[kind], len(after) - len(before)
        entry = entries[digest]
        if entries.bytes[entry.room] + more > MAX_BYTES or entries.all + more > MAX_ALL:
            raise LimitError(_FULL, retry_after=60)
        entries[digest] = replace(entry, value=after)
        entries.bytes[entry.room] += more
        entries.all += more
        return True

    async def burn(self, proof: Proof, *, stranger: bool = False) -> None:
        now = int(self._clock().timestamp())
        if proof.iat > now + SKEW or len(proof.jkt) + len(proof.jti) > MAX_NAME:
            raise ProofError("it is none that could have been verified")  # and would be remembered for too long
        if proof.iat not in self._seen:
            oldest = now - MAX_AGE - SKEW
            for iat in [iat for iat in self._seen if iat < oldest]:
                for strange in self._seen.pop(iat).values():
                    self._count[strange] -= 1
        seen, key = self._seen.setdefault(proof.iat, {}), (proof.jkt, proof.jti)
        if key in seen:
            raise ReplayError(help="make a new proof for every request")
        if self._count[stranger] >= self._most[stranger]:
            raise LimitError("too many requests with proofs", retry_after=MAX_AGE)
        seen[key] = stranger
        self._count[stranger] += 1
