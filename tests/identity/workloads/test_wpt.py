from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from hashlib import sha256

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from remit import jose
from remit.errors import AudienceError, RemitError, TokenError
from remit.identity.workloads.attested import MAX_PROOF_LIFE, WPT_TYPE, Wpt, read_wpt
from remit.keys.signers import FileSigner

NOW = 1_764_072_000
TARGET = "https://remit.example/oauth/token"
WIT = "eyJ.the.wit"
KEY = FileSigner(ec.generate_private_key(ec.SECP256R1()))
CLAIMS = {"aud": TARGET, "exp": NOW + 60, "jti": "j" * 22, "wth": jose.digest(WIT)}


def public(signer: FileSigner = KEY, alg: str | None = "ES256") -> dict[str, object]:
    jwk: dict[str, object] = {n: v for n, v in signer.public_jwk().items() if n in {"kty", "crv", "x", "y"}}
    return jwk if alg is None else {**jwk, "alg": alg}


def proof(
    claims: Mapping[str, object], *, sign: Callable[[bytes], bytes] = KEY.sign, alg: str = "ES256", typ: str = WPT_TYPE
) -> str:
    parts = ({"typ": typ, "alg": alg}, {**CLAIMS, **claims})
    kept = [{name: value for name, value in part.items() if value is not None} for part in parts]
    signed = ".".join(jose.encode(json.dumps(part).encode()) for part in kept)
    return f"{signed}.{jose.encode(sign(signed.encode()))}"


def read(text: str, jwk: object = None, token: str | None = None, target: str = TARGET) -> Wpt:
    return read_wpt(text, public() if jwk is None else jwk, target, NOW, wit=WIT, token=token)


def test_a_good_proof_tells_its_key_its_name_and_its_end() -> None:
    found = read(proof({}))
    assert found == Wpt(jose.public_key(public()).thumbprint, "j" * 22, NOW + 60)


@pytest.mark.attack("CLK-04")
@pytest.mark.parametrize("exp", [NOW - 9, NOW + 1, NOW + MAX_PROOF_LIFE, NOW + MAX_PROOF_LIFE + 10])
def test_clocks_may_differ_by_ten_seconds(exp: int) -> None:
    assert read(proof({"exp": exp})).exp == exp


def test_claims_that_are_unknown_are_passed_over() -> None:
    assert read(proof({"iat": NOW, "shoe": 42})).exp == NOW + 60


def test_a_proof_by_an_edwards_key_holds_under_the_name_its_key_gives() -> None:
    signer = FileSigner(ed25519.Ed25519PrivateKey.generate())
    text = proof({}, sign=signer.sign, alg="EdDSA")
    assert read(text, public(signer, "EdDSA")).jti == "j" * 22
    with pytest.raises(TokenError):
        read(text, public(signer, "Ed25519"))


def test_a_proof_covers_the_token_it_comes_with() -> None:
    assert read(proof({"ath": jose.digest("token")}), token="token").exp == NOW + 60
    for claims, token in (({}, "token"), ({"ath": jose.digest("token")}, None), ({"ath": jose.digest("a")}, "b")):
        with pytest.raises(TokenError):
            read(proof(claims), token=token)


@pytest.mark.parametrize("aud", [TARGET, f"{TARGET}?a=b", f"{TARGET}#c", "HTTPS://REMIT.example:443/oauth/./token"])
def test_the_target_is_compared_without_query_and_fragment_and_by_meaning(aud: str) -> None:
    assert read(proof({"aud": aud})).exp == NOW + 60


@pytest.mark.parametrize(
    "aud",
    [
        None,
        7,
        [TARGET],
        "https://remit.example/oauth/tokens",
        "https://remit.example/oauth/token/",
        "https://remit.example/oauth%2Ftoken",
        "https://remit.example/oauth/TOKEN",
        "https://remit.example//oauth/token",
        "https://remit.example:8443/oauth/token",
        "http://remit.example/oauth/token",
        "https://remit.example.evil/oauth/token",
        "https://remit.example@evil.example/oauth/token",
        "https://evil.example/https://remit.example/oauth/token",
        "https://remit.example",
        "/oauth/token",
    ],
)
def test_a_proof_for_another_target_is_refused(aud: object) -> None:
    with pytest.raises(AudienceError):
        read(proof({"aud": aud}))


@pytest.mark.parametrize(
    "claims",
    [
        {"exp": None},
        {"exp": NOW - 10},
        {"exp": NOW - 11},
        {"exp": NOW + MAX_PROOF_LIFE + 11},
        {"exp": True},
        {"exp": str(NOW + 60)},
        {"exp": NOW + 0.5},
        {"wth": None},
        {"wth": jose.digest("another")},
        {"jti": None},
        {"jti": "short"},
        {"jti": "j" * 257},
        {"jti": 12345678901234567890123},
        {"tth": jose.digest("transaction token")},
        {"oth": {"x-task": jose.digest("task")}},
        {"oth": {}},
    ],
)
def test_a_proof_that_lacks_or_exceeds_something_is_refused(claims: dict[str, object]) -> None:
    with pytest.raises(RemitError) as caught:
        read(proof(claims))
    assert isinstance(caught.value, TokenError)


def test_a_proof_of_another_type_is_refused() -> None:
    with pytest.raises(TokenError):
        read(proof({}, typ="dpop+jwt"))


def test_a_proof_by_another_key_is_refused() -> None:
    other = FileSigner(ec.generate_private_key(ec.SECP256R1()))
    with pytest.raises(TokenError):
        read(proof({}, sign=other.sign))


@pytest.mark.parametrize(
    "jwk", [{}, public(alg=None), {**public(), "d": "secret"}, {**public(), "alg": "ES384"}, "key"]
)
def test_a_key_that_is_no_public_key_with_an_algorithm_proves_nothing(jwk: object) -> None:
    with pytest.raises(TokenError):
        read(proof({}), jwk)


def test_two_proofs_in_one_are_none() -> None:
    text = proof({})
    for bad in (f"{text}, {text}", f"{text}.{text}", "", text + "="):
        with pytest.raises(TokenError):
            read(bad)


def test_a_symmetric_algorithm_is_no_algorithm_of_a_key() -> None:
    with pytest.raises(TokenError):
        read(proof({}, sign=lambda data: sha256(data).digest(), alg="HS256"), {**public(), "alg": "HS256"})
