"""The in-memory heads of tasks: how a pure step becomes durable, and how a live grant is looked up.

INVARIANT: a head may be ahead of the store by commits that are under way, and no answer is given before its own commit;
what an issue confirms is no answer: its plan is (``leases``).
The store keeps the order of calls, and a change is valid only on its base revision; so when one commit fails, all that
were built on it fail too, before anything built on the reloaded head is looked at.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from hashlib import sha256
from itertools import islice

from remit.broker import ends
from remit.broker.begun import InTime, in_time
from remit.broker.clock import Deadlines, Elapsed, SteadyClock
from remit.broker.notices import Notices
from remit.broker.unserved import Unserved
from remit.core import audit, budget
from remit.core.audit import LOUD, Event, Flood
from remit.core.principal import GrantView, Holder, Principal, Right, ancestor, check_acting, root_in
from remit.core.task import Change, Grant, Lease, Task, nothing
from remit.errors import (
    ConflictError,
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
from remit.jose.status import PLACES
from remit.ports import Clock, NotedEnd, Spend, Store, Write

LOOKS = 100  # whether a task has been read again, one commit apart
TRIES = 5  # when commits that ours is built on fail
PAST = 10_000  # grants of tasks that are over, of which it is known how they ended


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


class TaskCache:
    """Loaded tasks, their live grants and their counters; the way every change takes."""

    def __init__(self, store: Store, clock: Clock, elapsed: Elapsed = lambda: 0.0, in_time: InTime = in_time) -> None:
        self.store, self.in_time = store, in_time
        self.timing = SteadyClock(clock, elapsed)
        self.now = self.timing.now
        self.rolled_back = False
        self._tasks: dict[str, Task] = {}
        self._live: dict[str, LiveGrant] = {}
        self._past: dict[str, LiveGrant] = {}  # of tasks that are not loaded any more, the oldest first
        self.deadlines = Deadlines()  # of tasks; each is looked at when something of it is due
        self._expiries = Deadlines()  # of grants
        self._ends = ends.UnrecordedEnds()
        self.unrecorded = self._ends.retry_at
        self.notes = ends.EndNotes(store, self._ends, in_time)
        self._unread: set[str] = set()  # tasks that could not be read again
        self._task_of_lease: dict[str, str] = {}
        self.spent: dict[budget.Key, int] = {}
        self._denials = Flood()  # by grant and code
        self.notices = Notices()
        self._away: dict[str, list[asyncio.Event]] = {}  # tasks that are being read again after a commit failed
        self._places: dict[int, str] = {}  # in the token status list -> grant id
        self.unserved = Unserved()

    async def floor(self) -> None:
        """Take the last audit entry's time as the earliest that now can be: a clock set back revives nothing."""
        size = await self.store.size()
        for entry in await self.store.entries(size - 1, 1) if size else ():
            self.timing.see(audit.read(entry).at)

    def serving(self) -> datetime:
        """Return the time for what extends authority; refuse on a log that was rolled back."""
        if self.rolled_back:
            raise IntegrityError("the audit log was rolled back, so nothing is served", help="see `remit doctor`")
        return self.timing.forward()

    def __iter__(self) -> Iterator[Task]:
        return iter(tuple(self._tasks.values()))

    def __contains__(self, task_id: object) -> bool:
        return task_id in self._tasks

    def task(self, task_id: str) -> Task:
        if (found := self._tasks.get(task_id)) is None:
            raise NotFoundError
        return found

    def task_of(self, grant_id: str) -> Task:
        return self.task(self.live(grant_id).task)

    def task_of_lease(self, lease_id: str) -> Task:
        self._check_read(self._task_of_lease.get(lease_id) or next(iter((*self._away, *self._unread)), ""))
        return self.task(self._task_of_lease.get(lease_id, ""))

    def live(self, grant_id: str) -> LiveGrant:
        """Return the compiled grant, ended or not, or raise NotFoundError."""
        if (found := self._live.get(grant_id)) is None:
            raise NotFoundError
        return found

    def line(self, grant_id: str) -> LiveGrant | None:
        """Return where a grant hangs, live or ended; None: nobody knows it."""
        return self._live.get(grant_id) or self._past.get(grant_id)

    def check(self, grant_id: str) -> LiveGrant:
        """Return the compiled grant if it is live now, else say why not: also that it is being read again."""
        live = self.line(grant_id)
        if live is None:
            raise NotFoundError
        if self.now() >= live.expires_at:
            raise ExpiredError
        if live.ended:
            raise RevokedError
        if grant_id not in self._live:
            self._check_read(live.task)
            raise NotFoundError
        waiting = self.unserved.waiting  # none, mostly: then a deep grant is looked up as fast as any
        if live.task in self.unserved.undecided or (waiting and not waiting.isdisjoint(live.lineage)):
            raise self.unserved.error(live.task)
        return live

    def view(self, grant_id: str, caller: Principal | None = None) -> GrantView:
        """Return a grant, ended or not, as others are told of it: a caller, if ``allowed`` lets it look."""
        if caller is not None:
            self.allowed(caller, self._live[grant_id].task if grant_id in self._live else "", grant_id)
        live = self.live(grant_id)
        task = self._tasks[live.task]
        if live.view is None or live.view.grant is not live.grant or live.view.subject is not task.head.subject:
            line = tuple(ancestor(task.grants[each]) for each in live.lineage)
            live.view = GrantView(live.grant, live.task, task.head.subject, task.head.purpose, line)
        return live.view

    def allowed(self, caller: Principal, task_id: str, grant_id: str | None = None) -> Task:
        """Return a task if the caller may look there, and end things; unknown and foreign are one NotFoundError."""
        if isinstance(caller, Holder) and caller.grant in self._past:
            self.check(caller.grant)  # the task is over: it is told how its own grant ended
        task = self.task(task_id)
        root = root_in(caller, task)
        if root not in task.grants or (grant_id is not None and root not in self.live(grant_id).lineage):
            raise NotFoundError
        return task

    async def acting(self, caller: Principal, grant_id: str, name: str, **more: str | None) -> Task:
        """Return the task of a grant if the caller may act under it (``check_acting``); a refusal is recorded."""
        if grant_id in self._past:
            await self.back(grant_id)
        if grant_id in self._past and (Right.OPERATE in caller.rights or caller.name == grant_id):
            self.check(grant_id)  # as above
        task = self.allowed(caller, self.live(grant_id).task, grant_id)
        try:
            check_acting(task, caller, grant_id)
        except DeniedError as error:
            who, by = (caller.grant, {}) if isinstance(caller, Holder) else (grant_id, {"subject": caller.name})
            await self.denied(name, who, error, cause=f"under {grant_id}", **by, **more)
            raise
        if task.id in self.unserved.undecided or not self.unserved.waiting.isdisjoint(self.live(grant_id).lineage):
            raise self.unserved.error(task.id)
        return task

    def place(self, grant_id: str) -> int:
        """Return a free place in the status list for a new grant: as random as its id."""
        at = int.from_bytes(sha256(grant_id.encode()).digest()[:4], "big") % PLACES
        for step in range(PLACES):
            if (at + step) % PLACES not in self._places:
                return (at + step) % PLACES
        raise LimitError("there are too many grants for the status list")

    def places(self) -> list[int]:
        now = self.now()
        found = ((at, self._live.get(grant_id)) for at, grant_id in self._places.items())
        return [at for at, live in found if live is not None and not live.ended and now < live.expires_at]

    async def load(self, task_id: str) -> Task:
        """Read a task from the store and make it the head."""
        task = await self.store.load(task_id)
        counters = await self.store.spent(task_id)
        self._unread.discard(task_id)  # not earlier: until then it is known
        if (newer := self._tasks.get(task_id)) is not None and newer.head.rev >= task.head.rev:  # others have gone on
            return newer
        for counter in counters:
            key = (counter.grant, counter.index)
            self.spent[key] = max(counter.used, self.spent.get(key, 0))
        task, ended, retry_at = self._ends.read(task)
        self._put(task, tuple(task.grants.values()), tuple(task.leases.values()))
        if retry_at is not None:  # it may have passed while the task was being read
            self.deadlines.put(task_id, retry_at)
        self.notices.tell(ended)
        return task

    async def step(self, own: Change, *events: Event, writes: Sequence[Write] = ()) -> Task:
        """Make a change durable with its events and ``writes``, or neither. The head moves at once, answers wait."""
        change, told, task_id, fresh = own, events, own.head.id, own.base == 0
        task = nothing(task_id) if fresh else self.task(task_id)
        ended = self._ends.carry(task_id) if task_id in self._ends.waiting else None
        if ended is not None:
            told = (*(replace(event, at=self.now()) for event in ended.events), *events)
            grants = {i: task.grants[i] for i in ended.grants} | {grant.id: grant for grant in own.grants}
            leases = {i: task.leases[i] for i in ended.leases} | {lease.id: lease for lease in own.leases}
            change = replace(own, grants=tuple(grants.values()), leases=tuple(leases.values()))
        after = task.apply(change)
        self._put(after, change.grants, change.leases)
        for lease_id in change.forget:
            self._task_of_lease.pop(lease_id, None)
        try:
            await self.store.commit([change, *writes], told)
        except BaseException:
            if not fresh:
                self._ends.wait(task_id, own, ended, events, self.now())
            self.forget(task_id)
            if not fresh:
                await self._read_again(task_id)
            raise
        if ended is not None:
            self._ends.arrived(task_id, ended)
        return after

    async def end(
        self, task_id: str, events: list[Event], grants: Sequence[str] = (), leases: Sequence[str] = ()
    ) -> Task:
        """End grants with all below them, or leases. It holds from now on; raises once a note is in place of it."""
        ending = self._end(task_id, events, grants, leases)
        return await self.notes.recorded(ending, NotedEnd(task_id, tuple(grants), tuple(leases)))

    async def _end(self, task_id: str, events: list[Event], grants: Sequence[str], leases: Sequence[str]) -> Task:
        with suppress(ConflictError):  # a commit that ours was built on has failed
            task = self.task(task_id)
            return await self.step(task.revoke(*grants) if grants else task.revoke_leases(tuple(leases)), *events)
        for _ in range(TRIES):
            with suppress(ConflictError):
                return await self.record_ends(task_id)
        raise ConflictError

    async def record_ends(self, task_id: str) -> Task:
        """Record what has ended in a task and could not be recorded; return the task."""
        if task_id in self._ends.carried:
            with suppress(RemitError):
                await self.durable()
        if task_id in self._ends.waiting:
            return await self.step(self.task(task_id).revoke_leases(()))
        return self.task(task_id)

    async def _read_again(self, task_id: str) -> None:
        back = asyncio.Event()
        self._away.setdefault(task_id, []).append(back)
        try:
            await self.find(task_id)
        except BaseException:
            self._read_later(task_id)  # whoever is cancelled twice leaves it to the sweep
            raise
        finally:
            self._away[task_id].remove(back)
            if not self._away[task_id]:
                del self._away[task_id]
            back.set()

    async def find(self, task_id: str) -> None:
        """Read a task that is not loaded; while the medium fails it is known, and tried again."""
        with suppress(RemitError):
            await self.durable()  # a cancelled commit may still be on its way; what is read must include it
        try:
            await self.load(task_id)
        except UnavailableError:
            self._read_later(task_id)
        except RemitError:  # it was never stored, or is damaged
            self._ends.waiting.pop(task_id, None)
            self._unread.discard(task_id)

    def _read_later(self, task_id: str) -> None:
        self._unread.add(task_id)
        self.deadlines.put(task_id, self.now() + ends.BACK_OFF)

    async def back(self, name: str) -> None:
        """Wait while a task, or that of a grant, is being read again; UnavailableError when it cannot be read."""
        task_id = self._past[name].task if name in self._past else name
        with suppress(UnavailableError):
            await self.in_time(self._back(task_id), ends.PATIENCE)
        self._check_read(task_id)

    async def _back(self, task_id: str) -> None:
        for _ in range(LOOKS):
            if task_id in self._away and task_id not in self._tasks:
                with suppress(RemitError):
                    await self.durable()

    def _check_read(self, task_id: str) -> None:
        if task_id not in self._tasks and (task_id in self._unread or task_id in self._away):
            raise UnavailableError("a task cannot be read now", help="try again")

    def due(self, now: datetime) -> list[str]:
        """Return the tasks in which something is due, and those that are to be read again."""
        return [task_id for task_id in self.deadlines.due(now) if task_id in self._tasks or task_id in self._unread]

    def known(self) -> list[str]:
        """Return the ids of the tasks that are loaded, and of those that are being read again, or have to be."""
        return [*{**self._tasks, **dict.fromkeys((*self._away, *self._unread))}]

    async def returned(self, task_id: str) -> bool:
        """Wait until a task is not being read again; return whether it is loaded then. Raises as ``back`` does."""
        while task_id in self._away:
            await self._away[task_id][-1].wait()
        self._check_read(task_id)
        return task_id in self._tasks

    async def durable(self) -> None:
        """Wait until every commit that was called before has succeeded or failed; the store keeps their order."""
        await self.store.commit((), ())

    def debit(self, live: LiveGrant, index: int) -> tuple[Spend, ...]:
        """Take one use from every counter on the way to the root; what is taken stays taken."""
        if index not in live.chains:
            live.chains[index] = budget.counters(self._tasks[live.task].lineage(live.grant.id), index)
        after = budget.debit(self.spent, live.chains[index])
        self.spent.update(after)
        return tuple(Spend(live.task, grant, at, used) for (grant, at), used in after.items())

    def expire(self, now: datetime) -> None:
        """Tell of grants whose time is up."""
        due = [live for i in self._expiries.due(now) if (live := self._live.get(i)) is not None and not live.ended]
        for live in due:
            live.ended = live.expires_at <= now  # else it was renewed, and ends when its task is closed
        self.notices.tell(frozenset(live.grant.id for live in due if live.ended))

    def forget(self, task_id: str) -> None:
        """Drop a task from memory; its grants are not live until it is loaded again, and those that ended stay so."""
        task = self._tasks.pop(task_id, None)
        for grant_id, grant in task.grants.items() if task else ():
            self._past[grant_id] = self._live.pop(grant_id)
            if grant.status is not None:
                self._places.pop(grant.status, None)
        for lease_id in task.leases if task else ():
            self._task_of_lease.pop(lease_id, None)
        for grant_id in tuple(islice(self._past, max(0, len(self._past) - PAST))):
            del self._past[grant_id]

    def _put(self, task: Task, grants: Iterable[Grant], leases: Iterable[Lease]) -> None:
        self._tasks[task.head.id] = task
        self.deadlines.put(task.head.id, task.head.expires_at)
        ended = set()
        for grant in grants:
            old = self._live.get(grant.id)
            if old is None:
                self._live[grant.id] = LiveGrant(task, grant)
                self._past.pop(grant.id, None)
                self._expiries.put(grant.id, grant.expires_at)
                if grant.status is not None:
                    self._places[grant.status] = grant.id
                continue
            old.grant, old.expires_at = grant, grant.expires_at
            if grant.revoked and not old.ended:
                old.ended = True
                ended.add(grant.id)
        for lease in leases:
            self._task_of_lease[lease.id] = task.head.id
            self.deadlines.put(task.head.id, lease.due_at or self.now())
        if ended:
            self.notices.tell(frozenset(ended))

    def event(self, name: str, decision: str, grant_id: str | None, **more: object) -> Event:
        """Describe something that happened under a grant, with its lineage and human; what ``more`` says goes first."""
        live = None if grant_id is None else self.line(grant_id)
        known: dict[str, object] = {"grant": grant_id}
        if live is not None:
            known |= {"task": live.task, "lineage": live.lineage}
            known |= {"agent": live.grant.agent, "attested": live.grant.attested}
            known["subject"] = self._tasks[live.task].head.subject.sub if live.task in self._tasks else None
        return Event(name, self.now(), decision, **known | more)  # type: ignore[arg-type]  # fields of Event

    async def denied(
        self, name: str, grant_id: str | None, error: RemitError, times: int = 1, /, **more: str | None
    ) -> None:
        """Record a denial, which stands for so many; in a flood only each power of two is written, with the count."""
        if isinstance(error, PolicyError):
            more |= {"cause": (error.inside or error).detail, "policy": error.version}
        if (count := self._denials.told((grant_id, error.code), self.now(), times)) is None:
            return
        if count > LOUD:
            more["cause"] = f"{count} times this minute"
        await self.store.commit((), (self.event(name, "deny", grant_id, code=error.code, **more),))
