"""The operator's verbs on resources and secrets; what no longer fits a bound has ended when they answer."""

from __future__ import annotations

from collections.abc import Sequence

from remit.broker.policy import PolicyEnforcement
from remit.broker.resources import ResourceRegistry
from remit.broker.tasks import TaskCache
from remit.core import scope as scopes
from remit.core.audit import Event
from remit.core.principal import Principal
from remit.core.secret import Secret
from remit.errors import ConflictError
from remit.ports import DeleteResource, Finding, PutSecret, Resource


class Resources:
    """What may be used, and how far."""

    def __init__(self, tasks: TaskCache, registry: ResourceRegistry, enforcement: PolicyEnforcement) -> None:
        """Change what ``registry`` holds, and have ``enforcement`` decide anew on what is live."""
        self._tasks, self._registry, self._policy = tasks, registry, enforcement

    async def put(self, operator: Principal, resource: Resource, value: Secret | None = None) -> int:
        """Add or replace a resource, checked at the target first; with its secret, if one is given.

        Tasks that hold more than a narrower bound allows have ended when this returns how much did.
        """
        self._tasks.serving()
        known = {old.name: old.destination for old in self._registry.resources()}
        if known.get(resource.name, resource.destination) != resource.destination:
            self._not_leased(resource.name)
        writes = await self._registry.put(resource, value)
        events = [self._event("resource.put", operator, resource.name, scopes.digest(resource.bound))]
        if any(isinstance(write, PutSecret) for write in writes):
            events.append(self._event("secret.put", operator, resource.name))
        await self._tasks.record(writes, events)
        await self._registry.took(writes)
        return await self._policy.redecide("a bound was narrowed", resource.name)

    async def check(self, operator: Principal, name: str) -> Sequence[Finding]:
        """Look at a resource as it is configured, at its target if leases are made there; change nothing."""
        del operator  # any operator may look
        return await self._registry.findings(name)

    async def delete(self, operator: Principal, name: str) -> int:
        """Remove a resource on which no lease stands, and its secret; return how much that held it has ended."""
        self._registry.resource(name)
        self._not_leased(name)
        await self._tasks.record((DeleteResource(name),), (self._event("resource.delete", operator, name),))
        await self._registry.took([DeleteResource(name)])
        return await self._policy.redecide("a bound was narrowed", name)

    def _not_leased(self, name: str) -> None:
        if any(i.plan.detail.resource == name for task in self._tasks for i in task.leases.values()):
            raise ConflictError(f"leases stand on `{name}`", help="revoke them first")

    def _event(self, verb: str, operator: Principal, name: str, digest: str | None = None) -> Event:
        return self._tasks.event(verb, "done", None, subject=operator.name, resource=name, detail_s256=digest)
