"""Fixtures of the broker's tests."""

from __future__ import annotations

import pytest

from tests.broker.asking import House
from tests.broker.world import World


@pytest.fixture
def world() -> World:
    """Return a fresh world."""
    return World()


@pytest.fixture
def house() -> House:
    """Return a house over a fresh world."""
    return House()
