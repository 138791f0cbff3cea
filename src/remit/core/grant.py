"""One node of the authority tree: how a request becomes a grant no wider than its parent, but for what was approved."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from remit.core import request as requests
from remit.core import scope as scopes
from remit.core import spiffe
from remit.core.request import MAX_DEPTH, UNBOUND, Binding, Bounds, GrantRequest
from remit.core.scope import Scope
from remit.errors import ASK, AttenuationError, DelegateError, DepthError, InvalidRequestError

LOCAL = "local-uid"  # the acr of the owner of the state
ISOLATION = ("unsandboxed", "host-net", "namespace")  # how a run is isolated, from the weakest
WORKLOAD = "workload"  # the acr of a subject that is no human
UNSAID = "unspecified"  # the acr of a human whose issuer does not say how they were proven
OWN_ACR = frozenset({LOCAL, WORKLOAD, UNSAID})  # remit's own words, which no issuer can say
UNPROVEN = frozenset({LOCAL, WORKLOAD})  # subjects that no issuer of humans has vouched for
APPROVED = -1  # in place of the parent's detail: covered by an approval alone


@dataclass(frozen=True, slots=True)
class Subject:
    """The human at the root, or a workload that acts for nobody but itself (``acr`` ``workload``)."""

    sub: str  # issuer-qualified: issuer#sub
    acr: str  # how it was proven
    auth_time: datetime | None = None
    amr: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()  # claims of the issuer, by configuration
    sid: str | None = None  # the session at the issuer


@dataclass(frozen=True, slots=True)
class Posture:
    """What the surroundings of a grant's holder promise; see ``docs/explanation/posture.md``."""

    isolation: str = "none"  # namespace | host-net | unsandboxed | none
    custody: str = "holder"  # channel | holder | bearer
    at_rest: str = "none"  # kek-file | none


@dataclass(frozen=True, slots=True)
class GrantContext:
    """What the broker says of a grant that is requested: its holder's name and posture, and what it rests on."""

    agent: str = ""  # the name where nobody attests one
    posture: Posture = Posture()
    approval: str | None = None
    status: int | None = None  # place in the token status list
    client: str | None = None  # the OAuth client that obtains it, where the holder is not attested as one


