"""Fixtures of the run's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.run.rig import House, house


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[House]:
    """Return a broker that serves runs."""
    with house(tmp_path) as built:
        yield built
