"""Descriptors: what runs and their connections may have open, so that the control plane is never left without."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

MAX_CLIENTS = 256  # of a channel's listener
MAX_CALLERS = 1_024  # of a listener where each request proves its grant
MAX_PIPES = 64  # of one grant
MOST = 1_024  # descriptors of one task
LEAST = 32  # that a task may always have, while there are some
DESCRIPTORS = 4_096  # unless the process says how many it has


class DescriptorBudget:
    """A count of descriptors that are free, of those that each task has, and of the pipes of each grant.

    A task has no more than half of what it and nobody have, so that there is always some for the next one.
    """

    __slots__ = ("_held", "_pipes", "free")

    def __init__(self, descriptors: int) -> None:
        self.free = descriptors
        self._held: Counter[str] = Counter()
        self._pipes: Counter[str] = Counter()

    def of(self, task: str) -> TaskQuota:
        """Return the quota of a task."""
        return TaskQuota(self, task)

    def take(self, task: str, count: int) -> bool:
        """Take ``count`` descriptors for a task, if there are so many and it may have them."""
        held = self._held[task]
        if self.free < count or held + count > min(MOST, max(LEAST, (self.free + held) // 2)):
            return False
        self.free -= count
        self._held[task] += count
        return True

    def give(self, task: str, count: int) -> None:
        """Give them back."""
        self.free += count
        _less(self._held, task, count)

    def take_pipe(self, task: str, grant: str) -> bool:
        """Take a pipe's two descriptors, if its grant may have one more pipe."""
        if self._pipes[grant] >= MAX_PIPES or not self.take(task, 2):
            return False
        self._pipes[grant] += 1
        return True

    def give_pipe(self, task: str, grant: str) -> None:
        """Give a pipe's descriptors back."""
        self.give(task, 2)
        _less(self._pipes, grant, 1)


@dataclass(frozen=True, slots=True)
class TaskQuota:
    """What one task has of the budget."""

    budget: DescriptorBudget
    task: str

    def take(self, count: int = 1) -> bool:
        """Take ``count`` descriptors, if there are so many and the task may have them."""
        return self.budget.take(self.task, count)

    def give(self, count: int = 1) -> None:
        """Give them back."""
        self.budget.give(self.task, count)

    def take_pipe(self, grant: str) -> bool:
        """Take a pipe's two descriptors, if its grant may have one more pipe."""
        return self.budget.take_pipe(self.task, grant)

    def give_pipe(self, grant: str) -> None:
        """Give a pipe's descriptors back."""
        self.budget.give_pipe(self.task, grant)


def _less(counts: Counter[str], name: str, count: int) -> None:
    counts[name] -= count
    if not counts[name]:
        del counts[name]
