"""JWTs that others sign (RFC 7519), and their claims. Pure.

Whoever calls says which types, algorithms and audiences count; the token never does. What of its header points at keys
(``jku``, ``jwk``, ``x5c``, ``x5u``) or is private is never looked at (RFC 7515 §4).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from remit import jose
from remit.errors import AudienceError, InvalidRequestError, RemitError, TokenError
from remit.jose.compact import Compact
from remit.jose.keys import ALGORITHMS

SKEW = timedelta(seconds=60)  # that the clock of whoever signs for others may be off by, and no more
MAX_TEXT = 2_048  # characters of a claim that names something
MAX_NAME = 200  # characters of a claim's name

_HEADER = frozenset({"alg", "kid", "typ"})
_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])+)+")
_LAST = 253_402_300_799  # the last second of the year 9999


@dataclass(frozen=True, slots=True)
class JwtProfile:
    """What a caller takes. ``types`` are values of ``typ`` in lower case, without ``application/``; "" if absent."""

    types: frozenset[str]
    algorithms: frozenset[str] = ALGORITHMS
    error: type[RemitError] = TokenError


@dataclass(frozen=True, slots=True)
class Jwt:
    """A JWT of somebody else, well formed, and not verified before `KeySet.verify` has returned it."""

    compact: Compact
    claims: Mapping[str, object]
    alg: str
    kid: str | None

    @property
    def digest(self) -> str:
        """What names this token once and for all: SHA-256 of what is signed, base64url."""
        # not of the whole text: whoever holds an ECDSA signature can write another one that is as good
        return jose.digest(self.compact.signed.decode("ascii"))


def read(text: str, profile: JwtProfile) -> Jwt:
    """Return a JWT that is well formed by ``profile``, not verified; or raise their error."""
    compact = jose.read(text, _HEADER, profile.error, others=True)
    claims = jose.document(compact.payload, profile.error)
    alg, kid, typ = (compact.header.get(name) for name in ("alg", "kid", "typ"))
    if not isinstance(alg, str) or alg not in profile.algorithms:
        raise profile.error("its algorithm is not one that is accepted here")
    if str(typ or "").lower().removeprefix("application/") not in profile.types:
        raise profile.error("its type is not one that is accepted here")
    return Jwt(compact, claims, alg, kid if isinstance(kid, str) else None)


def text(claims: Mapping[str, object], name: str, error: type[RemitError] = TokenError) -> str:
    """Return a claim that names something: printable, bounded text that is not empty."""
    value = claims.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise error(f"its `{name}` is missing, or not a name")
    return value


def text_or_none(claims: Mapping[str, object], name: str, error: type[RemitError] = TokenError) -> str | None:
    """Return a claim that names something, or None where it is absent."""
    return text(claims, name, error) if name in claims else None


def texts(claims: Mapping[str, object], name: str, error: type[RemitError] = TokenError) -> tuple[str, ...]:
    """Return a claim that is a list of names, or empty where it is absent; one name alone is a list of one."""
    value = claims.get(name, [])
    listed = value if isinstance(value, list) else [value]
    return tuple(text({name: item}, name, error) for item in listed)


def moment(claims: Mapping[str, object], name: str, error: type[RemitError] = TokenError) -> datetime:
    """Return a NumericDate (RFC 7519 §2; fractions are allowed), or raise ``error``."""
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LAST:
        raise error(f"its `{name}` is missing, or not a time")
    return datetime.fromtimestamp(math.floor(value), UTC)


def audience(claims: Mapping[str, object], expected: Iterable[str]) -> str:
    """Return the one audience of a token, if it is one of ``expected``; else raise AudienceError."""
    # a token with several audiences can be shown to us by any of them, so it is taken from nobody
    value = claims.get("aud")
    only = value[0] if isinstance(value, list) and len(value) == 1 else value
    if not isinstance(only, str) or only not in set(expected):
        raise AudienceError
    return only


def window(
    claims: Mapping[str, object], now: datetime, max_age: timedelta, error: type[RemitError] = TokenError
) -> tuple[datetime, datetime]:
    """Return from when and until when a token counts by its issuer's clock, if that is now (but for `SKEW`).

    ``iat`` and ``exp`` are required, ``nbf`` is not. It does not count longer than ``max_age`` after ``iat``.
    """
    issued = moment(claims, "iat", error)
    expires = min(moment(claims, "exp", error), issued + max_age)
    if now >= expires + SKEW:
        raise error("it has expired")
    if now + SKEW < max(issued, moment(claims, "nbf", error) if "nbf" in claims else issued):
        raise error("it does not count yet", help="compare the clocks of the issuer and of this host")
    return issued, expires


def check_claim_name(value: object, what: str) -> str:
    """Return the name of a claim: plain text, or a JSON Pointer from a slash on; or raise InvalidRequestError."""
    whole = isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable()
    if not isinstance(value, str) or not whole or (value.startswith("/") and not _POINTER.fullmatch(value)):
        raise InvalidRequestError(f"{what} is not the name of a claim, nor a JSON Pointer to one")
    return value


def find_claim(claims: Mapping[str, object], name: str) -> object:
    """Return the value of a claim, or None where it is absent. Lists are not entered."""
    if not name.startswith("/"):
        return claims.get(name)
    value: object = claims
    for step in name.split("/")[1:]:
        if not isinstance(value, Mapping):
            return None
        value = value.get(step.replace("~1", "/").replace("~0", "~"))
    return value


def claim_text(value: object) -> str | None:
    """Return a value as the text that rules compare it with, or None where it is none: absent, nested, a fraction."""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if isinstance(value, str | int) else None
