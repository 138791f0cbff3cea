"""Who acts: the owner of the state, a human, a workload, or the holder of a grant.

A principal is proven once: by the listener of a unix socket, by ``web/verifier.py`` from a token and its key, or by
``identity/`` from what an issuer or a trust domain signed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import ClassVar

from remit.core.grant import UNPROVEN, WORKLOAD, Grant, Subject
from remit.core.task import Task
from remit.errors import DeniedError, GrantTokenError, UnauthenticatedError

# what a workload's client assertion is (``client_assertion_type``)
JWT_SPIFFE = "urn:ietf:params:oauth:client-assertion-type:jwt-spiffe"
JWT_BEARER = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
PRIVATE_KEY_JWT = "private_key_jwt"  # how an OAuth client authenticates by a key of its own
FRESH = timedelta(minutes=10)  # since the ID token that renews a task was issued


class Right(StrEnum):
    """What a route may ask of a principal."""

    ACT = "act"  # use its own grant and what hangs below it
    OPERATE = "operate"  # see and end every task; resources, secrets, signing keys, policies, audit


@dataclass(frozen=True, slots=True)
class Operator:
    """The owner of the state, at the control socket."""

    rights: ClassVar[frozenset[Right]] = frozenset(Right)
    subject: Subject

    @property
    def name(self) -> str:
        return self.subject.sub


@dataclass(frozen=True, slots=True)
class Human:
    """A human, by an ID token or an ID-JAG that was verified."""

    subject: Subject
    digest: str  # SHA-256 of the token (base64url), to be burnt until `until`: one token opens one task
    issued_at: datetime
    until: datetime
    client: str  # the party that the token was issued to
    nonce: str | None = None  # ties the token to the one request it was obtained for
    details: object = None  # what an ID-JAG limits the task to, in wire form (RFC 9396); None: it names no limit
    scope: str | None = None  # the same by names (RFC 6749 §3.3), whose meaning is the operator's
    jkt: str | None = None  # the key that an ID-JAG is bound to; None: it is a bearer's
    confidential: bool = False  # the party has a secret, and the token came to the broker's own callback alone
    session: str | None = None  # the login session here, if there is one
    token: str = field(default="", compare=False, repr=False)  # it was read from this
    id_jag: bool = False  # which is an ID-JAG
    state: str | None = None  # of the login that a page of ours sent them to; `nonce` is made of it and the request
    brought_by: str | None = None  # the OAuth client that exchanges the token, if it has authenticated
    rights: frozenset[Right] = frozenset()  # those of an administrator

    @property
    def name(self) -> str:
        return self.subject.sub


@dataclass(frozen=True, slots=True)
class IdToken:
    """A human by an ID token, which is verified where the task is opened, and nowhere before."""

    text: str = field(repr=False)
    client: str | None = None  # that has authenticated, and exchanges it


@dataclass(frozen=True, slots=True)
class Workload:
    """An attested workload."""

    rights: ClassVar[frozenset[Right]] = frozenset()
    id: str  # a SPIFFE ID, or ``issuer#subject`` for the OIDC tokens of platforms
    method: str  # jwt-svid | x509-svid | wit | oidc
    expires_at: datetime
    claims: Mapping[str, str] = field(default_factory=dict)  # what the configuration picks for policies
    jkt: str | None = None  # the key that the credential is itself bound to (WIT)
    x5t: str | None = None  # the certificate it came by (RFC 8705)
    digest: str | None = None  # of a credential that counts once; None where reuse is its nature
    until: datetime | None = None  # when such a credential could not be shown again anyway

    @property
    def name(self) -> str:
        return self.id


@dataclass(frozen=True, slots=True)
class Claims:
    """What the broker reads from a grant's token. Instants are seconds since the epoch."""

    task: str
    grant: str
    parent: str | None
    subject: str
    client: str  # the OAuth client (``client_id``)
    jkt: str | None  # what the holder has to prove: this key, or the certificate of ``x5t``
    jti: str
    issued_at: int
    expires_at: int
    audience: str
    par_hash: str | None
    all: Mapping[str, object]
    x5t: str | None = None
    agent: str = ""  # who acts: the holder of the grant (``act.sub``)

    @property
    def bearer(self) -> bool:
        """Whether its holder proves nothing: it works for whoever has it, where its resource lets it."""
        return self.jkt is None and self.x5t is None


