from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path

import pytest

from remit.errors import UnavailableError
from remit.run import launcher

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def test_a_broker_that_ended_before_it_was_asked_is_looked_for_once_more(tmp_path: Path) -> None:
    gone, path = tmp_path / "gone.sock", tmp_path / "control.sock"
    found: list[Path] = []
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(str(path))
        there.listen()

        def find() -> Path:
            found.append(path)
            return path

        for first in (gone, path):
            launcher._asking(first, find).close()
    assert found == [path]
    with pytest.raises(UnavailableError):
        launcher._asking(gone, None)
    with pytest.raises(UnavailableError):
        launcher._asking(gone, lambda: gone)
