from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import ProofError
from remit.jose import proof as proofs
from tests.fuzz.test_token import ALPHABET, JSON
from tests.jose.test_proof import AGENT, EXPECTED, SECONDS, made
from tests.oauth.plane import jws

GOOD = made()
CLAIMS = ("jti", "htm", "htu", "iat", "ath", "nonce")


def refused(*texts: str) -> None:
    """Assert that header values are refused, with an error of proofs."""
    with pytest.raises(ProofError):
        proofs.read(texts, EXPECTED)


@given(st.lists(st.text(max_size=100), max_size=3))
def test_no_text_is_a_proof_by_chance(texts: list[str]) -> None:
    refused(*texts)


@given(st.integers(0, len(GOOD) - 1), st.sampled_from(ALPHABET))
def test_no_character_of_a_proof_can_be_replaced(index: int, char: str) -> None:
    if GOOD[index] != char:
        refused(GOOD[:index] + char + GOOD[index + 1 :])


@given(st.sampled_from(CLAIMS), JSON)
def test_no_claim_can_be_anything(name: str, value: object) -> None:
    text = made(AGENT, EXPECTED.token, **{name: value})
    try:
        proof = proofs.read([text], EXPECTED)
    except ProofError:
        return
    assert name in {"jti", "iat"}
    assert abs(proof.iat - SECONDS) <= proofs.MAX_AGE + proofs.SKEW


@given(st.sampled_from(["typ", "alg", "jwk", "b64", "crit"]), JSON)
def test_no_header_member_can_be_anything(name: str, value: object) -> None:
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": AGENT.jwk, name: value}
    refused(jws(header, {"jti": "x" * 16}, AGENT.signer.sign))


@given(st.dictionaries(st.sampled_from(["kty", "crv", "x", "y", "d", "use"]), JSON, min_size=1))
def test_no_key_can_be_anything(change: dict[str, object]) -> None:
    header = {"typ": "dpop+jwt", "alg": "ES256", "jwk": {**AGENT.jwk, **change}}
    refused(jws(header, {"jti": "x" * 16}, AGENT.signer.sign))


@given(st.text(max_size=60), st.text(max_size=60))
def test_whether_two_targets_are_the_same_is_symmetric_and_never_raises(one: str, two: str) -> None:
    assert proofs.same_target(one, two) == proofs.same_target(two, one)
    assert proofs.same_target(f"http://{one}", f"http://{two}") == proofs.same_target(f"http://{two}", f"http://{one}")


@given(st.text("abAB./%27eE~?#:@", max_size=20))
def test_normalising_twice_changes_nothing(path: str) -> None:
    try:
        scheme, host, port, normal = proofs._normal(f"http://gw.test/{path}")
    except ValueError:
        return
    assert proofs._normal(f"{scheme}://{host}:{port}{normal}") == (scheme, host, port, normal)
