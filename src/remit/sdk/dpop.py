"""A key held in this process, and proofs made with it (RFC 9449). Only the public key leaves the process."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

_WIDTH = 32  # octets of a P-256 coordinate, RFC 7518 §3.4


class DPoPKey:
    """An ES256 key. It does not print, copy or pickle."""

    __slots__ = ("_clock", "_jwk", "_private")

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        """Make a fresh key; ``clock`` returns seconds since 1970."""
        from cryptography.hazmat.primitives.asymmetric import ec

        self._private = ec.generate_private_key(ec.SECP256R1())
        numbers = self._private.public_key().public_numbers()
        x, y = (base64url(number.to_bytes(_WIDTH, "big")) for number in (numbers.x, numbers.y))
        self._jwk = {"crv": "P-256", "kty": "EC", "x": x, "y": y}
        self._clock = clock

    def jwk(self) -> Mapping[str, str]:
        """Return the public key."""
        return dict(self._jwk)

    def thumbprint(self) -> str:
        """Return the RFC 7638 thumbprint."""
        return base64url(hashlib.sha256(_json(self._jwk)).digest())

    def now(self) -> float:
        """Return the time that proofs carry."""
        return self._clock()

    def proof(self, method: str, url: str, *, token: str | None = None, nonce: str | None = None) -> str:
        """Return a DPoP proof for one request; query and fragment are left out of ``htu``."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec, utils

        htu = url.partition("#")[0].partition("?")[0]
        claims = {"jti": secrets.token_urlsafe(16), "htm": method, "htu": htu, "iat": int(self._clock())}
        if token is not None:
            claims["ath"] = base64url(hashlib.sha256(token.encode("ascii")).digest())
        if nonce is not None:
            claims["nonce"] = nonce
        header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": self._jwk}
        text = f"{base64url(_json(header))}.{base64url(_json(claims))}"
        r, s = utils.decode_dss_signature(self._private.sign(text.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{text}.{base64url(r.to_bytes(_WIDTH, 'big') + s.to_bytes(_WIDTH, 'big'))}"

    def __repr__(self) -> str:
        return f"DPoPKey({self.thumbprint()})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key is not serialisable")


def base64url(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()
