"""What every test shares: a bounded Hypothesis, and no inherited remit environment."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, settings

from tests.support import kinds

settings.register_profile("house", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("deep", deadline=None, max_examples=2_000, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("REMIT_HYPOTHESIS", "house"))

SPREAD: Sequence[str] = ("test_mutants.py", "test_mutants_policies.py", "test_frameworks.py")  # long, each on its own

kinds.register()  # before any test module reads a scope

os.umask(0o022)  # not the developer's own: policies that a group can write are refused


@pytest.fixture(autouse=True)
def _no_ambient_remit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep a developer's own broker out of the tests."""
    for name in ("REMIT_SOCKET", "REMIT_GRANT", "REMIT_GATEWAY", "REMIT_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)


@pytest.hookimpl(tryfirst=True)  # before xdist reads what its groups are
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let workers share the tests out file by file, as a file's fixtures are its own; those of ``SPREAD`` one by one.

    Files that wait for real peers come first, so that no worker is left alone with one of them at the end.
    """
    for item in items:
        if item.path.name not in SPREAD:
            item.add_marker(pytest.mark.xdist_group(item.nodeid.partition("::")[0]))
    first = {item.path for item in items if _waits(item)}
    items.sort(key=lambda item: item.path not in first)


def _waits(item: pytest.Item) -> bool:
    return item.get_closest_marker("live") is not None or item.get_closest_marker("slow") is not None
