"""Every attack on record is walked by a test, or listed as pending with its reason: never both, never neither."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.attacks.conftest import Gallery

ROOT = Path(__file__).parents[2]


def _walked_in_files() -> frozenset[str]:
    """Collect all tests in a process of its own, so that a partial run judges the whole gallery too."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    plugin = [*command, "-p", "tests.attacks.listing", str(ROOT / "tests")]
    done = subprocess.run(plugin, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return frozenset(re.findall(r"^attack ([A-Z]{3}-[0-9]+)$", done.stdout, re.MULTILINE))


@pytest.fixture(scope="module")
def walked() -> frozenset[str]:
    return _walked_in_files()


def test_a_case_stands_once() -> None:
    ids = [case["id"] for case in json.loads((ROOT / "tests/attacks/attacks.json").read_text(encoding="utf-8"))]
    assert sorted(ids) == sorted(set(ids))


def test_every_case_is_walked_or_pending(gallery: Gallery, walked: frozenset[str]) -> None:
    assert sorted(gallery.ids - walked - gallery.pending.keys()) == []


def test_no_case_is_both_walked_and_pending(gallery: Gallery, walked: frozenset[str]) -> None:
    assert sorted(walked & gallery.pending.keys()) == []


def test_no_test_or_list_names_a_case_that_is_not_on_record(gallery: Gallery, walked: frozenset[str]) -> None:
    assert sorted((walked | gallery.pending.keys() | gallery.residual.keys()) - gallery.ids) == []


def test_a_residual_case_is_walked(gallery: Gallery, walked: frozenset[str]) -> None:
    assert sorted(gallery.residual.keys() - walked) == []


def test_each_reason_is_a_sentence(gallery: Gallery) -> None:
    reasons = {**gallery.pending, **gallery.residual}
    assert [i for i, reason in reasons.items() if len(reason.split()) < 4] == []
