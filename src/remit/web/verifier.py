"""Callers that prove a token: the keys that verify it, and the holder behind a request."""

from __future__ import annotations

from collections.abc import Awaitable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import lru_cache
from hashlib import sha256
from typing import TypeVar

from cryptography import x509

from remit import jose
from remit.core.audience import Audiences, Service
from remit.core.principal import JWT_BEARER, JWT_SPIFFE, PRIVATE_KEY_JWT, Claims, Holder, Workload
from remit.core.request import Binding
from remit.errors import (
    GrantEndedError,
    GrantTokenError,
    InvalidRequestError,
    NonceRequiredError,
    RemitError,
    TokenError,
    UnauthenticatedError,
    UsedError,
    WrongKeyError,
)
from remit.jose import proof as proofs
from remit.jose import token as tokens
from remit.jose.keys import by_kid, public_key
from remit.jose.proof import Expected, Nonces, Proof
from remit.ports import Clock
from remit.ports.broker import BrokerPort, Notice
from remit.ports.identity import Workloads
from remit.ports.pending import Pending
from remit.ports.tokens import PROVE, TokenPort

MAX_KNOWN = 4_096  # tokens whose signature was verified
MAX_KNOWN_SIZE = 6_291_456  # characters of them all; their claims take some five times as many bytes

WIT = "workload-identity-token"  # the header of a WIT, and what it is called among credentials

T = TypeVar("T")
Headers = Mapping[str, Sequence[str]]  # lower-case name -> values


class Keys:
    """The ``published`` JWKs that verify tokens, and the tokens known to be signed by them."""

    def __init__(self, published: Sequence[Mapping[str, str]], by_rsa: Collection[str] = ()) -> None:
        """Verify by ``published``; ``by_rsa`` are the services elsewhere whose tokens are signed so."""
        self._by_rsa = by_rsa
        self.replace(published)

    def noticed(self, notice: Notice) -> None:
        """Take over after a rotation."""
        if notice.token_keys is not None:
            self.replace(notice.token_keys)

    def replace(self, published: Sequence[Mapping[str, str]]) -> None:
        """Let other keys verify: what only an unpublished key signed is worth nothing from now on."""
        self.jwks = [dict(jwk) for jwk in published]
        self._public = by_kid(published)
        self._forget()

    def claims(self, token: str, issuer: str, now: datetime, *, expired: bool = False) -> Claims:
        """Return the claims of a token; its signature is verified once."""
        known = self._known.get(token)
        if known is not None and (expired or now.timestamp() < known.expires_at):
            return known
        claims = tokens.read(token, self._public, issuer, now, expired=expired, by_rsa=self._by_rsa)
        if len(self._known) >= MAX_KNOWN or self._size + len(token) > MAX_KNOWN_SIZE:
            self._forget()
        self._known[token] = claims
        self._size += len(token)
        return claims

    def _forget(self) -> None:
        self._known: dict[str, Claims] = {}
        self._size = 0


