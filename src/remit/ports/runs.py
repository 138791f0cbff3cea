"""Runs as they cross between processes: begun at the authority, then handed over to the one edge that serves the task.

Who begins a run gets a ticket for that edge's hand-over socket. Whoever redeems it serves the run, until it ends.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Literal, Protocol

from msgspec import Struct

from remit.core.principal import Holder, Operator
from remit.core.request import GrantRequest
from remit.core.secret import Secret
from remit.core.task import Report

TICKET_LIFE = timedelta(seconds=30)

Places = Mapping[str, int | str]  # listener name -> port or path, as bound


@dataclass(frozen=True, slots=True)
class RunListener:
    """One listener of a run: a TCP ``port`` on 127.0.0.1 (0: any free one), or a unix socket at ``path``."""

    # gateway | proxy | https | channel | launch | <kind>:<resource> | the name of a kind's socket | stdio:<resource>
    # | servers
    name: str
    port: int | None = None
    path: str | None = None
    serves: tuple[str, ...] = ()  # of `servers`: the resources whose commands its launcher starts, and no others

    @property
    def kind(self) -> str:
        return self.name.partition(":")[0]

    @property
    def resource(self) -> str:
        """The resource behind a port of its own, or that the command is; empty for other listeners."""
        return self.name.partition(":")[2]

    def wire(self) -> dict[str, object]:
        """As a launcher is told of it."""
        place = {"path": self.path} if self.port is None else {"port": self.port}
        return {"name": self.name, **place, **({"serves": self.serves} if self.serves else {})}


@dataclass(frozen=True, slots=True)
class OpenedForRun:
    """A task that is opened for a run and closed with it: by the human of an ID token, else by the operator."""

    request: GrantRequest
    id_token: Secret | None = None


@dataclass(frozen=True, slots=True)
class DelegatedToRun:
    """A child that is made for a run and revoked with it; None: of the grant that the caller itself holds."""

    request: GrantRequest
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class HeldByRun:
    """A grant that exists and outlasts the run."""

    grant: str


@dataclass(frozen=True, slots=True)
class LaunchRequest:
    """A request for a run: the authority it shall have, how it is isolated, and the folder of its sockets."""

    authority: OpenedForRun | DelegatedToRun | HeldByRun
    isolation: str  # one of ``core.grant.ISOLATION``
    folder: str  # as the run sees it
    lasts: timedelta | None = None  # how long its launcher goes on renewing the task that it opens; None: not at all
    servers: bool = False  # its launcher starts servers that are commands
    stdio: str | None = None  # the resource that the command is, spoken to at its standard input and output


@dataclass(frozen=True, slots=True)
class ReachedHost:
    """A resource that a run reaches by a host: it begins at ``base`` of the host's paths."""

    resource: str
    base: str = ""


@dataclass(frozen=True, slots=True)
class RunReach:
    """What a run reaches by host, and the authority (RFC 5280) whose certificates speak for these hosts in it alone."""

    hosts: Mapping[str, ReachedHost]
    certificate: str  # PEM, with the hosts as its name constraints
    key: Secret  # PEM
    passed: Mapping[str, str] = field(default_factory=dict)  # hosts that are not looked into, `*.host` too: resource

    @property
    def names(self) -> Sequence[str]:
        """The hosts that clients in the run look up."""
        return sorted(self.hosts.keys() | {host for host in self.passed if not host.startswith("*")})


@dataclass(frozen=True, slots=True)
class RunOffer:
    """What a launcher is told: what to bind, and where to hand it over with the ticket, once, in ``TICKET_LIFE``."""

    run: str
    task: str
    grant: str
    ends: datetime
    listeners: tuple[RunListener, ...]
    ticket: Secret
    handover: str  # the path of the socket, as the launcher sees it
    reach: RunReach | None = None


@dataclass(frozen=True, slots=True)
class ReadyRun:
    """What the launcher of a run that is served is told: its variables, and the ticket of its next hand-over.

    That one counts once the edge has gone, until the run has ended. ``shared``: of which resources a variable could be.
    """

    environment: Mapping[str, str]
    ticket: Secret
    shared: Mapping[str, Sequence[str]]


class KeptRun(Struct, frozen=True):
    """A run as it is kept while nobody serves it: what its environment has fixed, and its ticket."""

    id: str
    rev: int  # counts its hand-overs
    task: str
    grant: str
    made: Literal["task", "grant"] | None  # for it, to be ended with it
    within: str | None
    around: tuple[str, ...]  # how the runs around it are isolated, and it itself
    handover: str
    listeners: tuple[RunListener, ...]
    placeholders: Mapping[str, str]
    places: Places
    ticket: bytes  # SHA-256
    reach: RunReach | None = None  # a record may be of a broker that knew no such thing


@dataclass(frozen=True, slots=True)
class RedeemedRun:
    """A run as its edge serves it: whom it stands for, its listeners, and a placeholder for each key, by resource."""

    run: str
    holder: Holder
    listeners: tuple[RunListener, ...]
    placeholders: Mapping[str, str]
    within: str | None  # the run inside which it is handed over; None: the operator hands it over
    reach: RunReach | None = None


class RunPort(Protocol):
    """Runs as an edge knows them. Every method raises a RemitError or has done what it says.

    A run that this edge did not redeem is NotFoundError, as if it did not exist.
    """

    async def take_runs(self, sockets: Sequence[str]) -> None:
        """Say that this edge serves runs from now on, with these sockets of kinds."""

    async def begin_run(self, caller: Operator | Holder, launch: LaunchRequest, within: str | None = None) -> RunOffer:
        """Make what a run needs; it ends again unless the ticket is redeemed in time.

        ``within``: the run on whose channel a holder asks. The operator asks on a socket of the authority's.
        """

    async def redeem_run(self, ticket: Secret) -> RedeemedRun:
        """Begin to serve a run, as the edge that the ticket is for. GrantTokenError, whatever is wrong with it."""

    async def run_ready(self, run_id: str, places: Places) -> ReadyRun:
        """Say that a run is served, and where it listens: at a later hand-over as at the first."""

    async def end_run(self, run_id: str) -> Report:
        """End a run that this edge redeemed, the runs inside it, and what was made for it."""
