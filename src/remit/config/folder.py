"""Files of a folder whose content somebody else may have chosen: read, and put in place of another, without following.

Each folder on the way is opened from the one above it, no link is followed, and a file is a plain one of ours with one
name: nothing in a project leads a command that reads or writes there to anywhere else.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from remit.errors import ConflictError, InvalidRequestError
from remit.keys.file import write_new

MAX_FILE = 4_194_304  # bytes
MAX_NAMES = 4_096
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOFOLLOW


@dataclass(frozen=True, slots=True)
class FileState:
    """A file as it was read: its text, and the bits of its mode."""

    text: str = field(repr=False)
    mode: int


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder of ours; paths in it are relative, with ``/``."""

    path: Path

    @contextmanager
    def _above(self, name: str) -> Iterator[tuple[int, str]]:
        *way, last = PurePosixPath(name).parts
        at = os.open(self.path, _FOLDER)
        try:
            for step in way:
                below = os.open(step, _FOLDER, dir_fd=at)
                os.close(at)
                at = below
            yield at, last
        finally:
            os.close(at)

    def names(self) -> list[str]:
        """Return what is directly in it, of the first few thousand names."""
        handle = os.open(self.path, _FOLDER)
        try:
            with os.scandir(handle) as found:
                return sorted(entry.name for entry, _ in zip(found, range(MAX_NAMES), strict=False))
        finally:
            os.close(handle)

    def read(self, name: str) -> FileState | None:
        """Return a file, or None where there is none; InvalidRequestError for what is no plain text file of ours."""
        try:
            with self._above(name) as (at, last):
                handle = os.open(last, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=at)
                with open(handle, "rb") as file:  # noqa: PTH123 - by descriptor
                    about = os.fstat(handle)
                    _check(about)
                    content = file.read(MAX_FILE + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise InvalidRequestError(f"it is a link, or cannot be opened: {error.strerror}") from error
        if len(content) > MAX_FILE:
            raise InvalidRequestError(f"it has more than {MAX_FILE} bytes")
        try:
            return FileState(content.decode(), stat.S_IMODE(about.st_mode) & 0o777)
        except UnicodeDecodeError:
            raise InvalidRequestError("it is not UTF-8 text") from None

    def make_above(self, name: str) -> None:
        """Make the folders that lead to a file, where there are none; none is made through a link."""
        *way, _ = PurePosixPath(name).parts
        at = os.open(self.path, _FOLDER)
        try:
            for step in way:
                with suppress(FileExistsError):
                    os.mkdir(step, 0o755, dir_fd=at)
                below = os.open(step, _FOLDER, dir_fd=at)
                os.close(at)
                at = below
        finally:
            os.close(at)

    def replace(self, name: str, was: str | None, text: str | None, mode: int) -> None:
        """Put a text in place of what a file ``was`` (None: there is none), at once or not at all.

        ConflictError where it is something else by now.
        """
        found = self.read(name)
        if (None if found is None else found.text) != was:
            raise ConflictError(f"`{self.path / name}` has changed meanwhile")
        with self._above(name) as (at, last):
            if text is None:
                os.unlink(last, dir_fd=at)
            else:
                _put(at, last, text, mode)
            os.fsync(at)


def _put(at: int, name: str, text: str, mode: int) -> None:
    beside = f".{name}.remit~"  # one name, so that what a crash left is taken away the next time
    with suppress(FileNotFoundError):
        os.unlink(beside, dir_fd=at)
    write_new(beside, text.encode(), at)
    try:
        os.chmod(beside, mode, dir_fd=at)
        os.rename(beside, name, src_dir_fd=at, dst_dir_fd=at)
    finally:
        with suppress(FileNotFoundError):
            os.unlink(beside, dir_fd=at)


def _check(about: os.stat_result) -> None:
    if not stat.S_ISREG(about.st_mode):
        raise InvalidRequestError("it is not a file")
    if about.st_uid != os.geteuid():
        raise InvalidRequestError("it belongs to somebody else")
    if about.st_nlink != 1:
        raise InvalidRequestError("it has other names: a hard link leads elsewhere")
