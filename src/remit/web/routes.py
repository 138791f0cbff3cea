"""What a route is, who may call it, and what the control plane is served from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from remit.broker import Broker
from remit.control.audit import Checkpoints
from remit.core.policy import Question
from remit.core.principal import Operator, Principal
from remit.jose.keys import PublishedKey
from remit.oauth.registry import Registry
from remit.ports import NewId
from remit.ports.identity import Authority, Humans, Logins, Signals, Workloads
from remit.web.verifier import Verifier

Open = Callable[[Request], Awaitable[Response]]
Closed = Callable[[Request, Principal], Awaitable[Response]]


class Who(StrEnum):
    """Who may call a route. Every route is one of these; a test walks them."""

    PUBLIC = "public"  # anybody: discovery
    PROVING = "proving"  # the handler itself asks for its proof: the token endpoint
    AGENT = "agent"  # an operator, or the holder of a live grant, within its own subtree
    OPERATOR = "operator"  # the human at the control socket


@dataclass(frozen=True, slots=True)
class Route:
    """One route: ``query`` names the parameters its URL may carry; None: its handler looks at them itself."""

    method: str
    path: str
    who: Who
    handler: Open | Closed
    query: frozenset[str] | None = frozenset()


@dataclass(frozen=True, slots=True)
class Identity:
    """Who verifies humans and workloads; None where none is configured, and then nobody is believed."""

    humans: Humans | None = None
    id_jag: bool = False  # whether identity assertions of an issuer of theirs open tasks
    logins: Logins | None = None
    workloads: Workloads | None = None
    signals: Signals | None = None
    methods: Sequence[str] = ()  # how workloads may authenticate, by the names that server metadata has for it
    native: Sequence[Mapping[str, object]] = ()  # issuers with the public client of terminals, as anybody may see
    issuers: Mapping[str, str] = field(default_factory=dict)  # where humans can log in to decide: URL -> name
    clients: Registry = field(default_factory=Registry)


class Policies(Protocol):
    """What decides, as the control plane shows it."""

    def shown(self) -> Mapping[str, object]:
        """Describe what holds, and what was wrong when it was last to be replaced."""
        ...

    def explained(self, question: Question) -> Mapping[str, object]:
        """Decide, and say why."""
        ...

    async def reload(self, operator: Operator) -> Mapping[str, object]:
        """Load anew; what is not allowed any more has ended when this returns."""
        ...


class Rings(Protocol):
    """The signing keys, as the control plane lists and rotates them. A ring is audit | events | spiffe | token."""

    def published(self) -> Mapping[str, Sequence[PublishedKey]]:
        """Return the keys of every ring, the signing one first."""
        ...

    async def rotate(self, operator: Operator, ring: str) -> str:
        """Make a new key sign; return its id. The one before it is published until all it signed has ended."""
        ...

    async def revoke(self, operator: Operator, ring: str, kid: str) -> str:
        """End all that a key has signed, at once; return the id of the key that signs now."""
        ...


@dataclass(frozen=True, slots=True)
class AppDeps:
    """What the control plane is served from."""

    broker: Broker
    verifier: Verifier
    new_id: NewId
    checkpoint: Checkpoints
    identity: Identity = field(default_factory=Identity)
    authority: Authority | None = None  # of the broker's own trust domain
    policies: Policies | None = None
    rings: Rings | None = None
    streams: Sequence[Route] = ()  # routes for receivers of our events, where some are configured
