"""One node of the authority tree: what is asked for, what is made of it, and the ceilings on both."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from remit.core import scope as scopes
from remit.core import spiffe
from remit.core.legible import is_legible
from remit.core.scope import Scope
from remit.errors import ASK, AttenuationError, InvalidRequestError

MAX_DEPTH = 64
MAX_FAN_OUT = 1_000
MAX_TTL = timedelta(hours=8)
MAX_LABEL = 200  # characters
LOCAL = "local-uid"  # the acr of the owner of the state
WORKLOAD = "workload"  # the acr of a subject that is no human
UNSAID = "unspecified"  # the acr of a human whose issuer does not say how they were proven
OWN_ACR = frozenset({LOCAL, WORKLOAD, UNSAID})  # remit's own words, which no issuer can say
UNPROVEN = frozenset({LOCAL, WORKLOAD})  # subjects that no issuer of humans has vouched for
APPROVED = -1  # in place of the parent's detail: covered by an approval alone


@dataclass(frozen=True, slots=True)
class Subject:
    """The human at the root: ``sub`` is issuer-qualified (``issuer#sub``), ``acr`` says how it was proven.

    ``groups`` are claims of the issuer, by configuration; ``sid`` is the session at the issuer. A workload that acts
    for nobody but itself is its own subject, with the ``acr`` ``workload``.
    """

    sub: str
    acr: str
    auth_time: datetime | None = None
    amr: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    sid: str | None = None


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
    x5t: str | None = None  # RFC 8705 thumbprint of the holder's certificate, in place of ``jkt``
    delegates: tuple[str, ...] = (spiffe.ANY,)  # patterns of the attested workloads that may be children
    unattested: bool = True  # whether a child may be one that nobody attested
    policy: str | None = None  # version of the policy that allowed it
    approval: str | None = None  # the human decision that it rests on where it exceeds its parent
    status: int | None = None  # place in the token status list
    claims: tuple[tuple[str, str], ...] = ()  # of the attested agent, as policies see them

    @property
    def apart(self) -> bool:
        """Whether it is for one holder alone: bound to their key or certificate, or made for whom somebody attests."""
        return self.attested or self.jkt is not None or self.x5t is not None


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
    x5t: str | None = None
    delegates: tuple[str, ...] | None = None  # None: as the parent, and at the root every attested workload
    unattested: bool = True
    policy: str | None = None
    approval: str | None = None
    status: int | None = None
    claims: tuple[tuple[str, str], ...] = ()


def size(made: Grant | Wanted) -> int:
    """Return about how many characters are kept of what somebody asked for."""
    return scopes.size(made.scope) + sum(map(len, made.delegates or ())) + len(made.agent) + len(made.label)


def _check_ceilings(wanted: Wanted) -> None:
    if not 0 <= wanted.depth <= MAX_DEPTH:
        raise InvalidRequestError(f"`depth` must be from 0 to {MAX_DEPTH}")
    if not 0 <= wanted.fan_out <= MAX_FAN_OUT:
        raise InvalidRequestError(f"`fan_out` must be from 0 to {MAX_FAN_OUT}")
    if wanted.ttl is not None and not timedelta(0) < wanted.ttl <= MAX_TTL:
        most = int(MAX_TTL.total_seconds())
        raise InvalidRequestError(
            f"`ttl` must be from 1 second to {most} seconds ({most // 3_600} hours)",
            help="open another task when this one ends",
        )
    if len(wanted.label) > MAX_LABEL or not is_legible(wanted.label):
        raise InvalidRequestError(f"`label` must be printable text of at most {MAX_LABEL} characters")
    if len(wanted.delegates or ()) > spiffe.MAX_PATTERNS:
        raise InvalidRequestError(f"`delegates` has at most {spiffe.MAX_PATTERNS} patterns")
    if sum(map(len, wanted.delegates or ())) > spiffe.MAX_TEXT:
        raise InvalidRequestError(f"`delegates` has at most {spiffe.MAX_TEXT:,} characters in all")
    for pattern in wanted.delegates or ():
        spiffe.check_pattern(pattern)


def _covered(child: Scope, parent: Scope) -> tuple[int, ...]:
    found = scopes.covering(child, parent)
    wide = [detail for detail, index in zip(child, found, strict=True) if index is None]
    if wide:
        held = scopes.shown(parent, {detail.resource for detail in wide})
        raise AttenuationError(offending=scopes.dump(tuple(wide)), help=f"the parent grant holds {held}; {ASK}")
    return tuple(index for index in found if index is not None)


def make_grant(grant_id: str, parent: Grant | None, wanted: Wanted, now: datetime) -> Grant:
    """Return a new grant, no wider than its parent and ending no later, or raise AttenuationError.

    A grant that rests on an approval takes its details and its delegability from the human who gave it; it still ends
    with its parent, though time has passed since the human saw it.
    """
    _check_ceilings(wanted)
    level = 0 if parent is None else parent.level + 1
    if level + wanted.depth > MAX_DEPTH:
        raise InvalidRequestError(f"no grant may be more than {MAX_DEPTH} hops from the human")
    covers = () if parent is None else _uncovered(wanted, parent)
    ends = [now + wanted.ttl] if wanted.ttl is not None else []
    if parent is not None:
        if wanted.approval is None:
            check_end(parent, wanted, now)
        ends.append(parent.expires_at)
    return Grant(
        id=grant_id,
        parent=parent.id if parent else None,
        agent=wanted.agent,
        attested=wanted.attested,
        scope=wanted.scope,
        covers=covers,
        level=level,
        depth=wanted.depth,
        fan_out=wanted.fan_out,
        exercise=wanted.exercise,
        opened_at=now,
        expires_at=min(ends),
        posture=wanted.posture,
        jkt=wanted.jkt,
        label=wanted.label,
        x5t=wanted.x5t,
        delegates=_delegates(parent, wanted),
        unattested=_unattested(parent, wanted),
        policy=wanted.policy,
        approval=wanted.approval,
        status=wanted.status,
        claims=wanted.claims,
    )


def check_end(parent: Grant, wanted: Wanted, now: datetime) -> None:
    """Raise AttenuationError if a child would end after its parent."""
    if wanted.ttl is not None and now + wanted.ttl > parent.expires_at:
        left = int((parent.expires_at - now).total_seconds())
        raise AttenuationError("`ttl` ends after the parent grant does", help=f"{left} seconds are left of it")


def beyond(parent: Grant, wanted: Wanted) -> tuple[str, ...]:
    """Name the dimensions in which a child would exceed its parent: what a human has to approve."""
    found = {
        "authorization_details": None in scopes.covering(wanted.scope, parent.scope),
        "depth": wanted.depth > parent.depth - 1,
        "fan_out": wanted.fan_out > parent.fan_out,
        "delegates": not spiffe.within(wanted.delegates or (), parent.delegates) or not _chosen(parent, wanted),
        "unattested": not parent.unattested and (not wanted.attested or (wanted.unattested and wanted.depth > 0)),
    }
    return tuple(name for name, exceeds in found.items() if exceeds)


def _chosen(parent: Grant, wanted: Wanted) -> bool:
    return not wanted.attested or may_be_delegate(parent, wanted.agent)


def may_be_delegate(parent: Grant, agent: str) -> bool:
    """Whether an attested agent is one that a grant may be delegated to."""
    return spiffe.ANY in parent.delegates or spiffe.matches(agent, parent.delegates)


def unusable(grant: Grant) -> str | None:
    """Say how far it holds that a grant is not to be used itself: binding | advisory; None where it may be used.

    A holder can give what it holds to a child of its own making, or to itself by a name that it has, and use that; and
    whoever is shown a bearer credential (a JWT-SVID, the token of a platform) can show it again. So it binds only where
    every child has to prove the key that its name comes with: names of ``wimse`` trust domains, which only WITs carry.
    Under such a child the holder may not act (``Task.check_acting``).
    """
    if grant.exercise:
        return None
    if grant.depth == 0 or not (grant.unattested or grant.delegates):
        return "binding"  # no child is possible
    keyed = all(pattern.startswith(spiffe.WIMSE) for pattern in grant.delegates) and not grant.unattested
    itself = not grant.attested or may_be_delegate(grant, grant.agent)  # a holder whom nobody named may have any name
    return "binding" if keyed and not itself else "advisory"


def _uncovered(wanted: Wanted, parent: Grant) -> tuple[int, ...]:
    if wanted.approval is None:
        return _covered(wanted.scope, parent.scope)
    found = scopes.covering(wanted.scope, parent.scope)
    return tuple(APPROVED if index is None else index for index in found)


def _delegates(parent: Grant | None, wanted: Wanted) -> tuple[str, ...]:
    """Return the workloads that may be children: those the parent may have, unless fewer are named."""
    if parent is None:
        return (spiffe.ANY,) if wanted.delegates is None else wanted.delegates
    if wanted.delegates is None:
        return parent.delegates
    if wanted.approval is None and not spiffe.within(wanted.delegates, parent.delegates):
        raise AttenuationError("`delegates` is wider than that of the parent grant", help=f"it has {parent.delegates}")
    return wanted.delegates


def _unattested(parent: Grant | None, wanted: Wanted) -> bool:
    """Return whether a child may be one that nobody attested; where no child can be, as the parent has it."""
    if parent is None or parent.unattested or wanted.approval is not None:
        return wanted.unattested
    if wanted.unattested and wanted.depth:
        raise AttenuationError("`unattested` must be false: the parent grant allows attested children alone")
    return False
