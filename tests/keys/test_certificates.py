from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.x509.oid import ExtendedKeyUsageOID

from remit.errors import IntegrityError
from remit.keys import authority

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
AGENT = "spiffe://remit.test/task/task_1/grt_1"
KEY = ec.generate_private_key(ec.SECP256R1())


def private(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def public(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def made() -> tuple[x509.Certificate, x509.Certificate]:
    """Return a CA and an SVID of it."""
    ca = authority.ca_certificate(private(KEY), "remit.test", NOW)
    agent = public(ec.generate_private_key(ec.SECP256R1()))
    svid = authority.leaf(ca, private(KEY), AGENT, agent, 7, NOW, NOW + timedelta(minutes=5))
    return x509.load_der_x509_certificate(ca), x509.load_der_x509_certificate(svid)


def uris(certificate: x509.Certificate) -> list[str]:
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [str(name.value) for name in names]


def test_an_svid_has_one_name_and_that_is_its_spiffe_id() -> None:
    assert uris(made()[1]) == [AGENT]


def test_an_svid_signs_and_certifies_nobody() -> None:
    svid = made()[1].extensions
    assert not svid.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = svid.get_extension_for_class(x509.KeyUsage)
    assert (usage.critical, usage.value.digital_signature) == (True, True)
    assert (usage.value.key_cert_sign, usage.value.crl_sign) == (False, False)


def test_an_svid_is_for_both_ends_of_tls() -> None:
    roles = set(made()[1].extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
    assert roles == {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}


def test_an_svid_has_the_life_and_number_that_it_was_given() -> None:
    svid = made()[1]
    assert (svid.serial_number, svid.not_valid_before_utc, svid.not_valid_after_utc) == (
        7,
        NOW,
        NOW + timedelta(0, 300),
    )


def test_a_ca_is_one_of_its_trust_domain_and_certifies_leaves_alone() -> None:
    ca, svid = made()
    assert uris(ca) == ["spiffe://remit.test"]
    basic = ca.extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    usage = ca.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)
    svid.verify_directly_issued_by(ca)


def test_two_cas_have_two_names() -> None:
    first, second = (authority.ca_certificate(private(KEY), "remit.test", NOW) for _ in range(2))
    assert x509.load_der_x509_certificate(first).subject != x509.load_der_x509_certificate(second).subject


def test_an_svid_is_made_for_elliptic_curves_alone() -> None:
    ca = authority.ca_certificate(private(KEY), "remit.test", NOW)
    with pytest.raises(IntegrityError):
        authority.leaf(ca, private(KEY), AGENT, public(ed25519.Ed25519PrivateKey.generate()), 7, NOW, NOW)


def test_a_ca_of_another_kind_is_refused() -> None:
    with pytest.raises(IntegrityError):
        authority.ca_certificate(private(ed25519.Ed25519PrivateKey.generate()), "remit.test", NOW)


def test_the_point_of_a_certificate_is_its_key() -> None:
    ca = authority.ca_certificate(private(KEY), "remit.test", NOW)
    point = authority.point(ca)
    assert set(point) == {"kty", "crv", "x", "y"}
    assert int.from_bytes(_raw(point["x"]), "big") == KEY.public_key().public_numbers().x


def _raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=")
