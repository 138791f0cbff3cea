"""Compact JWS, read strictly before the library sees it, and public keys read just as strictly. Pure.

Libraries accept more than one spelling of one token: padding, spare bits, duplicate members (Wycheproof tcId 367,
370). Here a text is accepted in its one canonical form only; of its header nothing but listed members is looked at,
so that ``jku`` and ``x5c`` have no meaning at all; what changes how it is to be read refuses it; and the key decides on
the algorithm, never the token alone.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import sha256

from joserfc.errors import JoseError
from joserfc.jwk import ECKey, OKPKey
from joserfc.jws import JWSRegistry

from remit.errors import RemitError, TokenError
from remit.jose.strict import read_json

MAX_TOKEN = 32_768  # characters
ALGORITHMS = {"EC": frozenset({"ES256"}), "OKP": frozenset({"Ed25519", "EdDSA"})}  # EdDSA: RFC 9864 deprecates the name
CHALLENGE = " ".join(sorted(frozenset().union(*ALGORITHMS.values())))  # `algs` of a challenge, RFC 9449 §7.1

CHANGING = frozenset({"crit", "b64", "zip"})  # who ignores these reads another token than was signed

_SEGMENT = re.compile(r"[A-Za-z0-9_-]+")
_PUBLIC = {"EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
_CURVES = {"EC": "P-256", "OKP": "Ed25519"}
_ABOUT = frozenset({"kty", "kid", "use", "alg", "key_ops"})
_OCTETS = 32  # of a coordinate


@dataclass(frozen=True, slots=True)
class Compact:
    """A JWS in compact form, well formed but not verified."""

    header: Mapping[str, object]
    payload: bytes
    signed: bytes
    signature: bytes


@dataclass(frozen=True, slots=True)
class PublicKey:
    """A key that can verify. ``thumbprint`` is RFC 7638 with SHA-256."""

    kty: str
    thumbprint: str
    key: ECKey | OKPKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """A key to verify with. ``until`` is when it stops being published; None: not decided, or for good."""

    kid: str
    alg: str
    signing: bool = True
    until: datetime | None = None


def encode(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def decode(text: str) -> bytes:
    """Return the bytes of canonical base64url without padding, or raise ValueError."""
    whole = _SEGMENT.fullmatch(text) and len(text) % 4 != 1
    data = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) if whole else b""
    if not data or encode(data) != text:
        raise ValueError("not canonical base64url")
    return data


def digest(text: str) -> str:
    """Return the SHA-256 of text, base64url (``ath``, ``par_hash``, ``purpose_s256``)."""
    return encode(sha256(text.encode("utf-8", "surrogatepass")).digest())


def read(text: str, members: frozenset[str], error: type[RemitError] = TokenError, *, others: bool = False) -> Compact:
    """Return a compact JWS whose header has ``members`` only, or raise ``error``.

    With ``others`` it may have more, of which nothing is looked at (RFC 7515 §4): for what others make.
    """
    parts = text.split(".") if len(text) <= MAX_TOKEN else []
    if len(parts) != 3:  # noqa: PLR2004 - RFC 7515 §7.1
        raise error("it is not a compact JWS")
    try:
        header, payload, signature = (decode(part) for part in parts)
    except ValueError:
        raise error("it is not canonical base64url") from None
    signed = text[: -len(parts[2]) - 1].encode("ascii")
    return Compact(_header(document(header, error), members, error, others=others), payload, signed, signature)


def _header(
    header: Mapping[str, object], members: frozenset[str], error: type[RemitError], *, others: bool
) -> Mapping[str, object]:
    if others and not header.keys() & CHANGING:
        header = {name: value for name, value in header.items() if name in members}
    if not header.keys() <= members:
        raise error("its header has a member that is not accepted here")
    if not all(isinstance(value, str) for name, value in header.items() if name != "jwk"):
        raise error("its header has a member that is not text")
    return header


def document(raw: bytes, error: type[RemitError]) -> Mapping[str, object]:
    """Return a strictly read JSON object, or raise ``error``."""
    try:
        value = read_json(raw)
    except RemitError:
        raise error("it does not hold strict JSON") from None
    if not isinstance(value, dict):
        raise error("it does not hold a JSON object")
    return value


def public_key(jwk: object, error: type[RemitError] = TokenError) -> PublicKey:
    """Return the key of a public JWK: P-256 or Ed25519, nothing private, nothing unknown; or raise ``error``."""
    kty = jwk.get("kty") if isinstance(jwk, Mapping) else None
    if not isinstance(jwk, Mapping) or not isinstance(kty, str) or jwk.get("crv", "") != _CURVES.get(kty):
        raise error("the key must be a public JWK on P-256 or Ed25519")
    if not jwk.keys() <= _ABOUT | set(_PUBLIC[kty]):
        raise error("the key must be a public JWK without private or unknown members")
    if not _for_signatures(jwk, kty):
        raise error("the key is not meant for signatures")
    try:
        return _loaded(kty, *(jwk.get(name) for name in _PUBLIC[kty][1:]))
    except (ValueError, TypeError, JoseError):
        raise error("the key is not a point on its curve in canonical form") from None


def _for_signatures(jwk: Mapping[str, object], kty: str) -> bool:
    algorithm = jwk.get("alg")
    named = algorithm is None or (isinstance(algorithm, str) and algorithm in ALGORITHMS[kty])
    return named and jwk.get("key_ops", ["verify"]) == ["verify"] and jwk.get("use", "sig") == "sig"


def _coordinate(value: object) -> str:
    if not isinstance(value, str) or len(decode(value)) != _OCTETS:
        raise ValueError("not a coordinate")
    return value


@lru_cache(maxsize=4_096)
def _loaded(kty: str, *coordinates: object) -> PublicKey:
    named = dict(zip(_PUBLIC[kty][1:], map(_coordinate, coordinates), strict=True))
    jwk: dict[str, str | list[str]] = {"kty": kty, "crv": _CURVES[kty], **named}
    key = ECKey.import_key(jwk) if kty == "EC" else OKPKey.import_key(jwk)
    key.get_op_key("verify")  # loads, and refuses a point off the curve
    return PublicKey(kty, key.thumbprint(), key)


def verify(compact: Compact, key: PublicKey, error: type[RemitError] = TokenError) -> None:
    """Check the signature, by an algorithm of the key; raise ``error`` if it does not hold."""
    algorithm = compact.header.get("alg")
    if algorithm not in ALGORITHMS[key.kty]:
        raise error("its algorithm is not one of this key")
    if not JWSRegistry.algorithms[str(algorithm)].verify(compact.signed, compact.signature, key.key):
        raise error("its signature does not hold")
