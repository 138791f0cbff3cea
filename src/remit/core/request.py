"""A request for a grant: its scope, the bounds of what may hang below it, what it is bound to. Pure.

``read`` is the one reader, for token requests, ``/v1``, launchers and stored approvals; ``written`` the one writer. A
request is refused or made as it is: nothing in it is cut or clamped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from remit.core import fields, spiffe
from remit.core import scope as scopes
from remit.core.legible import is_legible
from remit.core.scope import Scope
from remit.errors import InvalidRequestError

MAX_DEPTH = 64
MAX_FAN_OUT = 1_000
MAX_TTL = timedelta(hours=8)  # how long a login counts that no signal ends
MAX_LIFE = timedelta(days=30)  # of a task, however often its login is proven anew
MAX_LABEL = 200  # characters
MAX_NUMBER = 10**9  # that is read at all: more seconds are no time span
SECOND = timedelta(seconds=1)
_MANY = f"`delegates` has at most {spiffe.MAX_PATTERNS} patterns, of {spiffe.MAX_TEXT:,} characters in all"

BOUNDS = frozenset({"ttl", "depth", "fan_out", "exercise", "delegates", "unattested"})
LIMITS = BOUNDS | {"authorization_details"}  # what limits a grant: ignoring one would give more
FIELDS = LIMITS | {"label", "purpose"}
TEXTS = frozenset({"label", "purpose"})  # the other fields of a form are JSON


@dataclass(frozen=True, slots=True)
class Bounds:
    """How long a grant lasts, and what may hang below it. A request may leave some open; a grant has all settled."""

    ttl: timedelta | None = None  # None: as the parent
    depth: int = 0  # hops of delegation that may follow
    fan_out: int = 0  # live children that each grant may have
    exercise: bool = True  # whether the grant may be used itself
    # Patterns of the attested workloads that may be children. None: as the parent; at the root, every one.
    delegates: tuple[str, ...] | None = None
    unattested: bool = True  # whether a child may be one that nobody attested


@dataclass(frozen=True, slots=True)
class Binding:
    """Whose grant it is: the holder of a key, of a certificate, of a token alone, or of a channel; and a workload."""

    jkt: str | None = None  # RFC 7638 SHA-256 thumbprint of the key
    x5t: str | None = None  # RFC 8705 thumbprint of the certificate
    identity: str | None = None  # of a workload that somebody else than its holder attested
    claims: tuple[tuple[str, str], ...] = ()  # what its attester says of it, as policies see it
    bearer: str | None = None  # no key: its tokens work for whoever has them, at this one resource alone

    @property
    def thumbprint(self) -> str | None:
        """The key or certificate that tokens are bound to; None on a channel, and for a bearer."""
        return self.jkt or self.x5t

    @property
    def by_token(self) -> bool:
        """Whether it is held by a token, and not by a channel."""
        return self.thumbprint is not None or self.bearer is not None


UNBOUND = Binding()


@dataclass(frozen=True, slots=True)
class GrantRequest:
    """What an open or a delegate asks for. ``purpose`` is that of a task to be opened; a delegate has none."""

    scope: Scope
    bounds: Bounds = Bounds()
    binding: Binding = UNBOUND
    label: str = ""
    purpose: str = ""


def read(
    members: Mapping[str, object], binding: Binding = UNBOUND, read_scope: Callable[[object], Scope] = scopes.parse
) -> GrantRequest:
    """Read a request from decoded JSON; other members are the caller's to refuse, and what binds it is never read."""
    if "authorization_details" not in members:
        raise InvalidRequestError("`authorization_details` is missing")
    return GrantRequest(
        scope=read_scope(members["authorization_details"]),
        bounds=read_bounds(members),
        binding=binding,
        label=_text("label", members),
        purpose=_text("purpose", members),
    )


def read_bounds(members: Mapping[str, object]) -> Bounds:
    """Read bounds from decoded JSON; what a grant may have of them, ``check`` says."""
    ttl, delegates = members.get("ttl"), members.get("delegates")
    if delegates is not None and not (isinstance(delegates, list) and all(isinstance(each, str) for each in delegates)):
        raise InvalidRequestError("`delegates` must be an array of patterns")
    if len(delegates or ()) > spiffe.MAX_PATTERNS:  # before anything crosses a link
        raise InvalidRequestError(_MANY)
    return Bounds(
        ttl=None if ttl is None else timedelta(seconds=fields.whole("ttl", ttl, most=MAX_NUMBER)),
        depth=fields.whole("depth", members.get("depth", 0), most=MAX_NUMBER),
        fan_out=fields.whole("fan_out", members.get("fan_out", 0), most=MAX_NUMBER),
        exercise=fields.flag("exercise", members.get("exercise", True)),
        delegates=None if delegates is None else tuple(delegates),
        unattested=fields.flag("unattested", members.get("unattested", True)),
    )


def _text(name: str, members: Mapping[str, object]) -> str:
    value = members.get(name, "")
    if not isinstance(value, str):
        raise InvalidRequestError(f"`{name}` must be text")
    return value


def check(request: GrantRequest) -> None:
    """Raise InvalidRequestError for what no grant may have, whoever asks."""
    bounds = request.bounds
    fields.whole("depth", bounds.depth, most=MAX_DEPTH)
    fields.whole("fan_out", bounds.fan_out, most=MAX_FAN_OUT)
    check_ttl(bounds.ttl)
    if len(request.label) > MAX_LABEL or not is_legible(request.label):
        raise InvalidRequestError(f"`label` must be printable text of at most {MAX_LABEL} characters")
    delegates = bounds.delegates or ()
    if len(delegates) > spiffe.MAX_PATTERNS or sum(map(len, delegates)) > spiffe.MAX_TEXT:
        raise InvalidRequestError(_MANY)
    for pattern in delegates:
        spiffe.check_pattern(pattern)


def check_ttl(ttl: timedelta | None) -> None:
    """Raise InvalidRequestError for a time that nothing may be made, or renewed, for at once."""
    if ttl is not None and not timedelta(0) < ttl <= MAX_TTL:
        most = int(MAX_TTL.total_seconds())
        raise InvalidRequestError(
            f"`ttl` must be from 1 second to {most} seconds ({most // 3_600} hours)",
            help="renew the task before it ends, or open another one then",
        )


def written(request: GrantRequest) -> dict[str, object]:
    """Write a request as JSON values, with what it is bound to: all that a human decides on."""
    return {
        "authorization_details": scopes.dump(request.scope),
        **written_bounds(request.bounds),
        "agent": request.binding.identity,
        "claims": dict(request.binding.claims) or None,
        "label": request.label,
        "jkt": request.binding.jkt,
        "x5t": request.binding.x5t,
        "bearer": request.binding.bearer,
        "purpose": request.purpose or None,
    }


def written_bounds(bounds: Bounds) -> dict[str, object]:
    """Write bounds as JSON values, the time in whole seconds."""
    return {
        "ttl": None if bounds.ttl is None else -(-bounds.ttl // SECOND),
        "depth": bounds.depth,
        "fan_out": bounds.fan_out,
        "delegates": None if bounds.delegates is None else list(bounds.delegates),
        "unattested": bounds.unattested,
        "exercise": bounds.exercise,
    }
