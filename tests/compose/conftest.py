"""Fixtures of the tests of the composition root."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.compose.policies import Deployment


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)
