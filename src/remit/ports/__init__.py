"""The seams: what broker and surfaces need from stores, engines, keys and listeners. All raise RemitErrors alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from remit.core.audit import Checkpoint, Entry, Event
from remit.core.scope import Detail
from remit.core.secret import Secret
from remit.core.task import Change, Plan, Revocation, Task
from remit.core.tree import Range

if TYPE_CHECKING:  # commands start without these
    import asyncio
    import socket

Clock = Callable[[], datetime]  # aware UTC
NewId = Callable[[str], str]  # prefix -> prefix_random
# accepts in the place of the loop, which may do so only on a socket that nobody else holds
Start = Callable[[Callable[[], "asyncio.Protocol"], "socket.socket"], Awaitable["Closing"]]


@dataclass(frozen=True, slots=True)
class Resource:
    """A configured target."""

    name: str
    kind: str
    destination: str  # where its credential may go, and nowhere else
    bound: tuple[Detail, ...]  # that no grant may exceed
    secret: str | None  # name of the sealed static secret
    settings: Mapping[str, object]  # the kind's own, validated when added


@dataclass(frozen=True, slots=True)
class SealedSecret:
    """A static secret at rest. Associated data: name, version, resource, destination."""

    name: str
    version: int
    resource: str
    destination: str
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Spend:
    """A new value of one counter: uses of detail ``index`` of ``grant``, including all below it."""

    task: str
    grant: str
    index: int
    used: int


@dataclass(frozen=True, slots=True)
class PutResource:
    """Add or replace a resource."""

    resource: Resource


@dataclass(frozen=True, slots=True)
class DeleteResource:
    """Remove a resource and its secret."""

    name: str


@dataclass(frozen=True, slots=True)
class PutSecret:
    """Store a sealed secret; ``version`` must be one above the stored one."""

    secret: SealedSecret


@dataclass(frozen=True, slots=True)
class UsedToken:
    """Remember a one-time value (a subject token's hash) until ``until``; ConflictError if it is known already."""

    digest: str
    until: datetime


@dataclass(frozen=True, slots=True)
class Record:
    """A small document of its own: an approval, a chain of refresh tokens, a signal that came in."""

    kind: str
    id: str
    rev: int  # counts its changes from 1
    body: bytes  # canonical JSON
    until: datetime  # it is forgotten some time after


@dataclass(frozen=True, slots=True)
class PutRecord:
    """Add a record (``rev`` 1) or replace it; ConflictError unless the stored one is one revision behind."""

    record: Record


@dataclass(frozen=True, slots=True)
class NotedEnd:
    """What has ended in a task: grants with all below them, and leases; neither: all of it. No ``task``: everything."""

    task: str = ""
    grants: tuple[str, ...] = ()
    leases: tuple[str, ...] = ()


Write = Change | Spend | PutResource | DeleteResource | PutSecret | UsedToken | PutRecord


class Store(Protocol):
    """Durable state. ``commit`` is the only write, and takes the events with the changes: both or neither."""

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        """Make everything durable in one transaction, in order of calls (FIFO), or raise and change nothing.

        ConflictError when a ``Change.base`` is not the stored revision; UnavailableError when the medium fails.
        """

    async def load(self, task_id: str) -> Task:
        """Return a task, verified; NotFoundError, or IntegrityError when its MAC does not hold."""

    async def unsettled(self) -> Sequence[str]:
        """Return the ids of tasks that are open or have leases that are not forgotten."""

    async def tasks(self, limit: int) -> Sequence[str]:
        """Return the ids of the newest tasks, newest first."""

    async def spent(self, task_id: str) -> Sequence[Spend]: ...

    async def resources(self) -> Sequence[Resource]:
        """Return all resources, by name."""

    async def secret(self, name: str) -> SealedSecret:
        """Return the newest version of a sealed secret, or raise NotFoundError."""

    async def records(self, kind: str) -> Sequence[Record]:
        """Return all records of a kind that are kept, in order of their ids; those that are over may be among them."""

    async def entries(self, start: int, limit: int) -> Sequence[Entry]:
        """Return audit entries from sequence number ``start``."""

    async def size(self) -> int:
        """Return the number of audit entries."""

    async def leaves(self, start: int, end: int) -> Sequence[bytes]:
        """Return the leaf hashes (32 bytes each) of entries ``start`` (inclusive) to ``end`` (exclusive)."""

    async def root(self, size: int | None = None) -> tuple[int, bytes]:
        """Return the size and the root of the audit tree, or of its first ``size`` entries; NotFoundError beyond."""

    async def nodes(self, path: Sequence[Range]) -> Sequence[bytes]:
        """Return the root over each range of entries: the proof for a path of ``core.tree``."""

    async def note_ends(self, ends: Sequence[NotedEnd]) -> None:
        """Note durably what has ended and is not committed, in place of what was noted before; it takes no room.

        What is too much to be noted is noted as more: whole tasks, or everything. UnavailableError when that fails.
        """

    async def noted_ends(self) -> Sequence[NotedEnd]:
        """Return what was noted last; everything where that cannot be read."""

    async def close(self) -> None:
        """Finish what was accepted, then let go of the medium."""


@dataclass(frozen=True, slots=True)
class Issued:
    """A credential to hand out once, and what the target called it if the target chose the handle."""

    credential: Mapping[str, str | Secret]
    receipt: Mapping[str, str] | None = None


class Engine(Protocol):
    """Makes one kind of credential at one resource, as it was planned. Keeps no state: a plan is enough to undo."""

    @property
    def revocation(self) -> Revocation: ...

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        """Create what was planned. Called at most once; takes no effect after ``plan.issue_by``."""

    async def revoke(self, plan: Plan, receipt: Mapping[str, str] | None) -> None:
        """Make the credential useless, then return. Absence is success; safe to repeat."""


@runtime_checkable
class Renewable(Protocol):
    """An engine that can extend a credential in place."""

    async def renew(self, plan: Plan, receipt: Mapping[str, str] | None, expires_at: datetime) -> None:
        """Move the end of the credential at the target to ``expires_at``."""


@runtime_checkable
class Bulk(Protocol):
    """An engine that can end many credentials at once."""

    async def revoke_many(self, plans: Sequence[Plan]) -> frozenset[str]:
        """Make the credentials useless; return the names of those that are, whatever became of the others."""


@runtime_checkable
class Cleanable(Protocol):
    """An engine whose revoked credentials leave something behind that should be tidied up."""

    async def clean(self, plans: Sequence[Plan]) -> frozenset[str]:
        """Remove what is left of revoked credentials; return the names of which nothing is left."""


@dataclass(frozen=True, slots=True)
class Finding:
    """What checking a target showed. ``name`` is what an operator writes to accept it, if it may be accepted."""

    name: str
    text: str
    acceptable: bool
    loud: bool = False  # it is told of for as long as it stands, accepted or not
    accepted: bool = False  # by the operator, as the broker knows


@runtime_checkable
class Inspectable(Protocol):
    """An engine that can check its target before it is added: the login's powers, and what everybody has there."""

    async def inspect(self) -> Sequence[Finding]:
        """Return what is wrong or dangerous; accepted findings are left to the caller."""


@runtime_checkable
class Closable(Protocol):
    """An engine that holds connections."""

    async def close(self) -> None: ...


class Sealer(Protocol):
    """Authenticated encryption at rest, under a key that the database does not hold."""

    def seal(self, plaintext: bytes, associated: bytes) -> bytes: ...

    def open(self, sealed: bytes, associated: bytes) -> bytes:
        """Decrypt, or raise IntegrityError."""

    def mac(self, data: bytes) -> bytes:
        """Return a 32-byte MAC under a key derived for state rows."""


class Signer(Protocol):
    """A signing key that never leaves its custody."""

    @property
    def kid(self) -> str:
        """RFC 7638 thumbprint of the public key."""

    @property
    def alg(self) -> str:
        """JOSE algorithm name: ES256 or Ed25519."""

    def sign(self, data: bytes) -> bytes:
        """Return a signature in JOSE (raw) form."""

    def public_jwk(self) -> Mapping[str, str]: ...


class SigningKeys(Protocol):
    """The keys of one purpose: ``signer`` signs now, ``public_jwks`` verify what is still good."""

    @property
    def signer(self) -> Signer: ...

    def public_jwks(self) -> Sequence[Mapping[str, str]]: ...


class Witness(Protocol):
    """The second place that keeps the last checkpoint, so that a rollback can be seen. A call may take for ever."""

    async def last(self) -> Checkpoint | None:
        """Return the newest checkpoint kept, if any; UnavailableError if it is out, or holds what others signed."""

    async def keep(self, size: int, root: bytes, epoch: int, known: Checkpoint | None) -> tuple[Checkpoint, bool]:
        """Sign and keep a checkpoint durably in place of ``known``; return what is kept now, and whether it is this."""


class Quota(Protocol):
    """The descriptors that one task may have open."""

    def take(self, count: int = 1) -> bool:
        """Take ``count`` descriptors, if the task may have them."""

    def give(self, count: int = 1) -> None: ...


class Closing(Protocol):
    """What accepts, and can be told to stop."""

    def close(self) -> None: ...
