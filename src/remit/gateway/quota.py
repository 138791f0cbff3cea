"""Descriptors: what runs and their connections may have open, so that the control plane is never left without."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

MAX_CLIENTS = 256  # of a channel's listener
MAX_CALLERS = 1_024  # of a listener where each request proves its grant
MAX_PIPES = 64  # of one grant
MOST = 1_024  # descriptors of one task
LEAST = 32  # that a task may always have, while there are some
DESCRIPTORS = 4_096  # unless the process says how many it has


@dataclass(slots=True, eq=False)
class DescriptorBudget:
    """A count of descriptors that are free, of those that each task has, and of the pipes of each grant."""

    free: int
    held: Counter[str] = field(default_factory=Counter)
    pipes: Counter[str] = field(default_factory=Counter)

    def of(self, task: str) -> TaskQuota:
        return TaskQuota(self, task)


@dataclass(frozen=True, slots=True)
class TaskQuota:
    """What one task may have: no more than half of what it and nobody have, so that there is some for the next one."""

    budget: DescriptorBudget
    task: str

    def take(self, count: int = 1) -> bool:
        """Take ``count`` descriptors, if there are so many and the task may have them."""
        budget, held = self.budget, self.budget.held[self.task]
        if budget.free < count or held + count > min(MOST, max(LEAST, (budget.free + held) // 2)):
            return False
        budget.free -= count
        budget.held[self.task] += count
        return True

    def give(self, count: int = 1) -> None:
        self.budget.free += count
        _less(self.budget.held, self.task, count)

    def take_pipe(self, grant: str) -> bool:
        """Take a pipe's two descriptors, if its grant may have one more pipe."""
        if self.budget.pipes[grant] >= MAX_PIPES or not self.take(2):
            return False
        self.budget.pipes[grant] += 1
        return True

    def give_pipe(self, grant: str) -> None:
        self.give(2)
        _less(self.budget.pipes, grant, 1)


def _less(counts: Counter[str], name: str, count: int) -> None:
    counts[name] -= count
    if not counts[name]:
        del counts[name]
