"""The broker: open, delegate, issue, renew, revoke, close; and the sweep that finishes what was begun.

The order of writes and effects is decided here and nowhere else (``docs/explanation/lease-cycle.md``):

- Intent is committed before an engine is called, and the outcome before a credential is handed out.
- In doubt a lease is revoked; nothing is retried or resumed.
- A revoke marks the whole subtree before any target is visited.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta

from remit.broker.approvals import Approvals, StepUp
from remit.broker.checkpoints import Checkpoints
from remit.broker.ends import recently_ended
from remit.broker.grants import Grants
from remit.broker.leases import Leases
from remit.broker.policy import PolicyEnforcement
from remit.broker.refresh_tokens import RefreshTokens
from remit.broker.resources import ResourceRegistry
from remit.broker.revocation import Bounded, LeaseRevoker
from remit.broker.sessions import LoginRevocations, NoRevocations, SessionAccess
from remit.broker.tasks import TaskCache
from remit.broker.uses import Uses
from remit.broker.views import task_page
from remit.core import policy as core_policy
from remit.core.approval import Approval
from remit.core.audit import Entry
from remit.core.grant import Posture
from remit.core.lineage import GrantView
from remit.core.principal import Principal, Signal, Workload, root_in
from remit.core.refresh import RefreshFamily
from remit.core.request import GrantRequest
from remit.core.scope import Access, Detail
from remit.core.secret import Secret
from remit.core.task import Lease, Report, TaskHeader
from remit.core.tree import Range
from remit.errors import RemitError, UnavailableError
from remit.ports import Clock, Finding, NewId, Resource, Sealer, Store, Witness
from remit.ports import broker as port
from remit.ports.kind import EngineContext, Kind

RECENT = 100  # tasks that can be looked at after a restart, ended or not, until their time is up
NARROWED = "a bound was narrowed"


class Broker(port.BrokerPort):
    """The six verbs, and what edges ask besides: what each method does stands in ``ports/broker.py``."""

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
        decide: core_policy.Policy = core_policy.within_bounds,
        step_up: StepUp = lambda _human: (),
        trust_domain: str = "remit.local",
        at_rest: str = "none",
        bounded: Bounded = asyncio.wait_for,
        revocations: Callable[[SessionAccess], LoginRevocations] = lambda _access: NoRevocations(),
    ) -> None:
        """Wire a broker; ``start`` makes it ready.

        ``elapsed`` are seconds by a clock that nobody sets, and that counts sleep: time goes on by it where ``clock``
        was set back.
        """
        self._store, self._step_up, self.kinds = store, step_up, kinds
        self._tasks = tasks = TaskCache(store, clock, elapsed)
        self._registry = registry = ResourceRegistry(tasks, sealer, kinds, context)
        self._revoker = revoker = LeaseRevoker(tasks, registry, bounded)
        self._policy = PolicyEnforcement(tasks, registry, revoker, decide)
        self._uses = Uses(tasks, registry)
        self._leases = Leases(tasks, registry, revoker, self._policy, new_id)
        self._refresh_tokens = RefreshTokens(tasks, revoker, new_id)
        self.sessions = SessionAccess(tasks, revoker)
        self._revocations = revocations(self.sessions)
        check_login = self._revocations.check
        self._approvals = Approvals(tasks, new_id, step_up, check_login)
        self._grants = Grants(tasks, self._policy, self._approvals, check_login, new_id, trust_domain, at_rest)
        self.checkpoints = Checkpoints(tasks, revoker, witness)

    # -- life ---------------------------------------------------------------------------------------------------

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
        await self._revocations.load()
        await self._refresh_tokens.load()
        recent = {*await self._store.tasks(RECENT), *await recently_ended(self._store, self._tasks.now())}
        for task_id in {*await self._store.unsettled(), *recent}:
            await self._tasks.load(task_id)
        with suppress(RemitError):  # a place that is out stops nothing; what it shows later counts then
            await self.checkpoints.look()
        self._tasks.undecided.update(task.id for task in self._tasks)
        await self._revocations.resume()

    async def settle(self) -> None:
        """Decide anew on what was loaded: policies and bounds may not be those of before the start."""
        await self._policy.redecide("not allowed any more at the start", visit=False)

    async def sweep(self) -> None:
        """End what is over, do what is due at targets, and go on with what a policy or an issuer has ended."""
        await self._policy.sweep()
        await self._revocations.sweep()
        await self._tasks.notices.acted_on()

    async def stop(self) -> None:
        """Let go of targets and of the store."""
        await self._registry.close()
        await self._store.close()

    @property
    def busy(self) -> bool:
        """Whether a task is open, or one that ended not yet on record, or a lease not yet gone."""
        loaded = list(self._tasks)
        left = any(not task.head.closed or task.leases or self._tasks.unrecorded(task.id) for task in loaded)
        return left or len(self._tasks.known()) > len(loaded)

    def notices(self) -> AsyncIterator[port.Notice]:
        return self._tasks.notices.listen()

    # -- tasks and grants ---------------------------------------------------------------------------------------

    async def tasks(self, principal: Principal) -> list[TaskHeader]:
        seen = (task.head for task in self._tasks if root_in(principal, task) is not None)
        return sorted(seen, key=lambda header: header.opened_at)

    async def task(
        self, principal: Principal, task_id: str, after: str | None = None, limit: int = port.PAGE
    ) -> port.TaskPage:
        task = self._tasks.allowed(principal, task_id)
        return task_page(task, root_in(principal, task) or "", self._tasks.spent, after, limit)

    async def grant(self, grant_id: str) -> GrantView:
        self._tasks.check(grant_id)
        return self._tasks.view(grant_id)

    async def find(self, grant_id: str, principal: Principal | None = None) -> GrantView:
        await self._tasks.back(grant_id)
        return self._tasks.view(grant_id, principal)

    async def check_acting(self, own: str, grant_id: str) -> None:
        self._tasks.check(own)
        self._tasks.task_of(own).check_acting(grant_id, own)

    async def open(self, opener: port.Opener, request: GrantRequest, posture: Posture | None = None) -> GrantView:
        grant = await self._grants.open(opener, request, posture)
        return self._tasks.view(grant.id)

    async def delegate(
        self,
        principal: Principal,
        parent_id: str,
        request: GrantRequest,
        approval: Approval | None = None,
        actor: Workload | None = None,
        posture: Posture | None = None,
    ) -> GrantView:
        grant = await self._grants.delegate(principal, parent_id, request, approval, actor, posture)
        return self._tasks.view(grant.id)

    async def attach(self, principal: Principal, grant_id: str, posture: Posture) -> GrantView:
        await self._grants.attach(principal, grant_id, posture)
        return await self.grant(grant_id)

    async def spend(self, workload: Workload | None) -> None:
        await self._grants.spend(workload)

    async def revoke(self, principal: Principal, grant_id: str) -> Report:
        await self._tasks.back(grant_id)
        task = self._tasks.allowed(principal, self._tasks.task_of(grant_id).id, grant_id)
        return await self._ended(await self._revoker.end(task, grant_id, "grant.revoke"))

    async def close(self, principal: Principal, task_id: str) -> Report:
        await self._tasks.back(task_id)
        root = self._tasks.task(task_id).head.root
        task = self._tasks.allowed(principal, task_id, root)
        return await self._ended(await self._revoker.end(task, root, "task.close"))

    async def end_channels(self) -> None:
        for task in self._tasks:
            await self._revoker.end_channels(task)

    async def _ended(self, report: Report) -> Report:
        await self._tasks.notices.acted_on()
        return await self.checkpoints.reported(report)

    async def status_places(self, known: int | None = None) -> port.StatusPlaces | None:
        ends = self._tasks.notices.ends
        return None if ends == known else port.StatusPlaces(ends, self._tasks.places())

    # -- leases -------------------------------------------------------------------------------------------------

    async def lease(self, lease_id: str) -> Lease:
        return self._tasks.task_of_lease(lease_id).lease(lease_id)

    async def issue(
        self, principal: Principal, grant_id: str, detail: Detail, key: str | None = None
    ) -> port.IssuedLease:
        return await self._leases.issue(principal, grant_id, detail, key)

    async def renew(self, principal: Principal, lease_id: str, ttl: timedelta) -> Lease:
        return await self._leases.renew(principal, lease_id, ttl)

    async def revoke_lease(self, principal: Principal, lease_id: str) -> Report:
        task = self._tasks.task_of_lease(lease_id)
        self._tasks.allowed(principal, task.id, task.lease(lease_id).grant)
        return await self._ended(await self._revoker.end_lease(task, lease_id))

    # -- approvals ----------------------------------------------------------------------------------------------

    async def ask(
        self, principal: Principal, parent_id: str, request: GrantRequest, actor: Workload | None = None
    ) -> port.ApprovalView:
        return self._approvals.view(await self._grants.ask(principal, parent_id, request, actor), principal)

    async def to_open(self, request: GrantRequest) -> str:
        return self._grants.to_open(request)

    async def ask_to_open(
        self,
        client: str,
        request: GrantRequest,
        approver: str | None = None,
        life: timedelta = port.APPROVAL_LIFE,
    ) -> Approval:
        return await self._grants.ask_to_open(client, request, approver, life)

    async def approvals(self, principal: Principal) -> list[port.ApprovalView]:
        return await self._approvals.seen(principal)

    async def look(self, approval_id: str, principal: Principal | None = None) -> port.ApprovalView:
        if principal is not None:
            return self._approvals.view(self._approvals.look(principal, approval_id), principal)
        return self._approvals.view(self._approvals.get(approval_id))

    async def wait(self, principal: Principal, approval_id: str, seconds: float) -> port.ApprovalView:
        item = self._approvals.look(principal, approval_id)
        return self._approvals.view(await self._approvals.wait(item.id, seconds), principal)

    async def approve(self, approval_id: str, digest: str, by: Principal, *, page: bool = False) -> Approval:
        return await self._approvals.approve(approval_id, digest, by, page=page)

    async def refuse(self, approval_id: str, digest: str, by: Principal, *, page: bool = False) -> Approval:
        return await self._approvals.refuse(approval_id, digest, by, page=page)

    async def step_up(self, human: str) -> tuple[str, ...]:
        return self._step_up(human)

    # -- refresh tokens -----------------------------------------------------------------------------------------

    async def refresh_token(self, digest: str) -> RefreshFamily | None:
        return self._refresh_tokens.find(digest)

    async def issue_refresh_token(self, grant_id: str, client: str, digest: str, audience: str | None = None) -> None:
        await self._refresh_tokens.begin(self._tasks.live(grant_id).grant, client, digest, audience)

    async def rotate_refresh_token(self, presented: port.Presented, fresh: str) -> port.Rotated:
        family = await self._refresh_tokens.rotate(presented, fresh)
        return port.Rotated(await self.grant(family.grant), family)

    # -- resources ----------------------------------------------------------------------------------------------

    async def resources(self) -> list[Resource]:
        return self._registry.resources()

    async def resource(self, name: str) -> Resource:
        return self._registry.resource(name)

    async def put_resource(self, operator: Principal, resource: Resource, value: Secret | None = None) -> None:
        await self._registry.put(operator, resource, value)
        await self._narrowed(resource.name)

    async def put_secret(self, operator: Principal, name: str, value: Secret) -> None:
        await self.put_resource(operator, self._registry.resource(name), value)

    async def check_resource(self, name: str) -> Sequence[Finding]:
        return await self._registry.findings(name)

    async def delete_resource(self, operator: Principal, name: str) -> None:
        await self._registry.delete(operator, name)
        await self._narrowed(name)

    async def _narrowed(self, name: str) -> None:
        ended = await self._policy.redecide(NARROWED, name)
        await self._tasks.notices.acted_on()
        if ended:
            await self.checkpoints.covered()

    # -- uses through the gateway -------------------------------------------------------------------------------

    async def target(self, name: str) -> port.Target:
        return port.Target(self._registry.resource(name), self._registry.version(name))

    async def credential(self, name: str, version: int) -> Secret | None:
        return await self._registry.credential(name, version)

    async def use(self, grant_id: str, access: Access, request: str, index: int) -> port.Use:
        return await self._uses.use(grant_id, access, request, index)

    async def outcomes(self, ended: Sequence[port.Outcome]) -> None:
        await self._uses.outcomes(ended)

    async def deny(
        self,
        grant_id: str | None,
        access: Access,
        error: RemitError,
        request: str | None = None,
        cause: str | None = None,
    ) -> None:
        await self._uses.deny(grant_id, access, error, request, cause)

    # -- audit, policy, signals ---------------------------------------------------------------------------------

    async def entries(self, start: int, limit: int) -> Sequence[Entry]:
        return await self._store.entries(start, limit)

    async def nodes(self, path: Sequence[Range]) -> Sequence[bytes]:
        return await self._store.nodes(path)

    async def audit_state(self) -> port.AuditState:
        return port.AuditState(await self._store.size(), self._tasks.rolled_back, self.checkpoints.trouble)

    async def root(self, size: int | None = None) -> tuple[int, bytes]:
        """Return size and root of the audit tree, or of its first ``size`` entries."""
        return await self._store.root(size)

    async def note(self, operator: Principal, name: str, decision: str, **more: str) -> None:
        """Record what an operator does to the house itself: its signing keys."""
        event = self._tasks.event(name, decision, None, subject=operator.name, **more)
        await self._tasks.record((), (event,))

    @property
    def policy(self) -> PolicyEnforcement:
        """What decides on what is made, and decides anew when it is replaced."""
        return self._policy

    async def question(self, grant_id: str) -> core_policy.Question:
        return self._policy.question(grant_id)

    async def signal(self, signals: Sequence[Signal]) -> int:
        ended = await self._revocations.take(signals)
        await self._tasks.notices.acted_on()
        if not await self.checkpoints.covered():
            raise UnavailableError(
                "what the issuer ended has ended, but no second place has a checkpoint of it", help="send it again"
            )
        return ended

    async def refuse_signal(self, error: RemitError) -> None:
        await self._revocations.refuse(error)
