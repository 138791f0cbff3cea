"""Directories and files that only their owner can open, whatever the umask, and a lock that one process holds.

Looser modes found on disk are refused, never repaired quietly: somebody may have read the file already.
"""

from __future__ import annotations

import fcntl
import os
import stat
from pathlib import Path

from remit.errors import IntegrityError, UnavailableError

DIRECTORY = 0o700
FILE = 0o600


def make_directory(path: Path) -> None:
    """Create a directory with mode 0700, or check the one that is there; parents get what the umask says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        path.mkdir(mode=DIRECTORY)
    except FileExistsError:
        check(path, path.lstat(), DIRECTORY)
        return
    path.chmod(DIRECTORY)


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
    handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        pid = holder(path)
        raise UnavailableError(
            "another broker serves this state" + (f": process {pid}" if pid else ""),
            help="use that one, stop it, or name another REMIT_STATE_DIR",
        ) from error
    os.ftruncate(handle, 0)
    os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    return handle


def holder(path: Path) -> int | None:
    """Return the process that took a lock file last, if it says so; it need not live any more."""
    try:
        text = path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return int(text) if text.isdecimal() else None
