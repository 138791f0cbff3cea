from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import TokenError
from remit.jose import token as tokens
from tests.jose.test_token import ISSUER, KEYS, NOW, SIGNER, minted

GOOD = minted()
ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\0é"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
CLAIMS = ("iss", "aud", "sub", "client_id", "cnf", "iat", "exp", "nbf", "jti", "task", "par_hash")


def refused(text: str) -> None:
    """Assert that a text is refused, with the one error there is for it."""
    with pytest.raises(TokenError):
        tokens.read(text, KEYS, ISSUER, NOW)


@given(st.text(max_size=200))
def test_no_text_is_a_token_by_chance(text: str) -> None:
    refused(text)


@given(st.integers(0, len(GOOD) - 1), st.sampled_from(ALPHABET))
def test_no_character_of_a_token_can_be_replaced(index: int, char: str) -> None:
    if GOOD[index] != char:
        refused(GOOD[:index] + char + GOOD[index + 1 :])


@given(st.integers(0, len(GOOD)), st.sampled_from(ALPHABET))
def test_no_character_can_be_added_to_a_token(index: int, char: str) -> None:
    refused(GOOD[:index] + char + GOOD[index:])


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 40))
def test_nothing_can_be_cut_from_a_token(start: int, length: int) -> None:
    refused(GOOD[:start] + GOOD[start + length :])


@given(st.sampled_from(CLAIMS), JSON)
def test_whatever_stands_in_a_claim_the_reader_reads_it_or_says_so(name: str, value: object) -> None:
    text = tokens.mint({**tokens.read(GOOD, KEYS, ISSUER, NOW).all, name: value}, SIGNER.kid, SIGNER.alg, SIGNER.sign)
    try:
        found = tokens.read(text, KEYS, ISSUER, NOW)
    except TokenError:
        return
    assert found.all[name] == value
    assert type(found.expires_at) is int
