"""The proofs that RFC 9449 prints, read as they are."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from remit import jose
from remit.errors import ProofError

PUBLISHED = json.loads((Path(__file__).parent / "published" / "published.json").read_text("utf-8"))["rfc9449"]
HEADER = frozenset({"typ", "alg", "jwk"})


@pytest.mark.parametrize("name", ["proof_token_request", "proof_resource_request"])
def test_a_printed_proof_is_by_the_printed_key(name: str) -> None:
    compact = jose.read(PUBLISHED[name], HEADER, ProofError)
    key = jose.public_key(compact.header["jwk"], ProofError)
    key.verify(compact, ProofError)
    assert key.thumbprint == PUBLISHED["jkt"]


def test_a_printed_proof_carries_the_digest_of_the_printed_token() -> None:
    compact = jose.read(PUBLISHED["proof_resource_request"], HEADER, ProofError)
    claims = json.loads(compact.payload)
    assert claims["ath"] == PUBLISHED["ath"] == jose.digest(PUBLISHED["access_token"])