@dataclass(frozen=True, slots=True)
class Grant:
    """A node of the authority tree. ``bounds`` and ``binding`` are settled; ``bounds.ttl`` is the whole life."""

    id: str
    parent: str | None
    agent: str  # the attested identity, else a name that the broker gave
    scope: Scope
    covers: tuple[int, ...]  # for each detail, the index of the parent's detail that covers it
    level: int  # hops from the root
    bounds: Bounds
    opened_at: datetime
    expires_at: datetime
    binding: Binding = UNBOUND
    posture: Posture = Posture()
    revoked: bool = False
    label: str = ""
    policy: str | None = None  # version of the policy that allowed it
    approval: str | None = None  # the human decision that it rests on where it exceeds its parent
    status: int | None = None  # place in the token status list
    client: str | None = None  # the OAuth client that obtained it, or what it comes from; None: there was none

    @property
    def attested(self) -> bool:
        """Whether somebody else than its holder says who that is."""
        return self.binding.identity is not None

    @property
    def apart(self) -> bool:
        """Whether it is for one holder alone: bound to their key or certificate, or made for whom somebody attests."""
        return self.binding != UNBOUND

    @property
    def delegates(self) -> tuple[str, ...]:
        """Patterns of the attested workloads that may be children."""
        return self.bounds.delegates or ()

    @property
    def size(self) -> int:
        """About how many characters are kept of its request."""
        return scopes.size(self.scope) + sum(map(len, (*self.delegates, self.agent, self.label, self.client or "")))

    def child(self, grant_id: str, request: GrantRequest, context: GrantContext, now: datetime) -> Grant:
        """Return a new grant, ending no later and no wider but for what was approved, or raise AttenuationError."""
        requests.check(request)
        if request.binding.bearer is not None:
            raise DelegateError("what is handed on is held by a key or a channel, and not by a token alone")
        if self.level + 1 + request.bounds.depth > MAX_DEPTH:
            raise InvalidRequestError(f"no grant may be more than {MAX_DEPTH} hops from the human")
        covers = scopes.covering(request.scope, self.scope)
        ttl, bounds = request.bounds.ttl, request.bounds
        # a grant that rests on an approval takes its details and its delegability from the human who gave it; it still
        # ends with its parent, though time has passed since the human saw it
        if context.approval is None:
            wide = tuple(detail for detail, index in zip(request.scope, covers, strict=True) if index is None)
            if wide:
                held = scopes.shown(self.scope, {detail.resource for detail in wide})
                raise AttenuationError(offending=scopes.dump(wide), help=f"the parent grant holds {held}; {ASK}")
            self.check_end(request, now)
            bounds = self._narrowed(bounds)
        expires_at = self.expires_at if ttl is None else min(now + ttl, self.expires_at)
        delegates = self.delegates if bounds.delegates is None else bounds.delegates
        bounds = replace(bounds, ttl=expires_at - now, delegates=delegates)
        settled = tuple(APPROVED if index is None else index for index in covers)
        made = _made(grant_id, replace(request, bounds=bounds), context, now, expires_at)
        client = made.client or self.client  # who is attested is a client of its own, another its parent's still
        return replace(made, parent=self.id, covers=settled, level=self.level + 1, client=client)

    def check_end(self, request: GrantRequest, now: datetime) -> None:
        """Raise AttenuationError if a child would end after this grant."""
        if request.bounds.ttl is not None and now + request.bounds.ttl > self.expires_at:
            left = int((self.expires_at - now).total_seconds())
            raise AttenuationError("`ttl` ends after the parent grant does", help=f"{left} seconds are left of it")

    def _narrowed(self, bounds: Bounds) -> Bounds:
        if bounds.delegates is not None and not spiffe.within(bounds.delegates, self.delegates):
            raise AttenuationError(
                "`delegates` is wider than that of the parent grant", help=f"it has {self.delegates}"
            )
        if self.bounds.unattested or not bounds.unattested:
            return bounds
        if bounds.depth:
            raise AttenuationError("`unattested` must be false: the parent grant allows attested children alone")
        return replace(bounds, unattested=False)  # it need not say so, as it can have no child

    def check_delegable(self, request: GrantRequest) -> None:
        """Raise unless it may have a child with these bounds, for this holder."""
        bounds, most = request.bounds, self.bounds
        if most.depth < 1:
            raise DepthError(
                "the grant may not be delegated further", help=f"open the task with more `depth`, or {ASK}"
            )
        if bounds.depth > most.depth - 1:
            raise DepthError(f"`depth` may be at most {most.depth - 1} here", help=ASK)
        if bounds.fan_out > most.fan_out:
            raise DepthError(f"`fan_out` may be at most {most.fan_out} here", help=ASK)
        if request.binding.identity is None and not most.unattested:
            raise DelegateError("the grant may be delegated to attested agents alone", help="give an `actor_token`")
        if not self.may_be_delegated_to(request.binding.identity):
            raise DelegateError(help=f"it may be delegated to {', '.join(self.delegates) or 'nobody attested'}")

    def beyond(self, request: GrantRequest) -> tuple[str, ...]:
        """Name the dimensions in which a child would exceed it: what a human has to approve."""
        bounds, most, identity = request.bounds, self.bounds, request.binding.identity
        found = {
            "authorization_details": None in scopes.covering(request.scope, self.scope),
            "depth": bounds.depth > most.depth - 1,
            "fan_out": bounds.fan_out > most.fan_out,
            "delegates": not spiffe.within(bounds.delegates or (), self.delegates)
            or not self.may_be_delegated_to(identity),
            "unattested": not most.unattested and (identity is None or (bounds.unattested and bounds.depth > 0)),
        }
        return tuple(name for name, exceeds in found.items() if exceeds)

    def may_be_delegated_to(self, identity: str | None) -> bool:
        """Whether an agent, if anybody attests it, is one that it may be delegated to."""
        return identity is None or spiffe.ANY in self.delegates or spiffe.matches(identity, self.delegates)

    @property
    def unusable(self) -> str | None:
        """How far it holds that it is not to be used itself: binding | advisory; None where it may be used.

        A holder can give what it holds to a child of its own making, or to itself by a name that it has, and use that;
        and whoever is shown a bearer credential (a JWT-SVID, the token of a platform) can show it again. So it binds
        only where every child has to prove the key that its name comes with: names of ``wimse`` trust domains, which
        only WITs carry. Under such a child the holder may not act (``Task.check_acting``).
        """
        if self.bounds.exercise:
            return None
        if self.bounds.depth == 0 or not (self.bounds.unattested or self.delegates):
            return "binding"  # no child is possible
        keyed = all(pattern.startswith(spiffe.WIMSE) for pattern in self.delegates) and not self.bounds.unattested
        itself = not self.attested or self.may_be_delegated_to(self.agent)  # whom nobody named may have any name
        return "binding" if keyed and not itself else "advisory"


def make_root(grant_id: str, request: GrantRequest, context: GrantContext, now: datetime) -> Grant:
    """Return the root grant of a task."""
    if request.bounds.ttl is None:
        raise InvalidRequestError("`ttl` is missing")
    requests.check(request)
    delegates = (spiffe.ANY,) if request.bounds.delegates is None else request.bounds.delegates
    bounds = replace(request.bounds, delegates=delegates)
    return _made(grant_id, replace(request, bounds=bounds), context, now, now + request.bounds.ttl)


def _made(grant_id: str, request: GrantRequest, context: GrantContext, now: datetime, expires_at: datetime) -> Grant:
    return Grant(
        id=grant_id,
        parent=None,
        agent=request.binding.identity or context.agent,
        scope=request.scope,
        covers=(),
        level=0,
        bounds=request.bounds,
        opened_at=now,
        expires_at=expires_at,
        binding=request.binding,
        posture=context.posture,
        label=request.label,
        approval=context.approval,
        status=context.status,
        client=request.binding.identity or context.client,
    )
