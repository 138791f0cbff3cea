"""What workers ask of the broker, and what it answers: values that can be encoded, so that a process can lie between.

Nothing here is a callable, a live task or a synchronous look-up. In one process no look-up suspends.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Annotated, Protocol

from msgspec import Meta, Struct

from remit.core.approval import Approval
from remit.core.audit import Checkpoint, Entry
from remit.core.description import Described, DescriptionChoice, DescriptionPin, KeptDescription
from remit.core.grant import Grant, Posture
from remit.core.lease import Lease, Report
from remit.core.policy import Question
from remit.core.principal import Ancestor, GrantView, Human, Operator, Principal, Signal, Workload
from remit.core.refresh import RefreshFamily
from remit.core.request import GrantRequest
from remit.core.scope import Access, Detail, Scope
from remit.core.secret import Secret
from remit.core.task import TaskHeader
from remit.core.tree import Range
from remit.errors import RemitError
from remit.jose.proof import Nonces
from remit.ports import Finding, Resource
from remit.ports.identity import PublishedTrust

PAGE = 1_000  # grants of a task in one answer
APPROVAL_LIFE = timedelta(minutes=10)  # the longest that somebody waits for a decision

Opener = Operator | Human | Workload | Approval
DESCRIBED = 16  # items in one call


class TaskPage(Struct, frozen=True):
    """Some of the grants of a task that a principal may see, parents first, with their leases."""

    header: TaskHeader
    root: str  # the first grant that it may see
    grants: Sequence[Grant]
    used: Sequence[Sequence[int]]  # of each detail of each grant: uses, by it and all below it
    leases: Sequence[Lease]
    next: str | None  # the last grant of this page, if there is another page


class Asking(Struct, frozen=True):
    """The grant that asks for an approval, as far as the principal that looks may see."""

    task: TaskHeader
    parent: str
    lineage: Sequence[Ancestor]
    held: Scope
    exceeds: Sequence[str]  # the dimensions in which the request is wider
    offending: Scope  # the details that are


class ApprovalView(Struct, frozen=True):
    """An approval with its state: a verdict, or ``lapsed``. ``asking`` is None for a task that is yet to be opened."""

    approval: Approval
    state: str
    asking: Asking | None = None


@dataclass(frozen=True, slots=True)
class IssuedLease:
    """A lease with its credential, handed out once."""

    lease: Lease
    credential: Mapping[str, str | Secret]


@dataclass(frozen=True, slots=True)
class Presented:
    """A refresh token as it was presented: its SHA-256, by whom, and what they proved."""

    digest: str
    client: str
    jkt: str | None = None
    x5t: str | None = None
    attested: bool = False  # whether ``client`` is a workload's name that was proven
    keyed: bool = False  # whether it has proven its name by a key of its own document


class Rotated(Struct, frozen=True):
    """A refresh token's grant, which is live, and its family after the rotation."""

    grant: GrantView
    family: RefreshFamily


class Target(Struct, frozen=True):
    """A resource as requests are compiled for it. ``version`` changes whenever it, or its secret, does."""

    resource: Resource
    version: int


class AccessToken(Struct, frozen=True):
    """What is put into requests under one task; from ``until`` on another is to be asked for."""

    value: Secret
    until: datetime | None


class UseRequest(Struct, frozen=True, gc=False, array_like=True):
    """One use that is asked for, by detail ``index`` of the grant."""

    grant: str
    resource: str
    action: str
    request: Annotated[str, Meta(pattern=r"\A[A-Za-z0-9_.-]+\Z", max_length=100)]  # many can stand in one text
    index: int


class Use(Struct, frozen=True, gc=False):
    """One permitted use: ``index`` is the detail that permits it, ``version`` that of the ``Target``."""

    request: str
    task: str
    root: str
    grant: str
    resource: str
    index: int
    version: int


class GrantLine(Protocol):
    """Where a grant hangs: its task, and the grants from the root down to it."""

    @property
    def task(self) -> str: ...
    @property
    def lineage(self) -> tuple[str, ...]: ...


class Outcome(Struct, frozen=True, gc=False):
    """How a permitted use ended."""

    use: Use
    decision: str
    code: str | None = None
    action: str | None = None


class Notice(Struct, frozen=True):
    """What changed while requests were under way: grants that ended, resources that are not as they were.

    ``token_keys`` are the public JWKs that alone verify tokens from now on, ``trust`` is what is published of trust
    domains, ``nonces`` are made with a key that has turned; None: as before. ``runs``: all that are served have ended.
    """

    grants: frozenset[str] = frozenset()
    resources: frozenset[str] = frozenset()
    descriptions: frozenset[str] = frozenset()  # of these resources other ones count
    token_keys: Sequence[Mapping[str, str]] | None = None
    trust: PublishedTrust | None = None
    nonces: Nonces | None = None
    runs: bool = False


