"""Proof of possession: RFC 9449 (DPoP), its twelve checks, and nonces that need no memory. Pure.

Replay is the caller's to see: a proof that holds has a ``jti`` and an ``iat`` to remember it by.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from urllib.parse import urlsplit

from remit import jose
from remit.errors import NonceRequiredError, ProofError

MAX_AGE = 60  # seconds, RFC 9449 §11.1
SKEW = 10  # seconds that the clock of whoever makes a proof may be off by (FAPI 2.0 §5.3.2.1)
NONCE_LIFE = 60  # seconds of one nonce; the one before is accepted too
TYPE = "dpop+jwt"

_HEADER = frozenset({"typ", "alg", "jwk"})
_JTI = re.compile(r"[!-~]{8,128}")
_MAX_URL = 2_048
_PORTS = {"http": 80, "https": 443}
_UNRESERVED = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_BAD_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True, slots=True)
class Proof:
    """A proof that holds, but may be a replay. ``iat`` is in seconds since the epoch."""

    jkt: str
    jti: str
    iat: int


@dataclass(frozen=True, slots=True)
class Nonces:
    """Nonces made from the time and a key. A new key, as after a restart, voids all proofs made before.

    One that ``turned`` takes those of the key before it, too, so that proofs under way count.
    """

    key: bytes
    last: bytes | None = None

    def turned(self, fresh: bytes) -> Nonces:
        return Nonces(fresh, self.key)

    def at(self, now: int) -> str:
        """Return the nonce to use now."""
        return _nonce(self.key, now // NONCE_LIFE)

    def good(self, nonce: str, now: int) -> bool:
        """Whether a nonce is this period's or the last one's."""
        slot = now // NONCE_LIFE
        given = nonce.encode("utf-8", "replace")
        keys = (self.key,) if self.last is None else (self.key, self.last)
        return any(hmac.compare_digest(given, _nonce(key, at).encode()) for key in keys for at in (slot, slot - 1))


@lru_cache(maxsize=8)
def _nonce(key: bytes, slot: int) -> str:
    return jose.encode(hmac.digest(key, b"remit nonce %d" % slot, sha256)[:16])


@dataclass(frozen=True, slots=True)
class Expected:
    """What a proof must be for: this request, this moment, and this token if there is one."""

    method: str
    url: str
    now: int
    nonces: Nonces
    token: str | None = None


def read(texts: Sequence[str], expected: Expected) -> Proof:
    """Return what the proof in the ``DPoP`` header values proves, or raise ProofError."""
    if len(texts) != 1 or not texts[0]:
        raise ProofError(
            "there must be exactly one proof",
            help="send a `DPoP` header by the key of the token (RFC 9449), or use a TLS client certificate",
        )
    compact = jose.read(texts[0], _HEADER, ProofError, others=True)
    if compact.header.get("typ") != TYPE:
        raise ProofError("it is not a proof of possession")
    key = jose.public_key(compact.header.get("jwk"), ProofError)
    key.verify(compact, ProofError)
    claims = jose.document(compact.payload, ProofError)
    jti, iat = claims.get("jti"), claims.get("iat")
    if not isinstance(jti, str) or not _JTI.fullmatch(jti):
        raise ProofError("its `jti` must be 8 to 128 printable characters")
    if not isinstance(iat, int) or isinstance(iat, bool) or iat < 0:
        raise ProofError("its `iat` must be a whole number")
    if claims.get("htm") != expected.method:
        raise ProofError("its `htm` is not the method of this request")
    if not same_target(claims.get("htu"), expected.url):
        raise ProofError("its `htu` is not the target of this request")
    if expected.token is not None and claims.get("ath") != jose.digest(expected.token):
        raise ProofError("its `ath` is not the digest of the token")
    _check_time(claims, iat, expected)
    return Proof(key.thumbprint, jti, iat)


def _check_time(claims: Mapping[str, object], iat: int, expected: Expected) -> None:
    if not -MAX_AGE - SKEW <= iat - expected.now <= SKEW:
        raise ProofError("its `iat` is not now", help="check the clock")
    nonce = claims.get("nonce")
    if not isinstance(nonce, str) or not expected.nonces.good(nonce, expected.now):
        raise NonceRequiredError(help="make the proof again with the nonce of the `DPoP-Nonce` header")


def same_target(given: object, url: str) -> bool:
    """Whether ``htu`` names the target of a request: equal after RFC 3986 §6.2.2 and §6.2.3, query apart."""
    if not isinstance(given, str) or len(given) > _MAX_URL:
        return False
    if given == url:
        return True
    try:
        return _normal(given) == _normal(url)
    except ValueError:
        return False


def _normal(url: str) -> tuple[str, str, int | None, str]:
    if not url.isascii() or not url.isprintable() or " " in url or "\\" in url or _BAD_ESCAPE.search(url):
        raise ValueError
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None or not parts.hostname or not parts.scheme:
        raise ValueError
    port = _PORTS.get(parts.scheme) if parts.port is None else parts.port
    return parts.scheme, parts.hostname, port, _path(parts.path)  # urlsplit has lowered scheme and host


def _path(path: str) -> str:
    """Apply RFC 3986 §6.2.2.2 (escapes) and §5.2.4 (dot segments)."""
    done: list[str] = []
    segments = _ESCAPE.sub(_escape, path or "/").split("/")[1:]
    for index, segment in enumerate(segments):
        if segment == "..":
            done = done[:-1]
        if segment not in {".", ".."}:
            done.append(segment)
        elif index == len(segments) - 1:
            done.append("")
    return "/" + "/".join(done)


def _escape(found: re.Match[str]) -> str:
    octet = int(found[1], 16)
    return chr(octet) if octet in _UNRESERVED else f"%{found[1].upper()}"
