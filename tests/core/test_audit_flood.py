from __future__ import annotations

from datetime import UTC, datetime, timedelta

from remit.core.audit import LOUD, Flood

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)


def test_the_first_of_a_minute_are_told_then_each_power_of_two() -> None:
    flood = Flood()
    told = [count for count in (flood.told("bad", NOW) for _ in range(1_000)) if count is not None]
    assert told == [*range(1, LOUD + 1), 32, 64, 128, 256, 512]


def test_kinds_are_counted_apart_and_each_minute_anew() -> None:
    flood = Flood()
    for _ in range(100):
        flood.told("bad", NOW)
    assert flood.told("worse", NOW) == 1
    assert flood.told("bad", NOW + timedelta(minutes=1)) == 1