@dataclass(frozen=True, slots=True)
class Holder:
    """An agent: its own grant and what hangs below it."""

    rights: ClassVar[frozenset[Right]] = frozenset({Right.ACT})
    task: str
    grant: str
    claims: Claims | None = field(default=None, compare=False, repr=False)  # of its token; None by its channel

    @property
    def name(self) -> str:
        return self.grant


Principal = Operator | Human | Workload | Holder  # each with its ``rights``, and a ``name`` for the audit


def check_right(principal: Principal, right: Right) -> None:
    """Raise DeniedError unless a principal has a right."""
    if right not in principal.rights:
        raise DeniedError("only the operator may do this", help="use the control socket, outside of runs")


def check_given(given_to: str, client: str, *, keyed: bool, proven: bool) -> None:
    """Raise unless what was handed out to one client came back from it: GrantTokenError if from another.

    ``keyed``: it went to a client that has to prove who it is, whatever is handed out; UnauthenticatedError unless that
    is ``proven`` now (RFC 6749 §6, RFC 8628 §3.4).
    """
    if client != given_to:
        raise GrantTokenError("it was given to another client")
    if keyed and not proven:
        raise UnauthenticatedError("this client has to authenticate", help="as it did when this was given to it")


def root_in(principal: Principal, task: Task) -> str | None:
    """Return the grant from which on a principal may look at a task; None where it may not look at all."""
    if isinstance(principal, Holder):
        return principal.grant if principal.task == task.id else None
    return task.head.root if Right.OPERATE in principal.rights else None


def check_acting(task: Task, principal: Principal, grant_id: str) -> None:
    """Raise unless a principal may act under a grant of a task that it may look at."""
    task.check_acting(grant_id, principal.grant if isinstance(principal, Holder) else task.head.root)
    if isinstance(principal, Holder):
        return
    # the owner may end what others opened, not act for them, unless it brought the human's token to its socket itself
    brought = task.head.subject.acr not in UNPROVEN and not task.grant(task.head.root).apart
    if not isinstance(principal, Operator) or (task.head.subject.sub != principal.name and not brought):
        raise DeniedError("this task belongs to somebody else; you may end it, not act in it")


def check_renewing(task: Task, by: Operator | Human, now: datetime) -> None:
    """Raise unless a task is the principal's own, and rests on their login alone, to be renewed by a proof of now."""
    head = task.head
    if head.subject.acr == WORKLOAD or task.grant(head.root).approval is not None:
        raise DeniedError("a task of a workload, or of an approval, lasts as long as it was opened for")
    if head.subject.sub != by.subject.sub:
        raise DeniedError("a task is renewed by whom it was opened for", help="log in as them: `remit login`")
    if isinstance(by, Human) and by.issued_at < now - FRESH:  # the login may have ended since
        raise GrantTokenError("the ID token is not a new one", help="log in again: `remit login`")


@dataclass(frozen=True, slots=True)
class Signal:
    """What an issuer says of a human: the tasks opened on its word up to ``at`` are to end."""

    at: datetime
    cause: str  # the kind of event
    digest: str  # makes a second delivery known
    sub: str | None = None  # issuer-qualified
    sid: str | None = None  # issuer-qualified (issuer#sid): one session only


@dataclass(frozen=True, slots=True)
class Ancestor:
    """One step of a lineage."""

    grant: str
    agent: str
    attested: bool
    label: str


def ancestor(grant: Grant) -> Ancestor:
    """Return what those below a grant are told of it."""
    return Ancestor(grant.id, grant.agent, grant.attested, grant.label)


@dataclass(frozen=True, slots=True)
class GrantView:
    """A grant with what its task says of it. ``lineage`` is root first and ends with the grant itself."""

    grant: Grant
    task: str
    subject: Subject
    purpose: str
    lineage: tuple[Ancestor, ...]

    @property
    def id(self) -> str:
        return self.grant.id

    @property
    def holder(self) -> Holder:
        """Whoever holds the grant, by a channel."""
        return Holder(self.task, self.grant.id)
