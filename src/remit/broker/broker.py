"""The broker: open, delegate, issue, renew, revoke, close; and the sweep that finishes what was begun.

The order of writes and effects is decided here and nowhere else (``docs/explanation/lease-cycle.md``):

- Intent is committed before an engine is called, and the outcome before a credential is handed out.
- In doubt a lease is revoked; nothing is retried or resumed.
- A revoke marks the whole subtree before any target is visited.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from remit.broker.approvals import Approvals, StepUp
from remit.broker.checkpoints import Checkpoints
from remit.broker.ends import recently_ended
from remit.broker.grants import Grants
from remit.broker.policy import PolicyEnforcement
from remit.broker.refresh_tokens import RefreshTokens
from remit.broker.resource_verbs import Resources
from remit.broker.resources import ResourceRegistry
from remit.broker.revocation import Bounded, LeaseRevoker
from remit.broker.sessions import LoginRevocations, NoRevocations, SessionAccess
from remit.broker.tasks import TaskCache
from remit.broker.uses import Use, Uses
from remit.core import policy
from remit.core.audit import Entry
from remit.core.policy import Decision
from remit.core.principal import Principal, Signal, root_in
from remit.core.scope import Access, Detail
from remit.core.secret import Secret
from remit.core.task import Grant, Lease, LeaseState, Report, Task
from remit.core.tree import Range
from remit.errors import (
    AttenuationError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    PolicyError,
    RemitError,
    UnavailableError,
)
from remit.ports import Clock, Engine, NewId, Renewable, Resource, Sealer, Store, Witness
from remit.ports.kind import EngineContext, Kind

ISSUE_WINDOW = timedelta(seconds=10)  # an issue has no effect later than this after its plan
RECENT = 100  # tasks that can be looked at after a restart, ended or not, until their time is up


async def _deadline(call: Awaitable[object], seconds: float) -> object:
    return await asyncio.wait_for(call, seconds)


def _whoever(sub: str) -> tuple[str, ...]:
    """Ask nobody for more than a login."""
    del sub
    return ()


@dataclass(frozen=True, slots=True)
class IssuedLease:
    """A lease with its credential, handed out once."""

    lease: Lease
    credential: Mapping[str, str | Secret]


class Broker:
    """The six verbs. Every method raises a RemitError or has done what it says."""

    def __init__(
        self,
        *,
        store: Store,
        kinds: Mapping[str, Kind],
        context: EngineContext,
        sealer: Sealer,
        clock: Clock,
        elapsed: Callable[[], float] = lambda: 0.0,
        new_id: NewId,
        witness: Witness | None = None,
        decide: policy.Policy = policy.within_bounds,
        step_up: StepUp = _whoever,
        trust_domain: str = "remit.local",
        at_rest: str = "none",
        bounded: Bounded = _deadline,
        revocations: Callable[[SessionAccess], LoginRevocations] = lambda _: NoRevocations(),
    ) -> None:
        """Wire a broker; ``start`` makes it ready.

        ``elapsed`` are seconds by a clock that nobody sets, and that counts sleep: time goes on by it where ``clock``
        was set back.
        """
        self._store = store
        self._tasks = TaskCache(store, clock, elapsed)
        self.kinds = kinds
        self._registry = ResourceRegistry(store, sealer, kinds, context)
        self._uses = Uses(self._tasks)
        self._revoker = LeaseRevoker(self._tasks, self._registry, bounded)
        self._new_id = new_id
        self.second = Checkpoints(self._tasks, self._revoker, witness)
        self._policy = PolicyEnforcement(self._tasks, self._registry, self._revoker, decide)
        self._resources = Resources(self._tasks, self._registry, self._policy)
        self.sessions = SessionAccess(self._tasks, self._revoker)
        self.revocations = revocations(self.sessions)
        check_login = self.revocations.check
        self._refresh_tokens = RefreshTokens(self._tasks, self._revoker, new_id)
        self._approvals = Approvals(self._tasks, new_id, step_up, check_login)
        openings = Grants(self._tasks, self._policy, self._approvals, check_login, new_id, trust_domain, at_rest)
        self.open, self.delegate, self.attach = openings.open, openings.delegate, openings.attach
        self.ask, self.spend = openings.ask, openings.spend
        self.ask_to_open, self.to_open, self.step_up = openings.ask_to_open, openings.to_open, step_up
        self.approval, self.approvals = self._approvals.get, self._approvals.seen
        self.look, self.wait = self._approvals.look, self._approvals.wait
        self.approve, self.refuse = self._approvals.approve, self._approvals.refuse
        self.issue_refresh_token, self.rotate_refresh_token = self._refresh_tokens.begin, self._refresh_tokens.rotate
        self.refresh_token = self._refresh_tokens.find
        self.reload, self.question = self._policy.reload, self._policy.question
        self.keep_policy, self.note_policy = self._policy.keep, self._policy.note
        self.check_resource = self._resources.check
        self.on_end, self.back = self._tasks.on_end, self._tasks.back
        self.known, self.unrecorded = self._tasks.known, self._tasks.unrecorded
        self.outcome, self.ended = self._uses.outcome, self._uses.ended
        self.flush, self.deny = self._uses.flush, self._uses.deny

    @property
    def rolled_back(self) -> bool:
        """Whether the log is not the one that checkpoints were kept of: then everything ends."""
        return self._tasks.rolled_back

    @property
    def deciding(self) -> policy.Policy:
        """What decides now on what is made."""
        return self._policy.deciding

    async def start(self) -> None:
        """Load, and decide anew on what was loaded."""
        await self.load()
        await self.settle()

    async def load(self) -> None:
        """Load what is unsettled or recent. A log that does not extend its last checkpoint ends every task.

        Until ``settle`` has come to a task, it can be looked at and ended, and nothing under it is served.
        """
        await self._tasks.floor()
        await self._registry.load()
        await self._approvals.load()
        await self.revocations.load()
        await self._refresh_tokens.load()
        recent = {*await self._store.tasks(RECENT), *await recently_ended(self._store, self._tasks.now())}
        for task_id in {*await self._store.unsettled(), *recent}:
            await self._tasks.load(task_id)
        with suppress(RemitError):  # a place that is out stops nothing; what it shows later counts then
            await self.second.look()
        self._tasks.undecided.update(task.id for task in self._tasks)
        await self.revocations.resume()

    async def settle(self) -> None:
        """Decide anew on what was loaded: policies and bounds may not be those of before the start."""
        await self._policy.redecide("not allowed any more at the start", visit=False)

    async def sweep(self) -> None:
        """End what is over, do what is due at targets, and go on with what a policy or an issuer has ended."""
        await self._policy.sweep()
        await self.revocations.sweep()

    async def stop(self) -> None:
        """Let go of targets and of the store."""
        await self._registry.close()
        await self._store.close()

    # -- reading ------------------------------------------------------------------------------------------------

    def task(self, caller: Principal, task_id: str) -> Task:
        """Return a task that the caller may see."""
        return self._tasks.allowed(caller, task_id)

    def tasks(self, caller: Principal) -> list[Task]:
        """Return the tasks that the caller may see, oldest first."""
        mine = (task for task in self._tasks if root_in(caller, task) is not None)
        return sorted(mine, key=lambda task: task.head.opened_at)

    def task_of(self, grant_id: str) -> Task:
        """Return the task of a grant."""
        return self._tasks.task_of(grant_id)

    def task_of_lease(self, lease_id: str) -> Task:
        """Return the task of a lease."""
        return self._tasks.task_of_lease(lease_id)

    def check(self, grant_id: str) -> Grant:
        """Return a grant if it is live now: one look-up, flat in depth."""
        return self._tasks.check(grant_id).grant

    def places(self) -> list[int]:
        """Return the places in the token status list of all grants that are live now."""
        return self._tasks.places()

    def spent(self, grant_id: str, index: int) -> int:
        """Return how often a detail of a grant was used, by it and all below it."""
        return self._tasks.spent.get((grant_id, index), 0)

    def resource(self, name: str) -> Resource:
        """Return a configured resource."""
        return self._registry.resource(name)

    def resources(self) -> list[Resource]:
        """Return all configured resources."""
        return self._registry.resources()

    def secret_of(self, name: str) -> Secret:
        """Return the static secret of a resource for which ``use`` was permitted."""
        return self._registry.opened(name)

    async def entries(self, start: int, limit: int) -> Sequence[Entry]:
        """Return audit entries from ``start``."""
        return await self._store.entries(start, limit)

    async def nodes(self, path: Sequence[Range]) -> Sequence[bytes]:
        """Return the nodes of the audit tree that a proof's path names."""
        return await self._store.nodes(path)

    async def root(self, size: int | None = None) -> tuple[int, bytes]:
        """Return size and root of the audit tree, or of its first ``size`` entries."""
        return await self._store.root(size)

    async def size(self) -> int:
        """Return the number of audit entries."""
        return await self._store.size()

    # -- issue, renew -------------------------------------------------------------------------------------------

    async def issue(self, caller: Principal, grant_id: str, detail: Detail, key: str | None = None) -> IssuedLease:
        """Make a credential for a detail the grant covers; ``key`` first revokes the lease issued under it before."""
        task = await self._tasks.acting(caller, grant_id, "lease.issue", resource=detail.resource)
        now = self._tasks.serving()
        try:
            grant = task.usable(grant_id, detail, now)
            engine = await self._registry.engine(detail.resource, detail.type)
            await self._supersede(task, grant_id, key)
            # after the last wait: a reload in between counts
            decision = self._permitted(caller, task, grant, "issue", detail)
            lease = self._planned(engine, grant, detail, key, now)
            event = self._revoker.lease_event(
                "lease.issue", "allow", lease, policy=decision.version, cause="; ".join(decision.reasons)
            )
            await self._tasks.step(task.id, lambda t: t.plan(lease, now), event)
        except RemitError as error:
            await self._tasks.denied("lease.issue", grant_id, error, resource=detail.resource)
            raise
        return await self._make(engine, lease)

    def _planned(self, engine: Engine, grant: Grant, detail: Detail, key: str | None, now: datetime) -> Lease:
        lease_id = self._new_id("lse")
        ttl = detail.number("ttl")
        ends = grant.expires_at if ttl is None else min(grant.expires_at, now + timedelta(seconds=ttl))
        plan = engine.plan(detail, lease_id, now + ISSUE_WINDOW, agent=grant.agent)
        return Lease(lease_id, grant.id, plan, LeaseState.PLANNED, ends, key=key)

    async def _make(self, engine: Engine, lease: Lease) -> IssuedLease:
        task_id, issued = self.task_of_lease(lease.id).id, None
        try:
            issued = await self._revoker.call(engine.issue(lease.plan, lease.expires_at), ISSUE_WINDOW)
            event = self._revoker.lease_event("lease.issue", "done", lease)
            task = await self._tasks.step(
                task_id, lambda t: t.confirm(lease.id, issued.receipt, self._tasks.now()), event
            )
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
        standing = {LeaseState.PLANNED, LeaseState.ACTIVE}
        old = [i for i in task.leases.values() if key and i.grant == grant_id and i.key == key and i.state in standing]
        for lease in old:
            event = self._revoker.lease_event("lease.revoke", "done", lease, cause="superseded")
            await self._tasks.end(task.id, lambda t, i=lease.id: t.revoke_leases((i,)), event)  # type: ignore[misc]
        await self._revoker.visit(task.id, tuple(lease.id for lease in old))

    async def renew(self, caller: Principal, lease_id: str, ttl: timedelta) -> Lease:
        """Extend a lease in place, within its grant and its detail's ttl."""
        lease = self.task_of_lease(lease_id).lease(lease_id)
        resource = lease.plan.detail.resource
        task = await self._tasks.acting(caller, lease.grant, "lease.renew", resource=resource)
        now = self._tasks.serving()
        most = lease.plan.detail.number("ttl")
        if ttl <= timedelta(0) or (most is not None and ttl > timedelta(seconds=most)):
            allowed = "" if most is None else f": {most} seconds"
            raise AttenuationError(f"`ttl` must be positive, and no longer than the detail allows{allowed}")
        lease, _ = task.renewable(lease_id, now)
        engine = await self._registry.engine(resource, lease.plan.detail.type)
        if not isinstance(engine, Renewable):
            raise ConflictError("this kind of credential cannot be renewed", help="issue a new lease")
        try:
            decision = self._permitted(caller, task, task.grant(lease.grant), "renew", lease.plan.detail)
        except PolicyError as error:
            await self._tasks.denied("lease.renew", lease.grant, error, resource=resource)
            raise
        event = self._revoker.lease_event(
            "lease.renew", "allow", lease, policy=decision.version, cause="; ".join(decision.reasons)
        )
        task = await self._tasks.step(task.id, lambda t: t.extend(lease_id, now + ttl, now), event)
        longer = task.lease(lease_id)
        await self._revoker.call(engine.renew(longer.plan, longer.receipt, longer.expires_at), ISSUE_WINDOW)
        self._tasks.check(longer.grant)
        return longer

    # -- revoke, close ------------------------------------------------------------------------------------------

    async def revoke(self, caller: Principal, grant_id: str) -> Report:
        """End a grant and everything below it; say truthfully what is still outstanding."""
        await self.back(grant_id)
        task = self._tasks.allowed(caller, self._tasks.task_of(grant_id).id, grant_id)
        return await self.second.reported(await self._revoker.end(task, grant_id, "grant.revoke"))

    async def close(self, caller: Principal, task_id: str) -> Report:
        """End a task: its root and everything below it."""
        await self.back(task_id)
        root = self._tasks.task(task_id).head.root
        task = self._tasks.allowed(caller, task_id, root)
        return await self.second.reported(await self._revoker.end(task, root, "task.close"))

    async def revoke_lease(self, caller: Principal, lease_id: str) -> Report:
        """End one lease."""
        task = self.task_of_lease(lease_id)
        lease = task.lease(lease_id)
        self._tasks.allowed(caller, task.id, lease.grant)
        standing = lease.state in {LeaseState.PLANNED, LeaseState.ACTIVE}
        if standing:
            event = self._revoker.lease_event("lease.revoke", "done", lease)
            with suppress(RemitError):  # it has ended all the same, and the answer says that it is not on record
                await self._tasks.end(task.id, lambda t: t.revoke_leases((lease_id,)), event)
        task = await self._revoker.visit(task.id, (lease_id,))
        alone = replace(task, leases={lease_id: task.leases.get(lease_id, lease)})
        return await self.second.reported(self._revoker.report(alone, frozenset({lease.grant}), int(standing)))

    async def signal(self, signals: Sequence[Signal]) -> int:
        """Take what an issuer said (``LoginRevocations``); what a copy of the state could undo is not acknowledged."""
        ended = await self.revocations.take(signals)
        if not await self.second.covered():
            raise UnavailableError(
                "what the issuer ended has ended, but no second place has a checkpoint of it", help="send it again"
            )
        return ended

    async def put_resource(self, operator: Principal, resource: Resource, value: Secret | None = None) -> None:
        """Add or replace a resource (see ``Resources.put``)."""
        if await self._resources.put(operator, resource, value):
            await self.second.covered()

    async def put_secret(self, operator: Principal, name: str, value: Secret) -> None:
        """Replace the static secret of a resource."""
        await self.put_resource(operator, self.resource(name), value)

    async def delete_resource(self, operator: Principal, name: str) -> None:
        """Remove a resource and its secret (see ``Resources.delete``)."""
        if await self._resources.delete(operator, name):
            await self.second.covered()

    # -- what is not a task's -----------------------------------------------------------------------------------

    async def note(self, operator: Principal, name: str, decision: str, **more: str) -> None:
        """Record what an operator does to the house itself: its signing keys."""
        event = self._tasks.event(name, decision, None, subject=operator.name, **more)
        await self._tasks.record((), (event,))

    # -- use ----------------------------------------------------------------------------------------------------

    async def use(self, grant_id: str, access: Access, request: str, index: int) -> Use:
        """Permit one use through the gateway; its audit entry is durable and the grant live when this returns.

        ``index`` is the detail that permits it: the gateway decides that, by the grant's compiled rules.
        """
        if self._tasks.rolled_back:
            raise IntegrityError
        if self._registry.resource(access.resource).secret is not None:
            await self._registry.secret(access.resource)
        return await self._uses.use(grant_id, access, request, index)

    # -- inside -------------------------------------------------------------------------------------------------

    def _permitted(self, caller: Principal, task: Task, grant: Grant, verb: str, detail: Detail) -> Decision:
        return self._policy.enforce(task.head, grant, caller, verb, (detail,))
