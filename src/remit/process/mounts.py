"""A file system of one's own: a new root with what may be seen, read-only. For the first process of its namespaces."""

from __future__ import annotations

import ctypes
import os
import struct
from contextlib import suppress
from pathlib import Path

from remit.process import kernel
from remit.process.files import View

_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8
_BIND, _REC, _PRIVATE = 4096, 16384, 1 << 18
_DETACH = 2
_AT_FDCWD, _AT_RECURSIVE = -100, 0x8000
_ATTR_RDONLY, _ATTR_NOSUID = 1, 2
_SIZE = "16m"  # of the folders and links on the way to what is seen
_BASE, _OLD = "/tmp", "old"  # noqa: S108 - nothing is written there: the new root is mounted on it


def replace_root(seen: View) -> bool:
    """See nothing but a view; return whether there is a /proc of our own, too."""
    old = _pivot()
    for name in ("proc", "tmp"):
        Path("/", name).mkdir()
    for link, target in seen.links:
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target)
    for path in seen.shown:
        _bind(Path(f"{old}{path}"), path)
    for path in seen.covered:
        if path.is_dir():
            kernel.mount("tmpfs", str(path), "tmpfs", _RDONLY | _NOSUID | _NODEV | _NOEXEC, "mode=0,nr_inodes=1")
        else:
            kernel.mount(f"{old}/dev/null", str(path), None, _BIND)
    own = _proc()
    kernel.umount(old, _DETACH)
    Path(old).rmdir()
    _read_only("/", 0)
    return own


def _pivot() -> str:
    """Make an empty file system the root; return where the old one is in it."""
    kernel.mount(None, "/", None, _REC | _PRIVATE)
    kernel.mount("tmpfs", _BASE, "tmpfs", _NOSUID | _NODEV, f"mode=0755,size={_SIZE}")
    Path(_BASE, _OLD).mkdir()
    kernel.syscall("pivot_root", _BASE, f"{_BASE}/{_OLD}")
    os.chdir("/")
    return f"/{_OLD}"


def _bind(source: Path, target: Path) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    kernel.mount(str(source), str(target), None, _BIND | _REC)
    _read_only(str(target), _AT_RECURSIVE)


def _proc() -> bool:
    """Mount a /proc of our processes alone, read-only; the kernel refuses where the one outside has covers."""
    with suppress(OSError):
        kernel.mount("proc", "/proc", "proc", _RDONLY | _NOSUID | _NODEV | _NOEXEC)
        return True
    return False


def _read_only(path: str, flags: int) -> None:
    attributes = ctypes.create_string_buffer(struct.pack("=4Q", _ATTR_RDONLY | _ATTR_NOSUID, 0, 0, 0))
    kernel.syscall("mount_setattr", ctypes.c_long(_AT_FDCWD), path, flags, attributes, 32)
