"""The one way in which the broker's time goes back: an operator says that the wall's time is right, not the log's.

All has ended before, and nothing is left at a target: what was made under a wrong clock would live for as long as it
was ahead, and be tried again as late. The entry of it is the last of the log, so the next start goes by it.
"""

from __future__ import annotations

from datetime import datetime

from remit.broker.approvals import Approvals
from remit.broker.clock import SKEW
from remit.broker.sessions import LoginRevocations
from remit.broker.tasks import TaskCache
from remit.core.principal import Principal
from remit.core.task import LeaseState
from remit.errors import ConflictError


class ClockAcceptance:
    """Takes the wall's time where the log is ahead of it."""

    def __init__(self, tasks: TaskCache, approvals: Approvals, logins: LoginRevocations) -> None:
        self._tasks, self._approvals, self._logins = tasks, approvals, logins

    @property
    def behind(self) -> bool:
        """Whether the wall is so far behind the log that nothing new is granted."""
        return self._tasks.timing.ahead > SKEW

    async def accept(self, operator: Principal) -> tuple[datetime, datetime]:
        """Go by the wall from now on; return the time of before, and that of now.

        ConflictError while a task is open, or something is left at a target. Raises what the store raises; then the
        log's time still counts at the next start.
        """
        for task in self._tasks:
            gone = all(lease.state is LeaseState.REVOKED for lease in task.leases.values())
            if not (task.head.closed and gone) or self._tasks.unrecorded(task.id) is not None:
                raise ConflictError("a task is open, or something is left at a target")
        before = self._tasks.now()
        self._tasks.timing.accept()
        now = self._tasks.now()
        writes = [*self._approvals.brought_back(now), *self._logins.brought_back(now)]
        was = f"the log was at {before.isoformat()}"
        told = self._tasks.event("clock.accept", "done", None, subject=operator.name, cause=was)
        await self._tasks.store.commit(writes, (told,))
        return before, told.at
