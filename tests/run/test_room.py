from __future__ import annotations

import pytest

from remit.run import room
from remit.run.room import RunRoom


def test_the_runs_of_one_task_take_no_room_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "RUNS_OF_A_TASK", 2)
    made = RunRoom()
    assert [made.take("one") for _ in range(3)] == [True, True, False]
    assert made.take("two")


def test_runs_inside_runs_leave_room_for_the_operators(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "RUNS", 4)
    monkeypatch.setattr(room, "RUNS_INSIDE", 2)
    made = RunRoom()
    assert [made.take(f"task-{number}") for number in range(3)] == [True, True, False]
    assert [made.take(None) for _ in range(3)] == [True, True, False]


def test_what_is_given_back_is_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "RUNS", 1)
    monkeypatch.setattr(room, "RUNS_OF_A_TASK", 1)
    made = RunRoom()
    for task in ("one", None, "one"):
        assert made.take(task)
        assert not made.take(None)
        made.give(task)
    assert made.taken == 0
