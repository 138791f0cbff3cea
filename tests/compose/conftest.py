"""Fixtures of the tests of the composition root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.broker.world import FullEngine, Target
from tests.compose.policies import Deployment
from tests.support.kinds import simulated


@pytest.fixture
def deployment(tmp_path: Path) -> Deployment:
    return Deployment(tmp_path)


@pytest.fixture
def target(monkeypatch: pytest.MonkeyPatch) -> Target:
    """Return the target that all resources are at."""
    made = Target()
    there = simulated(lambda _resource, _secret: FullEngine(made))
    monkeypatch.setattr("remit.compose.wiring.kinds.known", lambda *_: there)
    return made


@pytest.fixture
def environ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    config = tmp_path / "config" / "remit"
    config.mkdir(parents=True)
    (config / "config.toml").write_text('[listen]\napi = "off"\ngateway = "off"\n', "utf-8")
    names = {"XDG_CONFIG_HOME": str(config.parent), "REMIT_STATE_DIR": str(tmp_path / "state")}
    for name, value in names.items():
        monkeypatch.setenv(name, value)
    return {**os.environ, **names}
