"""Workload identity tokens (draft-ietf-wimse-workload-creds, WIT-SVID), and proofs of their key (WPT)."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from remit import jose
from remit.core import spiffe
from remit.core.principal import Workload
from remit.core.spiffe import SpiffeId
from remit.errors import AudienceError, InvalidRequestError, LimitError, ReplayError, TokenError, UnauthenticatedError
from remit.identity.workloads.bundles import TrustBundles
from remit.identity.workloads.jwt_svid import by_bundle, check_allowed, ends
from remit.jose import jwt
from remit.jose.jwt import Jwt, JwtProfile
from remit.jose.proof import SKEW, same_target
from remit.ports import Clock

MAX_LIFE = timedelta(hours=24)  # that the end may be away: it is worth nothing without its key
MAX_SEEN = 100_000  # proofs remembered, each until it ends

WPT_TYPE = "wpt+jwt"
MAX_PROOF_LIFE = 300  # seconds that the end of a proof may be away
_PROOF_HEADER = frozenset({"typ", "alg"})
_JTI = re.compile(r"[!-~]{16,256}")
_UNKNOWN = ("tth", "oth")  # what they cover is nothing that is understood here
_RULES = JwtProfile(types=frozenset({"wit+jwt"}), error=UnauthenticatedError)


@dataclass
class WitVerifier:
    """Verifies WITs with names that match a pattern of ``allow``, each with the proof that comes with it."""

    bundles: TrustBundles
    allow: Sequence[str]
    clock: Clock
    most: int = MAX_SEEN
    _seen: dict[tuple[str, str], int] = field(default_factory=dict)  # key, jti -> when the proof cannot pass any more

    async def proven(self, wit: str, proof: str, target: str, token: str | None) -> Workload:
        """Return the workload of a WIT whose key made ``proof`` for ``target``, once, and over ``token`` if any.

        UnauthenticatedError (ReplayError for a proof seen before), AudienceError or UnavailableError.
        """
        found, name, expires = await self._read(wit)
        now = int(self.clock().timestamp())
        proven = read_wpt(proof, _key(found), target, now, wit=wit, token=token)
        over = proven.exp + SKEW  # when it could not pass again anyway
        self._once((proven.jkt, proven.jti), over, now)
        once = jose.digest(f"{proven.jkt} {proven.jti}")
        return Workload(name, "wit", expires, jkt=proven.jkt, digest=once, until=datetime.fromtimestamp(over, UTC))

    async def named(self, wit: str) -> Workload:
        """Return the workload of a WIT for whoever has its key (``jkt``): the caller has to see that proven.

        UnauthenticatedError or UnavailableError.
        """
        found, name, expires = await self._read(wit)
        return Workload(name, "wit", expires, jkt=jose.public_key(_key(found), UnauthenticatedError).thumbprint)

    async def _read(self, wit: str) -> tuple[Jwt, str, datetime]:
        found = jwt.read(wit, _RULES)
        name = jwt.text(found.claims, "sub", UnauthenticatedError)
        await by_bundle(self.bundles, _identity(name).domain, found, lambda bundle: bundle.wit)
        expires = ends(found, self.clock(), MAX_LIFE)
        _check_alone(found)
        check_allowed(name, self.allow)
        return found, name, expires

    def _once(self, key: tuple[str, str], over: int, now: int) -> None:
        if self._seen.get(key, 0) > now:
            raise ReplayError(help="make a new proof for every request")
        if len(self._seen) >= self.most:
            self._seen = {seen: end for seen, end in self._seen.items() if end > now}
        if len(self._seen) >= self.most:
            raise LimitError("too many requests with proofs", retry_after=MAX_PROOF_LIFE)
        self._seen[key] = over


def _identity(name: str) -> SpiffeId:
    """Return the parts of a workload's name; ``wimse`` names have the form of SPIFFE IDs."""
    try:
        return spiffe.parse("spiffe://" + name.removeprefix(spiffe.WIMSE) if name.startswith(spiffe.WIMSE) else name)
    except InvalidRequestError as error:
        raise UnauthenticatedError("its `sub` is not a workload's identifier") from error


def _check_alone(wit: Jwt) -> None:
    """Refuse an audience (WIT-SVID §3), and a second name: a WIT stands for one workload."""
    if "aud" in wit.claims:
        raise UnauthenticatedError("a workload identity token has no audience")
    others = (value for name, value in wit.claims.items() if name not in {"sub", "iss"})
    if any(isinstance(value, str) and value.startswith(spiffe.SCHEMES) for value in others):
        raise UnauthenticatedError("a workload identity token has one identifier alone")


def _key(wit: Jwt) -> Mapping[str, object]:
    cnf = wit.claims.get("cnf")
    jwk = cnf.get("jwk") if isinstance(cnf, Mapping) and cnf.keys() == {"jwk"} else None
    if not isinstance(jwk, Mapping) or not isinstance(jwk.get("alg"), str):
        raise UnauthenticatedError("its `cnf` must hold one public key with its algorithm")
    return jwk


@dataclass(frozen=True, slots=True)
class Wpt:
    """A proof that holds, but may be a replay until `SKEW` after ``exp`` (seconds). ``jkt`` is its key's thumbprint."""

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
    if not isinstance(exp, int) or isinstance(exp, bool) or not -SKEW < exp - now <= MAX_PROOF_LIFE + SKEW:
        raise TokenError(
            f"the proof must end within {MAX_PROOF_LIFE} seconds, and not have ended", help="check the clock"
        )
    if claims.get("wth") != jose.digest(wit):
        raise TokenError("the proof is for another workload identity token")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not _JTI.fullmatch(jti):
        raise TokenError("the proof's `jti` must be 16 to 256 printable characters")
    _check_covered(claims, token)
    return Wpt(key.thumbprint, jti, exp)


def _check_covered(claims: Mapping[str, object], token: str | None) -> None:
    """Refuse a token that is not covered, and a proof that covers what is not there or not understood."""
    if any(name in claims for name in _UNKNOWN):
        raise TokenError("the proof covers what is not understood here")
    if claims.get("ath") != (None if token is None else jose.digest(token)):
        raise TokenError("the proof's `ath` is not the digest of the token it comes with")