@dataclass(eq=False, slots=True)
class Verifier:
    """From the headers of a request to the holder behind it; API and gateway share one."""

    broker: BrokerPort
    tokens: TokenPort
    keys: Keys
    issuer: str
    clock: Clock
    nonces: Nonces
    pending: Pending
    gateway: str | None = None  # its URL
    services: Mapping[str, Service] = field(default_factory=dict)  # elsewhere, by the resource that is granted there

    @property
    def audiences(self) -> Audiences:
        return Audiences(self.issuer, self.gateway, self.services)

    def noticed(self, notice: Notice) -> None:
        """Take over keys."""
        self.keys.noticed(notice)
        self.nonces = notice.nonces or self.nonces

    def nonce(self) -> str:
        """Return the nonce for the next proof."""
        return self.nonces.at(self.now())

    def now(self) -> int:
        """Return the time in whole seconds."""
        return int(self.clock().timestamp())

    async def proven(self, headers: Mapping[str, str], method: str, url: str, resource: str) -> Holder:
        """Return the holder that a request to a resource at the gateway proves, or raise."""
        values = {name.lower(): [value] for name, value in headers.items()}
        gateway = self.gateway or self.issuer
        audiences = frozenset({self.issuer, gateway, f"{gateway}/{resource}"})
        return await self.holder(method, url, values, audiences=audiences)

    async def holder(
        self,
        method: str,
        url: str,
        headers: Headers,
        certificates: Sequence[bytes] = (),
        audiences: frozenset[str] = frozenset(),
    ) -> Holder:
        """Return the holder of the token in ``Authorization``: proven by ``DPoP``, or by a TLS client's certificate.

        ``Bearer`` is for a token that is bound to a certificate alone (RFC 8705 §3), and never a fallback for a token
        that is bound to a key (RFC 9449 §7.1).
        """
        values = headers.get("authorization", ())
        scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        scheme, token = scheme.lower(), token.strip(" ")
        if scheme not in {"dpop", "bearer"} or not token:
            raise TokenError("there must be one `Authorization` header, with the scheme DPoP")
        proof, keyless = headers.get("dpop", ()), self.signed(token).jkt is None
        if (scheme == "bearer") != keyless or (keyless and proof):
            raise TokenError("a token that is bound to a key has the scheme DPoP, and any other Bearer")
        return await self.prove(token, proof, method, url, certificates, audiences)

    async def prove(
        self,
        token: str,
        proof: Sequence[str],
        method: str,
        url: str,
        certificates: Sequence[bytes] = (),
        audiences: frozenset[str] = frozenset(),
        *,
        ath: bool = True,
    ) -> Holder:
        """Return the holder of a live token if what it is bound to is proven: its key, or its certificate.

        ``proof`` is for this request, new, and covers the token, but for one in a token request (``ath``, RFC 9449 §5).
        Proofs of strangers, who have no live token yet, are counted apart and keep no holder out. ``certificates`` are
        the TLS client's: the handshake has shown that it has the leaf's key (RFC 8705 §3.1). ``audiences``: those that
        the token may be for; empty is the broker alone. The audit shows every refusal of a signed token: one without
        its key was taken from its holder, or is spliced into a chain it does not belong to.
        """
        claims = self.signed(token)
        try:
            tokens.check_time(claims, self.now())
            tokens.check_audience(claims, audiences or {self.issuer})
            if claims.bearer and claims.audience not in {self.issuer, self.gateway}:  # one resource alone
                return replace(await self.tokens.present(token), claims=claims)
            if claims.x5t is not None:
                if not certificates:
                    raise TokenError("it is bound to a certificate: use the TLS listener, with that certificate")
                if thumbprint(certificates[0]) != claims.x5t:
                    raise WrongKeyError("it is bound to another certificate")
                if ends(certificates[0]) <= self.clock():
                    raise TokenError("the certificate it is bound to has expired")
                return replace(await self.tokens.present(token), claims=claims)
            found = self.read(proof, method, url, token if ath else None)
            if claims.jkt != found.jkt:
                raise WrongKeyError
            return replace(await self.tokens.present(token, found), claims=claims)
        except (UnauthenticatedError, GrantEndedError) as error:
            await self.refused(token, error)
            raise

    async def refused(self, token: str, error: RemitError) -> None:
        """Record that a token which this broker signed was refused."""
        if not isinstance(error, NonceRequiredError):  # no refusal: the client comes back with the nonce
            await self.tokens.refuse_token(token, error)

    async def spend(self, workload: Workload, texts: Sequence[str], url: str) -> Workload:
        """Use up what a client showed, if it counts once; UsedError if it was used before."""
        if workload.digest is None:
            return workload
        if texts:  # the request's own proof has to hold: whoever lacks but the nonce comes back with the same
            self.read(texts, "POST", url, None)
        await self.broker.spend(workload)
        return replace(workload, digest=None)

    async def authenticate(self, said: Awaitable[T]) -> T:
        """Return who a token of others names; that it was refused is in the audit, a flood of it counted."""
        try:
            return await said
        except (UnauthenticatedError, GrantTokenError) as error:
            found = error.__cause__  # it is in the audit also where the protocol wants it told as something else
            await self.broker.deny(None, PROVE, found if isinstance(found, UnauthenticatedError | UsedError) else error)
            raise

    def signed(self, token: str) -> Claims:
        """Return the claims of a token that this broker signed, for whomever and whenever."""
        return self.keys.claims(token, self.issuer, self.clock(), expired=True)

    def confirmed(self, cnf: object, proof: str, url: str, token: str | None) -> Proof:
        """Return what ``req_cnf_proof`` proves for a POST to ``url``: the key of ``req_cnf``. It is yet to be burnt.

        The proof covers the parent's ``token`` (``ath``).
        """
        if not isinstance(cnf, dict) or cnf.keys() != {"jwk"}:
            raise InvalidRequestError('`req_cnf` must be {"jwk": …}')
        named = public_key(cnf["jwk"], InvalidRequestError)
        found = self.read((proof,), "POST", url, token)
        if found.jkt != named.thumbprint:
            raise WrongKeyError("`req_cnf_proof` is by another key than `req_cnf`")
        return found

    def read(self, texts: Sequence[str], method: str, url: str, token: str | None) -> Proof:
        """Return what a proof proves; whether it is new, ``Pending.burn`` tells."""
        return proofs.read(texts, Expected(method, url, self.now(), self.nonces, token))


def thumbprint(certificate: bytes) -> str:
    """Return the ``x5t#S256`` of a certificate in DER (RFC 8705 §3.1)."""
    return jose.encode(sha256(certificate).digest())


@lru_cache(maxsize=1_024)
def ends(certificate: bytes) -> datetime:
    """Return the instant after which a certificate (DER) is worth nothing, and a token bound to it neither."""
    return x509.load_der_x509_certificate(certificate).not_valid_after_utc


async def verified_actor(workloads: Workloads, token: str, jkt: str | None) -> Workload:
    """Return the workload that a child is, by a credential of its own (RFC 8693 §2.1); ``jkt`` is the child's key.

    A WIT is worth nothing to whoever has not its key, the parent included: the child's key has to be that one. What an
    OAuth client signs to authenticate with names no child: it is the client itself that asks, with a key of its own.
    """
    kind = assertion_type(token)
    workload = await (workloads.named(token) if kind == WIT else workloads.assertion(token, kind))
    if workload.method == PRIVATE_KEY_JWT:
        raise UnauthenticatedError("a client's assertion says who asks, and not who a child is")
    if workload.jkt not in {None, jkt}:
        raise WrongKeyError("`req_cnf` is another key than the actor token is bound to")
    return workload


def assertion_type(token: str) -> str:
    """Return as what a workload's JWT is to be verified: nobody believes what it says before it is, as just that.

    It is a WIT by its ``typ``, a JWT-SVID if it says that its subject has a SPIFFE ID, else a platform's OIDC token.
    """
    compact = jose.read(token, frozenset({"typ"}), UnauthenticatedError, others=True)
    if compact.header.get("typ") == "wit+jwt":
        return WIT
    subject = jose.document(compact.payload, UnauthenticatedError).get("sub")
    return JWT_SPIFFE if isinstance(subject, str) and subject.startswith("spiffe://") else JWT_BEARER


def attested(binding: Binding, workload: Workload | None) -> Binding:
    """Return a binding to a workload that proved who it is, too; None leaves the name to the broker."""
    if workload is None:
        return binding
    return replace(binding, identity=workload.id, claims=tuple(sorted(workload.claims.items())))
