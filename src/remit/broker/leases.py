"""Issue, renew and revoke leases: the credentials of a grant.

An issue is never retried or resumed: its lease is committed before the engine is called, and in doubt it is revoked.
Where that commit is enough to revoke it, it is handed out while the one that confirms it is under way; if that one
fails, or is lost in a crash, the lease is revoked as any that was planned and not confirmed.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from remit.broker.begun import Unwaited
from remit.broker.checkpoints import Checkpoints
from remit.broker.engines import ISSUE_WINDOW, ResourceEngine
from remit.broker.policy import PolicyEnforcement, because, compared
from remit.broker.resources import ResourceRegistry
from remit.broker.revocation import LeaseRevoker
from remit.broker.tasks import TaskCache
from remit.core import scope as scopes
from remit.core.principal import Principal
from remit.core.scope import Detail
from remit.core.task import Change, Lease, LeaseState, Report
from remit.errors import AttenuationError, ConflictError, DeniedError, PolicyError, RemitError
from remit.ports import Issued, NewId
from remit.ports.broker import IssuedLease
from remit.ports.kind import LeaseRequest


class LeaseVerbs:
    """The part of the broker that makes credentials, makes them last, and ends them."""

    _tasks: TaskCache
    _registry: ResourceRegistry
    _revoker: LeaseRevoker
    policy: PolicyEnforcement
    _new_id: NewId
    checkpoints: Checkpoints
    _unwaited: Unwaited

    async def lease(self, lease_id: str) -> Lease:
        return self._tasks.task_of_lease(lease_id).lease(lease_id)

    async def issue(self, principal: Principal, grant_id: str, detail: Detail, key: str | None = None) -> IssuedLease:
        task = await self._tasks.acting(principal, grant_id, "lease.issue", resource=detail.resource)
        now = self._tasks.serving()
        try:
            scopes.check_items(scopes.dump((detail,)))  # it may come from a worker that reads nobody's requests
            await compared((detail,), task.grant(grant_id).scope)
            grant = self._tasks.task(task.head.id).usable(grant_id, detail, now)
            engine = await self._registry.engine(detail.resource, detail.type)
            under_key = task.leases.values() if key else ()  # a task has many, and few of them a key
            superseded = [i for i in under_key if (i.grant, i.key) == (grant_id, key) and i.standing]
            for old in superseded:
                event = self._revoker.lease_event("lease.revoke", "done", old, cause="superseded")
                await self._tasks.end(task.head.id, [event], leases=[old.id])
            await self._revoker.visit(task.head.id, [old.id for old in superseded])
            # the last wait: a reload in between counts
            decision = await self.policy.enforce(self.policy.question(task.head, grant, "issue", (detail,)), principal)
            lease_id, ttl = self._new_id("lse"), detail.number("ttl")
            ends = grant.expires_at if ttl is None else min(grant.expires_at, now + timedelta(seconds=ttl))
            plan = engine.plan(LeaseRequest(lease_id, detail, now + ISSUE_WINDOW, grant.agent))
            lease = Lease(lease_id, grant_id, plan, LeaseState.PLANNED, ends, key=key)
            event = self._revoker.lease_event("lease.issue", "allow", lease, **because(decision))
            await self._tasks.step(self._tasks.task(task.head.id).plan(lease, now), event)
        except RemitError as error:
            await self._tasks.denied("lease.issue", grant_id, error, resource=detail.resource)
            raise
        return await self._make(engine, task.head.id, lease)

    async def admit(self, grant_id: str, resource: str, login: str) -> None:
        task = self._tasks.task(self._tasks.check(grant_id).task)
        for lease in task.leases.values():
            here = lease.plan.name == login and lease.plan.detail.resource == resource
            active = lease.state is LeaseState.ACTIVE and self._tasks.now() < lease.expires_at
            if here and active and grant_id in (grant.id for grant in task.lineage(lease.grant)):
                return
        raise DeniedError(
            f"the login is that of no active lease on `{resource}` under this grant", help="issue one and use its login"
        )

    async def _make(self, engine: ResourceEngine, task_id: str, lease: Lease) -> IssuedLease:
        issued = None
        try:
            issued = await engine.issue(lease.plan, lease.expires_at)
            confirmed = self._tasks.task(task_id).confirm(lease.id, issued.receipt, self._tasks.now())
        except Exception as error:
            await self._abandon(engine, task_id, lease, issued, error)
            raise
        confirming = self._confirm(engine, confirmed, lease, issued)
        if lease.recallable:  # its durable plan is enough to end it: nothing is lost with the commit that follows
            self._unwaited(confirming)
        else:
            await confirming
        return IssuedLease(confirmed.leases[0], issued.credential)

    async def _confirm(self, engine: ResourceEngine, confirmed: Change, lease: Lease, issued: Issued) -> None:
        try:
            await self._tasks.step(confirmed, self._revoker.lease_event("lease.issue", "done", lease))
        except Exception as error:
            await self._abandon(engine, confirmed.head.id, lease, issued, error)
            raise

    async def _abandon(
        self, engine: ResourceEngine, task_id: str, lease: Lease, issued: Issued | None, error: Exception
    ) -> None:
        with suppress(RemitError):  # it has ended all the same
            event = self._revoker.lease_event("lease.issue", "failed", lease, code=getattr(error, "code", "internal"))
            await self._tasks.end(task_id, [event], leases=[lease.id])
        with suppress(RemitError):  # the sweep finds it when it can be read
            await self._revoker.visit(task_id, [lease.id])
        # a receipt is known to nobody but us; and what was handed out does not work on while its task cannot be read
        with suppress(RemitError):
            if issued is not None and (issued.receipt is not None or task_id not in self._tasks):
                await engine.revoke(lease.plan, issued.receipt)

    async def renew(self, principal: Principal, lease_id: str, ttl: timedelta) -> Lease:
        lease = await self.lease(lease_id)
        detail = lease.plan.detail
        task = await self._tasks.acting(principal, lease.grant, "lease.renew", resource=detail.resource)
        now = self._tasks.serving()
        most = detail.number("ttl")
        if ttl <= timedelta(0) or (most is not None and ttl > timedelta(seconds=most)):
            allowed = "" if most is None else f": {most} seconds"
            raise AttenuationError(f"`ttl` must be positive, and no longer than the detail allows{allowed}")
        lease, grant = task.renewable(lease_id, now)
        engine = await self._registry.engine(detail.resource, detail.type)
        if not (await engine.traits()).renewable:
            raise ConflictError("this kind of credential cannot be renewed", help="issue a new lease")
        try:
            decision = await self.policy.enforce(self.policy.question(task.head, grant, "renew", (detail,)), principal)
        except PolicyError as error:
            await self._tasks.denied("lease.renew", lease.grant, error, resource=detail.resource)
            raise
        event = self._revoker.lease_event("lease.renew", "allow", lease, **because(decision))
        later = self._tasks.task(task.id).extend(lease_id, now + ttl, now)
        longer = (await self._tasks.step(later, event)).lease(lease_id)
        await engine.renew(longer.plan, longer.receipt, longer.expires_at)
        self._tasks.check(longer.grant)
        return longer

    async def revoke_lease(self, principal: Principal, lease_id: str) -> Report:
        task = self._tasks.task_of_lease(lease_id)
        lease = task.lease(lease_id)
        self._tasks.allowed(principal, task.id, lease.grant)
        if lease.standing:
            event = self._revoker.lease_event("lease.revoke", "done", lease)
            with suppress(RemitError):  # it has ended all the same, and the answer says that it is not on record
                await self._tasks.end(task.id, [event], leases=[lease_id])
        task = await self._revoker.visit(task.id, [lease_id])
        alone = replace(task, leases={lease_id: task.leases.get(lease_id, lease)})
        report = self._revoker.report(alone, frozenset({lease.grant}), int(lease.standing))
        return await self.checkpoints.reported(report)

    async def retry_leases(self, task_id: str) -> None:
        """Revoke what is left of a task's leases at their targets, also where that was put off after a failure."""
        await self._revoker.visit(task_id, [i.id for i in self._tasks.task(task_id).leases.values() if i.retry_at])
