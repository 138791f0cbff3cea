"""The broker's time goes on whatever the wall says, and what is due is found without looking at the rest."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.broker.clock import JITTER, Deadlines, SteadyClock
from remit.errors import UnavailableError
from tests.broker.world import START

DAY = timedelta(days=1)


@dataclass
class Machine:
    """A machine whose wall clock anybody sets, and which counts the seconds since it was started."""

    wall: datetime = START
    up: float = 1_000.0
    timing: SteadyClock = field(init=False)

    def __post_init__(self) -> None:
        self.timing = SteadyClock(lambda: self.wall, lambda: self.up)

    def run(self, seconds: float) -> None:
        """Let time pass, also in sleep."""
        self.wall += timedelta(seconds=seconds)
        self.up += seconds


def test_time_is_the_walls_while_that_goes_forward() -> None:
    machine = Machine()
    machine.timing.see(START - DAY)
    assert machine.timing.now() == START
    machine.run(60)
    assert machine.timing.now() == START + timedelta(seconds=60)


def test_time_goes_on_from_what_was_seen_where_the_clock_is_a_day_behind_at_the_start() -> None:
    machine = Machine(START - DAY)
    machine.timing.see(START)
    for _ in range(3):
        machine.run(30)
    assert machine.timing.now() == START + timedelta(seconds=90)


def test_what_is_seen_late_of_an_earlier_time_does_not_take_time_back() -> None:
    machine = Machine(START - DAY)
    machine.timing.see(START)
    machine.run(30)
    machine.timing.see(START - timedelta(hours=1))
    assert machine.timing.now() == START + timedelta(seconds=30)


def test_what_a_machine_slept_counts() -> None:
    machine = Machine(START - DAY)
    machine.timing.see(START)
    machine.up += 3_600
    assert machine.timing.now() == START + timedelta(hours=1)


def test_a_clock_that_jumps_ahead_and_back_while_running_does_not_stop_time() -> None:
    machine = Machine()
    machine.timing.now()
    machine.wall += DAY
    assert machine.timing.now() == START + DAY
    machine.wall -= DAY
    machine.run(5)
    assert machine.timing.now() == START + DAY + timedelta(seconds=5)


def test_time_that_was_seen_counts_no_more_once_the_wall_is_accepted() -> None:
    machine = Machine(START - DAY)
    machine.timing.see(START)
    assert machine.timing.ahead == DAY
    machine.timing.accept()
    assert (machine.timing.now(), machine.timing.ahead) == (START - DAY, timedelta())
    machine.run(60)
    assert machine.timing.forward() == START - DAY + timedelta(seconds=60)


def test_nothing_is_extended_while_the_clock_is_behind_and_all_is_well_when_it_has_caught_up() -> None:
    machine = Machine()
    machine.timing.now()
    machine.wall -= timedelta(seconds=6)
    with pytest.raises(UnavailableError, match="clock"):
        machine.timing.forward()
    machine.wall += timedelta(seconds=6)
    assert machine.timing.forward() == START


@given(st.lists(st.tuples(st.floats(0, 1e5), st.floats(-1e5, 1e5)), max_size=20))
def test_time_never_goes_back_and_is_never_slower_than_what_passed(steps: list[tuple[float, float]]) -> None:
    machine = Machine()
    before = machine.timing.now()
    for passed, jump in steps:
        machine.run(passed)
        machine.wall += timedelta(seconds=jump)
        now = machine.timing.now()
        assert now - before >= timedelta(seconds=passed - JITTER) - timedelta(microseconds=2)
        before = now


def test_time_does_not_stand_still_however_often_it_is_asked_for() -> None:
    machine = Machine(START - DAY)
    machine.timing.see(START)
    for _ in range(10_000):
        machine.up += 0.0005
        machine.timing.now()
    assert machine.timing.now() >= START + timedelta(seconds=4.9)


def test_the_earliest_of_several_deadlines_of_one_counts_and_only_once() -> None:
    deadlines = Deadlines()
    for seconds in (30, 10, 20):
        deadlines.put("task_1", START + timedelta(seconds=seconds))
    assert deadlines.due(START + timedelta(seconds=9)) == []
    assert deadlines.due(START + timedelta(seconds=10)) == ["task_1"]
    assert deadlines.due(START + DAY) == []


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 50), st.integers(0, 5)), max_size=60))
def test_deadlines_say_the_same_as_a_look_at_all_of_them(steps: list[tuple[str, int, int]]) -> None:
    deadlines, known, now = Deadlines(), dict[str, int](), 0
    for name, at, passed in steps:
        deadlines.put(name, START + timedelta(seconds=at))
        known[name] = min(at, known.get(name, at))
        now += passed
        expected = {name for name, when in known.items() if when <= now}
        assert set(deadlines.due(START + timedelta(seconds=now))) == expected
        known = {name: when for name, when in known.items() if name not in expected}


def test_what_was_overtaken_takes_bounded_room_however_often_something_is_due_earlier() -> None:
    deadlines = Deadlines()
    for second in range(5_000):  # a task that lasts a day, with something due in it each second
        deadlines.put("task_1", START + DAY)
        deadlines.put("task_1", START + timedelta(seconds=second))
        assert deadlines.due(START + timedelta(seconds=second)) == ["task_1"]
    assert len(deadlines._heap) < 100
    deadlines.put("task_1", START + DAY)
    assert deadlines.due(START + DAY) == ["task_1"]
