"""Whose word is believed, and what the broker's own trust domain signs. All raise RemitErrors alone; doubt denies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from remit.core.principal import Human, Signal, Workload
from remit.core.spiffe import TrustBundle
from remit.jose.keys import KeySet
from remit.ports import Signer


class Humans(Protocol):
    """Verifies what issuers say of humans. All raise GrantTokenError, AudienceError, UsedError or UnavailableError."""

    async def id_token(self, token: str, *, nonce: str | None = None) -> Human:
        """Return the human of an ID token for a client that is configured here; ``nonce`` as in OIDC Core §3.1.3.7."""

    async def id_jag(self, token: str, client: str) -> Human:
        """Return the human of an identity assertion grant made for ``client`` and for this broker alone."""


class SignedHumans(Humans, Protocol):
    """The same where others name humans, who are believed no more than a token that they show."""

    async def confirm(self, human: Human) -> Human:
        """Return the human of the token that ``human`` came by, verified anew, with their ``state``."""


@dataclass(frozen=True, slots=True)
class Login:
    """What a browser is away for: the same when it leaves and when it comes back, and kept by nobody in between."""

    back: str  # where it comes back to
    state: str
    nonce: str  # of one request
    issuer: str
    acr: Sequence[str] = ()  # no other login counts
    since: datetime | None = None  # no earlier login counts


class Logins(Protocol):
    """Sends a browser to the issuer and takes it back (OIDC Core §3.1), as a confidential client."""

    async def begin(self, login: Login) -> str:
        """Return where to send the browser. With ``acr`` or ``since`` a session at the issuer is not enough."""

    async def finish(self, query: str, came: str, login: Login) -> Human:
        """Redeem the query string with which the browser came back to ``came``; RFC 9207 ``iss`` is checked."""


class Workloads(Protocol):
    """Verifies workloads. All raise UnauthenticatedError, AudienceError or UnavailableError; doubt denies."""

    async def assertion(self, token: str, kind: str) -> Workload:
        """Return the workload of a client assertion; ``kind`` is its ``client_assertion_type``."""

    async def named(self, wit: str) -> Workload:
        """Return the workload of a WIT, for whoever has its key (``jkt``): the caller has to see that proven."""

    async def certified(self, chain: Sequence[bytes]) -> Workload:
        """Return the workload of a TLS client's X.509-SVID: DER certificates, the leaf first."""

    async def proven(self, wit: str, wpt: str, target: str, token: str | None) -> Workload:
        """Return the workload of a WIT with a WPT for ``target`` (URI without query) that covers ``token``, if any."""


class Signals(Protocol):
    """Verifies what issuers push: security event tokens (RFC 8417) and logout tokens."""

    async def event(self, token: str) -> Sequence[Signal]:
        """Return what a security event token (``secevent+jwt``) says of humans."""

    async def logout(self, token: str) -> Sequence[Signal]:
        """Return what a logout token says (OIDC Back-Channel Logout 1.0 §2.4)."""


@dataclass(frozen=True, slots=True)
class PublishedAuthority:
    """What verifies the SVIDs of the broker's own trust domain, and says so to others."""

    trust_domain: str
    sequence: int  # grows with every change (``spiffe_sequence``)
    certificates: Sequence[bytes]  # of CAs, DER, the one that signs first
    jwks: Sequence[Mapping[str, str]]  # that verify JWT-SVIDs, the one that signs first
    bundle: Sequence[Mapping[str, object]]  # both, as JWKs with ``use`` ``x509-svid`` or ``jwt-svid``


@dataclass(frozen=True, slots=True)
class PublishedTrust:
    """What is published of trust domains: of the broker's own, and of ``others`` by their names, each apart."""

    own: PublishedAuthority
    others: Mapping[str, TrustBundle]


class Authority(Protocol):
    """The authority of the broker's own trust domain (SPIFFE): what signs its SVIDs."""

    @property
    def trust_domain(self) -> str: ...

    @property
    def signer(self) -> Signer:
        """The key that signs JWT-SVIDs now."""

    def certificates(self) -> Sequence[bytes]:
        """Return the CA certificates that verify X.509-SVIDs, DER, the one that signs first."""

    def certify(self, agent: str, public: bytes, serial: int, end: datetime) -> Sequence[bytes]:
        """Return the chain of an X.509-SVID, DER, leaf first; ``public`` is a DER SubjectPublicKeyInfo."""


ITSELF = "(itself)"  # who vouches for a client that registered itself


@dataclass(frozen=True, slots=True)
class Registered:
    """A client that may send a browser here."""

    client_id: str
    name: str
    redirect_uris: tuple[str, ...]
    vouched: str | None = None  # the host that says so; None: the configuration does
    proven: bool = False  # it has shown just now that it is that client; any other may merely call itself so
    keyed: bool = False  # it has to show it, by a key of its own (``private_key_jwt``)
    keys: KeySet | None = None  # those of its document; None for one of the configuration: others verify it

    @property
    def called(self) -> str:
        """What to call it before a human."""
        return self.name if self.proven else f"A program that calls itself “{self.name}”"

    @property
    def warning(self) -> str:
        """What a human has to know of a client that no operator set up."""
        told = f"This program is not one that your operator set up. It calls itself “{self.name}”; "
        if self.vouched == ITSELF:
            return f"{told}it registered itself, which anybody can, and nobody has checked anything of it."
        return "" if self.vouched is None else f"{told}all that is known is that {self.vouched} publishes it."


class ClientRegistry(Protocol):
    """The OAuth clients that may send a browser here."""

    @property
    def documents(self) -> bool:
        """Whether clients may name themselves by a document (``client_id_metadata_document_supported``)."""

    def named(self, client_id: str) -> Registered | None:
        """Return a client that an operator set up; None: it is no client's id."""

    async def get(self, client_id: str, *, anew: bool = False) -> Registered:
        """Return a client, or raise UnauthenticatedError; LimitError when too many documents are asked for at once.

        ``anew``: what was read of its document a while ago is not new enough.
        """
