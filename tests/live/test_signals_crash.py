"""kill -9 of the broker at every commit between hearing that a session is over and having told of every task's end."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest

from remit.core.request import GrantRequest
from remit.errors import GrantTokenError
from remit.sessions.transmitter import EventStream
from tests.broker.world import SEARCH, details
from tests.live import signal_driver
from tests.live.signal_driver import RECEIVER, SAID, TASKS, alice

pytestmark = [pytest.mark.live, pytest.mark.slow]

KILLED = -9


def run(folder: Path, die_at: int) -> tuple[int, list[str]]:
    """Run the story in a process of its own; return its exit code and what it printed."""
    command = [sys.executable, "-m", "tests.live.signal_driver", str(folder / "state"), str(die_at)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode in {0, KILLED}, done.stderr
    return done.returncode, done.stdout.splitlines()


async def recover(folder: Path, printed: list[str]) -> None:
    """Start again on the same state: what was acknowledged holds, and what was not comes again and holds then."""
    made, _ = signal_driver.broker(folder / "state")
    await made.start()
    try:
        tasks = {task.id: task.head.closed for task in list(made._tasks)}
        assert len(tasks) == TASKS
        heard = any(b"signal.take" in entry.leaf for entry in await made.entries(0, 100))
        assert "taken" not in printed or heard
        assert set(tasks.values()) == {heard}  # all or nothing
        if not heard:
            early = alice("early")
            assert await made.signal([SAID]) == TASKS
            with pytest.raises(GrantTokenError):
                await made.open(early, GrantRequest(details(SEARCH), purpose="draft"))
        assert await made.signal([SAID]) == 0
        told = {line.split()[1] for line in printed if line.startswith("told")}
        again = {ended.event.task for ended in await EventStream(made.sessions).pending(RECEIVER, TASKS)}
        assert told | again == set(tasks)  # each at least once
        assert len(told & again) <= 1  # and what was noted as taken not again
    finally:
        await made.stop()


def test_a_broker_killed_at_any_step_has_ended_and_told_all_in_the_end(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    whole.mkdir()
    code, printed = run(whole, 0)
    assert code == 0
    steps = int(printed[-1].split()[1])
    assert steps >= 2 * (1 + TASKS + TASKS)
    for step in range(1, steps + 1):
        folder = tmp_path / str(step)
        folder.mkdir()
        code, printed = run(folder, step)
        assert code == KILLED, step
        asyncio.run(recover(folder, printed))
