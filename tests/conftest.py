"""What every test shares: a bounded Hypothesis, and no inherited remit environment."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", deadline=None, max_examples=2_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("REMIT_HYPOTHESIS", "house"))

os.umask(0o022)  # not the developer's own: policies that a group can write are refused


@pytest.fixture(autouse=True)
def _no_ambient_remit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a developer's own broker out of the tests."""
    for name in ("REMIT_SOCKET", "REMIT_GRANT", "REMIT_GATEWAY", "REMIT_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
