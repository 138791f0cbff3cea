"""A trust domain with a tiny authority of its own: what SPIRE would sign, and what it never would."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from ipaddress import ip_address

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from joserfc.jwk import ECKey, RSAKey
from joserfc.jws import JWSRegistry

from remit.errors import UnavailableError
from remit.identity.workloads.bundles import SpiffeBundle, parse

NOW = datetime.now(UTC).replace(microsecond=0)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)
_KINDS = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement")
_MORE = ("key_cert_sign", "crl_sign", "encipher_only", "decipher_only")

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey


@dataclass
class Times:
    """A clock that stands until it is moved."""

    at: datetime = NOW

    def __call__(self) -> datetime:
        """Return the time."""
        return self.at

    def pass_(self, **more: float) -> None:
        """Let time pass: ``seconds=…`` and the like."""
        self.at += timedelta(**more)


@dataclass
class Held:
    """Where a bundle comes from in tests: what it is now, whether the source is out, how often it was looked at."""

    raw: bytes
    every: timedelta = timedelta(seconds=30)
    out: bool = False
    looks: int = 0

    async def fetch(self, domain: str) -> SpiffeBundle:
        """Return the bundle."""
        self.looks += 1
        if self.out:
            raise UnavailableError("the source is out")
        return parse(domain, self.raw)


def b64(data: bytes) -> str:
    """Return base64url without padding."""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def usage(*set_: str) -> x509.KeyUsage:
    """Return a key usage with these bits."""
    return x509.KeyUsage(**{name: name in set_ for name in (*_KINDS, *_MORE)})


def key() -> ec.EllipticCurvePrivateKey:
    """Return a new P-256 key."""
    return ec.generate_private_key(ec.SECP256R1())


def pem(private: Key) -> bytes:
    """Return a private key in PEM."""
    return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def jwk_of(private: Key, **more: str) -> dict[str, object]:
    """Return the public JWK of a key."""
    kind = ECKey if isinstance(private, ec.EllipticCurvePrivateKey) else RSAKey
    return {**kind.import_key(pem(private)).as_dict(private=False), **more}


def signed(private: Key, header: Mapping[str, object], claims: Mapping[str, object]) -> str:
    """Return a compact JWS by the algorithm that its header names."""
    kind = ECKey if isinstance(private, ec.EllipticCurvePrivateKey) else RSAKey
    text = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(claims).encode())}"
    algorithm = JWSRegistry.algorithms[str(header["alg"])]
    return f"{text}.{b64(algorithm.sign(text.encode(), kind.import_key(pem(private))))}"


@dataclass(frozen=True, slots=True)
class Svid:
    """An X.509-SVID: its key and its chain, the leaf first."""

    key: Key
    chain: tuple[x509.Certificate, ...]

    @property
    def ders(self) -> tuple[bytes, ...]:
        """The chain as a TLS listener hands it on."""
        return tuple(one.public_bytes(Encoding.DER) for one in self.chain)

    @property
    def pem(self) -> bytes:
        """RefreshFamily and key in one PEM file."""
        return b"".join(one.public_bytes(Encoding.PEM) for one in self.chain) + pem(self.key)

    @property
    def x5t(self) -> str:
        """The thumbprint of the leaf."""
        return b64(sha256(self.ders[0]).digest())


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority: a root, or one below it."""

    key: Key
    certificate: x509.Certificate
    above: tuple[x509.Certificate, ...] = ()

    @classmethod
    def root(cls, name: str, uris: Iterable[str] = (), now: datetime = NOW) -> Authority:
        """Return a new self-signed authority."""
        private = key()
        extensions = (x509.BasicConstraints(ca=True, path_length=None), usage("key_cert_sign", "crl_sign"))
        made = _certificate(name, private, uris, now, timedelta(days=1), extensions)
        return cls(private, made.issuer_name(_name(name)).sign(private, hashes.SHA256()))

    def below(self, name: str, *extensions: x509.ExtensionType, days: float = 1) -> Authority:
        """Return an intermediate authority, by default one that may sign leaves alone."""
        private = key()
        parts = extensions or (x509.BasicConstraints(ca=True, path_length=0), usage("key_cert_sign"))
        made = _certificate(name, private, (), NOW, timedelta(days=days), parts)
        certificate = made.issuer_name(self.certificate.subject).sign(self.key, hashes.SHA256())
        return Authority(private, certificate, (certificate, *self.above))

    def svid(self, *uris: str, now: datetime = NOW, life: timedelta = timedelta(hours=1), **more: object) -> Svid:
        """Return a leaf with these URIs; ``more`` are the extensions in the place of the usual ones, None for none."""
        parts: dict[str, object] = {
            "constraints": x509.BasicConstraints(ca=False, path_length=None),
            "usage": usage("digital_signature"),
            "extended": x509.ExtendedKeyUsage(BOTH),
            **more,
        }
        private = key()
        chosen = [part for part in parts.values() if isinstance(part, x509.ExtensionType)]
        made = _certificate("workload", private, uris, now, life, chosen)
        leaf = made.issuer_name(self.certificate.subject).sign(self.key, hashes.SHA256())
        return Svid(private, (leaf, *self.above))


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _certificate(
    name: str, private: Key, uris: Iterable[str], now: datetime, life: timedelta, parts: Iterable[x509.ExtensionType]
) -> x509.CertificateBuilder:
    made = (
        x509.CertificateBuilder()
        .subject_name(_name(name))
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=1))
        .not_valid_after(now + life)
    )
    names = [x509.UniformResourceIdentifier(uri) for uri in uris]
    for part in (*parts, *([x509.SubjectAlternativeName(names)] if names else [])):
        made = made.add_extension(part, critical=isinstance(part, x509.BasicConstraints | x509.KeyUsage))
    return made.add_extension(x509.SubjectKeyIdentifier.from_public_key(private.public_key()), critical=False)


