"""The token vectors: what is on file is what is decided, and a reader of the file needs nothing else."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from remit import jose
from remit.errors import AudienceError, TokenError
from remit.jose import token as tokens
from tests.vectors import make_tokens

VECTORS = json.loads((Path(__file__).parent / "tokens.json").read_text(encoding="utf-8"))
TESTS: list[dict[str, Any]] = VECTORS["tests"]
KEYS = {jwk["kid"]: jose.public_key(jwk) for jwk in VECTORS["keys"]}
ERRORS = {kind.code: kind for kind in (TokenError, AudienceError)}
# Decided by a person, not by the code: which tokens are accepted. The generator fills in the rest.
VALID = {
    "the token of a root",
    "the token of its child, with the digest of its own",
    "in its last second",
    "five seconds before it was made: clocks differ",
    "not before a time that has come",
    "the broker, in a list of one",
    "the gateway, at the gateway",
    "the broker, at the gateway",
    "bound to a certificate",
    "a claim that nobody has heard of",
    "by another published key, by its name",
}


def test_the_file_is_what_the_generator_writes() -> None:
    assert (Path(__file__).parent / "tokens.json").read_text(encoding="utf-8") == make_tokens.text()


def test_the_accepted_tokens_are_those_that_were_decided() -> None:
    assert {test["comment"] for test in TESTS if test["result"] == "valid"} == VALID


def test_every_case_has_a_number_and_a_comment_of_its_own() -> None:
    assert [test["tcId"] for test in TESTS] == list(range(1, VECTORS["numberOfTests"] + 1))
    assert len({test["comment"] for test in TESTS}) == len(TESTS)


def test_the_child_names_the_token_of_its_parent() -> None:
    parent, child = (test for test in TESTS if test["flags"] == ["chain"] and test["result"] == "valid")
    assert child["claims"]["par_hash"] == jose.digest(parent["token"])


@pytest.mark.parametrize("test", TESTS, ids=[f"{test['tcId']}" for test in TESTS])
def test_a_token_is_judged_as_it_is_on_file(test: dict[str, Any]) -> None:
    now = datetime.fromtimestamp(test["now"], UTC)
    if test["result"] == "valid":
        found = tokens.read(test["token"], KEYS, VECTORS["issuer"], now)
        tokens.check_audience(found, set(test["audiences"]))
        assert found.all == test["claims"]
        return
    with pytest.raises(ERRORS[test["error"]]) as caught:
        tokens.check_audience(tokens.read(test["token"], KEYS, VECTORS["issuer"], now), set(test["audiences"]))
    assert caught.value.code == test["error"]
