"""The life of one lease: planned, active, revoking, revoked; what settles when, and what a revocation can say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum

from remit.core.scope import Detail

BACK_OFF = timedelta(seconds=1)
BACK_OFF_CAP = timedelta(minutes=5)
STUCK_AFTER = 6  # failed attempts


class LeaseState(StrEnum):
    """Where a lease is in its cycle."""

    PLANNED = "planned"
    ACTIVE = "active"
    REVOKING = "revoking"
    REVOKED = "revoked"


class Revocation(StrEnum):
    """How a kind of credential can be ended."""

    BY_NAME = "by-name"
    BY_RECEIPT = "by-receipt"
    BY_EXPIRY = "by-expiry"


class Closure(StrEnum):
    """What a revocation can truthfully say."""

    CLOSED = "closed"
    PARTIAL = "partial"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Plan:
    """What an engine is about to create. ``undo`` holds everything revoke needs, and no secret."""

    name: str
    detail: Detail
    undo: Mapping[str, str]
    issue_by: datetime
    revocation: Revocation = Revocation.BY_NAME


@dataclass(frozen=True, slots=True)
class Lease:
    """One credential made under a grant; its row is the write-ahead record."""

    id: str
    grant: str
    plan: Plan
    state: LeaseState
    expires_at: datetime
    receipt: Mapping[str, str] | None = None
    confirmed: bool = False
    key: str | None = None  # Idempotency-Key, scoped to grant and holder
    attempts: int = 0
    retry_at: datetime | None = None
    residue: bool = False  # authority has ended; something is left to clean up at the target

    @property
    def size(self) -> int:
        """How many characters its detail has as JSON."""
        return len(self.plan.detail.json)

    @property
    def standing(self) -> bool:
        """Whether it is not ending yet."""
        return self.state in {LeaseState.PLANNED, LeaseState.ACTIVE}

    @property
    def due_at(self) -> datetime | None:
        """When something is to be done about it; None: at once."""
        if self.standing:
            return self.expires_at if self.state is LeaseState.ACTIVE else self.plan.issue_by
        return self.retry_at if self.state is LeaseState.REVOKING else None

    @property
    def stuck(self) -> bool:
        """Whether revoking has failed so often that somebody should look."""
        return self.attempts >= STUCK_AFTER

    @property
    def recallable(self) -> bool:
        """Whether revoking ends it: not by expiry alone, and not by a receipt that was never seen."""
        if self.plan.revocation is Revocation.BY_RECEIPT:
            return self.receipt is not None
        return self.plan.revocation is Revocation.BY_NAME

    def settles(self, now: datetime) -> bool:
        """Whether a successful revoke is final now."""
        return (self.recallable and self.confirmed) or now >= self.settle_at

    @property
    def settle_at(self) -> datetime:
        """When a revoke that succeeded now would be final."""
        return self.plan.issue_by if self.recallable else self.expires_at

    def overdue(self, now: datetime) -> bool:
        """Whether it stands though its time is up."""
        return self.standing and self.due_at is not None and now >= self.due_at

    def revoking(self) -> Lease:
        """Return it as due to be revoked at once."""
        return replace(self, state=LeaseState.REVOKING, retry_at=None, attempts=0)

    def failed(self, now: datetime) -> Lease:
        """Return it after a failed attempt to revoke it, to be tried again with back-off, for ever."""
        wait = min(BACK_OFF * 2 ** min(self.attempts, 16), BACK_OFF_CAP)
        return replace(self, attempts=self.attempts + 1, retry_at=now + wait)


@dataclass(frozen=True, slots=True)
class Report:
    """The truthful answer to a revoke."""

    state: Closure = Closure.CLOSED
    revoked: int = 0
    outstanding: tuple[Lease, ...] = ()
    residue: int = 0
    recorded: bool = True  # else it holds all the same, and is tried again
    covered: bool = True  # by a checkpoint in the second place, if there is one

    def wire(self, instant: Callable[[datetime], str]) -> dict[str, object]:
        """Return the members of the answer (design §5), with the instants written by ``instant``."""
        outstanding: list[dict[str, object]] = [
            {"lease": lease.id, "kind": lease.plan.detail.type, "expires_at": instant(lease.expires_at)}
            for lease in self.outstanding
        ]
        if not self.covered:
            outstanding.append({"lease": None, "kind": "checkpoint", "expires_at": None})
        told = {"state": self.state.value, "revoked": self.revoked, "outstanding": outstanding}
        return {**told, "residue": self.residue, "recorded": self.recorded}


def closure(outstanding: tuple[Lease, ...]) -> Closure:
    """Say what is known of leases that are not revoked."""
    if not outstanding:
        return Closure.CLOSED
    if any(lease.attempts or lease.recallable for lease in outstanding):
        return Closure.UNKNOWN
    return Closure.PARTIAL
