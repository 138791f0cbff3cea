"""The aggregate: a task, its tree of grants and their leases, and every change they can undergo.

Rules kept here, and nowhere else (the cycle of a lease is told in ``docs/explanation/lease-cycle.md``):

- A change is a pure step ``Task -> Change``; ``Task.apply`` takes it. Time and ids are arguments.
- A task goes on by a new proof of its login, ``MAX_TTL`` at a time, and its root alone with it; never once it ended.
- A child grant ends no later than its parent; it is covered and has fewer hops left unless a human approved more.
- A lease ends no later than its grant, and starts only under a grant whose whole lineage is live.
- ``revoked`` has no way out, for grants and for leases.
- A lease that was never confirmed is not ``revoked`` before its ``issue_by``: an issue may still be in flight.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from remit.core import scope as scopes
from remit.core.grant import Grant, GrantContext, Posture, Subject, make_root
from remit.core.lease import Closure, Lease, LeaseState, Plan, Report, Revocation, closure
from remit.core.legible import is_legible
from remit.core.request import MAX_LIFE, MAX_TTL, GrantRequest
from remit.core.scope import Detail
from remit.errors import (
    ConflictError,
    DeniedError,
    ExpiredError,
    FanOutError,
    InvalidRequestError,
    LimitError,
    NotFoundError,
    RevokedError,
    ScopeError,
)

__all__ = ["Change", "Closure", "Grant", "Lease", "LeaseState", "Plan", "Posture", "Report", "Revocation", "TaskHeader"]
__all__ += ["Subject", "Task", "nothing", "open_task"]

MAX_PURPOSE = 2_000  # characters
MAX_GRANTS = 20_000  # of a task that there ever were: each is kept as long as the task
MAX_DETAILS = 20_000  # of all grants of a task, as above: each is decided on anew when policies change
MAX_SIZE = 8_388_608  # characters of all these details, and of the patterns of ``delegates`` (``grant.size``)
MAX_LEASES = 2_000  # of a task, as long as something of them may be left at a target: one end visits all of them
MAX_LEASED = 1_048_576  # characters of their details: one answer shows them
ANOTHER = "open another task, or ask for fewer and shorter details"
NOT_YOURS = "that grant, or one on the way to it, is bound to a key or attested: only its holder may use it"


@dataclass(frozen=True, slots=True)
class TaskHeader:
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
    head: TaskHeader
    grants: tuple[Grant, ...] = ()
    leases: tuple[Lease, ...] = ()
    forget: tuple[str, ...] = ()  # ids of leases whose rows are no longer needed

    @property
    def ends(self) -> bool:
        """Whether it takes authority away and gives none."""
        whole = all(grant.revoked for grant in self.grants) and not any(lease.standing for lease in self.leases)
        return whole and bool(self.grants or self.leases)


@dataclass(frozen=True, slots=True)
class Task:
    """One piece of work opened for a human, or by a workload for itself, with all the authority in it."""

    head: TaskHeader
    grants: Mapping[str, Grant] = field(default_factory=dict)
    leases: Mapping[str, Lease] = field(default_factory=dict)
    children: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # derived; live and ended ones
    details: int = 0  # derived: of all grants, live and ended ones
    size: int = 0  # derived: of these details, and what else was asked for
    leased: int = 0  # derived: size of the details of all leases

    @property
    def id(self) -> str:
        return self.head.id

    def grant(self, grant_id: str) -> Grant:
        if grant_id not in self.grants:
            raise NotFoundError
        return self.grants[grant_id]

    @property
    def resources(self) -> frozenset[str]:
        """What its grants have that were not revoked: a human may have approved one beyond the root grant."""
        return frozenset(one.resource for grant in self.grants.values() if not grant.revoked for one in grant.scope)

    def lease(self, lease_id: str) -> Lease:
        if lease_id not in self.leases:
            raise NotFoundError
        return self.leases[lease_id]

    def lineage(self, grant_id: str) -> tuple[Grant, ...]:
        """Return the grants from ``grant_id`` up to the root."""
        line = [grant := self.grant(grant_id)]
        while grant.parent is not None:
            line.append(grant := self.grant(grant.parent))
        return tuple(line)

    def check_acting(self, grant_id: str, own: str) -> None:
        """Raise unless the holder of ``own`` may act under ``grant_id``.

        That is ``own``, or one below it where none from there up to ``own`` is bound to a key or attested.
        """
        line = self.lineage(grant_id)
        ids = [grant.id for grant in line]
        if own not in ids:  # what is not below it is unknown to it
            raise NotFoundError
        if any(grant.apart for grant in line[: ids.index(own)]):  # that one is another's, and so is what hangs below it
            raise DeniedError(NOT_YOURS, help="you may look at it and revoke it; to act, use your own grant")

    def subtree(self, grant_id: str) -> Iterator[Grant]:
        """Yield a grant and all its descendants, parents first."""
        waiting = [grant_id]
        while waiting:
            grant = self.grant(waiting.pop())
            yield grant
            waiting.extend(self.children.get(grant.id, ()))

    def live(self, grant_id: str, now: datetime) -> Grant:
        """Return a grant whose whole lineage is live, or say why it is not."""
        # an end marks the subtree and no child ends later, so the leaf would do; the walk is a second line of defence
        line = self.lineage(grant_id)
        if self.head.closed or any(grant.revoked for grant in line):
            raise RevokedError
        if any(now >= grant.expires_at for grant in line):
            raise ExpiredError
        return line[0]

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
        leased = self.leased + sum(lease.size for lease in change.leases if lease.id not in self.leases)
        leased -= sum(leases.pop(lease_id).size for lease_id in change.forget if lease_id in leases)
        details = self.details + sum(len(grant.scope) for grant in fresh)
        size = self.size + sum(grant.size for grant in fresh)
        return Task(change.head, grants, leases, children, details, size, leased)

    def renew(self, subject: Subject, expires_at: datetime, now: datetime) -> Change:
        """Move the end of the task and its root forward, as far as may be; it rests on this login of its human then.

        Nothing else of it ends later for that.
        """
        root = self.live(self.head.root, now)
        ends = max(self.head.expires_at, min(expires_at, now + MAX_TTL, self.head.opened_at + MAX_LIFE))
        longer = replace(root, expires_at=ends, bounds=replace(root.bounds, ttl=ends - root.opened_at))
        change = self._change(grants=(longer,))
        return replace(change, head=replace(change.head, expires_at=ends, subject=subject))

    def delegate(
        self, parent_id: str, child_id: str, request: GrantRequest, context: GrantContext, now: datetime
    ) -> Change:
        """Make a child grant, no wider than its parent in any dimension, but for what a human approved beyond it."""
        parent = self.live(parent_id, now)
        if context.approval is None:
            parent.check_delegable(request)
            if self._full(parent, now):
                raise FanOutError(
                    f"the grant has {parent.bounds.fan_out} live children, as many as it may have",
                    help="revoke one, or open the task with a larger `fan_out`",
                )
        child = parent.child(child_id, request, context, now)
        if len(self.grants) >= MAX_GRANTS:
            raise LimitError(f"a task has at most {MAX_GRANTS:,} grants, ended ones included", help=ANOTHER)
        if self.details + len(child.scope) > MAX_DETAILS or self.size + child.size > MAX_SIZE:
            raise LimitError(
                f"the grants of a task, ended ones included, have at most {MAX_DETAILS:,} details, "
                f"and {MAX_SIZE:,} characters of them",
                help=ANOTHER,
            )
        return self._change(grants=(child,))

    def asking(self, parent_id: str, request: GrantRequest, context: GrantContext, now: datetime) -> Grant:
        """Return the child that a human is asked for, or raise what no human can approve."""
        parent = self.live(parent_id, now)
        parent.check_end(request, now)
        return parent.child("", request, replace(context, approval=""), now)

    def beyond(self, parent_id: str, request: GrantRequest, now: datetime) -> tuple[str, ...]:
        """Name the dimensions in which a child would exceed its parent."""
        parent = self.grant(parent_id)
        found = parent.beyond(request)
        return (*found, "fan_out") if self._full(parent, now) and "fan_out" not in found else found

    def _full(self, parent: Grant, now: datetime) -> bool:
        children = self.children.get(parent.id, ())
        if len(children) < parent.bounds.fan_out:
            return False
        siblings = (self.grants[child] for child in children)
        return sum(not child.revoked and child.expires_at > now for child in siblings) >= parent.bounds.fan_out

    def usable(self, grant_id: str, detail: Detail, now: datetime) -> Grant:
        """Return the live grant if it may be exercised for ``detail``, else say why not."""
        grant = self.live(grant_id, now)
        if not grant.bounds.exercise:
            raise ScopeError("this grant may delegate but not be used itself", help="delegate, and use the child")
        if None in scopes.covering((detail,), grant.scope):
            raise ScopeError(enough=scopes.dump((detail,))[0])
        return grant

    def plan(self, lease: Lease, now: datetime) -> Change:
        """Record the intent to create a credential, before anything is created; it ends others under its key."""
        grant = self.usable(lease.grant, lease.plan.detail, now)
        if lease.id in self.leases or lease.state is not LeaseState.PLANNED or lease.expires_at > grant.expires_at:
            raise ConflictError
        if len(self.leases) >= MAX_LEASES or self.leased + lease.size > MAX_LEASED:
            most = f"{MAX_LEASES:,} leases, and {MAX_LEASED:,} characters of their details"
            raise LimitError(f"a task has at most {most}", help="revoke some, or use one for longer")
        alike = (i for i in self.leases.values() if (i.grant, i.key) == (lease.grant, lease.key) and i.standing)
        others = () if lease.key is None else tuple(other.revoking() for other in alike)
        return self._change(leases=(*others, lease))

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
        """Record a later end of a lease, before the target is told; never an earlier one, which it might outlive."""
        lease, grant = self.renewable(lease_id, now)
        later = max(lease.expires_at, min(expires_at, grant.expires_at))
        return self._change(leases=(replace(lease, expires_at=later),))

    def revoke(self, *grant_ids: str) -> Change:
        """End grants and everything below them."""
        ended = {grant.id for grant_id in grant_ids for grant in self.subtree(grant_id)}
        grants = tuple(replace(self.grants[i], revoked=True) for i in ended if not self.grants[i].revoked)
        leases = tuple(lease.revoking() for lease in self.leases.values() if lease.grant in ended and lease.standing)
        return self._change(grants=grants, leases=leases, closed=self.head.root in grant_ids)

    def revoke_leases(self, lease_ids: tuple[str, ...]) -> Change:
        """End single leases; those already ending are left as they are."""
        leases = (self.lease(lease_id) for lease_id in lease_ids)
        return self._change(leases=tuple(lease.revoking() for lease in leases if lease.standing))

    def settle(self, done: frozenset[str], undone: frozenset[str], residue: frozenset[str], now: datetime) -> Change:
        """Record what revoking at the targets achieved: lease ids that are done, that failed, that left residue."""
        leases = []
        for lease_id in done | undone:
            lease = self.leases.get(lease_id)
            if lease is None or lease.state is not LeaseState.REVOKING:
                continue
            if lease_id in undone:
                leases.append(lease.failed(now))
            elif lease.settles(now):
                left = lease_id in residue
                leases.append(replace(lease, state=LeaseState.REVOKED, residue=left, retry_at=None, attempts=0))
            else:
                leases.append(replace(lease, retry_at=lease.settle_at, attempts=0))
        return self._change(leases=tuple(leases))

    def cleaned(self, lease_ids: frozenset[str]) -> Change:
        """Record that nothing of these revoked leases is left at the target, and forget them."""
        gone = (self.leases.get(i) for i in lease_ids)
        return self._change(forget=tuple(i.id for i in gone if i is not None and i.state is LeaseState.REVOKED))

    def overdue(self, now: datetime) -> tuple[str, ...]:
        """Return the leases whose time is up: active past their end, planned past their ``issue_by``."""
        return tuple(lease.id for lease in self.leases.values() if lease.overdue(now))

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


def open_task(
    task_id: str, root_id: str, subject: Subject, request: GrantRequest, context: GrantContext, now: datetime
) -> Change:
    """Open a task with its root grant. Whether its subject may have that much, ``core.policy`` decides."""
    purpose = request.purpose
    if not purpose.strip() or len(purpose) > MAX_PURPOSE or not is_legible(purpose):
        raise InvalidRequestError(f"`purpose` must be text of 1 to {MAX_PURPOSE} characters that show")
    root = make_root(root_id, request, context, now)
    head = TaskHeader(task_id, 1, root_id, subject, purpose, now, root.expires_at)
    return Change(0, head, (root,))


def nothing(task_id: str) -> Task:
    """Return the task before its first change."""
    epoch = datetime.min.replace(tzinfo=UTC)
    return Task(TaskHeader(task_id, 0, "", Subject("", ""), "", epoch, epoch))
