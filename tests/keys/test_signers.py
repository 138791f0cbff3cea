from __future__ import annotations

import base64
import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from remit.core.audit import checkpoint, public_bytes, read_checkpoint
from remit.core.tree import EMPTY_ROOT
from remit.errors import IntegrityError
from remit.keys.file import FileSealer
from remit.keys.signers import RS256, FileKeyring, FileSigner, signer_of, thumbprint

SEALER = FileSealer(b"k" * 32)


def raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def verify(signer: FileSigner, signature: bytes, data: bytes) -> None:
    jwk = signer.public_jwk()
    if isinstance(signer, RS256):
        n, e = (int.from_bytes(raw(jwk[name]), "big") for name in "ne")
        rsa.RSAPublicNumbers(e, n).public_key().verify(signature, data, padding.PKCS1v15(), SHA256())
        return
    assert len(signature) == 64
    if signer.alg == "ES256":
        x, y = (int.from_bytes(raw(jwk[name]), "big") for name in "xy")
        der = encode_dss_signature(int.from_bytes(signature[:32], "big"), int.from_bytes(signature[32:], "big"))
        ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key().verify(der, data, ec.ECDSA(SHA256()))
    else:
        ed25519.Ed25519PublicKey.from_public_bytes(raw(jwk["x"])).verify(signature, data)


@pytest.mark.parametrize("alg", ["ES256", "Ed25519", "RS256"])
def test_a_signature_holds_under_the_public_jwk(tmp_path: Path, alg: str) -> None:
    signer = FileKeyring(tmp_path / "keys", SEALER, "token", alg).signer
    for number in range(50):  # ECDSA numbers with leading zeros turn up
        verify(signer, signer.sign(b"data%d" % number), b"data%d" % number)
    assert (signer.alg, signer.public_jwk()["alg"]) == (alg, alg)
    assert not set(signer.public_jwk()) & {"d", "k", "p", "q"}


def test_the_thumbprint_is_that_of_the_rfcs_example() -> None:
    jwk = {"crv": "Ed25519", "kty": "OKP", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "kid": "x", "use": "sig"}
    assert thumbprint(jwk) == "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k"  # RFC 8037 A.3


def test_the_thumbprint_of_an_rsa_key_is_that_of_the_rfcs_example() -> None:
    n = (
        "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3okn"
        "jhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qM"
        "QvRL5hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJz"
        "KnqDKgw"
    )
    jwk = {"kty": "RSA", "n": n, "e": "AQAB", "alg": "RS256", "kid": "2011-04-29"}
    assert thumbprint(jwk) == "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"  # RFC 7638 §3.1


def test_a_short_rsa_key_is_not_used() -> None:
    with pytest.raises(IntegrityError):
        signer_of(rsa.generate_private_key(65_537, 1_024))  # noqa: S505 - it is to be refused


def test_the_kid_is_the_thumbprint(tmp_path: Path) -> None:
    signer = FileKeyring(tmp_path / "keys", SEALER, "token", "ES256").signer
    assert signer.kid == thumbprint(signer.public_jwk()) == signer.public_jwk()["kid"]


def test_a_ring_reopens_with_its_keys(tmp_path: Path) -> None:
    kid = FileKeyring(tmp_path / "keys", SEALER, "token", "ES256").signer.kid
    assert FileKeyring(tmp_path / "keys", SEALER, "token", "ES256").signer.kid == kid


def test_rings_of_two_purposes_share_a_directory_and_no_key(tmp_path: Path) -> None:
    token = FileKeyring(tmp_path / "keys", SEALER, "token", "ES256")
    audit = FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519")
    assert (token.signer.alg, audit.signer.alg) == ("ES256", "Ed25519")
    assert len(token.public_jwks()) == len(audit.public_jwks()) == 1


def test_a_rotated_key_signs_and_the_one_before_it_still_verifies(tmp_path: Path) -> None:
    ring = FileKeyring(tmp_path / "keys", SEALER, "token", "ES256")
    first = ring.signer.kid
    second = ring.rotate().kid
    assert [jwk["kid"] for jwk in ring.public_jwks()] == [second, first]
    third = ring.rotate().kid
    assert [jwk["kid"] for jwk in ring.public_jwks()] == [third, second]
    again = FileKeyring(tmp_path / "keys", SEALER, "token", "ES256")
    assert [jwk["kid"] for jwk in again.public_jwks()] == [third, second]
    assert sorted(path.name for path in (tmp_path / "keys").iterdir()) == ["token.2.key", "token.3.key"]


def test_the_files_hold_no_key_in_the_clear_and_are_private(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        ring = FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519")
    finally:
        os.umask(before)
    content = (tmp_path / "keys" / "audit.1.key").read_bytes()
    opened = SEALER.open(content, b"signer\naudit\n1")
    seed = opened[-32:]
    assert ed25519.Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw() == raw(
        ring.signer.public_jwk()["x"]
    )
    assert seed not in content
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "keys" / "audit.1.key").stat().st_mode) == 0o600


def test_a_key_file_moved_to_another_purpose_or_number_does_not_open(tmp_path: Path) -> None:
    FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519")
    for name in ("token.1.key", "audit.2.key"):
        (tmp_path / "keys" / "audit.1.key").rename(tmp_path / "keys" / name)
        with pytest.raises(IntegrityError):
            FileKeyring(tmp_path / "keys", SEALER, name.split(".")[0], "Ed25519")
        (tmp_path / "keys" / name).rename(tmp_path / "keys" / "audit.1.key")


def test_a_loose_key_file_is_refused(tmp_path: Path) -> None:
    FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519")
    (tmp_path / "keys" / "audit.1.key").chmod(0o644)
    with pytest.raises(IntegrityError) as caught:
        FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519")
    assert caught.value.help
    assert caught.value.help.startswith("chmod 600")


def test_a_loose_directory_is_refused(tmp_path: Path) -> None:
    FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519")
    (tmp_path / "keys").chmod(0o750)
    with pytest.raises(IntegrityError) as caught:
        FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519")
    assert caught.value.help == f"chmod 700 '{tmp_path}/keys'"


def test_a_key_of_another_kind_is_refused() -> None:
    with pytest.raises(IntegrityError):
        signer_of(ec.generate_private_key(ec.SECP384R1()))


def test_an_audit_key_signs_checkpoints(tmp_path: Path) -> None:
    signer = FileKeyring(tmp_path / "keys", SEALER, "audit", "Ed25519").signer
    note = checkpoint("log", 0, EMPTY_ROOT, signer)
    assert read_checkpoint(note.text, "log", [public_bytes(signer.public_jwk())]) == note
