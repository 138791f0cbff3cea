"""The authority of the broker's own trust domain: a CA for X.509-SVIDs and keys for JWT-SVIDs, in one sealed file.

- A key is published before it signs and until what it signed has expired, so that no verifier meets a signer that it
  could not know yet, and none loses one that it still needs. A *generation* is a CA and a JWT key that go together.
- The file's number is the bundle's sequence: every change of what is published writes the next file, then removes the
  one before.
- JWT-SVIDs are signed by RSA keys of their own, never by those of grants' tokens: one cannot be taken for the other.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from joserfc.jwk import ECKey

from remit.errors import ConflictError, IntegrityError, NotFoundError
from remit.jose.keys import PublishedKey
from remit.keys.file import SealedFiles
from remit.keys.signers import FileSigner, generate, public_jwk
from remit.ports import Clock, Sealer
from remit.ports.identity import PublishedAuthority

MAX_LIFE = timedelta(hours=1)  # of an SVID: there is no way to end one earlier
CA_LIFE = timedelta(days=90)  # long enough to be the next, to sign, and to be remembered
TURN_AFTER = timedelta(days=30)  # a generation signs for so long
SKEW = timedelta(minutes=1)  # between our clock and a verifier's
GENERATIONS = 10  # at a time: the next, the one that signs, and those whose SVIDs have not all expired

_ORGANIZATION = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "remit")
_USES = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
_NO_USE = dict.fromkeys([*_USES.split(), "encipher_only", "decipher_only"], False)


@dataclass(frozen=True, slots=True)
class _Generation:
    """Keys as PKCS #8, the CA's certificate as DER. ``until``: when it stops being published; None: not decided."""

    ca: bytes
    certificate: bytes
    jwt: bytes
    until: datetime | None = None


@dataclass(frozen=True, slots=True)
class _AuthorityFile:
    """All that is in the file: the generations, first the next one, then the one that signs since ``turned``."""

    trust_domain: str
    turned: datetime
    generations: tuple[_Generation, ...]


class FileAuthority:
    """The CA and the JWT keys of one trust domain, made when there are none yet."""

    def __init__(self, directory: Path, sealer: Sealer, trust_domain: str, clock: Clock) -> None:
        """Open what ``directory`` (mode 0700) holds; what it holds of another trust domain is replaced."""
        self.trust_domain, self._clock = trust_domain, clock
        self._files = SealedFiles(directory, sealer, "spiffe", "authority", "key")
        self._watching: list[Callable[[], None]] = []
        self._ahead: list[bytes] = []
        self.sequence = max(self._files.numbers(), default=0)
        found = msgspec.json.decode(self._files.read(self.sequence), type=_AuthorityFile) if self.sequence else None
        if found is None or found.trust_domain != trust_domain:
            self._begin_anew()
        else:
            self._take(found)
        self.prune()

    def certificates(self) -> Sequence[bytes]:
        return [each.certificate for each in self._signing_first]

    @property
    def public(self) -> PublishedAuthority:
        """What is published now. Its bundle is that of SPIFFE Trust Domain and Bundle §4."""
        certificates, jwks = self.certificates(), [jwt.public_jwk() for jwt in self._jwts]
        authorities: list[Mapping[str, object]] = [
            {**point(ca), "use": "x509-svid", "x5c": [base64.b64encode(ca).decode()]} for ca in certificates
        ]
        bundle = [*authorities, *({**jwk, "use": "jwt-svid"} for jwk in jwks)]
        return PublishedAuthority(self.trust_domain, self.sequence, certificates, jwks, bundle)

    def published(self) -> list[PublishedKey]:
        told = zip(self._jwts, self._signing_first, strict=True)
        return [PublishedKey(jwt.kid, jwt.alg, signing=jwt is self.signer, until=each.until) for jwt, each in told]

    def on_change(self, callback: Callable[[], None]) -> None:
        self._watching.append(callback)

    def certify(self, agent: str, public: bytes, serial: int, end: datetime) -> Sequence[bytes]:
        """Return the chain of an SVID (DER, the leaf first) for a SubjectPublicKeyInfo; it lasts an hour at most."""
        now, signing = self._clock(), self._signing_first[0]
        end = min(end, now + MAX_LIFE)
        start = min(now, end) - SKEW
        return [leaf(signing.certificate, signing.ca, agent, public, serial, start, end)]

    def rotate(self) -> None:
        """Let the next generation sign, and publish one after it; what signed stays until its SVIDs have expired."""
        now = self._clock()
        if len(self._held.generations) >= GENERATIONS:
            raise ConflictError(
                "the keys were rotated too often: SVIDs of all the earlier ones are still valid", help="wait an hour"
            )
        upcoming, signing, *earlier = self._held.generations
        retired = replace(signing, until=now + MAX_LIFE + SKEW)
        self._keep(_AuthorityFile(self.trust_domain, now, (self._made(), upcoming, retired, *earlier)))

    def revoke(self, kid: str) -> None:
        """Publish no generation any longer: whoever had one of their keys had all, as they are in one file."""
        if kid not in {key.kid for key in self.published()}:
            raise NotFoundError("there is no such key in this ring")
        self._begin_anew()

    @property
    def due(self) -> bool:
        return self._clock() >= self._held.turned + TURN_AFTER

    def prune(self) -> None:
        """Rotate when it is time, and stop publishing what no SVID needs any more."""
        now = self._clock()
        kept = tuple(each for each in self._held.generations if each.until is None or now < each.until)
        if kept != self._held.generations:
            self._keep(replace(self._held, generations=kept))
        if not self.due:
            return
        if x509.load_der_x509_certificate(kept[0].certificate).not_valid_after_utc > now + TURN_AFTER + MAX_LIFE:
            self.rotate()
        else:  # so long away that the next CA would end before its turn is over: no SVID of any is left
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._keep(_AuthorityFile(self.trust_domain, self._clock(), (self._made(), self._made())))

    def make_ahead(self) -> None:
        """Make the next keys for JWT-SVIDs, in any thread: each takes 0.1 to 0.5 seconds."""
        self._ahead = [generate("RS256"), generate("RS256")]  # as many as it takes to begin anew

    def _made(self) -> _Generation:
        ca, jwt = generate("ES256"), self._ahead.pop() if self._ahead else generate("RS256")
        return _Generation(ca, ca_certificate(ca, self.trust_domain, self._clock() - SKEW), jwt)

    def _keep(self, held: _AuthorityFile) -> None:
        """Write the next file, then let go of those before it, and tell who watches."""
        before, number = self._files.numbers(), self.sequence + 1
        self._files.write(number, msgspec.json.encode(held))
        self._files.remove(*before)
        self.sequence = number
        self._take(held)
        for callback in self._watching:
            callback()

    def _take(self, held: _AuthorityFile) -> None:
        upcoming, *others = held.generations
        self._held, self._signing_first = held, (*others, upcoming)
        self._jwts = [FileSigner.load(each.jwt) for each in self._signing_first]
        if any(jwt.alg != "RS256" for jwt in self._jwts):
            raise IntegrityError("a key for JWT-SVIDs is not of the kind that was made")
        self.signer = self._jwts[0]


