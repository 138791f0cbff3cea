"""What a route is, who may call it, and what the control plane is served from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

from starlette.requests import Request
from starlette.responses import Response

from remit.core.audience import Service
from remit.core.policy import Question
from remit.core.principal import Holder, IdToken, Operator, Principal, Right
from remit.jose.keys import PublishedKey
from remit.ports.broker import BrokerPort
from remit.ports.connections import BegunConnection, ConnectionPort
from remit.ports.identity import ClientRegistry, Humans, Logins, Signals, Workloads
from remit.ports.kind import Kind
from remit.ports.runs import LaunchRequest, RunOffer
from remit.ports.trust import Trust
from remit.web.scope_templates import Templates
from remit.web.verifier import Verifier

BeginRun = Callable[[Operator | Holder, LaunchRequest, str | None], Awaitable[RunOffer]]  # ``ports.runs.RunPort``
# the resource, for whom, and what is asked for beside what it says
BeginConnection = Callable[[Operator, str, IdToken | None, tuple[str, ...]], Awaitable[BegunConnection]]
RenewTask = Callable[[Operator, str, timedelta, IdToken | None], Awaitable[datetime]]  # by whom, the task, its time
Handler = Callable[..., Awaitable[Response]]  # takes the request, and whom it is from where the route asks for that


@dataclass(frozen=True, slots=True)
class Route:
    """One route, and who may call it.

    ``right`` is what its principal needs: the handler takes it. Without a right, ``authenticate`` returns what the
    handler takes: the client of an OAuth endpoint, whoever has shown a token, a signed body; None: it is public.
    ``query`` names the parameters its URL may carry; None: its handler looks at them itself. ``tcp``: on unix sockets
    there is no such route, as an agent in a run asks by its grant (``/v1/approvals``). ``shared``: pages of any origin
    may call it and read the answer (CORS), without credentials of the browser's.
    """

    method: str
    path: str
    handler: Handler
    right: Right | None = None
    query: frozenset[str] | None = frozenset()
    authenticate: Callable[[Request], Awaitable[object]] | None = None
    tcp: bool = False
    shared: bool = False


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
    clients: ClientRegistry | None = None
    registration: Sequence[Route] = ()  # where clients register themselves
    scopes: Templates = field(default_factory=dict)  # by name
    services: Mapping[str, Service] = field(default_factory=dict)  # elsewhere, by the resource that is granted there


class Policies(Protocol):
    """What decides, as the control plane shows it."""

    def shown(self) -> Mapping[str, object]:
        """Describe what holds, and what was wrong when it was last to be replaced."""

    def explained(self, question: Question) -> Mapping[str, object]:
        """Decide, and say why."""

    async def reload(self, operator: Principal) -> Mapping[str, object]:
        """Load anew; what is not allowed any more has ended when this returns."""


class Rings(Protocol):
    """The signing keys, as the control plane lists and rotates them. A ring is audit | events | spiffe | token."""

    def published(self) -> Mapping[str, Sequence[PublishedKey]]:
        """Return the keys of every ring, the signing one first."""

    async def rotate(self, operator: Principal, ring: str) -> str:
        """Make a new key sign; return its id. The one before it is published until all it signed has ended."""

    async def revoke(self, operator: Principal, ring: str, kid: str) -> str:
        """End all that a key has signed, at once; return the id of the key that signs now."""


@dataclass(frozen=True, slots=True)
class AppDeps:
    """What the control plane is served from."""

    broker: BrokerPort
    kinds: Mapping[str, Kind]
    verifier: Verifier
    identity: Identity = field(default_factory=Identity)
    trust: Trust | None = None  # what is published of trust domains, where the broker has one of its own
    policies: Policies | None = None
    rings: Rings | None = None
    connections: ConnectionPort | None = None
    streams: Sequence[Route] = ()  # routes for receivers of our events, where some are configured
    begin_run: BeginRun | None = None  # on unix sockets
    end_runs: Callable[[], Awaitable[int]] | None = None  # at the control socket; returns how many there were
    begin_connection: BeginConnection | None = None  # at the control socket
    renew_task: RenewTask | None = None  # at the control socket, as above; returns when the task ends
    status: Callable[[], Awaitable[Mapping[str, object]]] | None = None  # how the broker is; at the control socket
