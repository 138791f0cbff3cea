"""The keys of one purpose, as whoever signs knows them (``ports.SigningKeys``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.asymmetric import ec

from remit.keys.signers import FileSigner


@dataclass
class Ring:
    """One key, and the public halves of ``earlier`` ones."""

    signer: FileSigner = field(default_factory=lambda: FileSigner(ec.generate_private_key(ec.SECP256R1())))
    earlier: Sequence[Mapping[str, str]] = ()

    def public_jwks(self) -> Sequence[Mapping[str, str]]:
        """Return the keys, the signing one first."""
        return [self.signer.public_jwk(), *self.earlier]
