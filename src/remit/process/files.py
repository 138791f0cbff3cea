"""The files that a worker sees: a plan of binds and covers, and the same as rules of Landlock."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import remit

MAX_LINKS = 40  # as many as the kernel follows
DEVICES = tuple(Path("/dev") / name for name in ("null", "zero", "full", "random", "urandom"))
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ETC = (
    *("alternatives", "bash.bashrc", "ca-certificates", "ca-certificates.conf", "debian_version", "fonts", "gai.conf"),
    *("host.conf", "inputrc", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "locale.alias", "locale.conf", "localtime"),
    *("magic", "mime.types", "networks", "nsswitch.conf", "os-release", "pki/ca-trust", "pki/tls/certs", "protocols"),
    *("rpc", "services", "shells", "ssl/certs", "ssl/openssl.cnf", "terminfo", "timezone"),
)  # none of these holds a secret
ETC_HOST_NET = ("hosts", "resolv.conf")  # needed only to reach what a network of one's own cannot reach
ETC_NAMES = ("passwd", "group")


def programs() -> tuple[Path, ...]:
    """Return the interpreter's folders and the one that remit is imported from, where its neighbours are found, too."""
    return (Path(sys.base_prefix), Path(sys.prefix), Path(sys.exec_prefix), Path(remit.__file__).parents[1])


def imported() -> list[Path]:
    """Return where Python looks for code beside its own folders."""
    named = [entry for entry in (*sys.path, sys.pycache_prefix) if entry is not None]  # "" is the working directory
    return [path for path in map(Path, named) if path.exists()]


def python() -> tuple[Path, ...]:
    """Return what a process of remit imports from, also late; nothing by way of its working directory."""
    return (*programs(), *(path for path in imported() if path.is_absolute()))


def system() -> tuple[Path, ...]:
    """Return what of this machine holds no secret, and a program needs to run and to reach others."""
    return (*map(Path, SYSTEM), *(Path("/etc") / name for name in (*ETC, *ETC_HOST_NET, *ETC_NAMES)), *DEVICES)


def links(path: Path) -> Iterator[Path]:
    """Yield the symbolic links that the kernel follows on the way to a path."""
    at, todo, budget = Path("/"), list(reversed(path.absolute().parts[1:])), MAX_LINKS
    while todo and budget:
        step = at / todo.pop()
        if step.name == "..":
            at = at.parent
        elif not step.is_symlink():
            at = step
        else:
            yield step
            budget -= 1
            target = step.readlink()
            at = Path("/") if target.is_absolute() else at
            todo += reversed(target.parts[1:] if target.is_absolute() else target.parts)


def inside(path: Path, folders: Iterable[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _there(path: Path) -> bool:
    return os.access(path, os.F_OK)  # what cannot be looked up is not there, either


@dataclass(frozen=True, slots=True)
class View:
    """What of the file system is seen. Every path is as the kernel knows it; none of ``shown`` lies in another."""

    shown: tuple[Path, ...]
    links: tuple[tuple[Path, str], ...]  # symbolic links on the way to these, and where they lead
    covered: tuple[Path, ...]  # what lies in these and is not seen


def view(readable: Sequence[Path], covered: Sequence[Path]) -> View:
    """Look up what there is now of what may be read and of what is covered."""
    hidden = {path.resolve() for path in covered}
    shown: list[Path] = []
    for path in sorted({path.resolve() for path in readable}, key=lambda path: len(path.parts)):
        if _there(path) and not inside(path, (*shown, *hidden)):
            shown.append(path)
    followed = {link for path in readable if _there(path) for link in links(path) if not inside(link, shown)}
    return View(
        tuple(shown),
        tuple((link, os.readlink(link)) for link in sorted(followed)),  # noqa: PTH115 - as it is written
        tuple(path for path in sorted(hidden) if _there(path) and inside(path, shown)),
    )


def around(seen: View) -> Iterator[Path]:
    """Yield paths that have in them all that is seen, and nothing that is covered.

    Landlock allows what lies beneath a path, and takes nothing away: a folder with something covered in it stands for
    what else is in it now.
    """
    todo = list(seen.shown)
    while todo:
        path = todo.pop()
        if not any(cover.is_relative_to(path) for cover in seen.covered):
            yield path
        elif path not in seen.covered:
            with contextlib.suppress(OSError):
                todo += path.iterdir()
