"""What the tests with sabotaged copies share."""

from __future__ import annotations

import compileall
import shutil
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "src" / "remit"


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the package, compiled once: what a mutant does not touch need not be compiled for it."""
    copy = tmp_path_factory.mktemp("compiled") / "remit"
    shutil.copytree(PACKAGE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    assert compileall.compile_dir(copy, quiet=1)
    return copy
