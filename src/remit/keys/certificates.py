"""X.509 certificates of a trust domain: its CA, and SVIDs as X509-SVID §3 to §5 has them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from joserfc.jwk import ECKey

from remit.errors import IntegrityError
from remit.keys.signers import public_jwk

CA_LIFE = timedelta(days=90)  # long enough to be the next, to sign, and to be remembered

_ORGANIZATION = x509.NameAttribute(NameOID.ORGANIZATION_NAME, "remit")
_USES = "digital_signature content_commitment key_encipherment data_encipherment key_agreement key_cert_sign crl_sign"
_NO_USE = dict.fromkeys([*_USES.split(), "encipher_only", "decipher_only"], False)


def authority(key: bytes, trust_domain: str, start: datetime) -> bytes:
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
    """Return an X.509-SVID for a key (DER SubjectPublicKeyInfo): one URI, signatures only, both roles of TLS.

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


def end(certificate: bytes) -> datetime:
    """Return when a certificate ends."""
    return x509.load_der_x509_certificate(certificate).not_valid_after_utc


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
