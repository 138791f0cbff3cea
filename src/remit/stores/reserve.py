"""Room beside the database that is kept for what ends authority, and given up in steps when the disk is full."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from remit.stores import private

SIZE = 1 << 20  # bytes
STEP = 64 << 10  # bytes: more than one end takes
PIECE = 4 << 10  # bytes: what is left of a step is taken back in these


class Reserve:
    """A file that holds nothing but room."""

    def __init__(self, path: Path) -> None:
        """Take the room, or as much as is left of it."""
        private.make_file(path)
        self._handle = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        self.fill()

    def fill(self) -> None:
        """Take the room that was given up, or as much of it as is there."""
        for size in range(SIZE, os.fstat(self._handle).st_size, -PIECE):
            with suppress(OSError):
                os.posix_fallocate(self._handle, 0, size)
                return

    def give(self) -> bool:
        """Give a step of it up; whether there was any."""
        left = os.fstat(self._handle).st_size
        os.ftruncate(self._handle, max(0, left - STEP))
        return left > 0

    def close(self) -> None:
        """Let go of the file, and leave the room taken."""
        os.close(self._handle)
