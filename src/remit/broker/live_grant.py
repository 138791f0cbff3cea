"""A grant as it is looked up for each use."""

from __future__ import annotations

from remit.core import budget
from remit.core.principal import GrantView
from remit.core.task import Grant, Task


class LiveGrant:
    """A grant compiled for use: one look-up, flat in depth. ``ended`` is set before a revoke answers."""

    __slots__ = ("chains", "ended", "expires_at", "grant", "lineage", "root", "task", "view")

    def __init__(self, task: Task, grant: Grant) -> None:
        self.task, self.root = task.id, task.head.root
        self.grant, self.expires_at = grant, grant.expires_at
        self.ended = grant.revoked or task.head.closed
        self.lineage = tuple(step.id for step in reversed(task.lineage(grant.id)))
        self.chains: dict[int, tuple[budget.Counter, ...]] = {}  # the counters of each of its details that was used
        self.view: GrantView | None = None  # as others are told of it, from when somebody first asked
