"""Certificates for loopback upstreams, good and bad, made for one test."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

NOW = datetime.now(UTC)
_NOTHING = dict.fromkeys(
    ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
)
_AUTHORITY = x509.KeyUsage(**_NOTHING, key_cert_sign=True, crl_sign=True, encipher_only=False, decipher_only=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """A certificate authority in a folder of its own."""

    folder: Path
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate

    def server(self, name: str, *, host: str = "localhost", days: int = 1, signed: bool = True) -> ssl.SSLContext:
        """Return the context of a server with a certificate for ``host``; unless ``signed`` it signs itself."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = self.certificate.subject if signed else subject
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(key.public_key())
            .serial_number(int.from_bytes(name.encode()[:8], "big") + 1)
            .not_valid_before(NOW - timedelta(days=9))
            .not_valid_after(NOW + timedelta(days=days))
            .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
            .add_extension(_signed_by(self.key if signed else key), critical=False)
            .sign(self.key if signed else key, hashes.SHA256())
        )
        return _server_context(self.folder / name, key, certificate)

    def trust(self, *, revoked: str | None = None) -> ssl.SSLContext:
        """Return the context of a client that trusts this authority, and checks its revocation list if there is one."""
        bundle = self.certificate.public_bytes(serialization.Encoding.PEM)
        if revoked is not None:
            entry = x509.RevokedCertificateBuilder().serial_number(int.from_bytes(revoked.encode()[:8], "big") + 1)
            listed = (
                x509.CertificateRevocationListBuilder()
                .issuer_name(self.certificate.subject)
                .last_update(NOW - timedelta(days=1))
                .next_update(NOW + timedelta(days=1))
                .add_revoked_certificate(entry.revocation_date(NOW).build())
                .sign(self.key, hashes.SHA256())
            )
            bundle += listed.public_bytes(serialization.Encoding.PEM)
        path = self.folder / f"trust-{revoked}.pem"
        path.write_bytes(bundle)
        context = ssl.create_default_context(cafile=str(path))
        if revoked is not None:
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        return context


def authority(folder: Path) -> Authority:
    """Make an authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "remit test authority")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(NOW - timedelta(days=10))
        .not_valid_after(NOW + timedelta(days=10))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_AUTHORITY, critical=True)
        .sign(key, hashes.SHA256())
    )
    return Authority(folder, key, certificate)


def _signed_by(key: ec.EllipticCurvePrivateKey) -> x509.AuthorityKeyIdentifier:
    """Name the signer, as a strict reader of RFC 5280 wants (the default from Python 3.13 on)."""
    return x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())


def _server_context(path: Path, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> ssl.SSLContext:
    encoded = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem = path.with_suffix(".pem")
    pem.write_bytes(encoded + certificate.public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
