"""JWT-SVIDs as client assertions (draft-ietf-oauth-spiffe-client-auth): whose they are, by their own bundle's keys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from remit.core import spiffe
from remit.core.principal import Workload
from remit.core.spiffe import SpiffeId
from remit.errors import AudienceError, InvalidRequestError, UnauthenticatedError
from remit.identity.workloads.bundles import SpiffeBundle, TrustBundles
from remit.jose import jwt
from remit.jose.jwt import SKEW, Jwt, JwtProfile
from remit.jose.keys import RSA, KeySet
from remit.ports import Clock

MAX_LIFE = timedelta(hours=1)  # that the end of a bearer credential may be away

_RULES = JwtProfile(
    types=frozenset({"jwt", "jose", ""}),
    algorithms=RSA | {"ES256", "ES384", "ES512"},  # JWT-SVID §2.1; no EdDSA
    error=UnauthenticatedError,
)
_TYPES = frozenset({None, "JWT", "JOSE"})  # §2.3, case and all


@dataclass(frozen=True, slots=True)
class JwtSvidVerifier:
    """Verifies JWT-SVIDs for ``issuer`` alone, with names that match a pattern of ``allow``."""

    bundles: TrustBundles
    allow: Sequence[str]
    issuer: str
    clock: Clock

    async def verified(self, text: str) -> Workload:
        """Return the workload of a JWT-SVID, or raise UnauthenticatedError, AudienceError or UnavailableError.

        One with a ``jti`` says of itself that it is unique, so it counts once (``digest``). One without may be sent
        again while it lives: agents of SPIRE keep them and hand the same out for minutes (JWT-SVID §7.1).
        """
        token = jwt.read(text, _RULES)
        if token.compact.header.get("typ") not in _TYPES:
            raise UnauthenticatedError("its type is not one of a JWT-SVID")
        identity = workload_id(jwt.text(token.claims, "sub", UnauthenticatedError), "its `sub`")
        await by_bundle(self.bundles, identity.domain, token, lambda bundle: bundle.jwt)
        expires = ends(token, self.clock(), MAX_LIFE)
        audience = token.claims.get("aud")
        if audience not in (self.issuer, [self.issuer]):
            raise AudienceError("the JWT-SVID must be for this server alone", help=f"its `aud` must be {self.issuer}")
        check_allowed(str(identity), self.allow)
        return Workload(str(identity), "jwt-svid", expires, digest=token.digest if "jti" in token.claims else None)


def workload_id(text: str, what: str) -> SpiffeId:
    """Return the SPIFFE ID that ``what`` names, or raise UnauthenticatedError."""
    try:
        found = spiffe.parse(text)
    except InvalidRequestError as error:
        raise UnauthenticatedError(f"{what} is not a SPIFFE ID") from error
    if not found.path:
        raise UnauthenticatedError(f"{what} names a trust domain, not a workload")
    return found


def check_allowed(name: str, allow: Sequence[str]) -> None:
    """Raise UnauthenticatedError unless a workload's name matches one of the patterns ``allow``."""
    if not spiffe.matches(name, allow):
        raise UnauthenticatedError("the workload's name matches no pattern that is allowed here")


async def by_bundle(bundles: TrustBundles, domain: str, token: Jwt, keys: Callable[[SpiffeBundle], KeySet]) -> None:
    """Check a signature by the keys of one trust domain; a key that is new there is looked for once more."""
    found = keys(await bundles.of(domain))
    if found.find(token.compact, UnauthenticatedError) is None:
        found = keys(await bundles.again(domain))
    found.verify(token.compact, UnauthenticatedError)


def ends(token: Jwt, now: datetime, longest: timedelta) -> datetime:
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
