"""Signing keys in sealed files, and their rotation with an overlap.

A keyring is ``<purpose>.<n>.key`` in one directory, each a sealed PKCS #8; the highest number signs. A key that signs
no more leaves ``<purpose>.<n>.pub``, its sealed public half and until when it is published, so that what it signed
still verifies; its private half is removed. The ``.pub`` is written first: a key that has one is retired, and whoever
opens the ring after a crash finishes the rotation before anything is signed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from remit.errors import ConflictError, IntegrityError, NotFoundError
from remit.jose.keys import PublishedKey
from remit.keys.file import private_directory, read_private, sync_directory, write_private
from remit.ports import Clock, Sealer

RSA_BITS = 2048  # NIST SP 800-57: to the end of 2030; what federating clouds all take
RSA_EXPONENT = 65_537

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey


class FileSigner:
    """A private key in memory: ES256, Ed25519, or RS256 for federation alone, where nothing else is common to all."""

    def __init__(self, key: object) -> None:
        """Sign with ``key``, or raise IntegrityError for a kind that remit does not use."""
        self._key: ECKey | OKPKey | RSAKey
        match key:
            case ec.EllipticCurvePrivateKey() if isinstance(key.curve, ec.SECP256R1):
                self.alg, self._key = "ES256", ECKey.import_key(key)
            case ed25519.Ed25519PrivateKey():
                self.alg, self._key = "Ed25519", OKPKey.import_key(key)
            case rsa.RSAPrivateKey() if key.key_size >= RSA_BITS:
                self.alg, self._key = "RS256", RSAKey.import_key(key)
            case _:
                raise IntegrityError("a signing key is of a kind that remit does not use")
        self.kid = self._key.thumbprint()
        self._jwk = {**public_jwk(self._key), "kid": self.kid, "alg": self.alg, "use": "sig"}

    @classmethod
    def load(cls, encoded: bytes) -> FileSigner:
        """Return the signer of a private key in PKCS #8, DER."""
        return cls(serialization.load_der_private_key(encoded, None))

    def sign(self, data: bytes) -> bytes:
        """Return the signature in JOSE form."""
        return JWSRegistry.algorithms[self.alg].sign(data, self._key)

    def public_jwk(self) -> Mapping[str, str]:
        """Return the public key as a JWK."""
        return {**self._jwk}


def public_jwk(key: ECKey | OKPKey | RSAKey) -> Mapping[str, str]:
    """Return a key as a public JWK without anything beside the key."""
    return {"kty": key.key_type, **{name: str(value) for name, value in key.as_dict(private=False).items()}}


_GENERATE: Mapping[str, Callable[[], PrivateKey]] = {
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
    "RS256": lambda: rsa.generate_private_key(RSA_EXPONENT, RSA_BITS),
}


def generate(alg: str) -> bytes:
    """Return a new private key as PKCS #8, DER."""
    return _GENERATE[alg]().private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


@dataclass(frozen=True, slots=True)
class _Retired:
    """A key that signs no more: its public JWK, and when it stops being published; None: never by itself."""

    number: int
    jwk: Mapping[str, str]
    until: datetime | None


def _wall() -> datetime:
    return datetime.now(UTC)


