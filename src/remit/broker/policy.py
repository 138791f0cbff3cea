"""Policy enforcement: asked before authority is made, and asked anew of all there is when the policy changes.

Resource bounds hold whatever a policy says. The answer is compiled into the grant with the policy's version; a request
through the gateway never asks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from remit.broker.begun import gather_limited
from remit.broker.resources import ResourceRegistry
from remit.broker.revocation import LeaseRevoker
from remit.broker.tasks import TaskCache
from remit.core import policy
from remit.core import scope as scopes
from remit.core.approval import Approval
from remit.core.audit import Event
from remit.core.policy import Decision, Policy, Question
from remit.core.principal import Principal, Right
from remit.core.scope import Scope
from remit.core.task import Grant, Task, TaskHeader
from remit.errors import ConflictError, NotFoundError, PolicyError, UnavailableError
from remit.ports import PutRecord, Record

# Callers elsewhere read these, too: what only the operator can do is said to be the operator's.
UNKNOWN = "whoever runs this broker sees what there is by `remit resource list`"
UNWRITTEN = "whoever runs this broker lets others in by policies: the guide “Write policies”, and `remit policy --help`"
WRITTEN = (
    "whoever runs this broker sees what decided by `remit policy explain --entry SEQ`, with SEQ of `remit audit tail`"
)

KIND = "policy"  # the record of the version that holds: what a start goes back to is no older one
BREATH = 2  # details decided on after which the loop may do something else
LONG = 2_048  # characters of them, as above: a policy looks at each item
ENDED = 50  # grants that end in one commit
MARKED = 16  # tasks at once: their marks share a commit, and requests through the gateway wait for no longer one
VISITED = 64  # tasks at once on the way to their targets
TRIES = 5  # when commits that ours is built on fail


@dataclass(frozen=True, slots=True)
class _Over:
    """A grant that is not allowed any more, and by which policy and bounds that was decided."""

    grant: Grant
    decision: Decision
    by: tuple[Policy, Mapping[str, Scope]]


class PolicyEnforcement:
    """Decides by a policy that can be replaced while grants are live."""

    def __init__(self, tasks: TaskCache, registry: ResourceRegistry, revoker: LeaseRevoker, decide: Policy) -> None:
        self._tasks, self._registry, self._revoker, self.deciding = tasks, registry, revoker, decide
        self._one = asyncio.Lock()  # one round of deciding anew at a time
        self._turn, self._asked = asyncio.Lock(), 0  # taken to yield to the loop, and decisions since the last yield
        self._due: str | None = None  # why a round is under way, or has to be done again
        self.held: str | None = None  # the version that was put on record last
        self._noting, self._rev = asyncio.Lock(), 0

    async def load(self) -> None:
        """Read which version was put on record last."""
        for record in await self._tasks.store.records(KIND):
            self.held, self._rev = record.body.decode(), record.rev

    def question(self, head: TaskHeader, grant: Grant, verb: str | None = None, scope: Scope | None = None) -> Question:
        """Ask about a grant, made or yet to be; with ``verb`` and ``scope``, about a lease under it."""
        return Question(
            subject=head.subject,
            purpose=head.purpose,
            scope=grant.scope if scope is None else scope,
            limits=self._registry.bounds(),
            verb=verb or ("delegate" if grant.parent else "open"),
            agent=grant.agent,
            binding=grant.binding,
            bounds=grant.bounds,
            level=grant.level,
            posture=grant.posture,
            approval=grant.approval,
        )

    def decide(self, question: Question) -> Decision:
        """Decide by the bounds of resources, and within them by the policy."""
        bounded = policy.in_bounds(question)
        return self.deciding(question) if bounded.allowed else bounded

    async def enforce(self, question: Question, caller: Principal | Approval) -> Decision:
        """Decide as ``decide`` does, some details at a time; PolicyError where the answer is no.

        What is allowed is so by the policy and the bounds that hold when this returns: use it before the next wait.
        """
        for _ in range(TRIES):
            by = self._deciders()
            decision = await self.decided(replace(question, limits=by[1]))
            if by == self._deciders():
                break
        else:
            raise UnavailableError("the policy changed while it was asked", retry_after=1)
        if decision.allowed:
            return decision
        raise self._refusal(decision, caller)

    async def decided(self, question: Question) -> Decision:
        """Decide as ``decide`` does, some details at a time."""
        bounded = await self._parts(question, policy.in_bounds)
        return await self._parts(question, self.deciding) if bounded.allowed else bounded

    async def _parts(self, question: Question, decide: Policy) -> Decision:
        found = list[Decision]()
        for at in _slices(question.scope):
            if found:
                await asyncio.sleep(0)
            part = replace(question, scope=question.scope[at], whole=question.scope)
            for asked, bound in policy.by_resource(part):
                await compared(asked, bound)
            found.append(decide(part))
        return policy.joined(found)

    def _refusal(self, decision: Decision, caller: Principal | Approval) -> PolicyError:
        names, bounds = {detail.resource for detail in decision.offending}, self._registry.bounds()
        local = decision.version == policy.VERSION
        if not local:
            hint = WRITTEN
        elif not names.isdisjoint(bounds):
            hint = f"the bound is {scopes.shown(tuple(d for scope in bounds.values() for d in scope), names)}"
        else:
            hint = UNKNOWN if names else UNWRITTEN
        full = PolicyError("; ".join(decision.reasons), offending=scopes.dump(decision.offending), help=hint)
        full.version = decision.version
        # What resources there are, and what bounds them, is for the operator: to others one that is not looks bounded.
        operating = not isinstance(caller, Approval) and Right.OPERATE in caller.rights
        if operating or not local or not names:
            return full
        text = " and ".join(f"`{name}`" for name in sorted(names))
        text = f"there is no {text} here, or not as much of it as this asks for"
        error = PolicyError(text, offending=full.offending, help=UNKNOWN)
        error.version, error.inside = full.version, full
        return error

    async def reload(self, operator: Principal, decide: Policy, version: str) -> int:
        """Decide by another policy from now on; what it does not allow has ended when this answers, with how much.

        Raises what the store raises: then the policy holds for what is new, and the sweep goes on ending the rest.
        """
        await self.note(operator, version)
        self.deciding = decide
        return await self.redecide("the policy changed")

    async def note(self, operator: Principal, version: str, trouble: str | None = None) -> None:
        """Record which policy decides from now on; ``trouble``: what is wrong with the one that was to replace it."""
        decision, more = ("failed", {"code": PolicyError.code, "cause": trouble}) if trouble else ("done", {})
        event = self._tasks.event("policy.reload", decision, None, subject=operator.name, policy=version, **more)
        async with self._noting:
            await self.load()  # one that was in doubt may have been durable
            record = Record(KIND, "held", self._rev + 1, version.encode(), datetime.max.replace(tzinfo=UTC))
            await self._tasks.store.commit(() if trouble else (PutRecord(record),), (event,))
            self.held = self.held if trouble else version

    async def sweep(self) -> None:
        await self._revoker.sweep()
        if self._due is not None and not self._one.locked():
            await self.redecide(self._due)

    async def redecide(self, cause: str, about: str | None = None, *, visit: bool = True) -> int:
        """Ask about all that is live again, parents first; end what is no longer allowed, with all below it.

        ``about`` is the one resource of which something changed. Everything is marked before any target is visited;
        without ``visit`` the sweep goes there.
        """
        async with self._one:
            name = about if self._due is None else None  # what a round before this one left undone is done with it
            self._due, self._asked = cause, 0
            breadth = {task.id: len(task.grants) for task in self._tasks}
            tasks = sorted(self._tasks.known(), key=lambda i: breadth.get(i, 0))  # no large one holds up the others
            ended = sum(await gather_limited(lambda task_id: self._redecide(task_id, cause, name), tasks, MARKED))
            self._due = None
        if visit and ended:
            await gather_limited(self._revoker.catch_up, tasks, VISITED)
        return ended

    async def _redecide(self, task_id: str, cause: str, about: str | None) -> int:
        for _ in range(TRIES):
            if not await self._tasks.returned(task_id):
                return 0  # over and swept, or never stored
            with suppress(ConflictError, NotFoundError):
                ended = await self._decided(task_id, cause, about)
                await self._tasks.record_ends(task_id)
                self._tasks.unserved.undecided.discard(task_id)
                return ended
        raise UnavailableError("what is no longer allowed could not be ended yet", help="try again")

    async def _decided(self, task_id: str, cause: str, about: str | None) -> int:
        waiting, over, ended = [self._tasks.task(task_id).head.root], list[_Over](), 0
        while waiting:
            grant = self._tasks.task(task_id).grants.get(waiting.pop())
            if grant is not None and not grant.revoked and grant.expires_at > self._tasks.now():
                denied = await self._denied(task_id, grant, about)
                if denied is None:
                    waiting.extend(self._tasks.task(task_id).children.get(grant.id, ()))
                else:
                    over.append(denied)
            if over and (len(over) == ENDED or not waiting):
                task, deciders = self._tasks.task(task_id), self._deciders()
                # what was decided on is still as it was, and so is what decided
                holding = [i for i in over if i.by == deciders and task.grants.get(i.grant.id) == i.grant]
                waiting.extend(each.grant.id for each in over if each not in holding)
                await self._end(task, holding, cause)
                over, ended = [], ended + len(holding)
        leases = self._tasks.task(task_id).leases.values()
        standing = [i for i in leases if i.standing and about in {None, i.plan.detail.resource}]
        details = tuple(i.plan.detail for i in standing)
        for at in _slices(details):
            await self._breathe(_weight(details[at]))
            ended += await self._end_leases(task_id, [i.id for i in standing[at]], cause)
        return ended

    async def _denied(self, task_id: str, grant: Grant, about: str | None) -> _Over | None:
        """Decide on a grant as it stands, some details at a time; None: all of them are allowed."""
        details = tuple(detail for detail in grant.scope if about in {None, detail.resource})
        question, by = self.question(self._tasks.task(task_id).head, grant), self._deciders()
        if grant.binding.bearer is not None and (name := self._registry.unborne(grant.scope)) is not None:
            unborne = Decision(allowed=False, reasons=(f"`{name}` takes no bearers any more",), version=policy.VERSION)
            return _Over(grant, unborne, by)
        await self._breathe(1)
        for at in _slices(details):
            part = details[at]
            await self._breathe(_weight(part))
            limits = self._registry.bounds()  # as they are now
            asking = replace(question, scope=part, whole=grant.scope, limits=limits)
            for asked, bound in policy.by_resource(asking):
                await compared(asked, bound)
            decision = self.decide(asking)
            if not decision.allowed:
                return _Over(grant, decision, by)
        return None

    def _deciders(self) -> tuple[Policy, Mapping[str, Scope]]:
        return self.deciding, self._registry.bounds()

    async def _breathe(self, asking: int) -> None:
        """Yield to the loop from time to time; while one task of a round waits for that, so do all others."""
        async with self._turn:
            self._asked += asking
            if self._asked > BREATH:
                self._asked = asking
                await asyncio.sleep(0)

    async def _end(self, task: Task, over: Sequence[_Over], cause: str) -> None:
        events = list[Event]()
        for each in over:
            name = "task.close" if each.grant.id == task.head.root else "grant.revoke"
            events.append(self._tasks.event(name, "done", each.grant.id, **because(each.decision, cause)))
        if over:
            await self._tasks.end(task.id, events, grants=[each.grant.id for each in over])

    async def _end_leases(self, task_id: str, names: Sequence[str], cause: str) -> int:
        task = self._tasks.task(task_id)
        standing = (task.leases[name] for name in names if name in task.leases and task.leases[name].standing)
        asked = ((i, self.question(task.head, task.grant(i.grant), "issue", (i.plan.detail,))) for i in standing)
        over = [(lease, decision) for lease, question in asked if not (decision := self.decide(question)).allowed]
        if over:
            told = ((lease, because(decision, cause)) for lease, decision in over)
            events = [self._revoker.lease_event("lease.revoke", "done", lease, **more) for lease, more in told]
            await self._tasks.end(task_id, events, leases=[lease.id for lease, _ in over])
        return len(over)


def _slices(details: Scope) -> Iterator[slice]:
    """Yield the parts of details that are decided on at one go, in a few milliseconds: a long one by itself."""
    start = size = 0
    for at, detail in enumerate(details):
        if at - start == BREATH or (at > start and size + len(detail.json) > LONG):
            yield slice(start, at)
            start, size = at, 0
        size += len(detail.json)
    if details:
        yield slice(start, len(details))


def _weight(details: Scope) -> int:
    """Return how many short details these count as."""
    return min(len(details) + scopes.size(details) * BREATH // LONG, BREATH)


async def compared(child: Scope, parent: Scope) -> None:
    """Compare scopes ahead of a step that does, which then knows the answer; the loop turns after each slice."""
    for _ in scopes.comparing(child, parent):
        await asyncio.sleep(0)


def because(decision: Decision, cause: str | None = None, scope: Scope | None = None) -> dict[str, str]:
    """Return what an event tells of a decision: by which policy, why, with the cause that it was made for; on what."""
    reasons = "; ".join(decision.reasons)
    told = {} if scope is None else {"detail_s256": scopes.digest(scope)}
    return {"policy": decision.version, "cause": reasons if cause is None else f"{cause}: {reasons}", **told}
