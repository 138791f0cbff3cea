"""The aggregate: a task, its tree of grants and their leases, and every change they can undergo.

Rules kept here, and nowhere else:

- A change is a pure step ``Task -> Change``; ``Task.apply`` takes it. Time and ids are arguments.
- A child grant is covered by its parent, ends no later, and has fewer hops left.
- A lease ends no later than its grant, and starts only under a grant whose whole lineage is live.
- ``revoked`` has no way out, for grants and for leases.
- A lease that was never confirmed is not ``revoked`` before its ``issue_by``: an issue may still be in flight.

The cycle of a lease is told in ``docs/explanation/lease-cycle.md``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from remit.core import scope as scopes
from remit.core.lease import (
    Closure,
    Lease,
    LeaseState,
    Plan,
    Report,
    Revocation,
    closure,
    failed,
    overdue,
    revoking,
    settle_at,
    standing,
)
from remit.core.scope import Detail, Scope
from remit.errors import (
    AttenuationError,
    ConflictError,
    DepthError,
    ExpiredError,
    InvalidRequestError,
    NotFoundError,
    RevokedError,
    ScopeError,
)

__all__ = [
    "Change",
    "Closure",
    "Grant",
    "Head",
    "Lease",
    "LeaseState",
    "Plan",
    "Posture",
    "Report",
    "Revocation",
    "Subject",
    "Task",
    "Wanted",
    "nothing",
    "open_task",
]

MAX_DEPTH = 64
MAX_FAN_OUT = 1_000
MAX_TTL = timedelta(hours=8)
MAX_PURPOSE = 2_000  # characters


@dataclass(frozen=True, slots=True)
class Subject:
    """The human at the root: ``sub`` is issuer-qualified, ``acr`` says how it was proven."""

    sub: str
    acr: str
    auth_time: datetime | None = None
    amr: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Posture:
    """What the surroundings of a grant's holder promise; see ``docs/explanation/posture.md``."""

    isolation: str = "none"  # namespace | host-net | unsandboxed | none
    custody: str = "holder"  # channel | holder
    at_rest: str = "none"  # kek-file | none


@dataclass(frozen=True, slots=True)
class Grant:
    """A node of the authority tree. ``depth`` is how many hops may still hang below it."""

    id: str
    parent: str | None
    agent: str
    attested: bool
    scope: Scope
    covers: tuple[int, ...]  # for each detail, the index of the parent's detail that covers it
    level: int
    depth: int
    fan_out: int
    exercise: bool
    opened_at: datetime
    expires_at: datetime
    posture: Posture = Posture()
    jkt: str | None = None  # RFC 7638 SHA-256 thumbprint of the holder's key; None on a channel
    revoked: bool = False
    label: str = ""


