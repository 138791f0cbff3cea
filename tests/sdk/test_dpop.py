from __future__ import annotations

import base64
import copy
import json
import pickle

import pytest

from remit import jose
from remit.jose import proof
from remit.jose.proof import Expected, Nonces
from remit.sdk.dpop import DPoPKey

NONCES = Nonces(b"n" * 32)
NOW = 1_800_000_000
URL = "http://127.0.0.1:8471/search/v1/x"


def key() -> DPoPKey:
    return DPoPKey(clock=lambda: NOW + 0.9)


def test_the_server_accepts_a_proof_and_finds_the_key_in_it() -> None:
    mine = key()
    text = mine.proof("GET", URL, token="token", nonce=NONCES.at(NOW))
    read = proof.read((text,), Expected("GET", URL, NOW, NONCES, "token"))
    assert read.jkt == mine.thumbprint()


def test_query_and_fragment_are_left_out_of_the_proof() -> None:
    for rest in ("?q=secret#part", "#a?b"):
        text = key().proof("GET", f"{URL}{rest}")
        claims = json.loads(base64.urlsafe_b64decode(text.split(".")[1] + "=="))
        assert claims["htu"] == URL


def test_no_two_proofs_are_the_same() -> None:
    mine = key()
    assert mine.proof("GET", URL) != mine.proof("GET", URL)


def test_only_the_public_half_is_given_away() -> None:
    assert set(key().jwk()) == {"crv", "kty", "x", "y"}
    assert jose.public_key(key().jwk()).thumbprint


def test_the_thumbprint_is_that_of_the_public_key() -> None:
    mine = key()
    assert jose.public_key(mine.jwk()).thumbprint == mine.thumbprint()


def test_a_key_shows_its_thumbprint_alone() -> None:
    mine = key()
    assert repr(mine) == f"DPoPKey({mine.thumbprint()})"


def test_a_key_is_not_pickled_or_copied() -> None:
    for attempt in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="not serialisable"):
            attempt(key())


def test_coordinates_keep_their_leading_zeros() -> None:
    assert all(len(base64.urlsafe_b64decode(key().jwk()[part] + "=")) == 32 for part in ("x", "y") for _ in range(64))
