from __future__ import annotations

import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from remit.errors import UnavailableError
from remit.run import launcher
from remit.run.launcher import announced, patience

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def moments(left: timedelta) -> list[timedelta]:
    """Return how long before its end a run with so much time left hears of it."""
    return [NOW + left - moment for moment, _ in announced(NOW + left, NOW, quiet=False)]


def test_a_run_hears_of_its_end_five_minutes_and_one_before_it_and_then() -> None:
    said = [text for _, text in announced(NOW + timedelta(hours=1), NOW, quiet=False)]
    assert moments(timedelta(hours=1)) == [timedelta(minutes=5), timedelta(minutes=1), timedelta(0)]
    assert [text.partition(";")[0] for text in said] == [
        "remit: this run's authority ends in 5 minutes",
        "remit: this run's authority ends in 1 minute",
        "remit: this run's authority has expired",
    ]
    assert all("`--ttl`" in text for text in said)


def test_what_would_be_too_early_for_a_short_run_is_left_out() -> None:
    assert moments(timedelta(minutes=5)) == [timedelta(minutes=1), timedelta(0)]
    assert moments(timedelta(seconds=3)) == [timedelta(0)]


def test_a_quiet_run_hears_nothing() -> None:
    assert announced(NOW + timedelta(hours=1), NOW, quiet=True) == ()


def test_nothing_is_waited_for_once_all_is_said() -> None:
    due = announced(NOW + timedelta(seconds=3), NOW, quiet=False)
    assert patience(due, NOW) == 3.0
    assert patience(due, NOW + timedelta(minutes=1)) == 0.0
    assert patience((), NOW) is None


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
