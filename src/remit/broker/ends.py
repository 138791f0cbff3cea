"""Ends that could not be recorded yet. An end holds from when it was said, and is never taken back.

When the commit of an end fails, its task is read again from the store as it was before. What was to end there is then
ended in memory anew, and goes with every commit of that task until one succeeds; its events too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from remit.core import audit
from remit.core.audit import Event
from remit.core.task import Change, LeaseState, Task
from remit.jose import token
from remit.ports import Store

PAGE = 512  # entries read at once
END_EVENTS = frozenset({"task.close", "grant.revoke"})
BACK_OFF = timedelta(seconds=1)
BACK_OFF_CAP = timedelta(seconds=8)  # a commit costs little, and a crash before it brings back what ended


@dataclass(frozen=True, slots=True)
class UnrecordedEnd:
    """What is to end in one task."""

    grants: frozenset[str]
    leases: frozenset[str]
    events: tuple[Event, ...]
    attempts: int
    retry_at: datetime  # when to try again to record it
    visited: bool  # whether its leases were revoked at their targets since that was last tried


class UnrecordedEnds:
    """What ended in which task and is not in the store: it waits, or a commit that is under way carries it."""

    def __init__(self) -> None:
        self.waiting: dict[str, UnrecordedEnd] = {}
        self.carried: dict[str, UnrecordedEnd] = {}

    def retry_at(self, task_id: str) -> datetime | None:
        """Return when to try again to record what has ended in a task; None when all of it is."""
        found = self.waiting.get(task_id) or self.carried.get(task_id)
        return None if found is None else found.retry_at

    def carry(self, task_id: str) -> UnrecordedEnd:
        """Return what waits, for a commit to carry."""
        found = self.carried[task_id] = self.waiting.pop(task_id)
        return found

    def arrived(self, task_id: str, what: UnrecordedEnd | None) -> None:
        """Note that the commit which carried something is over."""
        if self.carried.get(task_id) is what:
            self.carried.pop(task_id, None)

    def wait(
        self, task_id: str, step: Change, carried: UnrecordedEnd | None, events: Sequence[Event], now: datetime
    ) -> None:
        """Keep what is to end once the commit of a step failed: what it carried, and what the step was to end."""
        self.arrived(task_id, carried)
        befores = [one for one in (self.waiting.get(task_id), carried) if one is not None]
        grants = {i for one in befores for i in one.grants}
        leases = {i for one in befores for i in one.leases}
        kept = [event for one in befores for event in one.events]
        just_ended = (lease.state is LeaseState.REVOKING and lease.retry_at is None for lease in step.leases)
        if ending := step.ends and (bool(step.grants) or any(just_ended)):
            grants |= {grant.id for grant in step.grants}
            leases |= {lease.id for lease in step.leases}
            kept += events
        if not (grants or leases):
            return
        attempts = max((one.attempts for one in befores), default=0) + 1
        retry_at = now + min(BACK_OFF * 2 ** min(attempts - 1, 16), BACK_OFF_CAP)
        visited = bool(step.leases) and not ending
        if befores and not step.ends and (step.grants or step.leases):  # what was to give failed, and puts off no end
            attempts, retry_at, visited = befores[0].attempts, befores[0].retry_at, befores[0].visited
        ends = frozenset(grants), frozenset(leases), tuple(kept)
        self.waiting[task_id] = UnrecordedEnd(*ends, attempts, retry_at, visited)

    def read(self, task: Task) -> tuple[Task, frozenset[str], datetime | None]:
        """Return a task as it was read with what waits ended in it, the grants that waited, and when to try again."""
        known = self.waiting.pop(task.id, None)
        if known is None:
            return task, frozenset(), None
        change = task.revoke(*(i for i in known.grants if i in task.grants))
        alone = [i for i in known.leases - {lease.id for lease in change.leases} if i in task.leases]
        later = known.retry_at if known.visited else None
        ending = (*change.leases, *task.revoke_leases(tuple(alone)).leases)
        leases = tuple(replace(lease, retry_at=later) for lease in ending)
        if not change.grants and not leases:  # all of it had been recorded
            return task, known.grants, None
        grant_ids, lease_ids = (grant.id for grant in change.grants), (lease.id for lease in leases)
        self.waiting[task.id] = replace(known, grants=frozenset(grant_ids), leases=frozenset(lease_ids))
        ended = task.apply(replace(change, leases=leases))
        same_revision = replace(ended, head=replace(ended.head, rev=task.head.rev))
        return same_revision, known.grants, known.retry_at


async def recently_ended(store: Store, now: datetime) -> set[str]:
    """Return the tasks in which something ended whose token could still be shown to others: their places are taken.

    A token that was revoked earlier has expired since; the log tells, and its time never goes back.
    """
    since = now - token.LIFE - timedelta(seconds=token.SKEW)
    found, end = set[str](), await store.size()
    while end:
        start = max(0, end - PAGE)
        for entry in reversed(await store.entries(start, end - start)):
            event = audit.read(entry)
            if event.at < since:
                return found
            if event.event in END_EVENTS and event.task is not None:
                found.add(event.task)
        end = start
    return found
