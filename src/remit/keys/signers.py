"""Signing keys in sealed files, and their rotation with an overlap.

A keyring is ``<purpose>.<n>.key`` in one directory, each a sealed PKCS #8. The highest number signs; it and the one
before it are published, so that what was signed just before a rotation still verifies.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from remit.errors import IntegrityError
from remit.keys.file import private_directory, read_private, sync_directory, write_private
from remit.ports import Sealer

PUBLISHED = 2  # keys: the one that signs, and the one before it

RSA_BITS = 2048  # NIST SP 800-57: to the end of 2030; what federating clouds all take
RSA_EXPONENT = 65_537

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


def thumbprint(jwk: Mapping[str, str]) -> str:
    """Return the RFC 7638 SHA-256 thumbprint of a public JWK, base64url."""
    required = {name: jwk[name] for name in ("crv", "e", "kty", "n", "x", "y") if name in jwk}
    return _b64(sha256(json.dumps(required, sort_keys=True, separators=(",", ":")).encode()).digest())


class ES256:
    """ECDSA on P-256 with SHA-256 (RFC 7518 §3.4)."""

    alg = "ES256"

    @staticmethod
    def public(key: ec.EllipticCurvePublicKey) -> Mapping[str, str]:
        """Return a point on P-256 as a JWK without anything beside the key."""
        point = key.public_numbers()
        x, y = (_b64(number.to_bytes(32, "big")) for number in (point.x, point.y))
        return {"kty": "EC", "crv": "P-256", "x": x, "y": y}

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        """Sign with ``key``."""
        self._key = key
        self._jwk = self.public(key.public_key())
        self.kid = thumbprint(self._jwk)

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature r || s."""
        r, s = decode_dss_signature(self._key.sign(data, ec.ECDSA(SHA256())))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def public_jwk(self) -> Mapping[str, str]:
        """Return the public key as a JWK."""
        return {**self._jwk, "kid": self.kid, "alg": self.alg, "use": "sig"}


class Ed25519:
    """EdDSA on Curve25519 (RFC 8037; RFC 9864 names the algorithm)."""

    alg = "Ed25519"

    def __init__(self, key: ed25519.Ed25519PrivateKey) -> None:
        """Sign with ``key``."""
        self._key = key
        self._jwk = {"kty": "OKP", "crv": "Ed25519", "x": _b64(key.public_key().public_bytes_raw())}
        self.kid = thumbprint(self._jwk)

    def sign(self, data: bytes) -> bytes:
        """Return the 64-byte signature."""
        return self._key.sign(data)

    def public_jwk(self) -> Mapping[str, str]:
        """Return the public key as a JWK."""
        return {**self._jwk, "kid": self.kid, "alg": self.alg, "use": "sig"}


class RS256:
    """RSASSA-PKCS1-v1_5 with SHA-256 (RFC 7518 §3.3): for federation alone, where nothing else is common to all."""

    alg = "RS256"

    def __init__(self, key: rsa.RSAPrivateKey) -> None:
        """Sign with ``key``."""
        self._key = key
        public = key.public_key().public_numbers()
        self._jwk = {"kty": "RSA", "n": _b64(_octets(public.n)), "e": _b64(_octets(public.e))}
        self.kid = thumbprint(self._jwk)

    def sign(self, data: bytes) -> bytes:
        """Return the signature, as long as the modulus."""
        return self._key.sign(data, padding.PKCS1v15(), SHA256())

    def verify(self, signature: bytes, data: bytes) -> None:
        """Raise cryptography's InvalidSignature unless ``signature`` is this key's over ``data``."""
        self._key.public_key().verify(signature, data, padding.PKCS1v15(), SHA256())

    def public_jwk(self) -> Mapping[str, str]:
        """Return the public key as a JWK."""
        return {**self._jwk, "kid": self.kid, "alg": self.alg, "use": "sig"}


FileSigner = ES256 | Ed25519 | RS256


def signer_of(key: object) -> FileSigner:
    """Return the signer for a private key, or raise IntegrityError for a kind that remit does not use."""
    match key:
        case ec.EllipticCurvePrivateKey() if isinstance(key.curve, ec.SECP256R1):
            return ES256(key)
        case ed25519.Ed25519PrivateKey():
            return Ed25519(key)
        case rsa.RSAPrivateKey() if key.key_size >= RSA_BITS:
            return RS256(key)
    raise IntegrityError("a signing key is of a kind that remit does not use")


MAKERS: Mapping[str, Callable[[], PrivateKey]] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RS256": lambda: rsa.generate_private_key(RSA_EXPONENT, RSA_BITS),
}


class FileKeyring:
    """The signing keys of one purpose, sealed in files. The first key is made when the ring is opened empty."""

    def __init__(self, directory: Path, sealer: Sealer, purpose: str, alg: str) -> None:
        """Open the ring in ``directory`` (made with mode 0700); ``alg`` is what new keys are for."""
        self._directory, self._sealer, self._purpose, self._alg = directory, sealer, purpose, alg
        private_directory(directory)
        if not self._numbers():
            self._make(1)
        self._signers = self._load()

    @property
    def signer(self) -> FileSigner:
        """The key that signs now."""
        return self._signers[0]

    def public_jwks(self) -> list[Mapping[str, str]]:
        """Return the public keys to verify with, the signing one first."""
        return [signer.public_jwk() for signer in self._signers]

    def rotate(self) -> FileSigner:
        """Make a new key sign; the one before it is still published, older ones are removed."""
        numbers = self._numbers()
        self._make(numbers[0] + 1)
        for number in numbers[PUBLISHED - 1 :]:
            self._path(number).unlink()
        sync_directory(self._directory)
        self._signers = self._load()
        return self.signer

    def _load(self) -> list[FileSigner]:
        return [self._read(number) for number in self._numbers()[:PUBLISHED]]

    def _numbers(self) -> list[int]:
        named = (re.fullmatch(rf"{self._purpose}\.([1-9][0-9]*)\.key", file.name) for file in self._directory.iterdir())
        return sorted((int(name[1]) for name in named if name), reverse=True)

    def _path(self, number: int) -> Path:
        return self._directory / f"{self._purpose}.{number}.key"

    def _associated(self, number: int) -> bytes:
        return f"signer\n{self._purpose}\n{number}".encode()

    def _make(self, number: int) -> None:
        encoded = MAKERS[self._alg]().private_bytes(
            serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        write_private(self._path(number), self._sealer.seal(encoded, self._associated(number)))

    def _read(self, number: int) -> FileSigner:
        encoded = self._sealer.open(read_private(self._path(number)), self._associated(number))
        return signer_of(serialization.load_der_private_key(encoded, None))


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


def _b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
