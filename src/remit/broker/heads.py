"""The in-memory heads of tasks: how a pure step becomes durable, and how a live grant is looked up.

INVARIANT: a head may be ahead of the store by commits that are under way, and no answer is given before its own commit.
The store keeps the order of calls, and a change is valid only on its base revision; so when one commit fails, all that
were built on it fail too, before anything built on the reloaded head is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256

from remit.core import audit, budget
from remit.core.audit import Event
from remit.core.grant import UNPROVEN
from remit.core.task import Change, Grant, Lease, Subject, Task, nothing
from remit.errors import (
    DeniedError,
    ExpiredError,
    IntegrityError,
    LimitError,
    NotFoundError,
    PolicyError,
    RemitError,
    RevokedError,
    UnavailableError,
)
from remit.ports import Clock, Spend, Store, Write

SKEW = timedelta(seconds=5)
PLACES = 1 << 20  # of the token status list
UNDECIDED = "this broker has started anew, and is yet to decide whether this grant is still allowed"
DENIALS = 20  # audited one by one per grant, code and minute; beyond it they are counted


@dataclass(frozen=True, slots=True)
class Operator:
    """The human at the control socket: the owner of the state and of all tasks in it."""

    subject: Subject


@dataclass(frozen=True, slots=True)
class Holder:
    """An agent, by its channel or its token: its own grant and what hangs below it."""

    task: str
    grant: str


Caller = Operator | Holder


class Live:
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


class Heads:
    """Loaded tasks, their live grants and their counters; the way every change takes."""

    def __init__(self, store: Store, clock: Clock) -> None:
        """Start empty; ``load`` fills."""
        self.store = store
        self._clock = clock
        self._floor: datetime | None = None
        self.rolled_back = False
        self._tasks: dict[str, Task] = {}
        self._live: dict[str, Live] = {}
        self._task_of_lease: dict[str, str] = {}
        self.spent: dict[budget.Key, int] = {}
        self._denials: dict[tuple[str | None, str], tuple[int, int]] = {}  # (grant, code) -> (minute, count)
        self._ended: list[Callable[[frozenset[str]], None]] = []
        self._away: dict[str, list[asyncio.Event]] = {}  # tasks that are being read again after a commit failed
        self._places: dict[int, str] = {}  # in the token status list -> grant id
        self.undecided: set[str] = set()  # tasks that were loaded, and are yet to be decided on by what holds now

    # -- time ---------------------------------------------------------------------------------------------------

    async def floor(self) -> None:
        """Take the last audit entry's time as the earliest that now can be: a clock set back revives nothing."""
        size = await self.store.size()
        for entry in await self.store.entries(size - 1, 1) if size else ():
            self._floor = audit.read(entry).at

    def now(self) -> datetime:
        """Return the time, which never goes back."""
        now = self._clock()
        if self._floor is None or now > self._floor:
            self._floor = now
        return self._floor

    def forward(self) -> datetime:
        """Return the time for what extends authority; refuse when the clock has fallen behind."""
        now = self.now()
        if self._clock() < now - SKEW:
            raise UnavailableError("the clock is behind what the audit log has seen", help="set the clock, then retry")
        return now

    def serving(self) -> datetime:
        """Return the time for what extends authority; refuse on a log that was rolled back."""
        if self.rolled_back:
            raise IntegrityError("the audit log was rolled back, so nothing is served", help="see `remit doctor`")
        return self.forward()

    # -- reading ------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Task]:
        """Iterate over the loaded tasks."""
        return iter(tuple(self._tasks.values()))

    def task(self, task_id: str) -> Task:
        """Return a loaded task, or raise NotFoundError."""
        found = self._tasks.get(task_id)
        if found is None:
            raise NotFoundError
        return found

    def task_of(self, grant_id: str) -> Task:
        """Return the task of a grant."""
        return self.task(self.live(grant_id).task)

    def task_of_lease(self, lease_id: str) -> Task:
        """Return the task of a lease."""
        return self.task(self._task_of_lease.get(lease_id, ""))

    def live(self, grant_id: str) -> Live:
        """Return the compiled grant, ended or not, or raise NotFoundError."""
        found = self._live.get(grant_id)
        if found is None:
            raise NotFoundError
        return found

    def check(self, grant_id: str) -> Live:
        """Return the compiled grant if it is live now, else say why not."""
        live = self.live(grant_id)
        if self.now() >= live.expires_at:
            raise ExpiredError
        if live.ended:
            raise RevokedError
        if live.task in self.undecided:
            raise UnavailableError(UNDECIDED, help="try again in a moment")
        return live

    def allowed(self, caller: Caller, task_id: str, grant_id: str | None = None) -> Task:
        """Return a task if the caller may look there, and end things; unknown and foreign are one NotFoundError."""
        task = self.task(task_id)
        where, own = (caller.task, caller.grant) if isinstance(caller, Holder) else (task_id, task.head.root)
        if where != task_id or not task.within(grant_id or own, own):
            raise NotFoundError
        return task

    async def acting(self, caller: Caller, grant_id: str, name: str, **more: str | None) -> Task:
        """Return the task of a grant if the caller may act under it, in the name of its human; a refusal is recorded.

        The owner of the state may end what others opened, never act for them. Where a human's own token opened a task
        at the owner's socket, and bound it to no key, the owner is who it was opened for. An agent acts under its own
        grant and under those inside its process or run. Where it may not even look: NotFoundError.
        """
        task = self.allowed(caller, self.task_of(grant_id).id, grant_id)
        try:
            _check_acting(task, caller, grant_id)
        except DeniedError as error:
            who, by = (caller.grant, {}) if isinstance(caller, Holder) else (grant_id, {"subject": caller.subject.sub})
            await self.denied(name, who, error, cause=f"under {grant_id}", **by, **more)
            raise
        if task.id in self.undecided:
            raise UnavailableError(UNDECIDED, help="try again in a moment")
        return task

    def place(self, grant_id: str) -> int:
        """Return a free place in the status list for a new grant: as random as its id."""
        at = int.from_bytes(sha256(grant_id.encode()).digest()[:4], "big") % PLACES
        for step in range(PLACES):
            if (at + step) % PLACES not in self._places:
                return (at + step) % PLACES
        raise LimitError("there are too many grants for the status list")

    def places(self) -> list[int]:
        """Return the places of all grants that are live now."""
        now = self.now()
        found = ((at, self._live.get(grant_id)) for at, grant_id in self._places.items())
        return [at for at, live in found if live is not None and not live.ended and now < live.expires_at]

    # -- changing -----------------------------------------------------------------------------------------------

    async def load(self, task_id: str) -> Task:
        """Read a task from the store and make it the head."""
        task = await self.store.load(task_id)
        newer = self._tasks.get(task_id)
        if newer is not None and newer.head.rev >= task.head.rev:  # somebody else read it, and went on
            return newer
        for counter in await self.store.spent(task_id):
            key = (counter.grant, counter.index)
            self.spent[key] = max(counter.used, self.spent.get(key, 0))
        self._put(task, tuple(task.grants.values()), tuple(task.leases.values()))
        return task

    async def step(
        self,
        task_id: str,
        step: Callable[[Task], Change],
        *events: Event,
        fresh: bool = False,
        writes: Sequence[Write] = (),
    ) -> Task:
        """Take one pure step and make it durable with its events; the head moves at once, the answer waits.

        ``writes`` are committed with it: both or neither.
        """
        task = nothing(task_id) if fresh else self.task(task_id)
        change = step(task)
        after = task.apply(change)
        self._put(after, change.grants, change.leases)
        for lease_id in change.forget:
            self._task_of_lease.pop(lease_id, None)
        try:
            await self.store.commit([change, *writes], events)
        except BaseException:
            self.forget(task_id)
            if not fresh:
                await self._read_again(task_id)
            raise
        return after

    async def _read_again(self, task_id: str) -> None:
        back = asyncio.Event()
        self._away.setdefault(task_id, []).append(back)
        try:
            with suppress(RemitError):
                await self.durable()  # a cancelled commit may still be on its way; what is read must include it
            await self.load(task_id)
        finally:
            self._away[task_id].remove(back)
            back.set()

    def known(self) -> list[str]:
        """Return the ids of the tasks that are loaded, and of those that are being read again."""
        return [*self._tasks, *(task_id for task_id, waiting in self._away.items() if waiting)]

    def breadth(self, task_id: str) -> int:
        """Return how many grants a task has, as far as it is loaded."""
        return len(self._tasks[task_id].grants) if task_id in self._tasks else 0

    async def returned(self, task_id: str) -> bool:
        """Wait until a task is not being read again; return whether it is loaded then."""
        while self._away.get(task_id):
            await self._away[task_id][-1].wait()
        self._away.pop(task_id, None)
        return task_id in self._tasks

    async def durable(self) -> None:
        """Wait until every commit that was called before has succeeded or failed; the store keeps their order."""
        await self.store.commit((), ())

    async def record(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        """Commit what is not a step of a task."""
        await self.store.commit(writes, events)

    def debit(self, live: Live, index: int) -> tuple[Spend, ...]:
        """Take one use from every counter on the way to the root; what is taken stays taken."""
        after = budget.debit(self.spent, live.chains[index])
        self.spent.update(after)
        return tuple(Spend(live.task, grant, at, used) for (grant, at), used in after.items())

    def on_end(self, callback: Callable[[frozenset[str]], None]) -> None:
        """Call back with the ids of grants, at once, when they end."""
        self._ended.append(callback)

    def expire(self, now: datetime) -> None:
        """Tell of grants whose time is up."""
        over = [live for live in self._live.values() if not live.ended and now >= live.expires_at]
        for live in over:
            live.ended = True
        self._tell(frozenset(live.grant.id for live in over))

    def forget(self, task_id: str) -> None:
        """Drop a task from memory; its grants are not live until it is loaded again."""
        task = self._tasks.pop(task_id, None)
        for grant_id, grant in task.grants.items() if task else ():
            self._live.pop(grant_id, None)
            if grant.status is not None:
                self._places.pop(grant.status, None)
        for lease_id in task.leases if task else ():
            self._task_of_lease.pop(lease_id, None)

    def _put(self, task: Task, grants: Iterable[Grant], leases: Iterable[Lease]) -> None:
        self._tasks[task.id] = task
        ended = set()
        for grant in grants:
            old = self._live.get(grant.id)
            if old is None:
                self._live[grant.id] = Live(task, grant)
                if grant.status is not None:
                    self._places[grant.status] = grant.id
                continue
            old.grant = grant
            if grant.revoked and not old.ended:
                old.ended = True
                ended.add(grant.id)
        for lease in leases:
            self._task_of_lease[lease.id] = task.id
        self._tell(frozenset(ended))

    def _tell(self, ended: frozenset[str]) -> None:
        for callback in self._ended if ended else ():
            callback(ended)

    # -- events -------------------------------------------------------------------------------------------------

    def event(self, name: str, decision: str, grant_id: str | None, **more: object) -> Event:
        """Describe something that happened under a grant, with its lineage and human; what ``more`` says goes first."""
        at = self.now()
        live = self._live.get(grant_id) if grant_id is not None else None
        known: dict[str, object] = {"grant": grant_id}
        if live is not None:
            known |= {"task": live.task, "lineage": live.lineage}
            known |= {"agent": live.grant.agent, "attested": live.grant.attested}
            known["subject"] = self._tasks[live.task].head.subject.sub if live.task in self._tasks else None
        return Event(name, at, decision, **known | more)  # type: ignore[arg-type]  # fields of Event

    async def denied(self, name: str, grant_id: str | None, error: RemitError, **more: str | None) -> None:
        """Record a denial; in a flood only each power of two is written, with the count."""
        if isinstance(error, PolicyError):
            more |= {"cause": (error.inside or error).detail, "policy": error.version}
        count = self._count(grant_id, error.code)
        if count > DENIALS:
            if count & (count - 1):
                return
            more["cause"] = f"{count} times this minute"
        await self.record((), (self.event(name, "deny", grant_id, code=error.code, **more),))

    def _count(self, grant_id: str | None, code: str) -> int:
        minute = int(self.now().timestamp() // 60)
        if self._denials and next(iter(self._denials.values()))[0] != minute:
            self._denials.clear()
        _, count = self._denials.get((grant_id, code), (minute, 0))
        self._denials[grant_id, code] = (minute, count + 1)
        return count + 1


def _check_acting(task: Task, caller: Caller, grant_id: str) -> None:
    task.check_acting(grant_id, caller.grant if isinstance(caller, Holder) else task.head.root)
    if isinstance(caller, Holder):
        return
    if task.head.subject.sub != caller.subject.sub and not _brought(task):
        raise DeniedError("this task belongs to somebody else; you may end it, not act in it")


def _brought(task: Task) -> bool:
    """Whether the owner of the state opened a task with a human's token: only their socket and runs need no key."""
    return task.head.subject.acr not in UNPROVEN and not task.grant(task.head.root).apart
