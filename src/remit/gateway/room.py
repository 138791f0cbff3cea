"""Descriptors: what the gateway may have open, so that the control plane is never left without."""

from __future__ import annotations

from collections import Counter

MAX_CLIENTS = 256  # of a channel's listener
MAX_CALLERS = 1_024  # of a listener where each request proves its grant
MAX_PIPES = 64  # of one grant
DESCRIPTORS = 4_096  # unless the process says how many it has


class Room:
    """A count of descriptors that are free, and of the pipes that each grant has."""

    __slots__ = ("_free", "_pipes")

    def __init__(self, descriptors: int) -> None:
        """Start with all of them free."""
        self._free = descriptors
        self._pipes: Counter[str] = Counter()

    def take(self, count: int) -> bool:
        """Take ``count`` descriptors, if there are so many."""
        if self._free < count:
            return False
        self._free -= count
        return True

    def give(self, count: int) -> None:
        """Give them back."""
        self._free += count

    def take_pipe(self, grant: str) -> bool:
        """Take a pipe's two descriptors, if its grant may have one more pipe."""
        if self._pipes[grant] >= MAX_PIPES or not self.take(2):
            return False
        self._pipes[grant] += 1
        return True

    def give_pipe(self, grant: str) -> None:
        """Give a pipe's descriptors back."""
        self.give(2)
        self._pipes[grant] -= 1
        if not self._pipes[grant]:
            del self._pipes[grant]