def ca_certificate(key: bytes, trust_domain: str, start: datetime) -> bytes:
    """Return the self-signed certificate of a CA whose SPIFFE ID is the trust domain itself, DER."""
    private = _private(key)
    public = private.public_key()
    identifier, serial = x509.SubjectKeyIdentifier.from_public_key(public), x509.random_serial_number()
    name = x509.Name([_ORGANIZATION, x509.NameAttribute(NameOID.SERIAL_NUMBER, f"{serial:x}")])  # no two alike
    builder = (
        x509.CertificateBuilder(name, name, public, serial, start, start + CA_LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.KeyUsage(**{**_NO_USE, "key_cert_sign": True, "crl_sign": True}), critical=True)
        .add_extension(_uri(f"spiffe://{trust_domain}"), critical=False)
        .add_extension(identifier, critical=False)
    )
    return builder.sign(private, SHA256()).public_bytes(serialization.Encoding.DER)


def leaf(
    issuer: bytes, signing: bytes, agent: str, public: bytes, serial: int, start: datetime, end: datetime
) -> bytes:
    """Return an X.509-SVID (X509-SVID §3 to §5) for a key (DER SubjectPublicKeyInfo): one URI, both roles of TLS.

    ``issuer`` is the CA's certificate (DER), ``signing`` its key (PKCS #8).
    """
    ca, key = x509.load_der_x509_certificate(issuer), serialization.load_der_public_key(public)
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise IntegrityError("an X.509-SVID is made for a key on an elliptic curve")
    known = ca.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    roles = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = (
        x509.CertificateBuilder(ca.subject, x509.Name([_ORGANIZATION]), key, serial, start, end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.KeyUsage(**{**_NO_USE, "digital_signature": True}), critical=True)
        .add_extension(x509.ExtendedKeyUsage(roles), critical=False)
        .add_extension(_uri(agent), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(known), critical=False)
    )
    return builder.sign(_private(signing), SHA256()).public_bytes(serialization.Encoding.DER)


def point(certificate: bytes) -> Mapping[str, str]:
    """Return the public key of a certificate as a JWK without anything beside the key."""
    key = x509.load_der_x509_certificate(certificate).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise IntegrityError("a CA is not of the kind that was made")
    return public_jwk(ECKey.import_key(key))


def _private(key: bytes) -> ec.EllipticCurvePrivateKey:
    loaded = serialization.load_der_private_key(key, None)
    if not isinstance(loaded, ec.EllipticCurvePrivateKey):
        raise IntegrityError("a CA's key is not of the kind that was made")
    return loaded


def _uri(identity: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
