"""The use of a grant as the gateway makes it: by the first detail that permits it."""

from __future__ import annotations

from remit.broker import Broker
from remit.core.scope import Access
from remit.errors import NotFoundError, ScopeError
from remit.ports.broker import Use
from tests.core.oracle import permitting


async def permitted_use(broker: Broker, grant_id: str, access: Access, request: str) -> Use:
    """Use a grant by the first detail that permits it; ScopeError where none does."""
    try:
        index = permitting(broker._tasks.task_of(grant_id).grant(grant_id).scope, access)
    except NotFoundError:
        index = 0  # the broker says what is wrong
    if index is None:
        broker._tasks.check(grant_id)
        raise ScopeError
    return await broker.use(grant_id, access, request, index)
