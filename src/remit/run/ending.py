"""What a launcher says before its run's authority ends by time. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta

BEFORE = (timedelta(minutes=5), timedelta(minutes=1))  # early enough to finish, or to begin another run
LONGER = "another run has it anew, and longer with `--ttl`"


def announced(expires_at: datetime, now: datetime, *, quiet: bool) -> tuple[tuple[datetime, str], ...]:
    """Return what to say and when, the earliest first, of a run that begins ``now``; nothing if it is quiet."""
    return () if quiet else tuple(_all(expires_at, now))


def _all(expires_at: datetime, now: datetime) -> Iterator[tuple[datetime, str]]:
    for before in BEFORE:
        if expires_at - before > now:
            minutes = int(before.total_seconds() / 60)
            text = f"in {minutes} minute{'s' if minutes > 1 else ''}"
            yield expires_at - before, f"remit: this run's authority ends {text}; {LONGER}"
    yield expires_at, f"remit: this run's authority has expired; {LONGER}"


def patience(due: Sequence[tuple[datetime, str]], now: datetime) -> float | None:
    """Return for how many seconds there is nothing to say; None: for good."""
    return max(0.0, (due[0][0] - now).total_seconds()) if due else None
