"""SVIDs of the broker's own trust domain, each a lease: an agent's name, proven to services that speak SPIFFE.

Rules:

- The name is the agent's own, as the broker made it: ``spiffe://<trust domain>/task/<task>/<grant>``. Agents that
  others attested have their SVIDs from those others: the broker is no authority of their trust domains.
- Nothing that the broker makes here says that somebody attested the agent, for nobody did: ``attested`` is false.
- An SVID ends by expiry alone, within the hour; a revoke says so, and no new one is made.
- A certificate's serial number and a token's ``jti`` come from the lease's id, so that either leads to the audit log.
"""

from __future__ import annotations

import hashlib
import ssl
from collections.abc import Mapping, Sequence
from datetime import datetime

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from remit.core import spiffe
from remit.core.scope import Detail
from remit.core.secret import Secret
from remit.core.task import Plan, Revocation
from remit.errors import DeniedError, EngineError, EngineRefusedError, InvalidRequestError, UnknownDetailError
from remit.jose import token
from remit.ports import Clock, Issued, Resource
from remit.ports.identity import Authority
from remit.ports.kind import LeaseRequest

SERIAL = 16  # octets, RFC 5280 §4.1.2.2: at most 20, and not negative


def check(resource: Resource, trust_domain: str) -> None:
    """Refuse a resource that can never issue: InvalidRequestError, or UnknownDetailError for its bound."""
    if resource.destination != f"spiffe://{trust_domain}":
        raise InvalidRequestError(
            "the destination is not the broker's own trust domain", help=f"write spiffe://{trust_domain}"
        )
    if resource.settings:
        raise InvalidRequestError("a resource of kind `spiffe` has no settings")
    for detail in resource.bound:
        lower(detail)


def lower(detail: Detail) -> tuple[bool, tuple[str, ...]]:
    """Return whether a detail asks for an X.509-SVID, and the audiences of the JWT-SVID that it asks for, if any."""
    if detail.type != "spiffe":
        raise UnknownDetailError("this resource takes details of type `spiffe` only")
    actions, audiences = detail.texts("actions"), detail.texts("audiences")
    if "jwt" in actions and not audiences:
        raise UnknownDetailError("a JWT-SVID needs `audiences`: whom it is for")
    return "x509" in actions, audiences if "jwt" in actions else ()


def plan(resource: Resource, trust_domain: str, wanted: LeaseRequest) -> Plan:
    """Name the SVID after agent and lease; DeniedError for an agent whose name the broker did not make."""
    lower(wanted.detail)
    named, domain = wanted.agent, resource.destination.removeprefix("spiffe://")
    if not named.startswith("spiffe://"):
        raise DeniedError("an agent that is not named by a SPIFFE ID has no SVID")
    theirs = spiffe.parse(named).domain
    if theirs != domain or theirs != trust_domain:
        raise DeniedError(
            f"the broker is not the authority of `{theirs}`", help="that trust domain issues its own SVIDs"
        )
    _task_of(named)
    return Plan(f"{named}#{wanted.id}", wanted.detail, {}, wanted.issue_by, SpiffeEngine.revocation)


def _task_of(agent: str) -> tuple[str, str]:
    """Return task and grant of a name that the broker made."""
    match spiffe.parse(agent).path.split("/"):
        case ["", "task", task, grant]:
            return task, grant
    raise DeniedError("the broker issues SVIDs for names alone that it made itself")


class SpiffeEngine:
    """Issues SVIDs. Satisfies Engine; what it made cannot be taken back, and ends by itself."""

    revocation = Revocation.BY_EXPIRY

    def __init__(
        self, resource: Resource, secret: Secret | None, *, authority: Authority, issuer: str, clock: Clock
    ) -> None:
        """Issue as ``authority``; ``issuer`` is whom JWT-SVIDs name as theirs, for services that know OIDC alone."""
        if secret is not None:
            raise InvalidRequestError("a resource of kind `spiffe` has no secret: its keys are the broker's own")
        self._domain = resource.destination.removeprefix("spiffe://")
        self._authority, self._issuer, self._clock = authority, issuer, clock
        self._made: dict[str, datetime] = {}  # names until their issue_by: after that, none is issued again

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        """Make what the detail asks for: an X.509-SVID with a new key, a JWT-SVID, or both."""
        now = self._clock()
        if now >= plan.issue_by:
            raise EngineError("there was no time left to issue")
        if self._domain != self._authority.trust_domain:
            raise EngineRefusedError("the broker is the authority of another trust domain now")
        self._made = {name: until for name, until in self._made.items() if now < until}
        if plan.name in self._made:
            raise EngineRefusedError("this lease was issued before")
        self._made[plan.name] = plan.issue_by
        certified, audiences = lower(plan.detail)
        agent, _, lease_id = plan.name.partition("#")
        made: dict[str, str | Secret] = {"spiffe_id": agent}
        if certified:
            made |= self._certificate(agent, lease_id, expires_at)
        if audiences:
            made["jwt"] = self._token(agent, lease_id, audiences, now, expires_at)
        return Issued(made)

    async def revoke(self, plan: Plan, receipt: Mapping[str, str] | None) -> None:
        """Do nothing: an SVID ends at its time, and the broker counts it as outstanding until then."""

    def _certificate(self, agent: str, lease_id: str, end: datetime) -> Mapping[str, str | Secret]:
        key = ec.generate_private_key(ec.SECP256R1())
        public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return {
            "certificate": _pem(self._authority.certify(agent, public, serial(lease_id), end)),
            "key": Secret(private.decode()),
            "bundle": _pem(self._authority.certificates()),
        }

    def _token(self, agent: str, lease_id: str, audiences: Sequence[str], now: datetime, end: datetime) -> Secret:
        task, grant = _task_of(agent)
        claims = {
            "iss": self._issuer,
            "sub": agent,
            "aud": audiences[0] if len(audiences) == 1 else list(audiences),
            "iat": int(now.timestamp()),
            "exp": int(end.timestamp()),
            "jti": lease_id,
            "attested": False,
            "task": task,
            "grant": grant,
        }
        signer = self._authority.signer  # the header is of these three members alone, JWT-SVID §2
        return Secret(token.mint(claims, signer.kid, signer.alg, signer.sign, typ="JWT"))


def serial(lease_id: str) -> int:
    """Return the serial number of the certificate of a lease."""
    return int.from_bytes(hashlib.sha256(lease_id.encode()).digest()[:SERIAL], "big") | 1


def _pem(chain: Sequence[bytes]) -> str:
    return "".join(ssl.DER_cert_to_PEM_cert(each) for each in chain)
