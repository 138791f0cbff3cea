"""The ceiling: what policy allows, asked before authority is made, and asked anew of all there is when it changes.

Resource bounds hold whatever a policy says. The answer is compiled into the grant with the policy's version; a request
through the gateway never asks.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

from remit.broker.custody import Custody
from remit.broker.heads import Heads, Operator
from remit.broker.targets import Targets
from remit.core import policy
from remit.core import scope as scopes
from remit.core.policy import Decision, Policy, Question
from remit.core.scope import Scope
from remit.core.task import Grant, Subject, Task, Wanted
from remit.errors import PolicyError

BREATH = 200  # grants decided on before the loop may do something else


class Ceiling:
    """Decides by a policy that can be replaced while grants are live."""

    def __init__(self, heads: Heads, custody: Custody, targets: Targets, decide: Policy) -> None:
        """Decide by ``decide`` on what ``custody`` holds."""
        self._heads, self._custody, self._targets, self._policy = heads, custody, targets, decide

    def opening(self, subject: Subject, purpose: str, wanted: Wanted) -> Decision:
        """Decide on a task that is yet to be opened."""
        return self._decide(_question("open", subject, purpose, wanted, 0, wanted.ttl))

    def child(self, task: Task, parent: Grant, wanted: Wanted) -> Decision:
        """Decide on a child of a grant."""
        return self._decide(
            _question("delegate", task.head.subject, task.head.purpose, wanted, parent.level + 1, wanted.ttl)
        )

    def held(self, task: Task, grant: Grant, verb: str | None = None, scope: Scope | None = None) -> Decision:
        """Decide on a grant as it stands; with ``verb`` and ``scope``, on a lease under it."""
        verb = verb or ("delegate" if grant.parent else "open")
        lasts = grant.expires_at - grant.opened_at
        question = _question(verb, task.head.subject, task.head.purpose, grant, grant.level, lasts)
        return self._decide(question if scope is None else replace(question, scope=scope))

    def _decide(self, question: Question) -> Decision:
        question = replace(question, bounds=self._custody.bounds())
        bounded = policy.in_bounds(question)
        return self._policy(question) if bounded.allowed else bounded

    def refusal(self, decision: Decision) -> PolicyError:
        """Return the refusal of what was decided to be too much, with the bounds that it exceeds if it does."""
        names, bounds = {detail.resource for detail in decision.offending}, self._custody.bounds()
        bound = scopes.shown(tuple(item for scope in bounds.values() for item in scope), names)
        known = not names.isdisjoint(bounds)
        unknown = "`remit resource list` shows what there is" if names else "`remit policy explain` shows what decided"
        return PolicyError(
            "; ".join(decision.reasons),
            offending=scopes.dump(decision.offending),
            help=f"the bound is {bound}" if known else unknown,
        )

    async def reload(self, operator: Operator, decide: Policy, version: str) -> int:
        """Decide by another policy from now on; what it does not allow has ended when this answers, with how much."""
        self._policy = decide
        await self._heads.record(
            (), (self._heads.event("policy.reload", "done", None, subject=operator.subject.sub, policy=version),)
        )
        return await self.redecide("the policy changed")

    async def redecide(self, cause: str) -> int:
        """Ask about every live grant again, parents first; end what is no longer allowed, with all below it."""
        ended, asked = 0, 0
        for task in self._heads:
            waiting = [task.head.root]
            while waiting:
                grant = self._heads.task(task.id).grant(waiting.pop())
                if grant.revoked or grant.expires_at <= self._heads.now():
                    continue
                asked += 1
                if asked % BREATH == 0:
                    await asyncio.sleep(0)
                if self.held(task, grant).allowed:
                    waiting.extend(self._heads.task(task.id).children.get(grant.id, ()))
                    continue
                name = "grant.revoke" if grant.parent else "task.close"
                await self._targets.end(self._heads.task(task.id), grant.id, name, cause=cause)
                ended += 1
        return ended


def _question(
    verb: str, subject: Subject, purpose: str, made: Wanted | Grant, level: int, ttl: timedelta | None
) -> Question:
    return Question(
        subject=subject,
        purpose=purpose,
        scope=made.scope,
        bounds={},
        verb=verb,
        agent=made.agent,
        attested=made.attested,
        claims=dict(made.claims),
        level=level,
        depth=made.depth,
        fan_out=made.fan_out,
        exercise=made.exercise,
        unattested=made.unattested,
        ttl=ttl,
        posture=made.posture,
        approval=made.approval,
    )
