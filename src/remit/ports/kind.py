"""A kind of resource: all that is particular to it, as data and a few functions that are called when they are needed.

It brings a table of fields and never comparison code: the orders are those of ``core.orders``. What policies see of a
detail and its JSON Schema follow from the table. The module that holds a ``Kind`` imports the core, errors, catalog and
these ports alone; its functions import engine, driver and what the gateway needs when they are called: the engine in
the process that reaches targets, unless the kind is ``keyless``. Nothing outside
a kind's folder and the composition root knows its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from remit.core.scope import Detail, DetailType
from remit.core.secret import Secret
from remit.core.task import Plan
from remit.ports import Clock, Engine, Quota, Resource, Start
from remit.ports.identity import Authority

if TYPE_CHECKING:  # commands know the kinds too, and start without these
    import socket

    from remit.core.principal import Holder
    from remit.errors import RemitError
    from remit.ports.broker import BrokerPort, Notice
    from remit.ports.trust import Trust


@dataclass(frozen=True, slots=True)
class EngineContext:
    """What a broker lends to its kinds: time, random octets, and its own trust domain with the issuer of its tokens.

    An engine that reaches a target runs apart from the broker's keys, so that it has no ``authority``.
    """

    clock: Clock
    random: Callable[[int], bytes]
    issuer: str
    authority: Authority | None


@dataclass(frozen=True, slots=True)
class LeaseRequest:
    """A lease to be planned. ``agent`` is whom it is for (a URI)."""

    id: str
    detail: Detail
    issue_by: datetime
    agent: str


@dataclass(frozen=True, slots=True)
class GatewayAccess:
    """A run sends HTTP requests to the gateway, which puts the credential in."""

    placeholder: Callable[[Resource, bytes], str]  # from 32 random octets, for where an SDK expects the key
    variables: Callable[[Resource, str, str], Mapping[str, str]]  # of the SDKs, for the gateway's URL and placeholder
    hosts: Callable[[Resource], Mapping[str, str]]  # by which clients know it, each with the path where it begins there
    prefix: str = ""  # of a destination, in front of the URL where requests go
    messages: bool = field(default=False, kw_only=True)  # requests are messages of MCP, each judged by what it says
    command: str | None = field(default=None, kw_only=True)  # the scheme of what is a command that a run is


STARTED = "command"  # the setting of such a resource that says how a launcher starts it


@dataclass(frozen=True, slots=True)
class TlsStart:
    """TLS that begins within a connection: ``ask`` is sent, ``granted`` comes back, and the server has this name."""

    ask: bytes
    granted: bytes
    name: str


class PortSession(Protocol):
    """One connection through a port, as its kind reads how it opens. It does no I/O, and keeps little."""

    tls: TlsStart | None  # how the target is spoken to; the client's side stays within the run
    login: str | None  # who the client says it is; of a credential, the plan's name
    cancels: bytes | None  # instead of a login: the ``key`` of the session that is to stop what it does
    key: bytes | None  # by which the target knows the session, once it has said so
    first: bytes  # what the target is sent, once the client may speak to it

    def heard(self, data: bytes) -> bytes:
        """Take what the client sent, until ``login`` or ``cancels`` is known; return what to answer at once.

        InvalidRequestError for what is no opening, or one for somewhere else.
        """

    def answered(self, data: bytes) -> bytes:
        """Return what the client is to get of what the target sent."""

    def refusal(self, error: RemitError) -> bytes:
        """Return what tells the client that it may not."""


@dataclass(frozen=True, slots=True)
class PortAccess:
    """A run has a TCP port for each resource, piped to the resource's address for logins of its grant's leases."""

    port: int  # or the next one that is free
    address: Callable[[Resource], tuple[str, int]]
    local: Callable[[Mapping[str, str], int], Mapping[str, str]]  # the credential with that port for the address
    session: Callable[[Resource], PortSession]


@dataclass(frozen=True, slots=True)
class TunnelAccess:
    """A run opens TLS to the hosts of a detail by its proxy, which passes it on unread and adds no credential."""

    field: str  # of the table, that lists the hosts (``core.orders.HOSTS``)
    place: Callable[[Resource, str], tuple[str, int, bool]]  # where a host is: host, port, whether that may be private


class SocketServer(Protocol):
    """Serves the sockets of one kind to runs."""

    async def serve(self, sock: socket.socket, holder: Holder, start: Start | None, share: Quota) -> Callable[[], None]:
        """Serve ``holder`` on a listening unix socket, connections counted in ``share``; return what ends that."""

    def noticed(self, notice: Notice) -> None: ...


@dataclass(frozen=True, slots=True)
class SocketContext:
    """What a broker lends to those that serve sockets: itself, what is published of trust domains, and time."""

    broker: BrokerPort
    trust: Trust
    clock: Clock


@dataclass(frozen=True, slots=True)
class SocketAccess:
    """A run has one unix socket for all resources of the kind, which ``variable`` names as ``unix://PATH``."""

    socket: str
    variable: str
    server: Callable[[SocketContext], SocketServer]  # called once; UnavailableError, without an extra: no run has one


@dataclass(frozen=True, slots=True)
class ElsewhereAccess:
    """A client shows tokens of it to whoever serves it, whom remit does not reach."""

    audience: Callable[[Resource], str]  # whom they are for


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of resource."""

    name: str
    table: DetailType
    schemes: tuple[str, ...]  # of a destination, by which it is told which kind is meant
    destination: str  # how an operator writes where a resource is
    docs: str  # the page that documents it
    check: Callable[[Resource, Secret | None, EngineContext], None]  # InvalidRequestError for what could never work
    access: GatewayAccess | PortAccess | TunnelAccess | SocketAccess | ElsewhereAccess | None = None
    engine: Callable[[Resource, Secret | None, EngineContext], Engine] | None = None
    plan: Callable[[Resource, EngineContext, LeaseRequest], Plan] | None = None  # pure, and needs no driver
    needs: Callable[[Mapping[str, tuple[str, ...]], Detail], frozenset[str] | None] | None = None  # at its provider
    inspects: bool = False  # checking a resource asks its target (``ports.Inspectable``)
    keyless: bool = False  # a resource has no secret; what credentials there are, are made beside the broker's own keys
    widest: Callable[[str], Mapping[str, object]] | None = None  # fields of a bound, where a destination says them

    @property
    def messages(self) -> bool:
        """Whether requests are messages of MCP, to servers that describe themselves."""
        return isinstance(self.access, GatewayAccess) and self.access.messages

    def is_command(self, destination: str) -> bool:
        """Whether what is there is a command that a run is: nothing reaches it but by the run's input and output."""
        scheme = self.access.command if isinstance(self.access, GatewayAccess) else None
        return scheme is not None and destination.startswith(f"{scheme}:")
