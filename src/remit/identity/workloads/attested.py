"""Workloads that show who they are, by the bundle of their own trust domain alone or by the platform they run on.

- JWT-SVIDs as client assertions (draft-ietf-oauth-spiffe-client-auth).
- WITs (draft-ietf-wimse-workload-creds, WIT-SVID), and proofs of their key (WPT).
- X.509-SVIDs: the certificate that a TLS client presented (X509-SVID §5).
- OIDC tokens of platforms (RFC 7523 §3), by rules of issuer, audience and exact claims: who matches none is nobody.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256

from remit import jose
from remit.core import spiffe
from remit.core.principal import JWT_SPIFFE, Workload
from remit.errors import AudienceError, InvalidRequestError, LimitError, ReplayError, TokenError, UnauthenticatedError
from remit.identity.issuers import Issuer
from remit.identity.workloads.bundles import SpiffeBundle, TrustBundles
from remit.identity.workloads.certificates import MAX_CHAIN, check_chain, identity_of, loaded, workload_id
from remit.jose import jwt
from remit.jose.jwt import SKEW, Jwt, JwtProfile, claim_text, find_claim
from remit.jose.keys import RSA, KeySet
from remit.jose.proof import SKEW as PROOF_SKEW
from remit.jose.proof import same_target
from remit.ports import Clock

MAX_JWT_LIFE = timedelta(hours=1)  # that the end of a bearer credential may be away
MAX_WIT_LIFE = timedelta(hours=24)  # that the end may be away: it is worth nothing without its key
MAX_PROOF_LIFE = 300  # seconds that the end of a proof may be away
MAX_SEEN = 100_000  # proofs remembered, each until it ends
MAX_AGE = timedelta(hours=24)  # of a platform's token, whatever it says of its end
WPT_TYPE = "wpt+jwt"

_ALGORITHMS = RSA | {"ES256", "ES384", "ES512"}  # JWT-SVID §2.1; no EdDSA
_JWT_SVID = JwtProfile(frozenset({"jwt", "jose", ""}), _ALGORITHMS, error=UnauthenticatedError)
_JWT_SVID_TYPES = frozenset({None, "JWT", "JOSE"})  # §2.3, case and all
_WIT = JwtProfile(types=frozenset({"wit+jwt"}), error=UnauthenticatedError)
_TOKEN = JwtProfile(frozenset({"", "jwt"}))
_PROOF_HEADER = frozenset({"typ", "alg"})
_JTI = re.compile(r"[!-~]{16,256}")
_UNKNOWN = ("tth", "oth")  # what they cover is nothing that is understood here

Assertion = Callable[[str], Awaitable[Workload]]


@dataclass
class AttestedWorkloads:
    """Verifies workloads by what is configured: those of trust domains with names that match a pattern of ``allow``."""

    platforms: Mapping[str, Assertion]  # client assertions of other kinds
    issuer: str  # JWT-SVIDs are for it alone
    clock: Clock
    bundles: TrustBundles | None = None
    allow: Sequence[str] = ()
    once: Collection[str] = ()  # trust domains whose JWT-SVIDs count once, whatever they say of themselves
    most: int = MAX_SEEN
    _seen: dict[tuple[str, str], int] = field(default_factory=dict)  # key, jti -> when the proof cannot pass any more

    async def assertion(self, token: str, kind: str) -> Workload:
        if kind == JWT_SPIFFE and self.bundles is not None:
            return await self._jwt_svid(token, self.bundles)
        if kind not in self.platforms:
            raise UnauthenticatedError("this kind of client assertion is not configured here")
        return await self.platforms[kind](token)

    async def _jwt_svid(self, text: str, bundles: TrustBundles) -> Workload:
        """Return the workload of a JWT-SVID. One with a ``jti`` says that it is unique, so it counts once (``digest``).

        One without may be sent again while it lives, as agents of SPIRE hand the same out for minutes (JWT-SVID §7.1),
        unless its trust domain is one of ``once``.
        """
        token = jwt.read(text, _JWT_SVID)
        if token.compact.header.get("typ") not in _JWT_SVID_TYPES:
            raise UnauthenticatedError("its type is not one of a JWT-SVID")
        identity = workload_id(jwt.text(token.claims, "sub", UnauthenticatedError), "its `sub`")
        await _by_bundle(bundles, identity.domain, token, lambda bundle: bundle.jwt)
        expires = _ends(token, self.clock(), MAX_JWT_LIFE)
        if token.claims.get("aud") not in (self.issuer, [self.issuer]):
            raise AudienceError("the JWT-SVID must be for this server alone", help=f"its `aud` must be {self.issuer}")
        self._check_allowed(str(identity))
        once = "jti" in token.claims or identity.domain in self.once
        return Workload(str(identity), "jwt-svid", expires, digest=token.digest if once else None)

    async def proven(self, wit: str, wpt: str, target: str, token: str | None) -> Workload:
        jwk, name, expires = await self._wit(wit)
        now = int(self.clock().timestamp())
        proof = read_wpt(wpt, jwk, target, now, wit=wit, token=token)
        over = proof.exp + PROOF_SKEW  # when it could not pass again anyway
        if self._seen.get((proof.jkt, proof.jti), 0) > now:
            raise ReplayError(help="make a new proof for every request")
        if len(self._seen) >= self.most:
            self._seen = {seen: end for seen, end in self._seen.items() if end > now}
        if len(self._seen) >= self.most:
            raise LimitError("too many requests with proofs", retry_after=MAX_PROOF_LIFE)
        self._seen[proof.jkt, proof.jti] = over
        once = jose.digest(f"{proof.jkt} {proof.jti}")
        return Workload(name, "wit", expires, jkt=proof.jkt, digest=once, until=datetime.fromtimestamp(over, UTC))

    async def named(self, wit: str) -> Workload:
        jwk, name, expires = await self._wit(wit)
        return Workload(name, "wit", expires, jkt=jose.public_key(jwk, UnauthenticatedError).thumbprint)

    async def _wit(self, wit: str) -> tuple[Mapping[str, object], str, datetime]:
        """Return the key of a WIT as a JWK, the name of its workload, and its end."""
        bundles = self._trusted("workload identity tokens")
        found = jwt.read(wit, _WIT)
        name = jwt.text(found.claims, "sub", UnauthenticatedError)
        try:  # `wimse` names have the form of SPIFFE IDs
            own = f"spiffe://{name.removeprefix(spiffe.WIMSE)}" if name.startswith(spiffe.WIMSE) else name
            identity = spiffe.parse(own)
        except InvalidRequestError as error:
            raise UnauthenticatedError("its `sub` is not a workload's identifier") from error
        await _by_bundle(bundles, identity.domain, found, lambda bundle: bundle.wit)
        expires = _ends(found, self.clock(), MAX_WIT_LIFE)
        if "aud" in found.claims:  # WIT-SVID §3
            raise UnauthenticatedError("a workload identity token has no audience")
        others = (value for name, value in found.claims.items() if name not in {"sub", "iss"})
        if any(isinstance(value, str) and value.startswith(spiffe.SCHEMES) for value in others):
            raise UnauthenticatedError("a workload identity token has one identifier alone")
        self._check_allowed(name)
        cnf = found.claims.get("cnf")
        jwk = cnf.get("jwk") if isinstance(cnf, Mapping) and cnf.keys() == {"jwk"} else None
        if not isinstance(jwk, Mapping) or not isinstance(jwk.get("alg"), str):
            raise UnauthenticatedError("its `cnf` must hold one public key with its algorithm")
        return jwk, name, expires

    async def certified(self, chain: Sequence[bytes]) -> Workload:
        """Return the workload of a chain that ends at an authority of its own trust domain; TLS has proven its key."""
        bundles = self._trusted("client certificates")
        if not 1 <= len(chain) <= MAX_CHAIN:
            raise UnauthenticatedError("there is no client certificate, or its chain is too long")
        leaf, *others = (loaded(der) for der in chain)
        identity = identity_of(leaf)
        authorities = []
        for der in (await bundles.of(identity.domain)).authorities:
            with suppress(UnauthenticatedError):  # it is no reason to refuse what the others have signed
                authorities.append(loaded(der))
        check_chain(leaf, others, authorities, self.clock())
        self._check_allowed(str(identity))
        thumbprint = jose.encode(sha256(chain[0]).digest())
        return Workload(str(identity), "x509-svid", leaf.not_valid_after_utc, x5t=thumbprint)

    def _trusted(self, what: str) -> TrustBundles:
        if self.bundles is None:
            raise UnauthenticatedError(f"{what} are not believed here: no trust domain is configured")
        return self.bundles

    def _check_allowed(self, name: str) -> None:
        if not spiffe.matches(name, self.allow):
            raise UnauthenticatedError("the workload's name matches no pattern that is allowed here")


async def _by_bundle(bundles: TrustBundles, domain: str, token: Jwt, keys: Callable[[SpiffeBundle], KeySet]) -> None:
    """Check a signature by the keys of one trust domain; a key that is new there is looked for once more."""
    found = keys(await bundles.of(domain))
    if found.find(token.compact, UnauthenticatedError) is None:
        found = keys(await bundles.again(domain))
    found.verify(token.compact, UnauthenticatedError)


def _ends(token: Jwt, now: datetime, longest: timedelta) -> datetime:
    """Return the end of a token that counts now, and not for much longer: after its end not for a second."""
    expires = jwt.moment(token.claims, "exp", UnauthenticatedError)
    if now >= expires:
        raise UnauthenticatedError("it has expired")
    if expires > now + longest + SKEW:
        raise UnauthenticatedError("it lives too long to be believed")
    for name in ("nbf", "iat"):
        if name in token.claims and jwt.moment(token.claims, name, UnauthenticatedError) > now + SKEW:
            raise UnauthenticatedError(
                "it does not count yet", help="compare the clocks of the issuer and of this host"
            )
    return expires


@dataclass(frozen=True, slots=True)
class Wpt:
    """A proof that holds, but may be a replay until `PROOF_SKEW` after ``exp`` (seconds), with its key's thumbprint."""

    jkt: str
    jti: str
    exp: int


