from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from remit.process.descent import descends


@pytest.fixture
def child() -> Iterator[int]:
    with subprocess.Popen(["sh", "-c", "sleep 100 & wait"]) as process:
        yield process.pid
        process.terminate()


def test_a_process_descends_from_itself_and_its_ancestors(child: int) -> None:
    for ancestor in (child, os.getpid(), os.getppid()):
        assert descends(child, ancestor)


def test_it_does_not_descend_from_others(child: int) -> None:
    assert not descends(os.getpid(), child)
    assert not descends(os.getppid(), child)


def test_in_doubt_it_descends(child: int) -> None:
    absent = int(Path("/proc/sys/kernel/pid_max").read_text(encoding="ascii"))  # no pid is as high
    assert descends(absent, child)
    assert descends(0, child)
