"""Each sabotage of ``mutants_policies.py`` is caught."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.model.mutants import Mutant
from tests.model.mutants_policies import MUTANTS
from tests.model.test_mutants import survives

NAMES = [mutant.name.replace(" ", "-") for mutant in MUTANTS]


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=NAMES)
def test_a_sabotage_is_caught(mutant: Mutant, compiled: Path, tmp_path: Path) -> None:
    assert not survives(mutant, compiled, tmp_path)


def test_every_mutant_has_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(MUTANTS)
