from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from remit import jose
from remit.errors import AudienceError, TokenError
from remit.jose.svid import verify as verify_svid
from remit.keys.signers import FileSigner

NOW = datetime(2026, 11, 25, 12, tzinfo=UTC)
KEY = FileSigner(rsa.generate_private_key(65_537, 2_048))
OTHER = FileSigner(rsa.generate_private_key(65_537, 2_048))
CLAIMS: Mapping[str, object] = {
    "sub": "spiffe://remit.test/task/task_1/grt_1",
    "aud": "https://a",
    "exp": int(NOW.timestamp()) + 60,
}
HEADER: Mapping[str, object] = {"alg": "RS256", "kid": KEY.kid, "typ": "JWT"}


def token(claims: Mapping[str, object] = CLAIMS, header: Mapping[str, object] = HEADER, key: FileSigner = KEY) -> str:
    signed = ".".join(jose.encode(json.dumps(part).encode()) for part in (header, claims))
    return f"{signed}.{jose.encode(key.sign(signed.encode()))}"


def verify(text: str, audience: str = "https://a", now: datetime = NOW) -> Mapping[str, object]:
    return verify_svid(text, audience, jose.key_set([KEY.public_jwk()]), "remit.test", now)


def test_a_token_of_this_trust_domain_is_taken() -> None:
    assert verify(token()) == CLAIMS


def test_one_of_many_audiences_is_enough() -> None:
    assert verify(token({**CLAIMS, "aud": ["https://b", "https://a"]}))["aud"] == ["https://b", "https://a"]


@pytest.mark.parametrize("aud", ["https://b", ["https://b"], [], None, "https://a/", ["https://a "]])
def test_a_token_for_others_is_refused(aud: object) -> None:
    with pytest.raises(AudienceError):
        verify(token({**CLAIMS, "aud": aud}))


@pytest.mark.parametrize("exp", [None, "soon", True, int(NOW.timestamp()), 1.5])
def test_a_token_without_an_end_to_come_is_refused(exp: object) -> None:
    with pytest.raises(TokenError):
        verify(token({**CLAIMS, "exp": exp}))


@pytest.mark.parametrize("sub", [None, 7, "", "alice", "spiffe://other.test/x", "spiffe://remit.test/../x"])
def test_a_subject_of_another_trust_domain_is_refused(sub: object) -> None:
    with pytest.raises(TokenError):
        verify(token({**CLAIMS, "sub": sub}))


@pytest.mark.parametrize(
    "header",
    [
        {**HEADER, "typ": "at+jwt"},
        {**HEADER, "alg": "none"},
        {**HEADER, "alg": "HS256"},
        {**HEADER, "alg": "PS256"},
        {**HEADER, "kid": "another"},
        {**HEADER, "jku": "https://a"},
        {**HEADER, "crit": ["b64"]},
        {"alg": "RS256"},
    ],
)
def test_a_header_that_is_not_that_of_an_svid_is_refused(header: Mapping[str, object]) -> None:
    with pytest.raises(TokenError):
        verify(token(header=header))


def test_a_header_without_a_type_is_taken() -> None:
    assert verify(token(header={"alg": "RS256", "kid": KEY.kid}))


@pytest.mark.parametrize("key", [OTHER, FileSigner(ec.generate_private_key(ec.SECP256R1()))], ids=["rsa", "ec"])
def test_a_signature_by_another_key_is_refused(key: FileSigner) -> None:
    with pytest.raises(TokenError):
        verify(token(key=key))
