"""Floods: what anybody can cause is told one by one so often a minute, then at each power of two, with the count."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime

LOUD = 20  # of one kind, in one minute


class Flood:
    """Counts what happens, by kind, and says when that is worth telling."""

    def __init__(self) -> None:
        self._minute = 0
        self._counts: dict[Hashable, int] = {}

    def told(self, kind: Hashable, now: datetime) -> int | None:
        """Count one more of ``kind``; return how many it is this minute if it is to be told of, else None."""
        minute = int(now.timestamp() // 60)
        if minute != self._minute:
            self._minute, self._counts = minute, {}
        count = self._counts[kind] = self._counts.get(kind, 0) + 1
        return None if count > LOUD and count & (count - 1) else count
