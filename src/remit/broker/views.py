"""What others are told of grants, tasks and approvals: values, made from the live task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime

from remit.core import approval as approvals
from remit.core import budget
from remit.core import scope as scopes
from remit.core.approval import Approval, Verdict
from remit.core.lineage import Ancestor, GrantView
from remit.core.principal import Holder, Principal
from remit.core.task import Grant, Task
from remit.errors import GrantEndedError, NotFoundError
from remit.ports.broker import ApprovalView, Asking, TaskPage

PAGE_SIZE = 1_048_576  # characters of the details of the grants in one answer


class LiveGrant:
    """A grant compiled for use: one look-up, flat in depth. ``ended`` is set before a revoke answers."""

    __slots__ = ("_view", "chains", "ended", "expires_at", "grant", "lineage", "root", "task")

    def __init__(self, task: Task, grant: Grant) -> None:
        self.task = task.id
        self.root = task.head.root
        self.grant = grant
        self.ended = grant.revoked or task.head.closed
        self.expires_at = grant.expires_at
        line = task.lineage(grant.id)
        self.lineage = tuple(step.id for step in reversed(line))
        self.chains = tuple(budget.counters(line, index) for index in range(len(grant.scope)))
        self._view: GrantView | None = None

    def view(self, task: Task) -> GrantView:
        """Return the grant as others are told of it; made once, as long as it does not change."""
        if self._view is None or self._view.grant is not self.grant:
            line = tuple(_ancestor(task.grants[grant_id]) for grant_id in self.lineage)
            self._view = GrantView(self.grant, self.task, task.head.subject, task.head.purpose, line)
        return self._view


def _ancestor(grant: Grant) -> Ancestor:
    return Ancestor(grant.id, grant.agent, grant.attested, grant.label)


def task_page(
    task: Task, root: str, spent: Mapping[budget.Key, int], after: str | None = None, limit: int = 1
) -> TaskPage:
    """Return ``limit`` grants at most of a subtree, fewer where their details are long, with their leases.

    They are those that follow ``after``. Grants that are made meanwhile do not change the order of those there are.
    """
    seen = [grant.id for grant in task.subtree(root)]
    if after is not None and after not in seen:
        raise NotFoundError
    start = 0 if after is None else seen.index(after) + 1
    grants = _fitting([task.grants[grant_id] for grant_id in seen[start : start + limit]])
    shown = {grant.id for grant in grants}
    return TaskPage(
        task.head,
        root,
        grants,
        [[spent.get((grant.id, index), 0) for index in range(len(grant.scope))] for grant in grants],
        [lease for lease in task.leases.values() if lease.grant in shown],
        grants[-1].id if grants and start + len(grants) < len(seen) else None,
    )


def _fitting(grants: Sequence[Grant]) -> Sequence[Grant]:
    total = 0
    for index, grant in enumerate(grants):
        total += grant.size
        if total > PAGE_SIZE and index:
            return grants[:index]
    return grants


def approval_view(item: Approval, task: Task | None, principal: Principal | None, now: datetime) -> ApprovalView:
    """Return an approval with the state it is in, and what asks for it, as far up as ``principal`` may see.

    What was asked under a grant that has ended has lapsed with it.
    """
    state = approvals.state(item, now)
    if task is None or item.grant is None:
        return ApprovalView(item, state)
    if state in {Verdict.PENDING.value, Verdict.APPROVED.value}:
        try:
            task.live(item.grant, now)
        except GrantEndedError:
            state = "lapsed"
    request, line = approvals.request_of(item), task.lineage(item.grant)
    held = line[0].scope
    if isinstance(principal, Holder):
        line = line[: [grant.id for grant in line].index(principal.grant) + 1]
    covers = scopes.covering(request.scope, held)
    wide = tuple(detail for detail, index in zip(request.scope, covers, strict=True) if index is None)
    above = tuple(map(_ancestor, reversed(line)))
    return ApprovalView(
        item, state, Asking(task.head, item.grant, above, held, task.beyond(item.grant, request, now), wide)
    )
