"""What a command leads to that its run does not see: a link's target, or the interpreter of a script."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from remit.run.machine import facts, links, room
from remit.run.sandbox import SYSTEM
from remit.run.spec import LaunchSpec, base_environment

DEPTH = 4  # scripts whose interpreters are scripts, as the kernel has it
_LINE = 256  # bytes of a script's first line that it reads


def unseen(spec: LaunchSpec) -> tuple[Path, Path] | None:
    """Return the first file on the way to a command that its run does not see, and the path to bind for it."""
    seen = [*map(Path, SYSTEM), *map(Path, facts(spec.socket.parent).interpreter)]
    seen += [Path(bind.path) for bind in room(spec).shown]
    for step in _way(spec.command[0], base_environment(spec)["PATH"], spec.cwd):
        if not any(step.is_relative_to(folder) for folder in seen):
            return step, _around(step, spec.home)
    return None


def _way(command: str, path: str, cwd: Path, depth: int = DEPTH) -> Iterator[Path]:
    """Yield a command, what its links lead to, and the same of its interpreter."""
    name = str(cwd / command) if "/" in command else shutil.which(command, path=path)
    if name is None or not depth or not Path(name).is_file():
        return
    yield Path(os.path.normpath(name))
    for link in links(Path(name)):
        yield Path(os.path.normpath(link.parent / link.readlink()))
    words = _first_line(Path(name))
    if words:
        by_name = Path(words[0]).name == "env" and len(words) > 1
        yield from _way(words[1] if by_name else words[0], path, cwd, depth - 1)


def _first_line(script: Path) -> Sequence[str]:
    try:
        with script.open("rb") as file:
            line = file.read(_LINE).partition(b"\n")[0]
    except OSError:
        return ()
    return os.fsdecode(line[2:]).split() if line.startswith(b"#!") else ()


def _around(path: Path, home: Path) -> Path:
    """Return what to bind for a program: the prefix that it is installed in, and never a whole home."""
    folder = path.parent
    wanted = folder.parent if folder.name == "bin" else folder
    return next((each for each in (wanted, folder) if not home.is_relative_to(each)), path)