class AuditState(Struct, frozen=True):
    """The size of the log, whether it was rolled back, and why the second place confirms nothing now, if so."""

    size: int
    rolled_back: bool
    trouble: RemitError | None


class BrokerPort(Protocol):
    """The broker as workers know it. Every method raises a RemitError or has done what it says.

    What a principal may not know of is NotFoundError, as if it did not exist.
    """

    async def tasks(self, principal: Principal) -> Sequence[TaskHeader]:
        """Return the tasks that a principal may see, oldest first."""

    async def task(self, principal: Principal, task_id: str, after: str | None = None, limit: int = PAGE) -> TaskPage:
        """Return the part of a task that a principal may see: ``limit`` grants at most, those that follow ``after``."""

    async def grant(self, grant_id: str) -> GrantView:
        """Return a grant that is live now, or say why it is not."""

    async def handle_key(self, grant_id: str) -> Secret:
        """Return the 32 bytes that seal what servers hand out to a live grant: the same at every edge, and later."""

    async def find(self, grant_id: str, principal: Principal | None = None) -> GrantView:
        """Return a grant, live or ended, that a principal may see; None: any. Waits while its task is read again."""

    async def check_acting(self, own: str, grant_id: str) -> None:
        """Raise unless the holder of the live grant ``own`` may act under another: DeniedError, NotFoundError."""

    async def open(self, opener: Opener, request: GrantRequest, posture: Posture | None = None) -> GrantView:
        """Open a task for a human, within what policy allows; return its root. An ID token or an approval opens one."""

    async def delegate(
        self,
        principal: Principal,
        parent_id: str,
        request: GrantRequest,
        approval: Approval | None = None,
        actor: Workload | None = None,
        posture: Posture | None = None,
    ) -> GrantView:
        """Make a child of a grant, no wider than it but for what ``approval`` allows beyond it."""

    async def delegate_approved(self, approval_id: str, jkt: str) -> GrantView:
        """Make the child that a human approved, for whoever has proven the key that it was asked for with.

        NotFoundError for what was not asked for under a grant, and for another key.
        """

    async def revoke_opened(self, approval_id: str, error: RemitError) -> None:
        """End the task that was opened by an approval, which was redeemed as it may not be, and record that."""

    async def attach(self, principal: Principal, grant_id: str, posture: Posture) -> GrantView:
        """Let a run with this posture hold a grant that exists, if that is no weaker than what is said of it."""

    async def spend(self, workload: Workload | None) -> None:
        """Let a workload's credential that counts once count; UsedError if it had before."""

    async def revoke(self, principal: Principal, grant_id: str) -> Report:
        """End a grant and everything below it; say truthfully what is still outstanding."""

    async def close(self, principal: Principal, task_id: str) -> Report:
        """End a task: its root and everything below it."""

    def notices(self) -> AsyncIterator[Notice]:
        """Stream what ends and changes from now on. Asking for the next notice says that this one was acted on."""

    async def lease(self, lease_id: str) -> Lease: ...
    async def revoke_lease(self, principal: Principal, lease_id: str) -> Report: ...

    async def issue(self, principal: Principal, grant_id: str, detail: Detail, key: str | None = None) -> IssuedLease:
        """Make a credential for a detail the grant covers; ``key`` first revokes the lease issued under it before."""

    async def admit(self, grant_id: str, resource: str, login: str) -> None:
        """Raise unless ``login`` is that of an active lease on the resource, of a live grant or one below it."""

    async def renew(self, principal: Principal, lease_id: str, ttl: timedelta) -> Lease:
        """Extend a lease in place, within its grant and its detail's ttl."""

    async def ask(
        self, principal: Principal, parent_id: str, request: GrantRequest, actor: Workload | None = None
    ) -> ApprovalView:
        """Ask the task's human for a child that exceeds its parent."""

    async def to_open(self, request: GrantRequest) -> str:
        """Return what a human would be asked, as text, or raise what nobody could approve; nobody is asked yet.

        BearerError for a bearer of what takes none: asked again before what was approved is used up.
        """

    async def ask_to_open(
        self, client: str, request: GrantRequest, approver: str | None = None, life: timedelta = APPROVAL_LIFE
    ) -> Approval:
        """Ask whoever logs in, or ``approver`` alone, to open a task for a client, which waits for ``life`` at most."""

    async def approvals(self, principal: Principal) -> Sequence[str]:
        """Return the ids of the approvals that a principal may know of, oldest first; each is looked at alone."""

    async def look(self, approval_id: str, principal: Principal | None = None) -> ApprovalView:
        """Return an approval that a principal may know of; None: the page of the flow that asked."""

    async def wait(self, principal: Principal, approval_id: str, seconds: float) -> ApprovalView:
        """Return an approval once it was decided on or has lapsed, but after ``seconds`` at the latest."""

    async def approve(self, approval_id: str, digest: str, by: Principal, *, page: bool = False) -> Approval:
        """Record that a human approves of the request of this digest; ``page``: its page showed it to them."""

    async def refuse(self, approval_id: str, digest: str, by: Principal, *, page: bool = False) -> Approval: ...

    async def step_up(self, human: str) -> tuple[str, ...]:
        """Return the ``acr`` values that decide for a human (issuer-qualified)."""

    async def refresh_token(self, digest: str) -> RefreshFamily | None:
        """Return the family of a refresh token, spent or not, by its SHA-256."""

    async def issue_refresh_token(
        self, grant_id: str, client: str, digest: str, audience: str | None = None, *, keyed: bool = False
    ) -> None:
        """Start the family of a grant with its first token; ``keyed``: its client has proven who it is, and has to."""

    async def rotate_refresh_token(self, presented: Presented, fresh: str) -> Rotated:
        """Spend a refresh token for the next one, whose SHA-256 is ``fresh``."""

    async def resources(self) -> Sequence[Resource]:
        """Return all configured resources, by name."""

    async def resource(self, name: str) -> Resource: ...
    async def target(self, name: str) -> Target: ...
    async def put_secret(self, operator: Principal, name: str, value: Secret) -> None: ...

    async def put_resource(self, operator: Principal, resource: Resource, value: Secret | None = None) -> None:
        """Add or replace a resource; what no longer fits its bound has ended when this returns."""

    async def check_resource(self, name: str) -> Sequence[Finding]:
        """Look at a resource as it is configured, at its target if leases are made there; change nothing.

        What was accepted is among the findings only if it is loud.
        """

    async def delete_resource(self, operator: Principal, name: str) -> None:
        """Remove a resource on which no lease stands, and its secret; what held it has ended when this returns."""

    async def described(self, grant_id: str, resource: str, items: Sequence[Described]) -> Sequence[DescriptionPin]:
        """Take note of how the server that a grant reaches describes itself; return what counts of each item.

        InvalidRequestError for more than ``DESCRIBED`` items.
        """

    async def description(self, grant_id: str, resource: str, what: str, named: str) -> DescriptionPin:
        """Return what counts of one item of a server that a grant reaches."""

    async def descriptions(self, name: str) -> Sequence[KeptDescription]:
        """Return how the server of a resource was seen to describe itself, in order of names."""

    async def accept_descriptions(self, operator: Principal, name: str, chosen: Sequence[DescriptionChoice]) -> None:
        """Accept descriptions as they were looked at; ConflictError, and nothing changes, if one is another by now."""

    async def credential(self, name: str, version: int) -> Secret | None:
        """Return the static secret of a resource for which a use of this version was permitted; None: it has none."""

    async def access_token(self, grant_id: str, name: str, version: int, refused: str = "") -> AccessToken:
        """Return the access token of a task's human for a resource, for which a use of this version was permitted.

        ``refused`` is the digest of one that the resource did not take: another is asked for, if that is the one.
        ConnectError where they have to connect first, with the page to do so as ``url``.
        """

    async def use(self, grant_id: str, access: Access, request: str, index: int) -> Use:
        """Permit one use by detail ``index``; its audit entry is durable and the grant live when this returns."""

    async def outcomes(self, ended: Sequence[Outcome]) -> None:
        """Record how permitted uses ended, in one commit."""

    async def deny(
        self,
        grant_id: str | None,
        access: Access,
        error: RemitError,
        request: str | None = None,
        cause: str | None = None,
        times: int = 1,
    ) -> None:
        """Record a denial, which stands for so many; a flood is counted, so that no agent fills the disk."""

    async def entries(self, start: int, limit: int) -> Sequence[Entry]:
        """Return audit entries from sequence number ``start``."""

    async def nodes(self, path: Sequence[Range]) -> Sequence[bytes]:
        """Return the nodes of the audit tree that a proof's path names."""

    async def audit_state(self) -> AuditState: ...

    async def checkpoint(self) -> Checkpoint:
        """Sign the head of the log as it is now."""

    async def question(self, grant_id: str) -> Question:
        """Return what a policy is asked about a grant as it stands, live or not."""

    async def signal(self, signals: Sequence[Signal]) -> int:
        """End what issuers say is over; return how many tasks ended."""

    async def refuse_signal(self, error: RemitError) -> None:
        """Record that a signal was not taken, and why; a flood is counted."""
