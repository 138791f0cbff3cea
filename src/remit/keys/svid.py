"""JWT-SVIDs (JWT-SVID §2 to §4): verified against the keys of the one trust domain that the broker is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from cryptography.exceptions import InvalidSignature

from remit import jose
from remit.core import spiffe
from remit.errors import AudienceError, InvalidRequestError, TokenError
from remit.keys.signers import RS256

HEADER = frozenset({"alg", "kid", "typ"})  # and no other, JWT-SVID §2
TYPES = frozenset({"JWT", "JOSE"})


def verify(
    token: str, audience: str, keys: Mapping[str, RS256], trust_domain: str, now: datetime
) -> Mapping[str, object]:
    """Return the claims of a JWT-SVID; TokenError when it does not hold, AudienceError when it is for others."""
    compact = jose.read(token, HEADER)
    key = keys.get(str(compact.header.get("kid")))
    if key is None or compact.header.get("alg") != key.alg or compact.header.get("typ", "JWT") not in TYPES:
        raise TokenError("it is not signed by a key of this trust domain")
    try:
        key.verify(compact.signature, compact.signed)
    except InvalidSignature:
        raise TokenError("its signature does not hold") from None
    claims = jose.document(compact.payload, TokenError)
    _check(claims, trust_domain, now)
    if audience not in _audiences(claims.get("aud")):
        raise AudienceError
    return claims


def _check(claims: Mapping[str, object], trust_domain: str, now: datetime) -> None:
    end, subject = claims.get("exp"), claims.get("sub")
    if not isinstance(end, int) or isinstance(end, bool) or now.timestamp() >= end:
        raise TokenError("it has expired")
    try:
        named = spiffe.parse(subject) if isinstance(subject, str) else None
    except InvalidRequestError:
        named = None
    if named is None or named.domain != trust_domain:
        raise TokenError("its subject is not of this trust domain")


def _audiences(claim: object) -> list[object]:
    return claim if isinstance(claim, list) else [claim]
