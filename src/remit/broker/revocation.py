"""What happens at the targets: revoking there, recording truthfully what came of it, and the sweep.

There is one recovery path, and it is the one used daily for expiry: a lease that is due is revoked at its target until
that succeeds, however often it takes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime

from remit.broker import begun, ends
from remit.broker.resources import ResourceRegistry
from remit.broker.tasks import TaskCache
from remit.core import scope as scopes
from remit.core.audit import Event
from remit.core.lease import Closure
from remit.core.task import Change, Lease, LeaseState, Report, Task
from remit.errors import ConflictError, NotFoundError, RemitError, UnavailableError
from remit.ports import NotedEnd

_LOG = logging.getLogger("remit.broker")

HASTE = 0.5  # seconds to wait for a store that has kept an end waiting already
AT_ONCE = 64  # tasks that end together: they share a commit


class LeaseRevoker:
    """The way to the targets, and back with the result."""

    def __init__(self, tasks: TaskCache, registry: ResourceRegistry) -> None:
        self._tasks, self._registry = tasks, registry
        self._waiting: dict[tuple[str, str], dict[str, None]] = {}  # resource -> tasks with something due there
        self._busy: set[tuple[str, str]] = set()  # resources that somebody works on

    async def end(
        self, task: Task, grant_id: str, name: str, cause: str | None = None, request: str | None = None
    ) -> Report:
        """Mark a subtree, then visit its targets; say what is outstanding. ``request`` is what the end is a part of."""
        ids, lost = frozenset(grant.id for grant in task.subtree(grant_id)), False
        change, again = task.revoke(grant_id), self._tasks.unrecorded(task.id) is not None
        try:
            task = await self._marked(task, change, grant_id, name, cause, request)
        except RemitError:  # it holds all the same: the targets are visited, and the answer says so
            task = self._as_is(task.apply(change))
            lost = task.id not in self._tasks  # it turned out damaged: nobody will try again to record this
        due = {lease.id for lease in (*change.leases, *task.due(self._tasks.now()))}
        mine = [lease for lease in task.leases.values() if lease.grant in ids and (again or lease.id in due)]
        task = await self._visited(task, mine)
        return self.report(task, ids, len(change.grants), lost=lost)

    async def end_tasks(self, over: Callable[[Task], bool], cause: str, request: str | None = None) -> int:
        """End every open task that is ``over``, side by side; return how many, or raise what hinders the first.

        All are marked before a slow target of one could hold up another; one that is being read again is waited for.
        """

        async def ended(task_id: str) -> bool:
            if not await self._tasks.returned(task_id):
                return False  # over and swept, or never stored
            task = self._tasks.task(task_id)
            if task.head.closed or not over(task):
                return False
            if (await self.end(task, task.head.root, "task.close", cause, request)).recorded:
                return True
            raise UnavailableError("what an issuer ended could not be ended yet", help="send it again")

        loaded = {task.id: task for task in self._tasks}
        found = [i for i in self._tasks.known() if i not in loaded or (not loaded[i].head.closed and over(loaded[i]))]
        return (await begun.gather_limited(ended, found)).count(True)

    async def end_noted(self) -> None:
        """End what the broker before this one has ended and could not record."""
        noted = await self._tasks.store.noted_ends()
        everything = any(not end.task for end in noted)
        ends = (
            [NotedEnd(task.id) for task in self._tasks] if everything else [i for i in noted if i.task in self._tasks]
        )
        await begun.gather_limited(self._end_noted, ends)

    async def _end_noted(self, noted: NotedEnd) -> None:
        task = self._tasks.task(noted.task)
        whole = (task.head.root,) if not (noted.grants or noted.leases) else noted.grants
        grants = [i for i in whole if i in task.grants and not task.grants[i].revoked]
        leases = [i for i in noted.leases if i in task.leases and task.leases[i].standing]
        name = "task.close" if task.head.root in grants else "grant.revoke"
        events = [self._tasks.event(name, "done", i, cause="before the start") for i in grants]
        with suppress(RemitError):  # it holds, and stays noted
            if grants:
                await self._tasks.end(task.id, events, grants=grants)
        with suppress(RemitError):
            if leases:
                told = [
                    self.lease_event("lease.revoke", "done", task.leases[i], cause="before the start") for i in leases
                ]
                await self._tasks.end(task.id, told, leases=leases)

    async def _marked(
        self, task: Task, change: Change, grant_id: str, name: str, cause: str | None, request: str | None = None
    ) -> Task:
        if not (change.grants or change.leases):
            return await self._tasks.in_time(self._recorded(task.id), ends.PATIENCE)
        event = self._tasks.event(
            name, "done", grant_id, cause=cause or f"{len(change.grants)} grants", request=request
        )
        return await self._tasks.end(task.id, [event], grants=[grant_id])

    async def _recorded(self, task_id: str) -> Task:
        await self._tasks.durable()  # it ended in memory; whoever ended it may still be waiting for the store
        return await self._tasks.record_ends(task_id)

    def _as_is(self, task: Task) -> Task:
        """Return a task as it is loaded; the one given while it cannot be read."""
        with suppress(NotFoundError):
            return self._tasks.task(task.id)
        return task

    def report(self, task: Task, grant_ids: frozenset[str], revoked: int, *, lost: bool = False) -> Report:
        """Say what is outstanding under grants, and whether their end is on record; ``lost``: it never will be."""
        found = task.report(grant_ids, revoked)
        if not lost and self._tasks.unrecorded(task.id) is None:
            return found
        return replace(found, recorded=False, state=Closure.PARTIAL if found.state is Closure.CLOSED else found.state)

    async def catch_up(self, task_id: str) -> None:
        """Visit the targets of what is due in a task, now. What fails stays due."""
        with suppress(RemitError):
            task = self._tasks.task(task_id)
            await self._visited(task, task.due(self._tasks.now()))

    async def visit(self, task_id: str, lease_ids: Iterable[str]) -> Task:
        """Revoke leases at their targets and record what came of it; return the task with that."""
        await self._tasks.back(task_id)  # another commit may have failed
        task = self._tasks.task(task_id)
        return await self._visited(task, [task.leases[i] for i in lease_ids if i in task.leases])

    async def _visited(self, task: Task, leases: Sequence[Lease]) -> Task:
        leases = [lease for lease in leases if lease.state is LeaseState.REVOKING]
        if not leases:
            return task
        started = self._tasks.now()  # a lease settles by when revoking began, not by when it was done
        groups: dict[tuple[str, str], list[Lease]] = {}
        for lease in leases:
            groups.setdefault(_resource(lease), []).append(lease)
        visits = await begun.gather_limited(self._revoke_at_target, list(groups.values()))
        done = frozenset(lease_id for ended, _ in visits for lease_id in ended)
        residue = frozenset(lease_id for ended, untidy in visits if untidy for lease_id in ended)
        undone = frozenset(lease.id for lease in leases) - done
        failures = (self.lease_event("lease.revoke", "failed", lease) for lease in leases if lease.id in undone)
        try:
            settled = self._tasks.task(task.id).settle(done, undone, residue, started)
            patience = HASTE if self._tasks.unrecorded(task.id) else ends.PATIENCE
            return await self._tasks.in_time(self._tasks.step(settled, *failures), patience)
        except RemitError:  # it was done all the same, and will be again
            task = self._as_is(task)
            return task.apply(task.settle(done, undone, residue, started))

    async def _revoke_at_target(self, leases: list[Lease]) -> tuple[set[str], bool]:
        """Return the ids of the leases that have ended there, and whether they leave residue. What fails stays due."""
        ended, untidy = set[str](), False
        with suppress(RemitError):
            engine = await self._registry.engine(*_resource(leases[0]))
            traits = await engine.traits()
            untidy = traits.cleanable
            if traits.bulk and len(leases) > 1:
                names = await engine.revoke_many([lease.plan for lease in leases])
                return {lease.id for lease in leases if lease.plan.name in names}, untidy
            for lease in leases:
                with suppress(RemitError):
                    await engine.revoke(lease.plan, lease.receipt)
                    ended.add(lease.id)
        return ended, untidy

    async def sweep(self) -> None:
        """End what is over in all tasks, then do what is due, one task at a time at each target."""
        now = self._tasks.now()
        self._tasks.expire(now)
        due = self._tasks.due(now)
        try:
            failures = [failure for failure in await begun.gather_limited(self._finish, due, AT_ONCE) if failure]
        finally:
            for task_id in due:
                self._hand_on(task_id)
        if failures:
            _LOG.warning("what ended in %d tasks could not be recorded: %s", len(failures), failures[0])
        idle = [resource for resource in self._waiting if resource not in self._busy]  # others may sweep meanwhile
        await begun.gather_limited(self._work, idle)

    async def _finish(self, task_id: str) -> str | None:
        """End what is over in a task, and record what could not be before; say why where it cannot be recorded now."""
        now = self._tasks.now()
        try:
            if task_id not in self._tasks:
                await self._tasks.find(task_id)
            task = self._tasks.task(task_id)
            retry_at = self._tasks.unrecorded(task_id)
            if retry_at is not None and now >= retry_at:
                task = await self._tasks.record_ends(task_id)
            if now >= task.head.expires_at and not task.head.closed:
                root = task.head.root
                task = await self._marked(task, task.revoke(root), root, "task.close", "expired")
            overdue = task.overdue(now)
            if overdue:
                events = [self.lease_event("lease.revoke", "done", task.lease(i), cause="expired") for i in overdue]
                await self._tasks.end(task_id, events, leases=overdue)
        except UnavailableError as error:
            return error.detail
        except (ConflictError, NotFoundError):
            pass
        return None

    def _hand_on(self, task_id: str) -> None:
        """Have the workers of its resources do what is due in a task; note when to look at it again."""
        if task_id not in self._tasks:
            return
        task, now = self._tasks.task(task_id), self._tasks.now()
        times = [task.head.expires_at] if not self._closed(task, now) else []
        if not times and not task.leases:
            self._tasks.forget(task_id)
            return
        for lease in task.leases.values():
            at = lease.due_at
            if lease.standing or (at is not None and at > now):
                times.append(at or now)
            else:
                self._waiting.setdefault(_resource(lease), {})[task_id] = None
        retry_at = self._tasks.unrecorded(task_id)
        for at in times if retry_at is None else (*times, retry_at):
            self._tasks.deadlines.put(task_id, at)

    def _closed(self, task: Task, now: datetime) -> bool:
        """Whether a task is closed, on record, and its time is up."""
        return task.head.closed and now >= task.head.expires_at and self._tasks.unrecorded(task.id) is None

    async def _work(self, resource: tuple[str, str]) -> None:
        waiting = self._waiting[resource]
        self._busy.add(resource)
        try:
            while waiting:
                task_id = next(iter(waiting))
                del waiting[task_id]
                try:
                    await self._work_on(task_id, resource)
                except (ConflictError, UnavailableError, NotFoundError):
                    self._tasks.deadlines.put(task_id, self._tasks.now())
                except BaseException:
                    waiting[task_id] = None
                    raise
        finally:
            self._busy.discard(resource)
        self._waiting.pop(resource, None)

    async def _work_on(self, task_id: str, resource: tuple[str, str]) -> None:
        task, now = self._tasks.task(task_id), self._tasks.now()
        await self._visited(task, [lease for lease in task.due(now) if _resource(lease) == resource])
        task = self._tasks.task(task_id)
        revoked = [i for i in task.leases.values() if i.state is LeaseState.REVOKED and _resource(i) == resource]
        gone = {lease.id for lease in revoked if not lease.residue}
        left = [lease for lease in revoked if lease.residue]
        if left:
            with suppress(RemitError):
                engine = await self._registry.engine(*resource)
                if (await engine.traits()).cleanable:
                    names = await engine.clean([lease.plan for lease in left])
                    gone |= {lease.id for lease in left if lease.plan.name in names}
        if gone:
            task = await self._tasks.step(self._tasks.task(task_id).cleaned(frozenset(gone)))
        if len(gone) < len(revoked):
            self._tasks.deadlines.put(task_id, now)
        if self._closed(task, now) and not task.leases:
            self._tasks.forget(task_id)

    def lease_event(self, name: str, decision: str, lease: Lease, **more: str | None) -> Event:
        detail = lease.plan.detail
        known = {"resource": detail.resource, "action": lease.id, "detail_s256": scopes.digest((detail,))}
        return self._tasks.event(name, decision, lease.grant, **known, **more)


def _resource(lease: Lease) -> tuple[str, str]:
    return lease.plan.detail.resource, lease.plan.detail.type
