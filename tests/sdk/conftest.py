"""Fixtures of the client's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from remit.sdk import Client
from tests.sdk.plane import Served, served


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[Served]:
    """Serve a broker."""
    with served(tmp_path) as found:
        yield found


@pytest.fixture
def client(plane: Served) -> Iterator[Client]:
    """Return the operator's client."""
    with Client(plane.place) as found:
        yield found
