"""Signing keys in sealed files, and their rotation with an overlap.

A keyring is ``<purpose>.<n>.key`` in one directory, each a sealed PKCS #8; the highest number signs. A key that signs
no more leaves ``<purpose>.<n>.pub``, its sealed public half and until when it is published, so that what it signed
still verifies; its private half is removed. The ``.pub`` is written first: a key that has one is retired, and whoever
opens the ring after a crash finishes the rotation before anything is signed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from remit.errors import ConflictError, IntegrityError, NotFoundError
from remit.jose.keys import PublishedKey
from remit.keys.file import SealedFiles
from remit.ports import Clock, Sealer

RSA_BITS = 2048  # NIST SP 800-57: to the end of 2030; what federating clouds all take

JoseKey = ECKey | OKPKey | RSAKey


class FileSigner:
    """A private key in memory: ES256, Ed25519, or RS256 for federation alone, where nothing else is common to all."""

    def __init__(self, key: object) -> None:
        self._key: JoseKey
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
        """Return the signer of a key (PKCS #8, DER) as it was made: to look for mistakes in one of RSA takes 20 ms."""
        return cls(serialization.load_der_private_key(encoded, None, unsafe_skip_rsa_key_validation=True))

    def sign(self, data: bytes) -> bytes:
        return JWSRegistry.algorithms[self.alg].sign(data, self._key)

    def public_jwk(self) -> Mapping[str, str]:
        return {**self._jwk}


def public_jwk(key: JoseKey) -> Mapping[str, str]:
    """Return a key as a public JWK without anything beside the key."""
    return {"kty": key.key_type, **{name: str(value) for name, value in key.as_dict(private=False).items()}}


_GENERATE: Mapping[str, Callable[[], JoseKey]] = {
    "ES256": partial(ECKey.generate_key, "P-256"),
    "Ed25519": partial(OKPKey.generate_key, "Ed25519"),
    "RS256": partial(RSAKey.generate_key, RSA_BITS),
}


def generate(alg: str) -> bytes:
    """Return a new private key as PKCS #8, DER."""
    return _GENERATE[alg]().as_der(private=True)


@dataclass(frozen=True, slots=True)
class _Retired:
    """A key that signs no more: its public JWK, and when it stops being published; None: never by itself."""

    jwk: Mapping[str, str]
    until: datetime | None


class FileKeyring:
    """The signing keys of one purpose, sealed in files; ``signer`` signs now. The first is made when there is none."""

    due = False  # it turns only when it is told to

    def __init__(
        self,
        directory: Path,
        sealer: Sealer,
        purpose: str,
        alg: str,
        *,
        overlap: timedelta | None = None,
        clock: Clock = lambda: datetime.now(UTC),
    ) -> None:
        """Open the ring in ``directory`` (made with mode 0700); ``alg`` is what new keys are for.

        ``overlap`` is how long a retired key is published: as long as anything that it signed is good. None: for good.
        """
        self._alg, self._overlap, self._clock, self._ahead = alg, overlap, clock, list[bytes]()
        self._keys = SealedFiles(directory, sealer, purpose, "signer", "key")
        self._publics = SealedFiles(directory, sealer, purpose, "retired", "pub")
        if not self._keys.numbers():
            self._keys.write(max(self._publics.numbers(), default=0) + 1, generate(alg))
        self._take()

    def public_jwks(self) -> list[Mapping[str, str]]:
        """Return the keys to verify with, the signing one first."""
        return [self.signer.public_jwk(), *(key.jwk for key in self._valid().values())]

    def published(self) -> list[PublishedKey]:
        left = self._valid().values()
        retired = [PublishedKey(key.jwk["kid"], key.jwk["alg"], signing=False, until=key.until) for key in left]
        return [PublishedKey(self.signer.kid, self.signer.alg), *retired]

    def make_ahead(self) -> None:
        """Make the next key, in any thread: one of RSA takes 0.1 to 0.5 seconds."""
        self._ahead = [generate(self._alg)]

    def rotate(self) -> FileSigner:
        """Make a new key sign; the one before it is published until nothing that it signed is good any more.

        ConflictError while one before that still is: of two keys, what they signed is never cut short by rotating.
        """
        waiting = max((key.until for key in self._valid().values() if key.until is not None), default=None)
        if waiting is not None:
            raise ConflictError(
                "the key was rotated a moment ago, and what the one before it signed is still good",
                help=f"rotate again after {waiting:%H:%M:%S} UTC; a key that somebody else may have is to be revoked",
            )
        self._retire(self._end())
        return self.signer

    def revoke(self, kid: str) -> None:
        """Publish a key no longer: what it signed is worth nothing from now on. NotFoundError for a key not of here.

        If it is the one that signs, a new one does.
        """
        if kid == self.signer.kid:
            self._retire(self._clock())
            return
        number = next((number for number, key in self._retired.items() if key.jwk["kid"] == kid), None)
        if number is None:
            raise NotFoundError("there is no such key in this ring")
        self._publics.remove(number)
        self._take()

    def prune(self) -> None:
        if len(self._valid()) < len(self._retired):
            self._take()

    def _valid(self) -> dict[int, _Retired]:
        return {number: key for number, key in self._retired.items() if not key.until or self._clock() < key.until}

    def _end(self) -> datetime | None:
        return None if self._overlap is None else self._clock() + self._overlap

    def _retire(self, until: datetime | None) -> None:
        """Write the public half of the signing key, make a new key, remove the private half: in this order."""
        number = max(self._keys.numbers())
        if number in self._publics.numbers():  # an attempt that failed half-way: what it revoked stays revoked
            before = self._opened(number).until
            until = min((end for end in (before, until) if end is not None), default=None)
        self._note(number, self.signer, until)
        self._take()

    def _take(self) -> None:
        """Finish what was begun, remove what is not published any more, and read what is left."""
        number, retired = self._keys.numbers()[0], self._publics.numbers()
        if number in retired:
            number += 1
            self._keys.write(number, self._ahead.pop() if self._ahead else generate(self._alg))
        signer = FileSigner.load(self._keys.read(number))
        self._keys.remove(*(earlier for earlier in self._keys.numbers()[1:] if earlier in retired))
        for earlier in self._keys.numbers()[1:]:  # of a version that left no public half
            self._note(earlier, FileSigner.load(self._keys.read(earlier)), self._end())
            self._keys.remove(earlier)
        self.signer = signer
        self._retired = {number: self._opened(number) for number in self._publics.numbers()}
        kept = self._valid()
        self._publics.remove(*(number for number in self._retired if number not in kept))
        self._retired = kept

    def _note(self, number: int, signer: FileSigner, until: datetime | None) -> None:
        self._publics.write(number, msgspec.json.encode(_Retired(signer.public_jwk(), until)), over=True)

    def _opened(self, number: int) -> _Retired:
        return msgspec.json.decode(self._publics.read(number), type=_Retired)
