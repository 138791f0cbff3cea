"""Humans and workloads that a test believes: ports that know a few tokens by heart, and are not fooled by others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import httpx
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from starlette.types import Receive, Scope, Send

from remit import jose
from remit.compose.app import build
from remit.core.policy import Policy, in_bounds
from remit.core.principal import JWT_SPIFFE, Human, Workload
from remit.core.task import Subject
from remit.errors import AudienceError, GrantTokenError, UnauthenticatedError
from remit.web.authentication import TokenAuth
from remit.web.routes import Identity
from remit.web.scope_templates import ScopeTemplate
from remit.web.verifier import thumbprint
from tests.broker.world import START, World
from tests.oauth.plane import Plane

ALICE = "https://idp.test#alice"
PLANNER = "spiffe://example.org/agent/planner"
READER = "spiffe://example.org/agent/reader"
BUILD = "https://ci.test#repo:acme/app"  # a workload by the OIDC token of its platform
CLIENT = "https://agent.test/client"


@dataclass
class FakeIdentity:
    """The ports Humans and Workloads in one. ``details`` is what every ID-JAG limits its task to."""

    world: World
    details: object = None
    scope: str | None = None  # likewise, by names
    scopes: dict[str, ScopeTemplate] = field(default_factory=dict)
    keyed: dict[str, str] = field(default_factory=dict)  # SPIFFE ID -> key that its credential is bound to
    certificates: dict[bytes, str] = field(default_factory=dict)  # DER -> SPIFFE ID
    seen: list[str] = field(default_factory=list)
    bearer: bool = False  # whether ID-JAGs that are bound to no key are made for the public client too
    once: bool = False  # whether each JWT-SVID says that it is unique (``jti``)

    def identity(self) -> Identity:
        """Return who is believed: these."""
        methods = ("spiffe_jwt", "spiffe_x509")
        return Identity(humans=self, workloads=self, methods=methods, id_jag=True, scopes=self.scopes)

    async def id_token(self, token: str, *, nonce: str | None = None) -> Human:
        if not token.startswith("id-token-of-alice"):
            raise GrantTokenError("the ID token is not of an issuer that is known here")
        if token.endswith("for-another"):
            raise AudienceError
        return self._human(token, "remit", nonce)

    async def id_jag(self, token: str, client: str) -> Human:
        """Take ``id-jag-of-alice``, for the workload, and ``id-jag-of-alice for <key>``, for the public client."""
        if token == "id-jag-for-another-broker":
            raise AudienceError
        name, _, jkt = token.partition(" for ")
        if name != "id-jag-of-alice" or client != (CLIENT if jkt or self.bearer else PLANNER):
            raise GrantTokenError("the assertion was made for another client")
        return replace(self._human(token, client, None), jkt=jkt or None, scope=self.scope, id_jag=True)

    def _human(self, token: str, client: str, nonce: str | None) -> Human:
        now = self.world.now
        subject = Subject(ALICE, "urn:test:two-factors", now, ("pwd", "otp"))
        until = now + timedelta(minutes=10)
        return Human(subject, jose.digest(token), now, until, client, nonce, self.details, confidential=True)

    async def assertion(self, token: str, kind: str) -> Workload:
        if kind != JWT_SPIFFE:
            raise UnauthenticatedError("this kind of client assertion is not configured here")
        self.seen.append(token)
        found = self._workload(svid_subject(token), "jwt-svid")
        return replace(found, digest=jose.digest(token), until=found.expires_at) if self.once else found

    async def named(self, wit: str) -> Workload:
        raise UnauthenticatedError(f"{wit} is not known here")

    async def certified(self, chain: Sequence[bytes]) -> Workload:
        name = self.certificates.get(chain[0] if chain else b"")
        if name is None:
            raise UnauthenticatedError("no certificate of a workload that is known here")
        return self._workload(name, "x509-svid", thumbprint(chain[0]))

    async def proven(self, wit: str, wpt: str, target: str, token: str | None) -> Workload:
        raise UnauthenticatedError(f"{wit} and {wpt} for {target} and {token} are not known here")

    def _workload(self, name: str, method: str, x5t: str | None = None) -> Workload:
        until = self.world.now + timedelta(minutes=5)
        return Workload(name, method, until, {"region": "eu"}, self.keyed.get(name), x5t)


def svid(name: str, jti: str = "1") -> str:
    """Return what this test takes for the JWT-SVID of a workload."""
    claims = f'{{"sub":"{name}","jti":"{jti}"}}'
    header, payload = (jose.encode(part.encode()) for part in ('{"alg":"ES256"}', claims))
    return f"{header}.{payload}.{jose.encode(b'signed')}"


def svid_subject(token: str) -> str:
    compact = jose.read(token, frozenset({"alg"}), UnauthenticatedError)
    subject = jose.document(compact.payload, UnauthenticatedError).get("sub")
    if compact.signature != b"signed" or subject not in {PLANNER, READER, BUILD}:
        raise UnauthenticatedError("the JWT-SVID is not one that is known here")
    return str(subject)


def assertion_of(name: str, jti: str = "1") -> dict[str, str]:
    """Return the form fields by which a workload says who it is."""
    return {"client_assertion": svid(name, jti), "client_assertion_type": JWT_SPIFFE}


def certificate(name: str, ends: datetime) -> bytes:
    """Return a certificate for a workload, DER; who signed it is for the TLS handshake to see."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "workload")])
    made = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(ends - timedelta(days=1))
        .not_valid_after(ends)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(name)]), critical=False)
    )
    return made.sign(key, SHA256()).public_bytes(Encoding.DER)


@asynccontextmanager
async def with_certificate(plane: Plane, der: bytes) -> AsyncIterator[httpx.AsyncClient]:
    """Call the control plane as from a TLS handshake in which the client proved the key of a certificate."""
    app, authority = build(plane.deps), TokenAuth(frozenset({"tls.test"}), plane.verifier.holder, scheme="https")

    async def handshaken(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"listener": authority, "certificates": (der,)}}, receive, send)

    transport = httpx.ASGITransport(app=handshaken)
    async with httpx.AsyncClient(transport=transport, base_url="https://tls.test") as client:
        yield client


def world(decide: Policy = in_bounds) -> World:
    """Return a world in which anybody may open what the resources bound."""
    return World(now=START, decide=decide)
