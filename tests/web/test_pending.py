"""What waits in memory: found by its name, for its time, and never more of it than there is room for."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pytest

from remit.errors import LimitError
from remit.web import pending
from remit.web.pending import PendingStore

MINUTE = timedelta(minutes=1)


@dataclass
class Clock:
    """A time that tests turn."""

    now: datetime = datetime(2026, 11, 25, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


def test_a_thing_is_found_by_its_name_until_its_time_is_up() -> None:
    clock = Clock()
    kept: PendingStore[str] = PendingStore(clock)
    name, own = kept.put("a", MINUTE), kept.put("b", MINUTE, "own")
    assert (kept.get(name), kept.get(own), own) == ("a", "b", "own")
    assert kept.get("other") is None
    assert (kept.pop(name), kept.pop(name)) == ("a", None)
    clock.now += MINUTE
    assert kept.get("own") is None
    assert len({kept.put("c", MINUTE) for _ in range(10)}) == 10


def test_what_is_of_one_room_takes_no_place_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pending, "MOST", 1)
    kept: PendingStore[int] = PendingStore(Clock())
    name, other = kept.put(1, MINUTE, room="a"), kept.put(2, MINUTE, room="b")
    for room in "ab":
        with pytest.raises(LimitError):
            kept.put(3, MINUTE, room=room)
    assert (kept.get(name), kept.pop(other)) == (1, 2)
    kept.put(4, MINUTE, room="b")
    with pytest.raises(LimitError):
        kept.put(5, MINUTE, room="a")


def test_no_name_is_kept_itself() -> None:
    kept: PendingStore[str] = PendingStore(Clock())
    name = kept.put("it", MINUTE)
    assert len(name) == 43
    assert name not in repr(vars(kept))


@pytest.mark.parametrize(("most", "size"), [(2, 1), (99, 50)])
def test_there_is_room_for_so_many_and_so_much_until_some_are_over(
    monkeypatch: pytest.MonkeyPatch, most: int, size: int
) -> None:
    monkeypatch.setattr(pending, "MOST", most)
    monkeypatch.setattr(pending, "MAX_BYTES", 100)
    clock = Clock()
    kept: PendingStore[int] = PendingStore(clock)
    first = kept.put(1, MINUTE, size=size)
    kept.put(2, 2 * MINUTE, "second", size=size)
    with pytest.raises(LimitError):
        kept.put(3, MINUTE, size=size)
    kept.put(4, 2 * MINUTE, "second", size=size)  # in place of the other
    kept.pop(first)
    kept.put(5, 3 * MINUTE, size=size)
    with pytest.raises(LimitError):
        kept.put(6, MINUTE, size=size)
    clock.now += 2 * MINUTE
    kept.put(7, MINUTE, size=size)
    assert kept.get("second") is None


def test_in_a_small_room_the_oldest_makes_way_and_no_other_room_is_touched() -> None:
    kept: PendingStore[int] = PendingStore(Clock())
    other, names = kept.put(0, MINUTE, room="b"), [kept.put(number, MINUTE, room="a", most=3) for number in range(5)]
    assert [kept.get(name) for name in names] == [None, None, 2, 3, 4]
    assert kept.get(other) == 0


def test_rooms_that_nobody_comes_to_any_more_are_cleared() -> None:
    clock = Clock()
    kept: PendingStore[int] = PendingStore(clock)
    for number in range(100):
        kept.put(number, MINUTE, room=f"room-{number}", most=3)
    clock.now += MINUTE
    for number in range(50):
        kept.put(number, MINUTE, room="a", most=3)
    assert len(kept._by_digest) == 3
    assert set(kept._count) == {"a"}