class FileKeyring:
    """The signing keys of one purpose, sealed in files. The first key is made when the ring is opened empty."""

    def __init__(
        self,
        directory: Path,
        sealer: Sealer,
        purpose: str,
        alg: str,
        *,
        overlap: timedelta | None = None,
        clock: Clock = _wall,
    ) -> None:
        """Open the ring in ``directory`` (made with mode 0700); ``alg`` is what new keys are for.

        ``overlap`` is how long a retired key is published: as long as anything that it signed is good. None: for good.
        """
        self._directory, self._sealer, self._purpose, self._alg = directory, sealer, purpose, alg
        self._overlap, self._clock = overlap, clock
        private_directory(directory)
        if not self._numbers("key"):
            self._make(max(self._numbers("pub"), default=0) + 1)
        self._take()

    @property
    def signer(self) -> FileSigner:
        """The key that signs now."""
        return self._signer

    def public_jwks(self) -> list[Mapping[str, str]]:
        """Return the public keys to verify with, the signing one first."""
        return [self._signer.public_jwk(), *(key.jwk for key in self._valid())]

    def published(self) -> list[PublishedKey]:
        """Describe the keys to verify with, the signing one first."""
        retired = (
            PublishedKey(key.jwk["kid"], key.jwk["alg"], signing=False, until=key.until) for key in self._valid()
        )
        return [PublishedKey(self._signer.kid, self._signer.alg), *retired]

    # -- changing -----------------------------------------------------------------------------------------------

    def rotate(self) -> FileSigner:
        """Make a new key sign; the one before it is published until nothing that it signed is good any more.

        ConflictError while one before that still is: of two keys, what they signed is never cut short by rotating.
        """
        waiting = max((key.until for key in self._valid() if key.until is not None), default=None)
        if waiting is not None:
            raise ConflictError(
                "the key was rotated a moment ago, and what the one before it signed is still good",
                help=f"rotate again after {waiting:%H:%M:%S} UTC; a key that somebody else may have is to be revoked",
            )
        self._retire(None if self._overlap is None else self._clock() + self._overlap)
        return self.signer

    def revoke(self, kid: str) -> None:
        """Publish a key no longer: what it signed is worth nothing from now on. NotFoundError for a key not of here.

        If it is the one that signs, a new one does.
        """
        if kid == self._signer.kid:
            self._retire(self._clock())
            return
        found = [key for key in self._retired if key.jwk["kid"] == kid]
        if not found:
            raise NotFoundError("there is no such key in this ring")
        self._remove([self._path(found[0].number, "pub")])
        self._take()

    def prune(self) -> None:
        """Stop publishing what nothing needs any more."""
        if len(self._valid()) < len(self._retired):
            self._take()

    # -- inside -------------------------------------------------------------------------------------------------

    def _valid(self) -> list[_Retired]:
        now = self._clock()
        return [key for key in self._retired if key.until is None or now < key.until]

    def _retire(self, until: datetime | None) -> None:
        """Write the public half of the signing key, make a new key, remove the private half: in this order."""
        number = max(self._numbers("key"))
        if number in self._numbers("pub"):  # an attempt that failed half-way: what it revoked stays revoked
            before = self._opened(number).until
            until = min((end for end in (before, until) if end is not None), default=None)
        self._note(number, self._signer.public_jwk(), until)
        self._take()

    def _take(self) -> None:
        """Finish what was begun, remove what is not published any more, and read what is left."""
        numbers, retired = self._numbers("key"), self._numbers("pub")
        if numbers[0] in retired:
            self._make(numbers[0] + 1)
            numbers = self._numbers("key")
        signer = self._read(numbers[0])
        self._remove([self._path(number, "key") for number in numbers[1:] if number in retired])
        for number in self._numbers("key")[1:]:  # of a version that left no public half
            self._note(number, self._read(number).public_jwk(), self._end())
            self._remove([self._path(number, "key")])
        self._signer = signer
        self._retired = [self._opened(number) for number in self._numbers("pub")]
        kept = self._valid()
        self._remove([self._path(key.number, "pub") for key in self._retired if key not in kept])
        self._retired = kept

    def _end(self) -> datetime | None:
        return None if self._overlap is None else self._clock() + self._overlap

    def _numbers(self, kind: str) -> list[int]:
        pattern = re.compile(rf"{self._purpose}\.([1-9][0-9]*)\.{kind}")
        named = (pattern.fullmatch(file.name) for file in self._directory.iterdir())
        return sorted((int(name[1]) for name in named if name), reverse=True)

    def _path(self, number: int, kind: str) -> Path:
        return self._directory / f"{self._purpose}.{number}.{kind}"

    def _remove(self, paths: list[Path]) -> None:
        for path in paths:
            path.unlink(missing_ok=True)
        if paths:
            sync_directory(self._directory)

    def _associated(self, number: int, kind: str = "signer") -> bytes:
        return f"{kind}\n{self._purpose}\n{number}".encode()

    def _make(self, number: int) -> None:
        write_private(self._path(number, "key"), self._sealer.seal(generate(self._alg), self._associated(number)))

    def _read(self, number: int) -> FileSigner:
        encoded = self._sealer.open(read_private(self._path(number, "key")), self._associated(number))
        return FileSigner.load(encoded)

    def _note(self, number: int, jwk: Mapping[str, str], until: datetime | None) -> None:
        document = json.dumps({"jwk": dict(jwk), "until": None if until is None else until.isoformat()}).encode()
        sealed = self._sealer.seal(document, self._associated(number, "retired"))
        self._remove([self._path(number, "pub")])
        write_private(self._path(number, "pub"), sealed)

    def _opened(self, number: int) -> _Retired:
        sealed = read_private(self._path(number, "pub"))
        found = json.loads(self._sealer.open(sealed, self._associated(number, "retired")))
        until = found["until"]
        return _Retired(number, found["jwk"], None if until is None else datetime.fromisoformat(until))
