"""Who serves a state: the process with the lock on its database, the one that forked it, and all that these forked.

What a pid names may change at any time, a pidfd (pidfd_open(2)) names one process for good: it is opened first, then
the kernel is asked once more who has the lock.
"""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from remit.errors import UnavailableError
from remit.process.descent import parent

PATIENCE = 5.0  # seconds until what was killed is gone
PLACE = 5  # of the words of a line of /proc/locks: major:minor:inode; the process is before it


def holder(path: Path, told: int | None = None) -> int | None:
    """Return the process that has flock(2) on a file, by the kernel's word; None: none that this pid namespace knows.

    ``told`` is the process that says so of itself: some file systems number their devices differently there.
    """
    try:
        found, lines = path.stat(), Path("/proc/locks").read_text("ascii").splitlines()
    except OSError:
        return None
    device = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}"
    for words in (line.split() for line in lines):
        if words[1] != "FLOCK":
            continue
        place, _, inode = words[PLACE].rpartition(":")
        pid = int(words[PLACE - 1])
        if inode == str(found.st_ino) and pid > 0 and (place == device or pid == told):
            return pid
    return None


def end(path: Path, number: signal.Signals, told: int | None = None, patience: float = PATIENCE) -> int | None:
    """Send a signal to who has the lock on a file, and wait until it is gone; return the first of its processes.

    SIGKILL goes to all of them, any other to the first alone, which ends the others. None: nobody has the lock.
    UnavailableError when one is still there after ``patience`` seconds, or is not ours to end.
    """
    pid = holder(path, told)
    if pid is None:
        return None
    members = _tree(pid)
    with ExitStack() as stack:
        handles = list[int]()
        for member in members:
            with suppress(ProcessLookupError):
                handles.append(os.pidfd_open(member))
                stack.callback(os.close, handles[-1])
        if holder(path, told) != pid:  # it has gone meanwhile, and its number may be another's
            return end(path, number, told, patience)
        try:
            for handle in handles if number is signal.SIGKILL else handles[:1]:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(handle, number)
        except PermissionError as error:
            raise UnavailableError(f"process {pid} serves this state, and is not ours to end") from error
        _gone(handles, pid, patience)
    return members[0]


def _gone(handles: Sequence[int], pid: int, patience: float) -> None:
    deadline = time.monotonic() + patience
    for handle in handles:
        waiting = select.poll()
        waiting.register(handle, select.POLLIN)
        if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1_000):
            raise UnavailableError(f"the broker is still there: process {pid}", help="`remit stop --all` kills it")


def _tree(pid: int) -> list[int]:
    """Return the ancestor of a process that it was forked from, and all below it; the ancestor first."""
    parents, top = _parents(), pid
    while parents.get(top, 0) > 1 and _program(parents[top]) == _program(pid):
        top = parents[top]
    found = [top]
    for member in found:  # which grows
        found += [child for child, parent in parents.items() if parent == member]
    return found


def _parents() -> dict[int, int]:
    parents = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):
                parents[int(entry.name)] = parent(int(entry.name))
    return parents


def _program(pid: int) -> bytes | None:
    """Return the command line of a process, which a fork has of its parent."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes() or None
    return None
