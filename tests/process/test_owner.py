"""Who serves a state, by the kernel's word, and the end of all its processes."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from remit.errors import UnavailableError
from remit.process import owner

# a supervisor that forks who takes the lock, and a worker; whoever is told to end ends the others first
SERVING = """
import fcntl, os, signal, sys
path, deaf = sys.argv[1], sys.argv[2] == "deaf"
ready, theirs = os.pipe()
children = []
for role in ("authority", "worker"):
    pid = os.fork()
    if not pid:
        if role == "authority":
            fcntl.flock(os.open(path, os.O_RDWR), fcntl.LOCK_EX)
        os.write(theirs, b"1")
        signal.pause()
    children.append(pid)
def ended(*_):
    for child in children:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    sys.exit(0)
signal.signal(signal.SIGTERM, signal.SIG_IGN if deaf else ended)
for _ in children:
    os.read(ready, 1)
print(*children, flush=True)
while True:
    signal.pause()
"""


@contextmanager
def serving(path: Path, how: str = "listens") -> Iterator[tuple[int, list[int]]]:
    """Have a state served by three processes: the first, and those that it forked."""
    path.touch(0o600)
    with subprocess.Popen([sys.executable, "-c", SERVING, str(path), how], stdout=-1, text=True) as first:
        assert first.stdout is not None
        children = [int(word) for word in first.stdout.readline().split()]
        try:
            yield first.pid, children
        finally:
            owner.end(path, signal.SIGKILL)
            first.kill()


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def test_the_holder_is_who_has_the_lock_whatever_a_file_says(tmp_path: Path) -> None:
    with serving(tmp_path / "db") as (_, [authority, _worker]):
        assert owner.holder(tmp_path / "db") == owner.holder(tmp_path / "db", told=1) == authority
    assert owner.holder(tmp_path / "db") is None
    assert owner.holder(tmp_path / "gone") is None


def test_a_lock_of_another_file_is_none_of_ours(tmp_path: Path) -> None:
    with serving(tmp_path / "other"):
        (tmp_path / "db").touch()
        assert owner.end(tmp_path / "db", signal.SIGKILL) is None


def test_kill_ends_the_holder_who_forked_it_and_all_below_and_nobody_else(tmp_path: Path) -> None:
    with serving(tmp_path / "other") as bystander, serving(tmp_path / "db", "deaf") as (first, children):
        assert owner.end(tmp_path / "db", signal.SIGKILL) == first
        assert [lives(pid) for pid in (first, *children)] == [False] * 3
        assert [lives(pid) for pid in (bystander[0], *bystander[1])] == [True] * 3
        assert lives(os.getpid())
        lock = os.open(tmp_path / "db", os.O_RDWR)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(lock)


def test_another_signal_goes_to_the_first_which_ends_the_others(tmp_path: Path) -> None:
    with serving(tmp_path / "db") as (first, children):
        assert owner.end(tmp_path / "db", signal.SIGTERM) == first
        assert [lives(pid) for pid in (first, *children)] == [False] * 3


def test_what_does_not_end_is_named(tmp_path: Path) -> None:
    with serving(tmp_path / "db", "deaf") as (first, _):
        with pytest.raises(UnavailableError, match="still there"):
            owner.end(tmp_path / "db", signal.SIGTERM, patience=0.1)
        assert lives(first)
