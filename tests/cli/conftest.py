"""Fixtures of the command line's tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.sdk.plane import Served, served


@pytest.fixture
def plane(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    """Serve a broker, and stand in a directory of our own."""
    with served(tmp_path) as found:
        monkeypatch.setenv("REMIT_SOCKET", str(found.control))
        monkeypatch.setenv("REMIT_STATE_DIR", str(tmp_path / "state"))
        monkeypatch.setenv("COLUMNS", "120")
        work = tmp_path / "work"
        work.mkdir()
        monkeypatch.chdir(work)
        yield found
