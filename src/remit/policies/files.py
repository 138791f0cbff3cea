"""The files of a policy directory, read so that nobody but their owner and root could have written them."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from pathlib import Path

from remit.core.policy import Problem

MAX_FILE = 262_144  # bytes
MAX_FILES = 1_000
MAX_ALL = 4_194_304  # bytes
SUFFIX = ".cedar"


def read(directory: Path) -> tuple[Mapping[str, str], tuple[Problem, ...]]:
    """Return the ``*.cedar`` files of a directory (name -> text), or what is wrong with them.

    Sub-directories are not looked into; a link is followed only inside the directory.
    """
    texts: dict[str, str] = {}
    problems: list[Problem] = []
    try:
        root = directory.resolve(strict=True)
        wrong = _writable(root.stat(), "the directory") if root.is_dir() else "this is not a directory"
        found = sorted(path for path in root.iterdir() if path.name.endswith(SUFFIX)) if not wrong else []
    except OSError as error:
        return {}, (Problem("", 0, f"`{directory}` cannot be read: {error.strerror}"),)
    if wrong or len(found) > MAX_FILES:
        return {}, (Problem("", 0, wrong or f"there are more than {MAX_FILES} files"),)
    for path in found:
        text = _text(root, path)
        if isinstance(text, Problem):
            problems.append(text)
        else:
            texts[path.name] = text
    if sum(map(len, texts.values())) > MAX_ALL:
        problems.append(Problem("", 0, f"the files have more than {MAX_ALL} bytes together"))
    return texts, tuple(problems)


def _text(root: Path, path: Path) -> str | Problem:
    try:
        real = path.resolve(strict=True)
        if not real.is_relative_to(root):
            return Problem(path.name, 0, "this is a link out of the directory")
        with os.fdopen(os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            found = os.fstat(file.fileno())
            wrong = _writable(found, "the file") if stat.S_ISREG(found.st_mode) else "this is not a regular file"
            raw = b"" if wrong else file.read(MAX_FILE + 1)
        if len(raw) > MAX_FILE:
            wrong = f"the file has more than {MAX_FILE} bytes"
        return Problem(path.name, 0, wrong) if wrong else raw.decode("utf-8")
    except UnicodeDecodeError:
        return Problem(path.name, 0, "this is not UTF-8 text")
    except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
        return Problem(path.name, 0, f"it cannot be read: {getattr(error, 'strerror', None) or 'links in a circle'}")


def _writable(found: os.stat_result, what: str) -> str:
    """Say what is wrong with the owner or the mode, or nothing. Who is in a group can change; root's counts as root."""
    if found.st_uid not in {0, os.geteuid()}:
        return f"{what} belongs to somebody else"
    if found.st_mode & stat.S_IWOTH:
        return f"{what} can be written by everybody: chmod go-w"
    by_group = found.st_mode & stat.S_IWGRP and found.st_gid != 0
    return f"{what} can be written by its group: chmod g-w" if by_group else ""
