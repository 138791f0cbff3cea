"""Directories and files that only their owner can open, whatever the umask; and the lock.

Looser modes found on disk are refused, never repaired quietly: somebody may have read the file already.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from remit.errors import IntegrityError, UnavailableError

DIRECTORY = 0o700
FILE = 0o600
PID = 20  # bytes of a lock file


def make_directory(path: Path) -> None:
    """Create a directory with mode 0700, or check the one that is there; parents get what the umask says."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            path.mkdir(mode=DIRECTORY)
            path.chmod(DIRECTORY)
        check(path, path.lstat(), DIRECTORY)
    except OSError as error:
        raise UnavailableError(
            f"the state directory cannot be used: {error.strerror}",
            help=f"look at `{path}`, or name another place: REMIT_STATE_DIR",
        ) from error


def make_file(path: Path) -> None:
    """Create an empty file with mode 0600, or check the one that is there."""
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, FILE)
    except FileExistsError:
        check(path, path.lstat(), FILE)
        return
    try:
        os.fchmod(handle, FILE)
    finally:
        os.close(handle)


def check(path: Path, found: os.stat_result, mode: int) -> None:
    """Raise IntegrityError unless ``path`` is ours, of the kind that ``mode`` stands for, and no looser than it."""
    right_kind = stat.S_ISDIR(found.st_mode) if mode == DIRECTORY else stat.S_ISREG(found.st_mode)
    if not right_kind:
        raise IntegrityError("something else is where remit keeps its state", help=f"move `{path}` away")
    if found.st_uid != os.geteuid():
        raise IntegrityError("the state belongs to another user", help=f"chown {os.geteuid()} '{path}'")
    if stat.S_IMODE(found.st_mode) & ~mode:
        raise IntegrityError("others may open the state", help=f"chmod {mode:o} '{path}'")


def lock(path: Path) -> int:
    """Take the lock file and write our pid into it, or raise UnavailableError when another has it; return it, open."""
    make_file(path)
    handle = hold(path, os.O_RDWR)
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


def hold(path: Path, how: int = os.O_RDONLY) -> int:
    """Take a file or directory of the state for ourselves; return it, open. A name that is gone lets nobody in.

    INVARIANT: this is flock(2), which knows nothing of SQLite's own locks (fcntl). But closing any descriptor of a
    database lets go of those: close this one after the connections.
    """
    handle = os.open(path, how | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    found = os.fstat(handle)
    try:
        check(path, found, DIRECTORY if stat.S_ISDIR(found.st_mode) else FILE)
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        pid = holder((path if stat.S_ISDIR(found.st_mode) else path.parent) / "lock")
        raise UnavailableError(
            "another broker serves this state" + (f": process {pid}" if pid else ""),
            help="use that one, end it with `remit down`, or name another REMIT_STATE_DIR",
        ) from error
    except BaseException:
        os.close(handle)
        raise
    return handle


def release(handles: Iterable[int]) -> None:
    """Close what was held, so that others can take it."""
    for handle in handles:
        os.close(handle)


def holder(path: Path) -> int | None:
    """Return the process that took a lock file last, if it says so; it need not live any more."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        text = os.read(handle, PID) if stat.S_ISREG(os.fstat(handle).st_mode) else b""
    finally:
        os.close(handle)
    return int(text) if text.strip().isdigit() else None
