from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from remit import jose
from remit.errors import InvalidRequestError, ProofError, TokenError
from remit.jose.compact import CHANGING, MAX_TOKEN
from remit.keys.signers import FileSigner
from tests.oauth.plane import b64, jws

SIGNER = FileSigner(ec.derive_private_key(7, ec.SECP256R1()))
EDWARDS = FileSigner(ed25519.Ed25519PrivateKey.from_private_bytes(b"e" * 32))
HEADER = frozenset({"alg", "typ"})
POINT = {name: SIGNER.public_jwk()[name] for name in ("kty", "crv", "x", "y")}


def test_what_encode_writes_decode_reads() -> None:
    assert [jose.decode(jose.encode(bytes(range(n)))) for n in range(1, 6)] == [bytes(range(n)) for n in range(1, 6)]


@pytest.mark.parametrize("text", ["", "YQ==", "YR", "Y Q", "YQ\n", "a+/b", "abcde", "é"])
def test_text_that_is_not_canonical_is_not_decoded(text: str) -> None:
    with pytest.raises(ValueError, match="canonical"):
        jose.decode(text)


@pytest.mark.parametrize("signer", [SIGNER, EDWARDS])
def test_a_signature_by_the_key_holds(signer: FileSigner) -> None:
    compact = jose.read(jws({"alg": signer.alg}, b"{}", signer.sign), HEADER)
    jose.public_key(signer.public_jwk()).verify(compact)


def test_the_older_name_of_the_edwards_algorithm_is_accepted() -> None:
    compact = jose.read(jws({"alg": "EdDSA"}, b"{}", EDWARDS.sign), HEADER)
    jose.public_key(EDWARDS.public_jwk()).verify(compact)


def test_a_signature_by_another_key_does_not_hold() -> None:
    compact = jose.read(jws({"alg": "ES256"}, b"{}", SIGNER.sign), HEADER)
    other = FileSigner(ec.derive_private_key(8, ec.SECP256R1()))
    with pytest.raises(TokenError, match="signature"):
        jose.public_key(other.public_jwk()).verify(compact)


@pytest.mark.parametrize("algorithm", ["none", "HS256", "RS256", "ES384", "Ed25519", "es256", ""])
def test_the_key_decides_on_the_algorithm(algorithm: str) -> None:
    compact = jose.read(jws({"alg": algorithm}, b"{}", SIGNER.sign), HEADER)
    with pytest.raises(TokenError, match="algorithm"):
        jose.public_key(SIGNER.public_jwk()).verify(compact)


@pytest.mark.parametrize(
    "member", [{"crit": ["b64"]}, {"b64": False}, {"jku": "https://a"}, {"x5c": []}, {"zip": "DEF"}, {"cty": "JWT"}]
)
def test_a_header_member_that_is_not_listed_is_refused(member: dict[str, object]) -> None:
    with pytest.raises(TokenError, match="header"):
        jose.read(jws({"alg": "ES256", **member}, b"{}", SIGNER.sign), HEADER)


@pytest.mark.parametrize("value", [None, 1, True, [], ["ES256"], {"a": 1}])
def test_a_header_member_that_is_not_text_is_refused(value: object) -> None:
    with pytest.raises(TokenError, match="header"):
        jose.read(jws({"alg": value}, b"{}", SIGNER.sign), HEADER)


def test_a_header_with_a_duplicate_member_is_refused() -> None:
    signed = b64(b'{"alg":"none","alg":"ES256"}') + "." + b64(b"{}")
    with pytest.raises(TokenError, match="strict JSON"):
        jose.read(f"{signed}.{b64(SIGNER.sign(signed.encode()))}", HEADER)


@pytest.mark.parametrize("text", ["", "a", "a.b", "a.b.c.d", "..", "e30..e30", ".e30.e30", "e30.e30."])
def test_text_that_is_not_three_segments_is_refused(text: str) -> None:
    with pytest.raises(ProofError):
        jose.read(text, HEADER, ProofError)


def test_text_beyond_the_limit_is_refused_unread() -> None:
    with pytest.raises(TokenError, match="compact"):
        jose.read("e30." + "a" * MAX_TOKEN + ".e30", HEADER)


def test_a_thumbprint_is_that_of_rfc_7638() -> None:
    assert jose.public_key(POINT).thumbprint == SIGNER.kid


@pytest.mark.parametrize(
    "change",
    [
        {"d": "AQ"},
        {"k": "AQ"},
        {"x5c": []},
        {"ext": True},
        {"kty": "RSA"},
        {"kty": ["EC"]},
        {"kty": None},
        {"crv": "P-384"},
        {"crv": "secp256k1"},
        {"crv": ["P-256"]},
        {"x": None},
        {"x": 7},
        {"x": POINT["x"] + "="},
        {"x": POINT["y"]},
        {"x": b64(b"\0" + jose.decode(POINT["x"]))},
        {"y": ""},
        {"alg": "HS256"},
        {"alg": ["ES256"]},
        {"use": "enc"},
        {"key_ops": ["sign"]},
        {"key_ops": ["verify", "sign"]},
    ],
)
def test_a_key_that_is_not_plainly_public_and_for_signatures_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(InvalidRequestError):
        jose.public_key({**POINT, **change}, InvalidRequestError)


@pytest.mark.parametrize("value", [None, [], "EC", 1, json.dumps(POINT)])
def test_a_key_that_is_no_object_is_refused(value: object) -> None:
    with pytest.raises(TokenError):
        jose.public_key(value)


@pytest.mark.parametrize("header", [b"[]", b"1", b'"ES256"'])
def test_a_header_that_is_no_object_is_refused(header: bytes) -> None:
    with pytest.raises(TokenError, match="JSON object"):
        jose.read(f"{b64(header)}.{b64(b'x')}.{b64(b'x')}", HEADER)


def test_a_digest_is_the_one_that_rfc_9449_shows() -> None:
    token = "Kz~8mXK1EalYznwH-LC-1fBAo.4Ljp~zsPE_NeO.gxU"
    assert jose.digest(token) == "fUHyO2r2Z3DZ53EsNrWBb0xWXoaNy59IiKCAqksmQEo"


def test_of_what_others_signed_members_that_are_not_known_are_ignored_and_followed_by_nobody() -> None:
    compact = jose.read(
        jws({"alg": "ES256", "jku": "https://a", "cty": "JWT"}, b"{}", SIGNER.sign), HEADER, others=True
    )
    assert compact.header == {"alg": "ES256"}


@pytest.mark.parametrize("member", sorted(CHANGING))
def test_a_member_that_changes_how_it_is_read_is_refused_of_others_too(member: str) -> None:
    with pytest.raises(TokenError, match="header"):
        jose.read(jws({"alg": "ES256", member: "x"}, b"{}", SIGNER.sign), HEADER, others=True)
