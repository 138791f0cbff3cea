"""A target in memory that behaves like a real one: accounts with an end, a clock, faults, answers that get lost.

Example::

    target = SimulatedTarget(clock, Revocation.BY_NAME)
    target.fail("revoke", 2)  # the next two calls do nothing and fail
    target.lose("issue")  # the next one takes effect, and its answer is lost
    engine = SimulatedEngine(target)
    ...
    assert target.live() == {}  # what a holder could still use now
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime

from remit.core.secret import Secret
from remit.core.task import Plan, Revocation
from remit.errors import EngineError, EngineRefusedError
from remit.ports import Clock, Issued

Gate = Callable[[str, str], Awaitable[None]]  # verb and moment (`sent` | `answered`); may wait, or never return


async def _open(verb: str, moment: str) -> None:
    """Let everything through at once."""


class SimulatedTarget:
    """Accounts by handle. An account works until its end or until it is removed, whatever remit believes."""

    def __init__(self, clock: Clock, revocation: Revocation = Revocation.BY_NAME, gate: Gate = _open) -> None:
        """Start empty. ``gate`` stands where the network is."""
        self.clock = clock
        self.revocation = revocation
        self.gate = gate
        self.accounts: dict[str, datetime] = {}
        self.leftovers: set[str] = set()  # owned things that keep a removed account's name busy
        self._made = 0
        self._names: set[str] = set()
        self._failing: dict[str, int] = {}
        self._losing: dict[str, int] = {}

    def live(self) -> dict[str, datetime]:
        """Return the accounts that work now, with their ends."""
        now = self.clock()
        return {handle: end for handle, end in self.accounts.items() if end > now}

    def fail(self, verb: str, times: int = 1) -> None:
        """Let the next calls of a verb fail without effect."""
        self._failing[verb] = times

    def lose(self, verb: str, times: int = 1) -> None:
        """Let the next calls of a verb take effect, and lose their answers."""
        self._losing[verb] = times

    @asynccontextmanager
    async def call(self, verb: str) -> AsyncIterator[None]:
        """Travel to the target and back; EngineError when the call is to fail, or its answer to be lost."""
        await self.gate(verb, "sent")
        if _take(self._failing, verb):
            raise EngineError
        yield
        await self.gate(verb, "answered")
        if _take(self._losing, verb):
            raise EngineError

    def create(self, plan: Plan, expires_at: datetime) -> str:
        """Make an account unless it is too late for it; return its handle."""
        if self.clock() >= plan.issue_by:
            raise EngineError("too late for this plan")
        if plan.name in self._names:
            raise EngineRefusedError("the name is taken")
        self._names.add(plan.name)
        self._made += 1
        handle = f"account-{self._made}" if self.revocation is Revocation.BY_RECEIPT else plan.name
        self.accounts[handle] = expires_at
        return handle

    def remove(self, plan: Plan, receipt: Mapping[str, str] | None) -> None:
        """Remove an account if it can be found and recalled; absence is success."""
        match self.revocation:
            case Revocation.BY_NAME:
                self.accounts.pop(plan.name, None)
            case Revocation.BY_RECEIPT:
                self.accounts.pop((receipt or {}).get("handle", ""), None)
            case Revocation.BY_EXPIRY:
                return

    def extend(self, plan: Plan, receipt: Mapping[str, str] | None, expires_at: datetime) -> None:
        """Move the end of an account that is there."""
        handle = (receipt or {}).get("handle", "") if self.revocation is Revocation.BY_RECEIPT else plan.name
        if handle not in self.accounts:
            raise EngineError
        self.accounts[handle] = expires_at


def _take(counts: dict[str, int], verb: str) -> bool:
    left = counts.get(verb, 0)
    counts[verb] = max(left - 1, 0)
    return left > 0


class SimulatedEngine:
    """An engine on a simulated target: issue, revoke, renew."""

    def __init__(self, target: SimulatedTarget) -> None:
        self.target = target
        self.revocation = target.revocation

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        async with self.target.call("issue"):
            handle = self.target.create(plan, expires_at)
        receipt = {"handle": handle} if self.revocation is Revocation.BY_RECEIPT else None
        return Issued({"user": handle, "password": Secret(f"simulated-{handle}")}, receipt)

    async def revoke(self, plan: Plan, receipt: Mapping[str, str] | None) -> None:
        async with self.target.call("revoke"):
            self.target.remove(plan, receipt)

    async def renew(self, plan: Plan, receipt: Mapping[str, str] | None, expires_at: datetime) -> None:
        async with self.target.call("renew"):
            self.target.extend(plan, receipt, expires_at)


class BulkEngine(SimulatedEngine):
    """The same, ending many at once, and leaving something behind to be cleaned up."""

    async def revoke_many(self, plans: Sequence[Plan]) -> frozenset[str]:
        async with self.target.call("revoke"):
            for plan in plans:
                self.target.remove(plan, None)
                self.target.leftovers.add(plan.name)
        return frozenset(plan.name for plan in plans)

    async def clean(self, plans: Sequence[Plan]) -> frozenset[str]:
        """Remove what the accounts left; an account that still works is left alone."""
        async with self.target.call("clean"):
            names = frozenset(plan.name for plan in plans if plan.name not in self.target.accounts)
            self.target.leftovers -= names
        return names
