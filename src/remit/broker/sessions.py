"""The seam to ``sessions/``: what it may do with a broker, and what the broker asks of it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from remit.broker.revocation import LeaseRevoker
from remit.broker.tasks import TaskCache
from remit.core.audit import Event
from remit.core.principal import Human, Signal
from remit.errors import RemitError, UnavailableError
from remit.ports import Write


class LoginRevocations:
    """Logins that no longer count; the broker loads it, asks it, and sweeps it. This one hears no issuer."""

    async def load(self) -> None:
        """Read what is stored; nobody logs in before."""

    async def resume(self) -> None:
        """End the tasks of revoked logins that a crash left open; they are loaded by now."""

    async def sweep(self) -> None:
        """End the tasks of revoked logins that could not be ended before."""

    def brought_back(self, now: datetime) -> Sequence[Write]:  # noqa: ARG002 - nothing is stored
        """Return what is stored of times after ``now``, as of now."""
        return ()

    def check(self, human: Human) -> None:
        """Raise GrantTokenError if the issuer has revoked this login."""

    async def take(self, signals: Sequence[Signal]) -> int:  # noqa: ARG002 - none is heard
        """Revoke what issuers' signals name; every task that rests on it has ended when this answers, with how many."""
        raise UnavailableError("this broker hears no signals")

    async def refuse(self, error: RemitError) -> None:
        """Record that a signal was refused, and why."""


class SessionAccess:
    """The broker's records and log, and the end of tasks, for what hears issuers and tells receivers."""

    def __init__(self, tasks: TaskCache, revoker: LeaseRevoker) -> None:
        self._tasks, store = tasks, tasks.store
        self.now, self.end_tasks = tasks.now, revoker.end_tasks
        self.records, self.entries, self.size = store.records, store.entries, store.size

    async def record(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        """Write what is no task's, with its events, in one commit."""
        await self._tasks.store.commit(writes, events)

    async def denied(self, name: str, error: RemitError) -> None:
        """Record a denial that is no grant's; a flood is counted."""
        await self._tasks.denied(name, None, error)
