"""Issue and renew: the credentials of a grant.

An issue is never retried or resumed: its lease is committed before the engine is called, and in doubt it is revoked.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timedelta

from remit.broker.policy import PolicyEnforcement
from remit.broker.resources import ResourceRegistry
from remit.broker.revocation import LeaseRevoker
from remit.broker.tasks import TaskCache
from remit.core.audit import Event
from remit.core.policy import Decision
from remit.core.principal import Principal
from remit.core.scope import Detail
from remit.core.task import Grant, Lease, LeaseState, Task
from remit.errors import AttenuationError, ConflictError, NotFoundError, PolicyError, RemitError
from remit.ports import Engine, NewId, Renewable
from remit.ports.broker import IssuedLease

ISSUE_WINDOW = timedelta(seconds=10)  # an issue has no effect later than this after its plan


class Leases:
    """The verbs that make credentials, and make them last."""

    def __init__(
        self,
        tasks: TaskCache,
        registry: ResourceRegistry,
        revoker: LeaseRevoker,
        enforcement: PolicyEnforcement,
        new_id: NewId,
    ) -> None:
        self._tasks, self._registry, self._revoker, self._policy = tasks, registry, revoker, enforcement
        self._new_id = new_id

    async def issue(self, caller: Principal, grant_id: str, detail: Detail, key: str | None) -> IssuedLease:
        """Make a credential for a detail the grant covers; ``key`` first revokes the lease issued under it before."""
        task = await self._tasks.acting(caller, grant_id, "lease.issue", resource=detail.resource)
        now = self._tasks.serving()
        try:
            grant = task.usable(grant_id, detail, now)
            engine = await self._registry.engine(detail.resource, detail.type)
            await self._supersede(task, grant_id, key)
            # after the last wait: a reload in between counts
            decision = self._policy.enforce(task.head, grant, caller, "issue", (detail,))
            lease = self._planned(engine, grant, detail, key, now)
            event = self._decided("lease.issue", lease, decision)
            await self._tasks.step(self._tasks.task(task.head.id).plan(lease, now), event)
        except RemitError as error:
            await self._tasks.denied("lease.issue", grant_id, error, resource=detail.resource)
            raise
        return await self._make(engine, task.head.id, lease)

    def _planned(self, engine: Engine, grant: Grant, detail: Detail, key: str | None, now: datetime) -> Lease:
        lease_id = self._new_id("lse")
        ttl = detail.number("ttl")
        ends = grant.expires_at if ttl is None else min(grant.expires_at, now + timedelta(seconds=ttl))
        plan = engine.plan(detail, lease_id, now + ISSUE_WINDOW, agent=grant.agent)
        return Lease(lease_id, grant.id, plan, LeaseState.PLANNED, ends, key=key)

    async def _make(self, engine: Engine, task_id: str, lease: Lease) -> IssuedLease:
        issued = None
        try:
            issued = await self._revoker.call(engine.issue(lease.plan, lease.expires_at), ISSUE_WINDOW)
            event = self._revoker.lease_event("lease.issue", "done", lease)
            confirmed = self._tasks.task(task_id).confirm(lease.id, issued.receipt, self._tasks.now())
            task = await self._tasks.step(confirmed, event)
        except Exception as error:
            await self._abandon(task_id, lease, error)
            if issued is not None and issued.receipt is not None:  # known to nobody but us
                await self._revoker.quietly(engine.revoke(lease.plan, issued.receipt))
            raise
        return IssuedLease(task.lease(lease.id), issued.credential)

    async def _abandon(self, task_id: str, lease: Lease, error: Exception) -> None:
        code = error.code if isinstance(error, RemitError) else "internal"
        event = self._revoker.lease_event("lease.issue", "failed", lease, code=code)
        with suppress(RemitError):  # it has ended all the same
            await self._tasks.end(task_id, lambda t: t.revoke_leases((lease.id,)), event)
        with suppress(NotFoundError):  # the sweep finds it when it can be read
            await self._revoker.visit(task_id, (lease.id,))

    async def _supersede(self, task: Task, grant_id: str, key: str | None) -> None:
        old = [i for i in task.leases.values() if key and i.grant == grant_id and i.key == key and i.standing]
        for lease in old:
            event = self._revoker.lease_event("lease.revoke", "done", lease, cause="superseded")
            await self._tasks.end(task.head.id, lambda t, i=lease.id: t.revoke_leases((i,)), event)  # type: ignore[misc]
        await self._revoker.visit(task.head.id, tuple(lease.id for lease in old))

    async def renew(self, caller: Principal, lease_id: str, ttl: timedelta) -> Lease:
        """Extend a lease in place, within its grant and its detail's ttl."""
        lease = self._tasks.task_of_lease(lease_id).lease(lease_id)
        detail = lease.plan.detail
        task = await self._tasks.acting(caller, lease.grant, "lease.renew", resource=detail.resource)
        now = self._tasks.serving()
        most = detail.number("ttl")
        if ttl <= timedelta(0) or (most is not None and ttl > timedelta(seconds=most)):
            allowed = "" if most is None else f": {most} seconds"
            raise AttenuationError(f"`ttl` must be positive, and no longer than the detail allows{allowed}")
        lease, grant = task.renewable(lease_id, now)
        engine = await self._registry.engine(detail.resource, detail.type)
        if not isinstance(engine, Renewable):
            raise ConflictError("this kind of credential cannot be renewed", help="issue a new lease")
        try:
            decision = self._policy.enforce(task.head, grant, caller, "renew", (detail,))
        except PolicyError as error:
            await self._tasks.denied("lease.renew", lease.grant, error, resource=detail.resource)
            raise
        event = self._decided("lease.renew", lease, decision)
        task = await self._tasks.step(self._tasks.task(task.head.id).extend(lease_id, now + ttl, now), event)
        longer = task.lease(lease_id)
        await self._revoker.call(engine.renew(longer.plan, longer.receipt, longer.expires_at), ISSUE_WINDOW)
        self._tasks.check(longer.grant)
        return longer

    def _decided(self, name: str, lease: Lease, decision: Decision) -> Event:
        return self._revoker.lease_event(
            name, "allow", lease, policy=decision.version, cause="; ".join(decision.reasons)
        )
