"""JWT-SVIDs (JWT-SVID §2 to §4): verified against the keys of the one trust domain that the broker is."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from remit import jose
from remit.core import spiffe
from remit.errors import AudienceError, InvalidRequestError, TokenError
from remit.jose.keys import KeySet

HEADER = frozenset({"alg", "kid", "typ"})  # and no other, JWT-SVID §2
TYPES = frozenset({"JWT", "JOSE"})


def verify(token: str, audience: str, keys: KeySet, trust_domain: str, now: datetime) -> Mapping[str, object]:
    """Return the claims of a JWT-SVID; TokenError when it does not hold, AudienceError when it is for others."""
    compact = jose.read(token, HEADER)
    if "kid" not in compact.header or compact.header.get("typ", "JWT") not in TYPES:
        raise TokenError("it is not signed by a key of this trust domain")
    keys.verify(compact)
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
