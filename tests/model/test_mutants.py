"""Each sabotage of ``mutants.py`` is caught: applied to a copy of the package, some of its tests must fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.model.mutants import EQUIVALENT, MUTANTS, Mutant

# One that hangs is caught, too: its process ends, as an exception amid Hypothesis is an error of pytest's.
HANGS = ("-p", "pytest_timeout", "--timeout=60", "--timeout-method=thread")
PLUGINS = (*HANGS, "-p", "_hypothesis_pytestplugin")
ROOT = Path(__file__).parents[2]
NAMES = [mutant.name.replace(" ", "-") for mutant in MUTANTS]


def sabotage(mutant: Mutant, compiled: Path, scratch: Path) -> Path:
    """Return a folder with a copy of the package in which one line is sabotaged."""
    shutil.copytree(compiled, scratch / "remit")
    file = scratch / "remit" / mutant.file
    text = file.read_text(encoding="utf-8")
    assert text.count(mutant.old) == 1, "the line is not there, or there twice: adapt the mutant"
    file.write_text(text.replace(mutant.old, mutant.new), encoding="utf-8")
    os.utime(file, (0, 0))  # so that it is compiled anew, even within the second
    return scratch


def survives(mutant: Mutant, compiled: Path, scratch: Path) -> bool:
    """Whether all of a mutant's tests pass on it."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "--no-header", *PLUGINS]
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")},
        "PYTHONPATH": str(sabotage(mutant, compiled, scratch)),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # importing them all takes as long as most mutants' tests
    }
    done = subprocess.run(
        [*command, *mutant.tests], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280
    )
    assert done.returncode in {0, 1}, done.stdout + done.stderr  # 2 and more: the tests could not run
    return done.returncode == 0


def test_the_copy_is_what_the_tests_run_on(compiled: Path, tmp_path: Path) -> None:
    """If the tests ran on the package itself, every mutant would survive, and none would be noticed missing."""
    broken = Mutant("broken", "core/scope.py", "def cover(child: Detail,", "def covered(child: Detail,", ())
    environment = {**os.environ, "PYTHONPATH": str(sabotage(broken, compiled, tmp_path))}
    command = [sys.executable, "-c", "from remit.core.scope import cover"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert "cannot import name 'cover'" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS, ids=NAMES)
def test_a_sabotage_is_caught(mutant: Mutant, compiled: Path, tmp_path: Path) -> None:
    assert not survives(mutant, compiled, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("mutant", EQUIVALENT, ids=lambda mutant: mutant.name.replace(" ", "-"))
def test_what_is_listed_as_equivalent_is(mutant: Mutant, compiled: Path, tmp_path: Path) -> None:
    assert survives(mutant, compiled, tmp_path)


def test_every_mutant_has_a_name_of_its_own() -> None:
    assert len(set(NAMES)) == len(MUTANTS)
