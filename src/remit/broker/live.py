"""A grant compiled for use."""

from __future__ import annotations

from remit.core import budget
from remit.core.task import Grant, Task


class LiveGrant:
    """A grant compiled for use: one look-up, flat in depth. ``ended`` is set before a revoke answers."""

    __slots__ = ("chains", "ended", "expires_at", "grant", "lineage", "task")

    def __init__(self, task: Task, grant: Grant) -> None:
        """Compile ``grant``."""
        self.task = task.id
        self.grant = grant
        self.ended = grant.revoked or task.head.closed
        self.expires_at = grant.expires_at
        self.lineage = tuple(step.id for step in reversed(task.lineage(grant.id)))
        self.chains = tuple(budget.counters(task, grant.id, index) for index in range(len(grant.scope)))
