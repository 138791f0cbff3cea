"""The broker's time, which never goes back and never stands still; and what is due when."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from remit.errors import UnavailableError
from remit.ports import Clock

SKEW = timedelta(seconds=5)
JITTER = 0.001  # seconds between reading one clock and the other
SLACK = 64  # deadlines that were overtaken, and are kept beside as many as count

Elapsed = Callable[[], float]  # seconds by a clock that nobody sets and that counts sleep


class SteadyClock:
    """The wall's time, or, where that is behind what was seen, what was seen and the time gone by since."""

    def __init__(self, clock: Clock, elapsed: Elapsed) -> None:
        self._clock, self._elapsed = clock, elapsed
        self._seen: datetime | None = None
        self._since = 0.0  # when that was, by ``elapsed``
        self._last = datetime.min.replace(tzinfo=UTC)  # what was said

    def see(self, at: datetime) -> None:
        """Take a time as one that has been: now is not before it."""
        if self._seen is None or at > self._seen:
            self._seen, self._since, self._last = at, self._elapsed(), at

    def accept(self) -> None:
        """Go by the wall from here, whatever was seen before."""
        self._seen = None

    @property
    def ahead(self) -> timedelta:
        """How far this is ahead of the wall."""
        return self.now() - self._clock()

    def now(self) -> datetime:
        """Return the time, which never goes back but by ``accept``, and goes on whatever the wall says."""
        passed, wall, seen = self._elapsed(), self._clock(), self._seen
        ahead = 0.0 if seen is None else (wall - seen).total_seconds() + self._since - passed
        if seen is None or ahead >= 0:
            self._seen, self._since, self._last = wall, passed, wall
        elif ahead >= -JITTER:
            self._last = max(wall, self._last)
        else:
            self._last = seen + timedelta(seconds=passed - self._since)
        return self._last

    def forward(self) -> datetime:
        """Return the time for what extends authority; refuse when the clock has fallen behind."""
        now = self.now()
        if self._clock() < now - SKEW:
            raise UnavailableError(
                "the clock is behind what the audit log has seen",
                help="set the clock; if it is right: `remit down`, then `remit clock accept`",
            )
        return now


class Deadlines:
    """When each of many is due next, the earliest first."""

    def __init__(self) -> None:
        self._heap: list[tuple[datetime, str]] = []
        self._next: dict[str, datetime] = {}  # an entry of the heap that says otherwise was overtaken

    def put(self, name: str, at: datetime) -> None:
        """Have something looked at when ``at`` has come; what is to be looked at before stays so."""
        known = self._next.get(name)
        if known is None or at < known:
            self._next[name] = at
            heapq.heappush(self._heap, (at, name))
            if len(self._heap) > SLACK + 2 * len(self._next):  # what was overtaken lies there until its time comes
                self._heap = [(due, each) for each, due in self._next.items()]
                heapq.heapify(self._heap)

    def due(self, now: datetime) -> list[str]:
        """Return what is due, and forget it."""
        found = []
        while self._heap and self._heap[0][0] <= now:
            at, name = heapq.heappop(self._heap)
            if self._next.get(name) == at:
                del self._next[name]
                found.append(name)
        return found