@dataclass(frozen=True, slots=True)
class Head:
    """A task without its rows. ``rev`` grows by one with every change."""

    id: str
    rev: int
    root: str
    subject: Subject
    purpose: str
    opened_at: datetime
    expires_at: datetime
    closed: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """One step of one task: valid only on the task at revision ``base``."""

    base: int
    head: Head
    grants: tuple[Grant, ...] = ()
    leases: tuple[Lease, ...] = ()
    forget: tuple[str, ...] = ()  # ids of leases whose rows are no longer needed


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an open or a delegate asks for. ``ttl`` None means as long as the parent."""

    scope: Scope
    agent: str
    ttl: timedelta | None = None
    depth: int = 0
    fan_out: int = 0
    exercise: bool = True
    attested: bool = False
    posture: Posture = Posture()
    jkt: str | None = None
    label: str = ""


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work opened for a human, with all the authority in it."""

    head: Head
    grants: Mapping[str, Grant] = field(default_factory=dict)
    leases: Mapping[str, Lease] = field(default_factory=dict)
    children: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # derived; live and ended ones

    # -- reading ------------------------------------------------------------------------------------------------

    @property
    def id(self) -> str:
        """The id of the task."""
        return self.head.id

    def grant(self, grant_id: str) -> Grant:
        """Return a grant of this task, or raise NotFoundError."""
        found = self.grants.get(grant_id)
        if found is None:
            raise NotFoundError
        return found

    def lease(self, lease_id: str) -> Lease:
        """Return a lease of this task, or raise NotFoundError."""
        found = self.leases.get(lease_id)
        if found is None:
            raise NotFoundError
        return found

    def lineage(self, grant_id: str) -> tuple[Grant, ...]:
        """Return the grants from ``grant_id`` up to the root."""
        line = []
        step: str | None = grant_id
        while step is not None:
            grant = self.grant(step)
            line.append(grant)
            step = grant.parent
        return tuple(line)

    def within(self, grant_id: str, ancestor: str) -> bool:
        """Whether ``grant_id`` is ``ancestor`` or hangs below it."""
        return grant_id in self.grants and any(grant.id == ancestor for grant in self.lineage(grant_id))

    def subtree(self, grant_id: str) -> Iterator[Grant]:
        """Yield a grant and all its descendants, parents first."""
        waiting = [grant_id]
        while waiting:
            grant = self.grant(waiting.pop())
            yield grant
            waiting.extend(self.children.get(grant.id, ()))

    def live(self, grant_id: str, now: datetime) -> Grant:
        """Return a grant whose whole lineage is live, or say why it is not.

        Revoke marks the subtree and expiry is bounded by the parent's, so the leaf alone would do; the walk is a
        second line of defence.
        """
        line = self.lineage(grant_id)
        if self.head.closed or any(grant.revoked for grant in line):
            raise RevokedError
        if any(now >= grant.expires_at for grant in line):
            raise ExpiredError
        return line[0]

    # -- stepping -----------------------------------------------------------------------------------------------

    def apply(self, change: Change) -> Task:
        """Return the task after ``change``."""
        if change.base != self.head.rev:
            raise ConflictError
        children = self.children
        fresh = [grant for grant in change.grants if grant.id not in self.grants]
        if fresh:
            children = {**children}
            for grant in fresh:
                if grant.parent is not None:
                    children[grant.parent] = (*children.get(grant.parent, ()), grant.id)
        grants = {**self.grants, **{grant.id: grant for grant in change.grants}} if change.grants else self.grants
        leases = {**self.leases, **{lease.id: lease for lease in change.leases}}
        for lease_id in change.forget:
            leases.pop(lease_id, None)
        return Task(change.head, grants, leases, children)

    def delegate(self, parent_id: str, child_id: str, wanted: Wanted, now: datetime) -> Change:
        """Make a child grant, no wider than its parent in any dimension."""
        parent = self.live(parent_id, now)
        self._may_have_child(parent, wanted, now)
        covers = _covered(wanted.scope, parent.scope)
        child = _grant(child_id, parent, wanted, covers, now)
        return self._change(grants=(child,))

    def _may_have_child(self, parent: Grant, wanted: Wanted, now: datetime) -> None:
        if parent.depth < 1:
            raise DepthError("the grant may not be delegated further", help="open the task with a larger `depth`")
        if wanted.depth > parent.depth - 1:
            raise DepthError(f"`depth` may be at most {parent.depth - 1} here")
        if wanted.fan_out > parent.fan_out:
            raise DepthError(f"`fan_out` may be at most {parent.fan_out} here")
        _check_counts(wanted)
        siblings = (self.grants[child] for child in self.children.get(parent.id, ()))
        if sum(not child.revoked and child.expires_at > now for child in siblings) >= parent.fan_out:
            raise DepthError(
                f"the grant has {parent.fan_out} live children, as many as it may have",
                help="revoke one, or open the task with a larger `fan_out`",
            )

    def usable(self, grant_id: str, detail: Detail, now: datetime) -> Grant:
        """Return the live grant if it may be exercised for ``detail``, else say why not."""
        grant = self.live(grant_id, now)
        if not grant.exercise:
            raise ScopeError("this grant may delegate but not be used itself")
        if scopes.cover(detail, grant.scope) is None:
            raise ScopeError(enough=scopes.dump((detail,))[0])
        return grant

    def plan(self, lease: Lease, now: datetime) -> Change:
        """Record the intent to create a credential, before anything is created."""
        grant = self.usable(lease.grant, lease.plan.detail, now)
        if lease.id in self.leases or lease.state is not LeaseState.PLANNED or lease.expires_at > grant.expires_at:
            raise ConflictError
        return self._change(leases=(lease,))

    def confirm(self, lease_id: str, receipt: Mapping[str, str] | None, now: datetime) -> Change:
        """Record that the credential exists; refused when the grant ended meanwhile or the lease was claimed."""
        lease = self.lease(lease_id)
        if lease.state is not LeaseState.PLANNED or now >= lease.plan.issue_by:
            raise ConflictError("the lease was revoked while it was being issued")
        self.live(lease.grant, now)
        return self._change(leases=(replace(lease, state=LeaseState.ACTIVE, receipt=receipt, confirmed=True),))

    def renewable(self, lease_id: str, now: datetime) -> tuple[Lease, Grant]:
        """Return an active lease and its live grant, or say why it cannot be renewed."""
        lease = self.lease(lease_id)
        grant = self.live(lease.grant, now)
        if lease.state is not LeaseState.ACTIVE or now >= lease.expires_at:
            raise ExpiredError("the lease has ended")
        return lease, grant

    def extend(self, lease_id: str, expires_at: datetime, now: datetime) -> Change:
        """Record a later end of a lease, before the target is told."""
        lease, grant = self.renewable(lease_id, now)
        return self._change(leases=(replace(lease, expires_at=min(expires_at, grant.expires_at)),))

    def revoke(self, grant_id: str) -> Change:
        """End a grant and everything below it."""
        ended = {grant.id for grant in self.subtree(grant_id)}
        grants = tuple(replace(self.grants[i], revoked=True) for i in ended if not self.grants[i].revoked)
        leases = tuple(revoking(lease) for lease in self.leases.values() if lease.grant in ended and standing(lease))
        return self._change(grants=grants, leases=leases, closed=grant_id == self.head.root)

    def revoke_leases(self, lease_ids: tuple[str, ...]) -> Change:
        """End single leases; those already ending are left as they are."""
        leases = (self.lease(lease_id) for lease_id in lease_ids)
        return self._change(leases=tuple(revoking(lease) for lease in leases if standing(lease)))

    def settle(self, done: frozenset[str], undone: frozenset[str], residue: frozenset[str], now: datetime) -> Change:
        """Record what revoking at the targets achieved: lease ids that are done, that failed, that left residue."""
        leases = []
        for lease_id in done | undone:
            lease = self.leases.get(lease_id)
            if lease is None or lease.state is not LeaseState.REVOKING:
                continue
            if lease_id in undone:
                leases.append(failed(lease, now))
            elif lease.settles(now):
                left = lease_id in residue
                leases.append(replace(lease, state=LeaseState.REVOKED, residue=left, retry_at=None, attempts=0))
            else:
                leases.append(replace(lease, retry_at=settle_at(lease), attempts=0))
        return self._change(leases=tuple(leases))

    def cleaned(self, lease_ids: frozenset[str]) -> Change:
        """Record that nothing of these revoked leases is left at the target, and forget them."""
        gone = (self.leases.get(i) for i in lease_ids)
        return self._change(forget=tuple(i.id for i in gone if i is not None and i.state is LeaseState.REVOKED))

    def overdue(self, now: datetime) -> tuple[str, ...]:
        """Return the leases whose time is up: active past their end, planned past their ``issue_by``."""
        return tuple(lease.id for lease in self.leases.values() if overdue(lease, now))

    def due(self, now: datetime) -> tuple[Lease, ...]:
        """Return the leases that are to be revoked at their target now."""
        revoking = (lease for lease in self.leases.values() if lease.state is LeaseState.REVOKING)
        return tuple(lease for lease in revoking if lease.retry_at is None or now >= lease.retry_at)

    def report(self, grant_ids: frozenset[str], revoked: int) -> Report:
        """Say what is outstanding under ``grant_ids``, truthfully."""
        below = [lease for lease in self.leases.values() if lease.grant in grant_ids]
        outstanding = tuple(lease for lease in below if lease.state is not LeaseState.REVOKED)
        return Report(closure(outstanding), revoked, outstanding, sum(lease.residue for lease in below))

    def _change(
        self,
        *,
        grants: tuple[Grant, ...] = (),
        leases: tuple[Lease, ...] = (),
        forget: tuple[str, ...] = (),
        closed: bool = False,
    ) -> Change:
        head = replace(self.head, rev=self.head.rev + 1, closed=self.head.closed or closed)
        return Change(self.head.rev, head, grants, leases, forget)