def read_wpt(text: str, jwk: object, target: str, now: int, *, wit: str, token: str | None = None) -> Wpt:
    """Return what a proof by ``jwk`` (``cnf.jwk`` of the WIT) proves; TokenError, or AudienceError for another target.

    The checks are those of draft-ietf-wimse-wpt, in its order. ``token`` is the one that the proof must cover, if any.
    """
    compact = jose.read(text, _PROOF_HEADER, others=True)
    claims = jose.document(compact.payload, TokenError)
    algorithm = jwk.get("alg") if isinstance(jwk, Mapping) else None
    if algorithm is None or compact.header.get("alg") != algorithm:
        raise TokenError("the proof's algorithm is not the one of the workload's key")
    key = jose.public_key(jwk)
    key.verify(compact)
    if compact.header.get("typ") != WPT_TYPE:
        raise TokenError("the proof is not a workload proof token")
    if not same_target(claims.get("aud"), target):
        raise AudienceError("the proof is for another target")
    exp = claims.get("exp")
    if not isinstance(exp, int) or isinstance(exp, bool) or not -PROOF_SKEW < exp - now <= MAX_PROOF_LIFE + PROOF_SKEW:
        raise TokenError(
            f"the proof must end within {MAX_PROOF_LIFE} seconds, and not have ended", help="check the clock"
        )
    if claims.get("wth") != jose.digest(wit):
        raise TokenError("the proof is for another workload identity token")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not _JTI.fullmatch(jti):
        raise TokenError("the proof's `jti` must be 16 to 256 printable characters")
    if any(name in claims for name in _UNKNOWN):
        raise TokenError("the proof covers what is not understood here")
    if claims.get("ath") != (None if token is None else jose.digest(token)):
        raise TokenError("the proof's `ath` is not the digest of the token it comes with")
    return Wpt(key.thumbprint, jti, exp)


