"""The attenuation vectors: what is on file is what is decided, and a reader of the file needs nothing else."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from remit.core import scope
from remit.core.scope import parse_detail
from remit.errors import UnknownDetailError
from tests.vectors import make_attenuation

VECTORS = json.loads((Path(__file__).parent / "attenuation.json").read_text(encoding="utf-8"))
TESTS: list[dict[str, Any]] = VECTORS["tests"]
# Decided by a person, not by the code: which cases are accepted. The generator fills in the rest.
VALID = {
    "the same detail",
    "one action of two",
    "a literal under a star",
    "the rest may be empty",
    "the rest may be a slash",
    "the rest may be deep",
    "less time",
    "a bound where there was none",
    "narrower arguments",
    "any is the top",
    "no arguments are fewer than any",
    "a value under a bound",
    "one table of two",
    "one column of two",
    "one tool, without its free argument",
}
UNKNOWN = {"path-syntax", "unknown"}


def test_the_file_is_what_the_generator_writes() -> None:
    assert (Path(__file__).parent / "attenuation.json").read_text(encoding="utf-8") == make_attenuation.text()


def test_the_accepted_cases_are_those_that_were_decided() -> None:
    assert {test["comment"] for test in TESTS if test["result"] == "valid"} == VALID


def test_what_cannot_be_read_is_told_from_what_is_too_wide() -> None:
    assert all(test["error"] == "unknown-detail" for test in TESTS if UNKNOWN & set(test["flags"]))
    assert Counter(test["error"] for test in TESTS)["attenuation"] > 20


def test_every_case_has_a_number_and_a_comment_of_its_own() -> None:
    assert [test["tcId"] for test in TESTS] == list(range(1, VECTORS["numberOfTests"] + 1))
    assert len({test["comment"] for test in TESTS}) == len(TESTS)


@pytest.mark.parametrize("test", TESTS, ids=[f"{test['tcId']}" for test in TESTS])
def test_a_case_is_decided_as_it_is_on_file(test: dict[str, Any]) -> None:
    parent = scope.parse([test["parent"]])
    if test["error"] == "unknown-detail":
        with pytest.raises(UnknownDetailError):
            parse_detail(test["child"])
        return
    assert (scope.cover(parse_detail(test["child"]), parent) is not None) == (test["result"] == "valid")
