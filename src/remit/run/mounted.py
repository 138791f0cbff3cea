"""Whether a sandbox shows what it was made to show.

Bubblewrap binds by name. Whoever can write in a folder, as another run there, may put a link in the place of what is
about to be bound, so the kernel is asked what became of it before anything runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from remit.process.files import inside

BINDS = ("--bind", "--ro-bind", "--ro-bind-try")
NODES = ("null", "zero", "full", "random", "urandom", "tty")  # that bubblewrap binds by itself
_ESCAPE = re.compile(rb"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Mount:
    """A line of mountinfo (proc(5)): which part of which file system is where."""

    device: str
    root: Path
    place: Path
    writable: bool


def shown(process: int) -> Path:
    """Return where /proc shows a process. Its number is ours; a /proc that we share with a run around us has others."""
    handle = os.pidfd_open(process)
    try:
        told = Path(f"/proc/self/fdinfo/{handle}").read_text("ascii")
    finally:
        os.close(handle)
    return Path("/proc", told.partition("Pid:")[2].split()[0])


def mounts(process: int) -> list[Mount]:
    """Return what a process sees mounted."""
    found = []
    for line in (shown(process) / "mountinfo").read_bytes().split(b"\n")[:-1]:  # a name may hold a CR
        words = [os.fsdecode(_ESCAPE.sub(lambda octal: bytes((int(octal[1], 8),)), word)) for word in line.split(b" ")]
        found.append(Mount(words[2], Path(words[3]), Path(words[4]), "rw" in words[5].split(",")))
    return found


def strange(
    made: Sequence[Mount], ours: Sequence[Mount], options: Sequence[str], named: Collection[Path] = ()
) -> Iterator[Path]:
    """Yield where a sandbox that was ``made`` shows what bubblewrap's ``options`` did not say of ``ours``.

    What was bound by name was looked up before: a link that is now at one of ``named`` was put there since.
    """
    asked = [
        (Path(place), Path(source), option)
        for option, source, place in zip(options, options[1:], options[2:], strict=False)
        if option in BINDS
    ]
    loose = [source for _, source, option in asked if option == "--bind"]  # whose names can be moved
    asked = [(p, s if s in named or inside(s, loose) else s.resolve(), o) for p, s, o in asked]
    asked += [(Path("/dev", name), Path("/dev", name), "--bind") for name in NODES]
    devices = {mount.device for mount in ours}
    for mount in made:
        if mount.device in devices and not any(
            (mount.device, mount.root) in _located(ours, source / mount.place.relative_to(place))
            and (option == "--bind" or not mount.writable)
            for place, source, option in asked
            if mount.place.is_relative_to(place)
        ):
            yield mount.place


def _located(ours: Sequence[Mount], path: Path) -> set[tuple[str, Path]]:
    """Return on which file system a path lies, and where there; on each, where several are mounted at one place."""
    around = [mount for mount in ours if path.is_relative_to(mount.place)]
    deepest = max(len(mount.place.parts) for mount in around)
    return {(m.device, m.root / path.relative_to(m.place)) for m in around if len(m.place.parts) == deepest}
