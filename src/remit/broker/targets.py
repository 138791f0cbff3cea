"""What happens at the targets: revoking there, recording truthfully what came of it, and the sweep.

There is one recovery path, and it is the one used daily for expiry: a lease that is due is revoked at its target until
that succeeds, however often it takes.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from typing import TypeVar

from remit.broker.custody import Custody
from remit.broker.heads import Heads
from remit.core import scope as scopes
from remit.core.audit import Event
from remit.core.task import Lease, LeaseState, Report, Task
from remit.errors import ConflictError, EngineError, NotFoundError, RemitError, UnavailableError
from remit.ports import Bulk, Cleanable

T = TypeVar("T")

REVOKE_WINDOW = timedelta(seconds=15)

Bounded = Callable[[Awaitable[object], float], Awaitable[object]]  # a deadline in seconds around an engine call


class Targets:
    """The way to the targets, and back with the result."""

    def __init__(self, heads: Heads, custody: Custody, bounded: Bounded) -> None:
        """Work on ``heads`` with the engines of ``custody``."""
        self._heads = heads
        self._custody = custody
        self._bounded = bounded

    async def end(
        self, task: Task, grant_id: str, name: str, cause: str | None = None, request: str | None = None
    ) -> Report:
        """Mark a subtree, then visit its targets; say what is outstanding. ``request`` is what the end is a part of."""
        ids = frozenset(grant.id for grant in task.subtree(grant_id))
        change = task.revoke(grant_id)
        if not (change.grants or change.leases):
            await self._heads.durable()  # it ended in memory; whoever ended it may still be waiting for the store
            task = self._heads.task(task.id)
            change = task.revoke(grant_id)
        if change.grants or change.leases:
            event = self._heads.event(
                name, "done", grant_id, cause=cause or f"{len(change.grants)} grants", request=request
            )
            task = await self._heads.step(task.id, lambda t: t.revoke(grant_id), event)
        now = self._heads.now()
        task = await self.visit(task.id, tuple(lease.id for lease in task.due(now) if lease.grant in ids))
        return task.report(ids, len(change.grants))

    async def catch_up(self, task_id: str) -> int:
        """Visit the targets of what is due in a task, now; return how much is. What fails stays due."""
        with suppress(RemitError):
            due = tuple(lease.id for lease in self._heads.task(task_id).due(self._heads.now()))
            await self.visit(task_id, due)
            return len(due)
        return 0

    # -- the targets --------------------------------------------------------------------------------------------

    async def visit(self, task_id: str, lease_ids: Iterable[str]) -> Task:
        """Revoke leases at their targets and record what came of it."""
        task = self._heads.task(task_id)
        known = (task.leases.get(lease_id) for lease_id in lease_ids)
        leases = [lease for lease in known if lease is not None and lease.state is LeaseState.REVOKING]
        if not leases:
            return task
        started = self._heads.now()  # a lease settles by when revoking began, not by when it was done
        done: set[str] = set()
        residue: set[str] = set()
        for group in _by_resource(leases):
            ended, untidy = await self._revoke_at_target(group)
            done |= ended
            residue |= ended if untidy else set()
        failed = frozenset(lease.id for lease in leases) - done
        return await self._heads.step(
            task_id,
            lambda t: t.settle(frozenset(done), failed, frozenset(residue), started),
            *(self.lease_event("lease.revoke", "failed", lease) for lease in leases if lease.id in failed),
        )

    async def _revoke_at_target(self, leases: list[Lease]) -> tuple[set[str], bool]:
        detail = leases[0].plan.detail
        try:
            engine = await self._custody.engine(detail.resource, detail.type)
        except RemitError:
            return set(), False
        untidy = isinstance(engine, Cleanable)
        if isinstance(engine, Bulk) and len(leases) > 1:
            names = await self.quietly(engine.revoke_many([lease.plan for lease in leases]))
            return {lease.id for lease in leases if lease.plan.name in (names or ())}, untidy
        ended = {i.id for i in leases if await self.quietly(_and_true(engine.revoke(i.plan, i.receipt)))}
        return ended, untidy

    async def quietly(self, call: Awaitable[T]) -> T | None:
        """Call an engine; None when it fails, since what is due stays due."""
        try:
            return await self.call(call, REVOKE_WINDOW)
        except RemitError:
            return None

    async def call(self, call: Awaitable[T], window: timedelta) -> T:
        """Call an engine under a deadline; whatever it raises becomes an EngineError without the driver's words."""
        try:
            return await self._bounded(call, window.total_seconds())  # type: ignore[return-value]
        except RemitError:
            raise
        except TimeoutError as error:
            raise EngineError("the target did not answer in time") from error
        except Exception as error:
            raise EngineError from error

    async def sweep(self) -> None:
        """End what is over, revoke what is due, tidy up; one task's trouble does not hold up the others."""
        self._heads.expire(self._heads.now())
        for task in self._heads:
            try:
                await self._sweep_task(task)
            except (ConflictError, UnavailableError, NotFoundError):
                continue

    async def _sweep_task(self, task: Task) -> None:
        now = self._heads.now()
        if now >= task.head.expires_at and not task.head.closed:
            await self.end(task, task.head.root, "task.close", cause="expired")
        overdue = self._heads.task(task.id).overdue(now)
        if overdue:
            events = [self.lease_event("lease.revoke", "done", task.lease(i), cause="expired") for i in overdue]
            await self._heads.step(task.id, lambda t: t.revoke_leases(overdue), *events)
        due = self._heads.task(task.id).due(now)
        await self.visit(task.id, tuple(lease.id for lease in due))
        await self._tidy(task.id)
        task = self._heads.task(task.id)
        if task.head.closed and not task.leases and now >= task.head.expires_at:
            self._heads.forget(task.id)

    async def _tidy(self, task_id: str) -> None:
        revoked = [i for i in self._heads.task(task_id).leases.values() if i.state is LeaseState.REVOKED]
        gone = {lease.id for lease in revoked if not lease.residue}
        for group in _by_resource([lease for lease in revoked if lease.residue]):
            names = await self._cleaned(group)
            gone |= {lease.id for lease in group if lease.plan.name in names}
        if gone:
            await self._heads.step(task_id, lambda t: t.cleaned(frozenset(gone)))

    async def _cleaned(self, group: list[Lease]) -> frozenset[str]:
        detail = group[0].plan.detail
        try:
            engine = await self._custody.engine(detail.resource, detail.type)
        except RemitError:
            return frozenset()
        if not isinstance(engine, Cleanable):
            return frozenset()
        return await self.quietly(engine.clean([lease.plan for lease in group])) or frozenset()

    def lease_event(self, name: str, decision: str, lease: Lease, **more: str | None) -> Event:
        """Describe what happened to a lease."""
        digest = scopes.digest((lease.plan.detail,))
        return self._heads.event(
            name,
            decision,
            lease.grant,
            resource=lease.plan.detail.resource,
            action=lease.id,
            detail_s256=digest,
            **more,
        )


def _by_resource(leases: Iterable[Lease]) -> list[list[Lease]]:
    groups: dict[tuple[str, str], list[Lease]] = {}
    for lease in leases:
        groups.setdefault((lease.plan.detail.resource, lease.plan.detail.type), []).append(lease)
    return list(groups.values())


async def _and_true(call: Awaitable[None]) -> bool:
    await call
    return True
