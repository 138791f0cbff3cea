"""kill -9 at any moment, of anybody: whoever is left is whoever should be."""

from __future__ import annotations

import os
import random
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.process.rig import SECONDS, Rig

WALLS = pytest.mark.parametrize("walls", ["namespaces", "landlock"])


def _wait(rig: Rig, dice: random.Random, most: float) -> None:
    """Let a random time pass."""
    with suppress(subprocess.TimeoutExpired):
        rig.process.wait(dice.random() * most)


def _started(rig: Rig) -> None:
    """Have one edge and targets, under whichever authority is alive by then."""
    rig.ask("ready")
    for role in ("edge", "targets"):
        rig.start(role)


@WALLS
@pytest.mark.parametrize("seed", range(3))
def test_whoever_dies_is_replaced(walls: str, seed: int) -> None:
    dice = random.Random(seed)  # noqa: S311 - told by its seed
    with Rig(walls) as rig:
        _started(rig)
        rig.state()
        descriptors = len(os.listdir(f"/proc/{rig.process.pid}/fd"))  # noqa: PTH208 - a number
        for _ in range(8):
            names = dice.sample(["authority", "edge", "targets"], dice.choice([1, 1, 2]))
            for name in names:
                _wait(rig, dice, 0.02)
                with suppress(ProcessLookupError):
                    os.kill(rig.pids[name], signal.SIGKILL)
            if "authority" in names:
                rig.pids = {"authority": rig.wait("authority")[1]}
                rig.happened.clear()
                _started(rig)
            for name in ("edge", "targets"):
                while rig.run(name, "found = context.name") != name:
                    _wait(rig, dice, 0.02)  # its link ended, and it is not yet started again
        rig.state()
        alive = {process.pid for process in rig.family()}
        assert alive == set(rig.pids.values())
        assert len(os.listdir(f"/proc/{rig.process.pid}/fd")) == descriptors  # noqa: PTH208 - a number


@WALLS
@pytest.mark.parametrize("seed", range(12))
def test_with_the_supervisor_everybody_dies_at_any_moment(walls: str, seed: int) -> None:
    """Among them who is not yet confined, or not yet its child."""
    dice = random.Random(seed)  # noqa: S311 - told by its seed
    with Rig(walls) as rig:
        rig.ask("ready")
        for _ in range(4):
            rig.say("start", "edge" if dice.random() < 0.5 else "targets")
        _wait(rig, dice, 0.08)
        rig.process.kill()
        rig.process.wait(SECONDS)
        left = [process for process in psutil.process_iter(["name"]) if _belongs(process, rig)]
        psutil.wait_procs(left, SECONDS)
        assert [process for process in left if process.is_running()] == []


def _belongs(process: psutil.Process, rig: Rig) -> bool:
    """Whether a process is of a rig, by its environment."""
    with suppress(psutil.Error, OSError):
        return rig.mark in Path(f"/proc/{process.pid}/environ").read_text(encoding="utf-8", errors="replace")
    return False
