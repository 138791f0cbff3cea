"""Fixtures of the run's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.run.rig import House, house


@pytest.fixture
def runs() -> Iterator[House]:
    """Return a broker that serves runs."""
    with house() as built:
        yield built