@dataclass
class Domain:
    """A trust domain: an authority for certificates, a key for JWT-SVIDs, one for WITs; its bundle."""

    name: str
    authority: Authority = field(init=False)
    jwt_key: Key = field(default_factory=key)
    wit_key: Key = field(default_factory=key)
    now: datetime = NOW

    def __post_init__(self) -> None:
        """Make the root."""
        self.authority = Authority.root(self.name, (f"spiffe://{self.name}",), self.now)

    def id(self, path: str = "/ns/agents/planner") -> str:
        """Return a SPIFFE ID of this trust domain."""
        return f"spiffe://{self.name}{path}"

    def svid(self, path: str = "/ns/agents/planner", **more: object) -> Svid:
        """Return an X.509-SVID."""
        return self.authority.svid(self.id(path), **{"now": self.now, **more})  # type: ignore[arg-type]  # what a leaf may be given

    def jwt(self, audience: object, header: Mapping[str, object] | None = None, **more: object) -> str:
        """Return a JWT-SVID; ``more`` replaces claims, and None removes them."""
        at = int(self.now.timestamp())
        claims = {"sub": self.id(), "aud": audience, "exp": at + 300, "iat": at, **more}
        held = {name: value for name, value in claims.items() if value is not None}
        head = {"alg": "ES256" if isinstance(self.jwt_key, ec.EllipticCurvePrivateKey) else "RS256", "kid": "jwt-1"}
        return signed(self.jwt_key, {**head, **(header or {})}, held)

    def bundle(self, **more: object) -> bytes:
        """Return the bundle; ``more`` are members of the set, ``keys`` those in place of the usual ones."""
        root = self.authority.certificate.public_bytes(Encoding.DER)
        certificate = {**jwk_of(self.authority.key), "use": "x509-svid", "x5c": [base64.b64encode(root).decode()]}
        keys = [
            certificate,
            jwk_of(self.jwt_key, use="jwt-svid", kid="jwt-1"),
            jwk_of(self.wit_key, use="wit-svid", kid="wit-1"),
        ]
        return json.dumps({"keys": keys, "spiffe_sequence": 1, "spiffe_refresh_hint": 300, **more}).encode()


def server(authority: Authority, *hosts: str, now: datetime = NOW) -> Svid:
    """Return the certificate of a TLS server that answers to these hosts."""
    private = key()
    made = _certificate("server", private, (), now, timedelta(hours=1), (usage("digital_signature"),))
    names = [x509.IPAddress(ip_address(host)) if host[0].isdigit() else x509.DNSName(host) for host in hosts]
    made = made.add_extension(x509.SubjectAlternativeName(names), critical=False)
    made = made.add_extension(
        x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False
    )
    return Svid(private, (made.issuer_name(authority.certificate.subject).sign(authority.key, hashes.SHA256()),))