@dataclass(frozen=True, slots=True)
class WorkloadRule:
    """Whom to let in."""

    issuer: Issuer
    audience: str
    match: Mapping[str, tuple[str, ...]]  # claim -> the values it may have: each must have one
    claims: tuple[str, ...] = ()  # that are passed on to policies

    def matches(self, claims: Mapping[str, object]) -> bool:
        return all(claim_text(find_claim(claims, name)) in values for name, values in self.match.items())


@dataclass(frozen=True, slots=True)
class OidcWorkloads:
    """Verifies workloads' tokens by rules, of which the first that matches decides what policies are told."""

    rules: Sequence[WorkloadRule] = field(repr=False)
    clock: Clock

    async def assertion(self, token: str) -> Workload:
        """Return the workload of a ``jwt-bearer`` assertion; TokenError, or what the port ``Workloads`` raises."""
        read = jwt.read(token, _TOKEN)
        claims, issuer = read.claims, jwt.text(read.claims, "iss")
        rules = [rule for rule in self.rules if rule.issuer.url == issuer]
        if not rules:
            raise TokenError("its issuer is not one that is trusted here")
        audience = jwt.audience(claims, {rule.audience for rule in rules})
        await rules[0].issuer.verified(read)
        if "nonce" in claims or "events" in claims:
            raise TokenError("it is not a workload's token")
        _, expires = jwt.window(claims, self.clock(), MAX_AGE)
        matching = [rule for rule in rules if rule.audience == audience and rule.matches(claims)]
        if not matching:
            raise UnauthenticatedError("no rule lets this workload in", help="see `[[workloads]]` of the configuration")
        picked = ((name, claim_text(find_claim(claims, name))) for name in matching[0].claims)
        return Workload(
            id=f"{issuer}#{jwt.text(claims, 'sub')}",
            method="oidc",
            expires_at=expires + SKEW,
            claims={name: value for name, value in picked if value is not None},
        )
