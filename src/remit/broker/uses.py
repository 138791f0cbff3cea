"""Using a grant through the gateway: scope, budget, a durable audit entry, and one more look before the effect."""

from __future__ import annotations

from dataclasses import dataclass

from remit.broker.tasks import TaskCache
from remit.core.audit import Event
from remit.core.scope import Access
from remit.core.task import Grant
from remit.errors import RemitError, ScopeError


@dataclass(frozen=True, slots=True)
class Use:
    """One permitted use. ``index`` is the detail that permits it."""

    request: str
    task: str
    grant: Grant
    resource: str
    index: int


class Uses:
    """The way of one request: judged, debited, recorded, and judged once more."""

    def __init__(self, tasks: TaskCache) -> None:
        """Work on ``tasks``."""
        self._tasks = tasks
        self._late: list[Event] = []

    async def use(self, grant_id: str, access: Access, request: str, index: int) -> Use:
        """Permit one use, its audit entry durable, or raise. ``index`` is the detail that permits it."""
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
        return Use(request, live.task, grant, access.resource, index)

    async def outcome(self, use: Use, decision: str, code: str | None = None, action: str | None = None) -> None:
        """Record how a permitted use ended."""
        self.ended(use, decision, code, action)
        await self.flush()

    def ended(self, use: Use, decision: str, code: str | None = None, action: str | None = None) -> None:
        """Take note of how a permitted use ended, for ``flush`` to record; the use itself is recorded already."""
        known = {"resource": use.resource, "action": action, "code": code, "request": use.request}
        self._late.append(self._tasks.event("resource.outcome", decision, use.grant.id, **known))

    async def flush(self) -> None:
        """Record all outcomes noted since the last time, in one commit."""
        late, self._late = self._late, []
        if late:
            await self._tasks.record((), late)

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
