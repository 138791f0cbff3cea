"""What a route is, who may call it, and what the control plane is served from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from starlette.requests import Request
from starlette.responses import Response

from remit.api.audit import Checkpoints
from remit.api.proven import Verifier
from remit.api.who import Caller
from remit.broker import Broker
from remit.ports import Authority, Humans, Logins, NewId, Signals, Workloads

Open = Callable[[Request], Awaitable[Response]]
Closed = Callable[[Request, Caller], Awaitable[Response]]


class Who(StrEnum):
    """Who may call a route. Every route is one of these; a test walks them."""

    PUBLIC = "public"  # anybody: discovery
    PROVING = "proving"  # the handler itself asks for its proof: the token endpoint
    AGENT = "agent"  # an operator, or the holder of a live grant, within its own subtree
    OPERATOR = "operator"  # the human at the control socket


@dataclass(frozen=True, slots=True)
class Row:
    """One route: ``query`` names the parameters its URL may carry."""

    method: str
    path: str
    who: Who
    handler: Open | Closed
    query: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who verifies humans and workloads; None where none is configured, and then nobody is believed."""

    humans: Humans | None = None
    logins: Logins | None = None
    workloads: Workloads | None = None
    signals: Signals | None = None
    native: Sequence[Mapping[str, object]] = ()  # issuers with the public client of terminals, as anybody may see


@dataclass(frozen=True, slots=True)
class Surface:
    """What the control plane is served from."""

    broker: Broker
    verifier: Verifier
    new_id: NewId
    checkpoint: Checkpoints
    identity: Identity = field(default_factory=Identity)
    authority: Authority | None = None  # of the broker's own trust domain
