"""What a client signs to say who it is: RFC 7523 §2.2 by a key of its own (``private_key_jwt``). Pure."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime, timedelta

from remit import jose
from remit.errors import AudienceError, UnauthenticatedError
from remit.jose import jwt
from remit.jose.jwt import SKEW, Jwt, JwtProfile
from remit.jose.keys import EDDSA

ALGORITHMS = frozenset({"ES256", "RS256", "PS256"}) | EDDSA
MAX_LIFE = timedelta(hours=1) + SKEW  # that the end may be away

# draft-ietf-oauth-rfc7523bis has a type; who follows RFC 7523 has none, or any JWT's
_PROFILE = JwtProfile(frozenset({"", "jwt", "client-authentication+jwt"}), ALGORITHMS, UnauthenticatedError)
_JTI = re.compile(r"[!-~]{8,256}")


@dataclass(frozen=True, slots=True)
class ClientAssertion:
    """An assertion that is well formed, and not verified: ``jwt`` has to be, by a key of ``client``."""

    jwt: Jwt
    client: str
    jti: str
    expires_at: datetime

    @property
    def digest(self) -> str:
        """What it counts once by."""
        return jose.digest(f"client assertion\n{self.client}\n{self.jti}")


def issuer(text: str) -> str | None:
    """Return the client that an assertion says it is by; None where it is another's word (``iss`` is not ``sub``)."""
    claims = jose.document(
        jose.read(text, frozenset(), UnauthenticatedError, others=True).payload, UnauthenticatedError
    )
    named = claims.get("iss")
    return named if isinstance(named, str) and named == claims.get("sub") else None


def read(text: str, audiences: Collection[str], now: datetime, longest: timedelta = MAX_LIFE) -> ClientAssertion:
    """Return an assertion for one of ``audiences``, all of them ours, that counts now; or raise UnauthenticatedError.

    AudienceError for one that is, also, for somebody else. It has to have a ``jti``, as it counts once.
    """
    read = jwt.read(text, _PROFILE)
    claims = read.claims
    client = jwt.text(claims, "iss", UnauthenticatedError)
    if claims.get("sub") != client:
        raise UnauthenticatedError("its `iss` and its `sub` must be the client's id")
    aud = claims.get("aud")
    named = aud if isinstance(aud, list) else [aud]
    if not named or not all(isinstance(one, str) and one in audiences for one in named):
        raise AudienceError("the client assertion must be for this server alone", help="make its `aud` the issuer")
    expires, jti = jwt.moment(claims, "exp", UnauthenticatedError), claims.get("jti")
    if now >= expires:
        raise UnauthenticatedError("it has expired")
    if expires > now + longest:
        raise UnauthenticatedError(f"it must end within {int(longest.total_seconds())} seconds")
    for name in ("nbf", "iat"):
        if name in claims and jwt.moment(claims, name, UnauthenticatedError) > now + SKEW:
            raise UnauthenticatedError(
                "it does not count yet", help="compare the clocks of the client and of this host"
            )
    if not isinstance(jti, str) or not _JTI.fullmatch(jti):
        raise UnauthenticatedError("its `jti` must be 8 to 256 printable characters")
    return ClientAssertion(read, client, jti, expires)
