"""The starter policies do what their cases say, and every one of them is needed for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.policies import cases, sets
from remit.policies.cases import Case

HOME = Path(__file__).parents[2] / "examples" / "policies"
TEXTS, PROBLEMS = sets.read_directory(HOME)
FOUND, WRONG = sets.read(TEXTS)
CASES = cases.read((HOME / "cases.test.toml").read_text("utf-8"))
NAMES = [policy.id for policy in FOUND.policies] if FOUND else []


def test_the_examples_are_good() -> None:
    assert (PROBLEMS, WRONG) == ((), ())
    assert len(NAMES) == 11


@pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])
def test_a_case_comes_out_as_it_says(case: Case) -> None:
    assert FOUND is not None
    result = cases.tried(FOUND, case)
    assert result.passed, result


def test_every_case_expects_something() -> None:
    assert [case.name for case in CASES if case.allowed is None] == []
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("name", NAMES)
def test_no_policy_can_be_left_out_without_a_case_that_notices(name: str) -> None:
    assert FOUND is not None
    left = [policy.text for policy in FOUND.policies if policy.id != name]
    fewer, _ = sets.read({"left.cedar": "\n".join(left)})
    assert fewer is not None
    assert [case.name for case in CASES if not cases.tried(fewer, case).passed]