def open_task(task_id: str, root_id: str, subject: Subject, purpose: str, wanted: Wanted, now: datetime) -> Change:
    """Open a task with its root grant. The scope has been decided on before (``core.policy``)."""
    if not purpose.strip() or len(purpose) > MAX_PURPOSE or not purpose.isprintable():
        raise InvalidRequestError(f"`purpose` must be printable text of 1 to {MAX_PURPOSE} characters")
    if wanted.ttl is None:
        raise InvalidRequestError("`ttl` is missing")
    _check_counts(wanted)
    root = _grant(root_id, None, wanted, (), now)
    head = Head(task_id, 1, root_id, subject, purpose, now, root.expires_at)
    return Change(0, head, (root,))


def nothing(task_id: str) -> Task:
    """Return the task before its first change."""
    epoch = datetime.min.replace(tzinfo=UTC)
    return Task(Head(task_id, 0, "", Subject("", ""), "", epoch, epoch))


def _check_counts(wanted: Wanted) -> None:
    if not 0 <= wanted.depth <= MAX_DEPTH:
        raise InvalidRequestError(f"`depth` must be from 0 to {MAX_DEPTH}")
    if not 0 <= wanted.fan_out <= MAX_FAN_OUT:
        raise InvalidRequestError(f"`fan_out` must be from 0 to {MAX_FAN_OUT}")
    if wanted.ttl is not None and not timedelta(0) < wanted.ttl <= MAX_TTL:
        raise InvalidRequestError(f"`ttl` must be from 1 second to {int(MAX_TTL.total_seconds())} seconds")


def _covered(child: Scope, parent: Scope) -> tuple[int, ...]:
    found = [scopes.cover(detail, parent) for detail in child]
    wide = [detail for detail, index in zip(child, found, strict=True) if index is None]
    if wide:
        raise AttenuationError(offending=scopes.dump(tuple(wide)), help="ask for no more than the parent grant holds")
    return tuple(index for index in found if index is not None)


def _grant(grant_id: str, parent: Grant | None, wanted: Wanted, covers: tuple[int, ...], now: datetime) -> Grant:
    ends = [now + wanted.ttl] if wanted.ttl is not None else []
    if parent is not None:
        if ends and ends[0] > parent.expires_at:
            raise AttenuationError("`ttl` ends after the parent grant does")
        ends.append(parent.expires_at)
    return Grant(
        id=grant_id,
        parent=parent.id if parent else None,
        agent=wanted.agent,
        attested=wanted.attested,
        scope=wanted.scope,
        covers=covers,
        level=parent.level + 1 if parent else 0,
        depth=wanted.depth,
        fan_out=wanted.fan_out,
        exercise=wanted.exercise,
        opened_at=now,
        expires_at=min(ends),
        posture=wanted.posture,
        jkt=wanted.jkt,
        label=wanted.label,
    )
