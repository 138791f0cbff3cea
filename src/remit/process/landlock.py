"""Landlock (landlock(7)): what may be read, for a kernel that gives no namespaces."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from remit.process import kernel

_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1
_WRITE_FILE, _READ_FILE, _READ_DIR = 2, 4, 8
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many rights over files an ABI knows; later ones as many as the last
_SCOPES = 3  # abstract unix sockets, and signals


def abi() -> int:
    """Return the version of the kernel's Landlock; 0: it has none."""
    try:
        return kernel.syscall("landlock_create_ruleset", None, 0, _VERSION)
    except OSError:
        return 0


def restrict(version: int, readable: Iterable[Path], writable: Iterable[Path]) -> None:
    """Let this process, which must have no new privileges, read some paths and what is in them, and write devices."""
    handled = (1 << _RIGHTS[min(version, max(_RIGHTS))]) - 1
    scoped = _SCOPES if version >= 6 else 0  # noqa: PLR2004 - the ABI
    size = 8 if version < 4 else 16 if version < 6 else 24  # noqa: PLR2004 - the ABI
    attributes = struct.pack("=QQQ", handled, 0, scoped)[:size]
    ruleset = kernel.syscall(
        "landlock_create_ruleset", ctypes.create_string_buffer(attributes, len(attributes)), len(attributes), 0
    )
    for path in readable:
        _allow(ruleset, path, _READ_FILE)
    for path in writable:
        _allow(ruleset, path, _READ_FILE | _WRITE_FILE)
    kernel.syscall("landlock_restrict_self", ruleset, 0)
    os.close(ruleset)


def _allow(ruleset: int, path: Path, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # it has gone since it was looked up
    more = _READ_DIR if path.is_dir() else 0
    rule = struct.pack("=Qi", rights | more, descriptor)
    kernel.syscall("landlock_add_rule", ruleset, _PATH_BENEATH, ctypes.create_string_buffer(rule, len(rule)), 0)
    os.close(descriptor)
