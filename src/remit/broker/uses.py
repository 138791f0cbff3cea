"""Using a grant through the gateway: scope, budget, a durable audit entry, and one more look before the effect."""

from __future__ import annotations

from collections.abc import Sequence

from remit.broker.resources import ResourceRegistry
from remit.broker.tasks import TaskCache
from remit.core.audit import Event
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.errors import ConflictError, IntegrityError, RemitError, ScopeError
from remit.ports.broker import Outcome, Target, Use


class UseVerbs:
    """The part of the broker that the gateway asks: what it compiles requests for, and each use of it."""

    _tasks: TaskCache
    _registry: ResourceRegistry

    async def target(self, name: str) -> Target:
        return Target(self._registry.resource(name), self._registry.version(name))

    async def credential(self, name: str, version: int) -> Secret | None:
        """ConflictError for another version: a secret must not go where another is meant to."""
        secret = await self._registry.secret(name) if self._registry.resource(name).secret is not None else None
        if self._registry.version(name) != version:
            raise ConflictError("the resource was changed meanwhile, so the request was not sent", help="try again")
        return secret

    async def use(self, grant_id: str, access: Access, request: str, index: int) -> Use:
        if self._tasks.rolled_back:
            raise IntegrityError
        if self._registry.resource(access.resource).secret is not None:
            await self._registry.secret(access.resource)
        version = self._registry.version(access.resource)
        live = self._tasks.check(grant_id)
        if not live.grant.bounds.exercise:
            raise ScopeError("this grant may delegate but not be used itself")
        spends = self._tasks.debit(live, index)
        event = self._tasks.event(
            "resource.use", "allow", grant_id, resource=access.resource, action=access.action, request=request
        )
        await self._tasks.store.commit(spends, (event,))
        self._tasks.check(grant_id)
        if self._registry.version(access.resource) != version:
            raise ConflictError("the resource was changed meanwhile, so the request was not sent", help="try again")
        return Use(request, live.task, live.root, grant_id, access.resource, index, version)

    async def outcomes(self, ended: Sequence[Outcome]) -> None:
        if ended:
            await self._tasks.store.commit((), [self._outcome(outcome) for outcome in ended])

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
        known = {"resource": access.resource, "action": access.action, "request": request, "cause": cause}
        await self._tasks.denied("resource.use", grant_id, error, **known)
