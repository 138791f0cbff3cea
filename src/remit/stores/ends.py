"""Ends that the database could not take, in a file of fixed size beside it. It is written in place: no room is needed.

- Each write goes to the older of two halves, so that one which is cut off leaves the one before it.
- A half is: tag, number of the write, length, JSON. What does not fit is widened, never dropped: the task with most to
  say of it to the whole of it, and so on; then to everything.
- A file of which neither half verifies means everything.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from remit.errors import UnavailableError
from remit.ports import NotedEnd
from remit.stores import private
from remit.stores.tags import HALF, Tags

SIZE = 1 << 20  # bytes of the file
HEAD = struct.Struct(f"!{HALF}sQI")
ROOM = SIZE // 2 - HEAD.size  # bytes of JSON

_Noted = tuple[int, tuple[NotedEnd, ...]]


class EndsFile:
    """The file. Its methods block; ``write`` may take for ever on a disk that does."""

    def __init__(self, path: Path, tags: Tags) -> None:
        """Open it, making it if there is none; a disk that has no room for it is tried again at each write."""
        self._path, self._tags = path, tags
        self._handle: int | None = None
        self._number = 0
        with suppress(OSError):
            self._open()
            self.read()

    def _open(self) -> int:
        if self._handle is not None:
            return self._handle
        if not self._path.exists():
            self._make()
        private.make_file(self._path)
        self._handle = os.open(self._path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        return self._handle

    def _make(self) -> None:
        """Make it with all its room taken, under another name first: half of one would mean that everything ended."""
        fresh = self._path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        private.make_file(fresh)
        half = self._half(0, b"[]").ljust(SIZE // 2, b"\0")
        with fresh.open("r+b") as file:
            file.write(half * 2)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._path)
        handle = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)

    def read(self) -> Sequence[NotedEnd]:
        """Return what was written last."""
        try:
            content = os.pread(self._open(), SIZE, 0)
        except OSError:
            return (NotedEnd(),) if self._path.exists() else ()
        found = [half for at in (0, SIZE // 2) if (half := self._verified(content[at : at + SIZE // 2])) is not None]
        self._number, noted = max(found, key=lambda half: half[0], default=(0, (NotedEnd(),)))
        return noted

    def write(self, ends: Sequence[NotedEnd]) -> None:
        """Write durably, in place of what was written before the last time."""
        try:
            handle, number = self._open(), self._number + 1
            os.pwrite(handle, self._half(number, _fitting(ends)), number % 2 * (SIZE // 2))
            os.fdatasync(handle)
        except OSError as error:
            raise UnavailableError("what has ended cannot be noted beside the state") from error
        self._number = number

    def close(self) -> None:
        if self._handle is not None:
            os.close(self._handle)

    def _half(self, number: int, body: bytes) -> bytes:
        return HEAD.pack(self._tags.row(("ends", number), (body,))[0], number, len(body)) + body

    def _verified(self, half: bytes) -> _Noted | None:
        if len(half) < HEAD.size:
            return None
        _, number, length = HEAD.unpack_from(half)
        body = half[HEAD.size : HEAD.size + length]
        if not half.startswith(self._half(number, body)):
            return None
        return number, msgspec.json.decode(body, type=tuple[NotedEnd, ...])


def _fitting(ends: Sequence[NotedEnd]) -> bytes:
    """Return ends as JSON of at most ``ROOM`` bytes, widened as far as needed."""
    encode = msgspec.json.encode
    parts = sorted(((encode(end), end) for end in ends), key=lambda part: len(part[0]), reverse=True)
    over = sum(len(part) + 1 for part, _ in parts) + 1 - ROOM
    kept = list[bytes]()
    for part, end in parts:
        whole = encode(NotedEnd(end.task)) if over > 0 else part
        over -= len(part) - len(whole)
        kept.append(whole)
    return b"[" + b",".join(kept) + b"]" if over <= 0 else encode((NotedEnd(),))
