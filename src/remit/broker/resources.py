"""The operator's verbs on resources and secrets; what no longer fits a bound has ended when they answer."""

from __future__ import annotations

from collections.abc import Sequence

from remit.broker.ceiling import Ceiling
from remit.broker.custody import Custody
from remit.broker.heads import Heads, Operator
from remit.core import scope as scopes
from remit.core.audit import Event
from remit.core.secret import Secret
from remit.errors import ConflictError
from remit.ports import DeleteResource, Finding, PutSecret, Resource


class Resources:
    """What may be used, and how far."""

    def __init__(self, heads: Heads, custody: Custody, ceiling: Ceiling) -> None:
        """Change what ``custody`` holds, and have ``ceiling`` decide anew on what is live."""
        self._heads, self._custody, self._ceiling = heads, custody, ceiling

    async def put(self, operator: Operator, resource: Resource, value: Secret | None = None) -> int:
        """Add or replace a resource, checked at the target first; with its secret, if one is given.

        Tasks that hold more than a narrower bound allows have ended when this returns how much did.
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
        return await self._ceiling.redecide("a bound was narrowed", resource.name)

    async def check(self, operator: Operator, name: str) -> Sequence[Finding]:
        """Look at a resource as it is configured, at its target if leases are made there; change nothing."""
        del operator  # any operator may look
        return await self._custody.findings(name)

    async def delete(self, operator: Operator, name: str) -> int:
        """Remove a resource on which no lease stands, and its secret; return how much that held it has ended."""
        self._custody.resource(name)
        self._not_leased(name)
        await self._heads.record((DeleteResource(name),), (self._event("resource.delete", operator, name),))
        await self._custody.took([DeleteResource(name)])
        return await self._ceiling.redecide("a bound was narrowed", name)

    def _not_leased(self, name: str) -> None:
        if any(i.plan.detail.resource == name for task in self._heads for i in task.leases.values()):
            raise ConflictError(f"leases stand on `{name}`", help="revoke them first")

    def _event(self, verb: str, operator: Operator, name: str, digest: str | None = None) -> Event:
        return self._heads.event(verb, "done", None, subject=operator.subject.sub, resource=name, detail_s256=digest)
