"""The operator's verbs on resources and secrets; what no longer fits a bound has ended when they answer."""

from __future__ import annotations

from collections.abc import Sequence

from remit.broker.custody import Custody
from remit.broker.heads import Heads, Operator
from remit.broker.targets import Targets
from remit.core import policy
from remit.core import scope as scopes
from remit.core.audit import Event
from remit.core.scope import Scope
from remit.core.secret import Secret
from remit.core.task import Subject
from remit.errors import ConflictError, PolicyError
from remit.ports import DeleteResource, Finding, PutSecret, Resource


class Resources:
    """What may be used, and how far."""

    def __init__(self, heads: Heads, custody: Custody, targets: Targets, policy_of: policy.Policy) -> None:
        """Decide by ``policy_of`` on what ``custody`` holds."""
        self._heads, self._custody, self._targets, self._policy = heads, custody, targets, policy_of

    def decide(self, subject: Subject, purpose: str, scope: Scope) -> policy.Decision:
        """Decide whether a human may hold this much, with the bounds that there are now."""
        return self._policy(policy.Question(subject, purpose, scope, self._custody.bounds()))

    def too_wide(self, decision: policy.Decision) -> PolicyError:
        """Return the refusal of what was decided to be too wide, with the bounds that it exceeds."""
        names, bounds = {detail.resource for detail in decision.offending}, self._custody.bounds()
        bound = scopes.shown(tuple(item for scope in bounds.values() for item in scope), names)
        known = not names.isdisjoint(bounds)
        return PolicyError(
            "; ".join(decision.reasons),
            offending=scopes.dump(decision.offending),
            help=f"the bound is {bound}" if known else "`remit resource list` shows what there is",
        )

    async def put(self, operator: Operator, resource: Resource, value: Secret | None = None) -> None:
        """Add or replace a resource, checked at the target first; with its secret, if one is given.

        Tasks that hold more than a narrower bound allows have ended when this returns.
        """
        self._heads.serving()
        known = {old.name: old.destination for old in self._custody.resources()}
        if known.get(resource.name, resource.destination) != resource.destination:
            self._not_leased(resource.name)
        writes = await self._custody.put(resource, value)
        events = [self._event("resource.put", operator, resource.name, scopes.digest(resource.bound))]
        if any(isinstance(write, PutSecret) for write in writes):
            events.append(self._event("secret.put", operator, resource.name))
        await self._heads.record(writes, events)
        await self._custody.took(writes)
        await self._redecide()

    async def check(self, operator: Operator, name: str) -> Sequence[Finding]:
        """Look at a resource as it is configured, at its target if leases are made there; change nothing."""
        del operator  # any operator may look
        return await self._custody.findings(name)

    async def put_secret(self, operator: Operator, name: str, value: Secret) -> None:
        """Replace the static secret of a resource."""
        await self.put(operator, self._custody.resource(name), value)

    async def delete(self, operator: Operator, name: str) -> None:
        """Remove a resource on which no lease stands, and its secret; tasks that hold it have ended then."""
        self._custody.resource(name)
        self._not_leased(name)
        await self._heads.record((DeleteResource(name),), (self._event("resource.delete", operator, name),))
        await self._custody.took([DeleteResource(name)])
        await self._redecide()

    async def _redecide(self) -> None:
        for task in self._heads:
            root = task.grant(task.head.root)
            if not root.revoked and not self.decide(task.head.subject, task.head.purpose, root.scope).allowed:
                await self._targets.end(task, root.id, "task.close", cause="a bound was narrowed")

    def _not_leased(self, name: str) -> None:
        if any(i.plan.detail.resource == name for task in self._heads for i in task.leases.values()):
            raise ConflictError(f"leases stand on `{name}`", help="revoke them first")

    def _event(self, verb: str, operator: Operator, name: str, digest: str | None = None) -> Event:
        return self._heads.event(verb, "done", None, subject=operator.subject.sub, resource=name, detail_s256=digest)
