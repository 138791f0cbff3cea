"""Workload proof tokens (draft-ietf-wimse-wpt): that whoever sends a workload identity token has its key.

Replay is the caller's to see: a proof that holds has a ``jti`` and an end to remember it by.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from remit import jose
from remit.errors import AudienceError, TokenError
from remit.jose.proof import SKEW, same_target

TYPE = "wpt+jwt"
MAX_LIFE = 300  # seconds that the end may be away
_HEADER = frozenset({"typ", "alg"})
_JTI = re.compile(r"[!-~]{16,256}")
_UNKNOWN = ("tth", "oth")  # what they cover is nothing that is understood here


@dataclass(frozen=True, slots=True)
class Wpt:
    """A proof that holds, but may be a replay until `SKEW` after ``exp`` (seconds). ``jkt`` is its key's thumbprint."""

    jkt: str
    jti: str
    exp: int


@dataclass(frozen=True, slots=True)
class Expected:
    """What a proof must be for: this target (our own name of it), this moment, this WIT, and this token if any."""

    target: str
    now: int
    wit: str
    token: str | None = None


def read(text: str, jwk: object, expected: Expected) -> Wpt:
    """Return what a proof by ``jwk`` (``cnf.jwk`` of the WIT) proves; TokenError, or AudienceError for another target.

    The checks are those of the draft, in its order.
    """
    compact = jose.read(text, _HEADER, others=True)
    claims = jose.document(compact.payload, TokenError)
    algorithm = jwk.get("alg") if isinstance(jwk, Mapping) else None
    if algorithm is None or compact.header.get("alg") != algorithm:
        raise TokenError("the proof's algorithm is not the one of the workload's key")
    key = jose.public_key(jwk)
    key.verify(compact)
    if compact.header.get("typ") != TYPE:
        raise TokenError("the proof is not a workload proof token")
    if not same_target(claims.get("aud"), expected.target):
        raise AudienceError("the proof is for another target")
    exp = _end(claims, expected.now)
    if claims.get("wth") != jose.digest(expected.wit):
        raise TokenError("the proof is for another workload identity token")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not _JTI.fullmatch(jti):
        raise TokenError("the proof's `jti` must be 16 to 256 printable characters")
    _check_covered(claims, expected.token)
    return Wpt(key.thumbprint, jti, exp)


def _end(claims: Mapping[str, object], now: int) -> int:
    exp = claims.get("exp")
    if not isinstance(exp, int) or isinstance(exp, bool) or not now - SKEW < exp <= now + MAX_LIFE + SKEW:
        raise TokenError(f"the proof must end within {MAX_LIFE} seconds, and not have ended", help="check the clock")
    return exp


def _check_covered(claims: Mapping[str, object], token: str | None) -> None:
    """Refuse a token that is not covered, and a proof that covers what is not there or not understood."""
    if any(name in claims for name in _UNKNOWN):
        raise TokenError("the proof covers what is not understood here")
    if claims.get("ath") != (None if token is None else jose.digest(token)):
        raise TokenError("the proof's `ath` is not the digest of the token it comes with")
