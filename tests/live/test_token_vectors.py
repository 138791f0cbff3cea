"""The token vectors in the hands of a library that nobody here wrote: `jose` for Node."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.live.idp import NODE
from tests.vectors.test_tokens import TESTS, VALID

ROOT = Path(__file__).parents[1]
# What a verifier of plain JWTs does not look at: bindings, chains, and the strict reading of JSON and of one audience.
STRICTER = {"binding", "chain", "claims", "json"}
OF_REMIT_ALONE = {
    "the type in capitals",  # RFC 7515 §4.1.9 compares media types without case
    "an end beyond the year 9999",
    "six seconds before it was made",  # RFC 7519 §4.1.6 only tells the age
    "the broker and somebody else",
    "with white space",
    "no key",  # when one key alone has the algorithm
    "the address of a key",
}


@pytest.fixture(scope="module")
def verdicts() -> dict[int, Any]:
    script, file = ROOT / "peers" / "verify-tokens.mjs", ROOT / "vectors" / "tokens.json"
    done = subprocess.run(
        [str(NODE), str(script), str(file)], capture_output=True, text=True, check=True, cwd=ROOT / "peers", timeout=60
    )
    return {int(number): verdict for number, verdict in json.loads(done.stdout).items()}


@pytest.mark.live
def test_what_is_valid_is_valid_to_others_and_says_the_same(verdicts: dict[int, Any]) -> None:
    valid = [test for test in TESTS if test["result"] == "valid"]
    assert len(valid) == len(VALID)
    assert [test["comment"] for test in valid if verdicts[test["tcId"]] != test["claims"]] == []


@pytest.mark.live
def test_what_is_refused_by_others_is_refused_by_remit(verdicts: dict[int, Any]) -> None:
    refused = {test["tcId"] for test in TESTS if isinstance(verdicts[test["tcId"]], str)}
    assert {test["comment"] for test in TESTS if test["tcId"] in refused and test["result"] == "valid"} == set()
    assert len(refused) > 30


@pytest.mark.live
def test_signatures_audiences_issuers_and_times_are_refused_by_others_too(verdicts: dict[int, Any]) -> None:
    plain = [test for test in TESTS if test["result"] == "invalid" and not STRICTER & set(test["flags"])]
    taken = {test["comment"] for test in plain if not isinstance(verdicts[test["tcId"]], str)}
    assert taken == OF_REMIT_ALONE
