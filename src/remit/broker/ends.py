"""Ends that could not be recorded yet. An end holds from when it was said, and is never taken back.

When the commit of an end fails, its task is read again from the store as it was before. What was to end there is then
ended in memory anew, and goes with every commit of that task until one succeeds; its events too. Until then, and where
a commit takes long, the store has a note of it, which the next start reads before it permits anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from remit.broker.begun import InTime
from remit.core import audit
from remit.core.audit import Event
from remit.core.task import Change, LeaseState, Task
from remit.errors import RemitError
from remit.jose import token
from remit.ports import NotedEnd, Store

PATIENCE = 2.0  # seconds: longer than that no end waits for the store
WAIT = 1.0  # seconds: longer than that it waits for no note
PAGE = 512  # entries read at once
END_EVENTS = frozenset({"task.close", "grant.revoke"})
BACK_OFF = timedelta(seconds=1)
BACK_OFF_CAP = timedelta(seconds=8)  # a commit costs little
BY_ITSELF = datetime.max.replace(tzinfo=UTC)  # when to try again what is under way

_LOG = logging.getLogger("remit.broker")


@dataclass(frozen=True, slots=True)
class UnrecordedEnd:
    """What is to end in one task."""

    grants: frozenset[str]
    leases: frozenset[str]
    events: tuple[Event, ...]
    attempts: int
    retry_at: datetime  # when to try again to record it
    visited: bool  # whether its leases were revoked at their targets since that was last tried
    tops: frozenset[str] = frozenset()  # of these grants, those with all others below them
    single: frozenset[str] = frozenset()  # leases that ended without their grant


class UnrecordedEnds:
    """What ended in which task and is not in the store: it waits, or a commit that is under way carries it."""

    def __init__(self) -> None:
        self.waiting: dict[str, UnrecordedEnd] = {}
        self.carried: dict[str, UnrecordedEnd] = {}
        self._late: dict[asyncio.Future[Task], NotedEnd] = {}
        self.version = 0  # counts what is to be noted, and what need be no more

    def retry_at(self, task_id: str) -> datetime | None:
        """Return when to try again to record what has ended in a task; None when all of it is."""
        found = self.waiting.get(task_id) or self.carried.get(task_id)
        if found is None and any(one.task == task_id for one in self._late.values()):
            return BY_ITSELF
        return None if found is None else found.retry_at

    def late(self, commit: asyncio.Future[Task], what: NotedEnd) -> None:
        """Keep what a commit is to end that takes long, until it is over."""
        self._late[commit] = what
        self.version += 1
        commit.add_done_callback(self._on_time)

    def _on_time(self, commit: asyncio.Future[Task]) -> None:
        del self._late[commit]
        self.version += 1

    def noted(self) -> list[NotedEnd]:
        """Return all that is not on record, for the store to note."""
        alike = [(i, one) for kept in (self.waiting, self.carried) for i, one in kept.items()]
        return [*self._late.values(), *(NotedEnd(i, tuple(one.tops), tuple(one.single)) for i, one in alike)]

    def carry(self, task_id: str) -> UnrecordedEnd:
        """Return what waits, for a commit to carry."""
        found = self.carried[task_id] = self.waiting.pop(task_id)
        return found

    def arrived(self, task_id: str, what: UnrecordedEnd | None) -> None:
        """Note that the commit which carried something is over."""
        if self.carried.get(task_id) is what:
            self.carried.pop(task_id, None)
            self.version += 1

    def wait(
        self, task_id: str, step: Change, carried: UnrecordedEnd | None, events: Sequence[Event], now: datetime
    ) -> None:
        """Keep what is to end once the commit of a step failed: what it carried, and what the step was to end."""
        self.arrived(task_id, carried)
        befores = [one for one in (self.waiting.get(task_id), carried) if one is not None]
        grants = {i for one in befores for i in one.grants}
        leases = {i for one in befores for i in one.leases}
        tops, single = {i for one in befores for i in one.tops}, {i for one in befores for i in one.single}
        kept = [event for one in befores for event in one.events]
        just_ended = (lease.state is LeaseState.REVOKING and lease.retry_at is None for lease in step.leases)
        if ending := step.ends and (bool(step.grants) or any(just_ended)):
            grants |= {grant.id for grant in step.grants}
            leases |= {lease.id for lease in step.leases}
            ended = {grant.id for grant in step.grants}
            tops |= {grant.id for grant in step.grants if grant.parent not in ended}
            single |= {lease.id for lease in step.leases if lease.grant not in ended}
            kept += events
        if not (grants or leases):
            return
        attempts = max((one.attempts for one in befores), default=0) + 1
        retry_at = now + min(BACK_OFF * 2 ** min(attempts - 1, 16), BACK_OFF_CAP)
        visited = bool(step.leases) and not ending
        if befores and not step.ends and (step.grants or step.leases):  # what was to give failed, and puts off no end
            attempts, retry_at, visited = befores[0].attempts, befores[0].retry_at, befores[0].visited
        ends = frozenset(grants), frozenset(leases), tuple(kept)
        self.waiting[task_id] = UnrecordedEnd(
            *ends, attempts, retry_at, visited, tops=frozenset(tops), single=frozenset(single)
        )
        self.version += 1

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


class EndNotes:
    """Keeps what is not on record noted in the store; one write serves all who wait for one."""

    def __init__(self, store: Store, ends: UnrecordedEnds, in_time: InTime) -> None:
        self._store, self._ends, self._in_time = store, ends, in_time
        self._noted = -1  # the version that the store has: a start takes what was noted, and notes anew
        self._one = asyncio.Lock()

    async def recorded(self, ending: Coroutine[Any, Any, Task], what: NotedEnd) -> Task:
        """Return the task once a commit has ended what it was to; raise what it raises, with a note of it by then."""
        try:
            return await self._in_time(ending, PATIENCE, lambda going: self._ends.late(going, what))
        except RemitError:
            await self.keep()
            raise

    async def keep(self) -> None:
        """Return when all that is not on record by now is noted; after a second though it is not, with a warning."""
        try:
            await self._in_time(self._written(self._ends.version), WAIT)
        except RemitError as error:
            _LOG.error("what has ended lasts as long as this broker: it is neither recorded nor noted: %s", error)

    async def _written(self, wanted: int) -> None:
        if self._noted >= wanted:
            return
        async with self._one:  # what the one before wrote is enough for those who waited for it
            if self._noted >= wanted:
                return
            version = self._ends.version
            await self._store.note_ends(self._ends.noted())
            self._noted = version


async def recently_ended(store: Store, now: datetime) -> set[str]:
    """Return the tasks in which something ended whose token could still be shown to others: their places are taken.

    A token that was revoked earlier has expired since; the log tells, and its time goes back where a clock was accepted
    alone: the keys that had signed before were revoked then.
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
