"""JWT-SVIDs (SPIFFE JWT-SVID) of the broker's own trust domain, as whoever validates them reads them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from remit import jose
from remit.core import spiffe
from remit.errors import AudienceError, InvalidRequestError, TokenError
from remit.jose.keys import KeySet

HEADER = frozenset({"alg", "kid", "typ"})  # of a JWT-SVID, and no other (JWT-SVID §2)
TYPES = frozenset({"JWT", "JOSE"})


def verify(token: str, audience: str, keys: KeySet, trust_domain: str, now: datetime) -> Mapping[str, object]:
    """Return the claims of a JWT-SVID (JWT-SVID §2 to §4), or raise TokenError; AudienceError when it is for others."""
    compact = jose.read(token, HEADER)
    if "kid" not in compact.header or compact.header.get("typ", "JWT") not in TYPES:
        raise TokenError("it is not signed by a key of this trust domain")
    keys.verify(compact)
    claims = jose.document(compact.payload, TokenError)
    end, subject, audiences = claims.get("exp"), claims.get("sub"), claims.get("aud")
    if not isinstance(end, int) or isinstance(end, bool) or now.timestamp() >= end:
        raise TokenError("it has expired")
    try:
        named = spiffe.parse(subject) if isinstance(subject, str) else None
    except InvalidRequestError:
        named = None
    if named is None or named.domain != trust_domain:
        raise TokenError("its subject is not of this trust domain")
    if audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise AudienceError
    return claims
