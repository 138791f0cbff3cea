"""Using a grant through the gateway: scope, budget, a durable audit entry, and one more look before the effect."""

from __future__ import annotations

from collections.abc import Sequence

from remit.broker.resources import ResourceRegistry
from remit.broker.tasks import TaskCache
from remit.core.audit import Event
from remit.core.scope import Access
from remit.errors import ConflictError, IntegrityError, RemitError, ScopeError
from remit.ports.broker import Outcome, Use


class Uses:
    """The way of one request: judged, debited, recorded, and judged once more."""

    def __init__(self, tasks: TaskCache, registry: ResourceRegistry) -> None:
        self._tasks, self._registry = tasks, registry

    async def use(self, grant_id: str, access: Access, request: str, index: int) -> Use:
        """Permit one use, its audit entry durable, or raise. ``index`` is the detail that permits it."""
        if self._tasks.rolled_back:
            raise IntegrityError
        if self._registry.resource(access.resource).secret is not None:
            await self._registry.secret(access.resource)
        version = self._registry.version(access.resource)
        live = self._tasks.check(grant_id)
        grant = live.grant
        if not grant.bounds.exercise:
            raise ScopeError("this grant may delegate but not be used itself")
        spends = self._tasks.debit(live, index)
        event = self._tasks.event(
            "resource.use", "allow", grant_id, resource=access.resource, action=access.action, request=request
        )
        await self._tasks.record(spends, (event,))
        self._tasks.check(grant_id)
        if self._registry.version(access.resource) != version:
            raise ConflictError("the resource was changed meanwhile, so the request was not sent", help="try again")
        return Use(request, live.task, live.root, grant_id, access.resource, index, version)

    async def outcomes(self, ended: Sequence[Outcome]) -> None:
        """Record how permitted uses ended, in one commit; the uses themselves are recorded already."""
        if ended:
            await self._tasks.record((), [self._outcome(outcome) for outcome in ended])

    def _outcome(self, outcome: Outcome) -> Event:
        use = outcome.use
        known = {"resource": use.resource, "action": outcome.action, "code": outcome.code, "request": use.request}
        return self._tasks.event("resource.outcome", outcome.decision, use.grant, **known)

    async def deny(
        self,
        grant_id: str | None,
        access: Access,
        error: RemitError,
        request: str | None = None,
        cause: str | None = None,
    ) -> None:
        """Record a denial; a flood is counted, so that no agent fills the disk."""
        known = {"resource": access.resource, "action": access.action, "request": request, "cause": cause}
        await self._tasks.denied("resource.use", grant_id, error, **known)
