"""How many runs there may be at a time, so that the runs of one task keep nobody else from having some. Pure."""

from __future__ import annotations

from collections import Counter

RUNS = 1_024  # at a time
RUNS_INSIDE = RUNS // 2  # at a time, launched inside runs: the rest is for the operator's
RUNS_OF_A_TASK = 64  # at a time, launched inside its runs, through whichever socket


class RunRoom:
    """Counts runs, or conversations about them, by the task inside whose runs they are launched; None: outside."""

    def __init__(self) -> None:
        self.taken = 0
        self._inside: Counter[str] = Counter()

    def take(self, task: str | None) -> bool:
        """Count one more, if there is room for it."""
        if task is None:
            free = self.taken < RUNS
        else:
            free = self._inside.total() < RUNS_INSIDE and self._inside[task] < RUNS_OF_A_TASK
        if free:
            self.taken += 1
            if task is not None:
                self._inside[task] += 1
        return free

    def give(self, task: str | None) -> None:
        self.taken -= 1
        if task is not None:
            self._inside[task] -= 1
            if not self._inside[task]:
                del self._inside[task]
