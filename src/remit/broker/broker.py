"""The broker: open, delegate, issue, renew, revoke, close; and the sweep that finishes what was begun.

The order of writes and effects is decided here and nowhere else (``docs/explanation/lease-cycle.md``):

- Intent is committed before an engine is called, and the outcome before a credential is handed out.
- In doubt a lease is revoked; nothing is retried or resumed.
- A revoke marks the whole subtree before any target is visited.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from types import MappingProxyType

from remit.broker.approvals import Approvals, StepUp
from remit.broker.begun import InTime, Unwaited, in_time, unwaited
from remit.broker.checkpoints import Checkpoints, Sign, unsigned
from remit.broker.clock import Elapsed
from remit.broker.clock_acceptance import ClockAcceptance
from remit.broker.connecting import Connecting
from remit.broker.connection_verbs import ConnectionVerbs
from remit.broker.connections import Providers
from remit.broker.ends import recently_ended
from remit.broker.engines import Bounded
from remit.broker.grants import GrantVerbs
from remit.broker.leases import LeaseVerbs
from remit.broker.notices import Feed
from remit.broker.policy import PolicyEnforcement
from remit.broker.refresh_tokens import RefreshTokenVerbs
from remit.broker.resource_verbs import ResourceVerbs
from remit.broker.resources import ResourceRegistry
from remit.broker.revocation import LeaseRevoker
from remit.broker.run_records import RunRecords
from remit.broker.sessions import LoginRevocations, SessionAccess
from remit.broker.tasks import LiveGrant, TaskCache
from remit.core import policy as core_policy
from remit.core.approval import Approval
from remit.core.audit import Checkpoint, Entry, Event, grouped
from remit.core.grant import Grant
from remit.core.principal import GrantView, Principal, Signal, root_in
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.core.task import Report, TaskHeader
from remit.core.tree import Range
from remit.errors import (
    ConflictError,
    IntegrityError,
    NotFoundError,
    PlaceholderError,
    RemitError,
    ScopeError,
    UnavailableError,
)
from remit.ports import Clock, NewId, Sealer, Spend, Store, Witness
from remit.ports import broker as port
from remit.ports.kind import EngineContext, Kind
from remit.ports.targets import EnginePort

RECENT = 100  # tasks that can be looked at after a restart, ended or not, until their time is up
SOME = 64  # uses in one turn of the loop: each may debit the budgets of 64 grants
Check = Callable[[str], LiveGrant]
Found = port.Use | RemitError
PAGE_SIZE, GRANT = 131_072, 512  # characters of the grants in one answer; what each counts for beside its details


class Broker(GrantVerbs, LeaseVerbs, RefreshTokenVerbs, ConnectionVerbs, ResourceVerbs, port.BrokerPort):
    """The six verbs, and what workers ask besides: what each method does stands in ``ports/broker.py``."""

    def __init__(
        self,
        *,
        store: Store,
        kinds: Mapping[str, Kind],
        context: EngineContext,
        engines: Mapping[str, EnginePort] = MappingProxyType({}),  # by kind: where its credentials are made
        sealer: Sealer,
        clock: Clock,
        elapsed: Elapsed = lambda: 0.0,  # time goes on by it where ``clock`` was set back
        new_id: NewId,
        witness: Witness | None = None,
        sign: Sign = unsigned,
        decide: core_policy.Policy = core_policy.within_bounds,
        step_up: StepUp = lambda _human: (),
        trust_domain: str = "remit.local",
        at_rest: str = "none",
        bounded: Bounded = asyncio.wait_for,
        in_time: InTime = in_time,
        unwaited: Unwaited = unwaited,
        revocations: Callable[[SessionAccess], LoginRevocations] = lambda _access: LoginRevocations(),
        providers: Providers | None = None,
    ) -> None:
        self._store, self._step_up, self.kinds = store, step_up, kinds
        self._new_id, self._trust_domain, self._at_rest = new_id, trust_domain, at_rest
        self._derived = sealer.mac
        self._tasks = tasks = TaskCache(store, clock, elapsed, in_time)
        self._registry = ResourceRegistry(tasks, sealer, kinds, context, engines, bounded, new_id)
        self._revoker = revoker = LeaseRevoker(tasks, self._registry)
        self.policy = PolicyEnforcement(tasks, self._registry, revoker, decide)
        self._families, self._used, self._sign, self._unwaited = {}, {}, sign, unwaited
        self.sessions = SessionAccess(tasks, revoker)
        self._revocations = revocations(self.sessions)
        self._approvals = Approvals(tasks, new_id, step_up, check := self._revocations.check)
        self.wall = ClockAcceptance(tasks, self._approvals, self._revocations)
        self.feeds, self.runs = tasks.notices, RunRecords(tasks, sealer)
        self.checkpoints = Checkpoints(tasks, revoker, witness)
        self.connecting = Connecting(tasks, self._registry, sealer, new_id, providers, unwaited, check, step_up)

    async def start(self) -> None:
        await self.load()
        await self.settle()

    async def load(self) -> None:
        """Load what is unsettled or recent. A log that does not extend its last checkpoint ends every task.

        Until ``settle`` has come to a task, it can be looked at and ended, and nothing under it is served.
        """
        await self._tasks.floor()
        await self._registry.load()
        await self.policy.load()
        await self._approvals.load()
        await self._revocations.load()
        await self._load_families()
        await self.connecting.kept.load()
        recent = {*await self._store.tasks(RECENT), *await recently_ended(self._store, self._tasks.now())}
        for task_id in {*await self._store.unsettled(), *recent}:
            await self._tasks.load(task_id)
        await self._revoker.end_noted()
        with suppress(RemitError):  # a place that is out stops nothing; what it shows later counts then
            await self.checkpoints.look()
        self._tasks.unserved.undecided.update(task.id for task in self._tasks)
        await self._revocations.resume()

    async def settle(self) -> None:
        """Decide anew on what was loaded: policies and bounds may not be those of before the start.

        What cannot be recorded of it now is left to the sweep; until then nothing of that task is served.
        """
        with suppress(UnavailableError):
            await self.policy.redecide("not allowed any more at the start", visit=False)

    async def sweep(self) -> None:
        """End what is over, do what is due at targets, and go on with what a policy or an issuer has ended."""
        await self.policy.sweep()
        await self._revocations.sweep()
        await self._tasks.notes.keep()
        self.connecting.kept.sweep()
        await self._tasks.notices.acted_on()

    async def stop(self) -> None:
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

    def listen(self, stuck: Callable[[], None], holds: Callable[[frozenset[str]], bool]) -> Feed:
        """Begin to tell a worker of ends; see ``Notices.feed``."""
        return self._tasks.notices.feed(stuck, holds)

    def line(self, grant_id: str) -> port.GrantLine | None:
        """Return where a grant hangs, live or ended; None: nobody knows it."""
        return self._tasks.line(grant_id)

    async def tasks(self, principal: Principal) -> list[TaskHeader]:
        seen = (task.head for task in self._tasks if root_in(principal, task) is not None)
        return sorted(seen, key=lambda header: header.opened_at)

    async def task(
        self, principal: Principal, task_id: str, after: str | None = None, limit: int = port.PAGE
    ) -> port.TaskPage:
        await self._tasks.back(task_id)
        # Grants that are made meanwhile do not change the order of those there are.
        task = self._tasks.allowed(principal, task_id)
        root = root_in(principal, task) or ""
        walk, grants, size, more = task.subtree(root), list[Grant](), 0, None
        if after is not None and all(grant.id != after for grant in walk):
            raise NotFoundError
        for grant in walk:
            size += grant.size + GRANT
            if grants and (len(grants) == limit or size > PAGE_SIZE):
                more = grants[-1].id
                break
            grants.append(grant)
        shown, spent = {grant.id for grant in grants}, self._tasks.spent
        return port.TaskPage(
            task.head,
            root,
            grants,
            [[spent.get((grant.id, index), 0) for index in range(len(grant.scope))] for grant in grants],
            [lease for lease in task.leases.values() if lease.grant in shown],
            more,
        )

    async def grant(self, grant_id: str) -> GrantView:
        self._tasks.check(grant_id)
        return self._tasks.view(grant_id)

    async def handle_key(self, grant_id: str) -> Secret:
        self._tasks.check(grant_id)
        return Secret(self._derived(f"handles\n{grant_id}".encode()))

    async def find(self, grant_id: str, principal: Principal | None = None) -> GrantView:
        await self._tasks.back(grant_id)
        return self._tasks.view(grant_id, principal)

    async def check_acting(self, own: str, grant_id: str) -> None:
        self._tasks.check(own)
        self._tasks.task_of(own).check_acting(grant_id, own)

    async def revoke(self, principal: Principal, grant_id: str) -> Report:
        await self._tasks.back(grant_id)
        task = self._tasks.allowed(principal, self._tasks.task_of(grant_id).id, grant_id)
        return await self.checkpoints.reported(await self._revoker.end(task, grant_id, "grant.revoke"))

    async def close(self, principal: Principal, task_id: str) -> Report:
        await self._tasks.back(task_id)
        task = self._tasks.allowed(principal, task_id, self._tasks.task(task_id).head.root)
        return await self.checkpoints.reported(await self._revoker.end(task, task.head.root, "task.close"))

    def places(self) -> Sequence[int]:
        """Return the places in the token status list of all grants that are live."""
        return self._tasks.places()

    async def approvals(self, principal: Principal) -> list[str]:
        return self._approvals.known(principal)

    async def look(self, approval_id: str, principal: Principal | None = None) -> port.ApprovalView:
        item = self._approvals.get(approval_id) if principal is None else self._approvals.look(principal, approval_id)
        return await self._approvals.view(item, principal)

    async def wait(self, principal: Principal, approval_id: str, seconds: float) -> port.ApprovalView:
        item = self._approvals.look(principal, approval_id)
        return await self._approvals.view(await self._approvals.wait(item.id, seconds), principal)

    async def approve(self, approval_id: str, digest: str, by: Principal, *, page: bool = False) -> Approval:
        return await self._approvals.decide(approval_id, digest, by, page=page, allow=True)

    async def refuse(self, approval_id: str, digest: str, by: Principal, *, page: bool = False) -> Approval:
        return await self._approvals.decide(approval_id, digest, by, page=page, allow=False)

    async def step_up(self, human: str) -> tuple[str, ...]:
        return self._step_up(human)

    async def use(self, grant_id: str, access: Access, request: str, index: int) -> port.Use:
        (found,) = await self.uses([port.UseRequest(grant_id, access.resource, access.action, request, index)])
        if isinstance(found, RemitError):
            raise found
        return found

    async def uses(self, asked: Sequence[port.UseRequest], ended: Sequence[port.Outcome] = ()) -> list[Found]:
        """Permit many uses, each by itself, and record how earlier ones ended, all in one commit.

        One entry stands for all uses of one grant, resource and action, and names each by its request.
        """
        if self._tasks.rolled_back:
            raise IntegrityError
        closed = {name: await self._closed(name) for name in {use.resource for use in asked}}
        spends, found = dict[tuple[str, int], Spend](), list[Found]()
        for start in range(0, len(asked), SOME):
            if start:
                await asyncio.sleep(0)
            check = cache(self._tasks.check)  # each grant once a turn
            found += [closed[use.resource] or self._debited(use, check, spends) for use in asked[start : start + SOME]]
        permitted = [use for use, answer in zip(asked, found, strict=True) if isinstance(answer, port.Use)]
        events = self._events("resource.use", [(use, "allow", None, use.action) for use in permitted])
        await self._tasks.store.commit(tuple(spends.values()), [*events, *self._outcomes(ended)])
        check = cache(self._tasks.check)
        still = [self._still(use, check) if isinstance(use, port.Use) else use for use in found]
        self.note_uses(use for use in still if isinstance(use, port.Use))
        return still

    async def _closed(self, name: str) -> RemitError | None:
        """Say why nothing of a resource can be used; None: something can, and its secret is open."""
        try:
            if self._registry.resource(name).secret is not None:
                await self._registry.secret(name)
        except RemitError as error:
            return error
        return None

    def _debited(self, use: port.UseRequest, check: Check, spends: dict[tuple[str, int], Spend]) -> Found:
        try:
            live = check(use.grant)
            if not live.grant.bounds.exercise:
                raise ScopeError("this grant may delegate but not be used itself")
            if not 0 <= use.index < len(live.grant.scope) or live.grant.scope[use.index].resource != use.resource:
                raise ScopeError
            spends |= {(spend.grant, spend.index): spend for spend in self._tasks.debit(live, use.index)}
        except RemitError as error:
            return error
        version = self._registry.version(use.resource)
        return port.Use(use.request, live.task, live.root, use.grant, use.resource, use.index, version)

    def _still(self, use: port.Use, check: Check) -> Found:
        try:
            check(use.grant)
            if self._registry.version(use.resource) != use.version:
                raise ConflictError("the resource was changed meanwhile, so the request was not sent", help="try again")
        except RemitError as error:
            return error
        return use

    def _events(
        self, name: str, what: Iterable[tuple[port.UseRequest | port.Use, str, str | None, str | None]]
    ) -> list[Event]:
        """Describe uses, or how they ended: those that are alike but for their request share an entry."""
        alike: dict[tuple[str, str, str, str | None, str | None], list[str]] = {}
        for use, decision, code, action in what:
            alike.setdefault((use.grant, use.resource, decision, code, action), []).append(use.request)
        return [
            self._tasks.event(name, decision, grant, resource=resource, code=code, action=action, request=text)
            for (grant, resource, decision, code, action), requests in alike.items()
            for text in grouped(requests)
        ]

    def _outcomes(self, ended: Sequence[port.Outcome]) -> list[Event]:
        return self._events("resource.outcome", [(each.use, each.decision, each.code, each.action) for each in ended])

    async def outcomes(self, ended: Sequence[port.Outcome]) -> None:
        if ended:
            await self._tasks.store.commit((), self._outcomes(ended))

    async def deny(
        self,
        grant_id: str | None,
        access: Access,
        error: RemitError,
        request: str | None = None,
        cause: str | None = None,
        times: int = 1,
    ) -> None:
        known = {"resource": access.resource, "action": access.action, "request": request, "cause": cause}
        if access.path and not isinstance(error, PlaceholderError):  # which may stand in the path
            known["path"] = access.path
        await self._tasks.denied("resource.use", grant_id, error, max(times, 1), **known)

    async def entries(self, start: int, limit: int) -> Sequence[Entry]:
        return await self._store.entries(start, limit)

    async def nodes(self, path: Sequence[Range]) -> Sequence[bytes]:
        return await self._store.nodes(path)

    async def audit_state(self) -> port.AuditState:
        return port.AuditState(await self._store.size(), self._tasks.rolled_back, self.checkpoints.trouble)

    async def checkpoint(self) -> Checkpoint:
        return self._sign(*await self._store.root())

    async def note(self, operator: Principal, name: str, decision: str, **more: str) -> None:
        """Record what an operator does to the house itself: its signing keys."""
        await self._store.commit((), (self._tasks.event(name, decision, None, subject=operator.name, **more),))

    async def question(self, grant_id: str) -> core_policy.Question:
        task = self._tasks.task_of(grant_id)
        return self.policy.question(task.head, task.grant(grant_id))

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
