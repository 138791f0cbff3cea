"""What this kernel can hold a worker to: found out by a process that tries."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from remit.process import confine, files, forking, kernel, landlock, mounts, seccomp
from remit.process.confinement import Walls

_NO, _YES, _WITH_PROC = 1, 2, 3


def survey() -> Walls:
    """Return the walls of this kernel, in the place that we run in (a container, another sandbox)."""
    namespaces, filtered = _tried(_namespaces, apart=True), _tried(_filter, apart=False)
    with socket.socket(socket.AF_UNIX) as sock:
        links = kernel.refuse_descriptors(sock)
    return Walls(namespaces >= _YES, namespaces == _WITH_PROC, landlock.abi(), filtered == _YES, links)


def _tried(what: Callable[[], int], *, apart: bool) -> int:
    def body() -> int:
        with suppress(OSError):
            return what()
        return _NO

    with suppress(OSError):
        return forking.reaped(forking.forked(body, (), apart=apart))
    return _NO


def _namespaces() -> int:
    seen = files.view((Path("/usr"), *files.DEVICES), (Path("/usr/lib"), Path("/usr/bin/env")))
    return _WITH_PROC if mounts.replace_root(seen) else _YES


def _filter() -> int:
    filtered = seccomp.program(os.uname().machine, (), otherwise=0)
    if filtered is None:
        return _NO
    confine.raise_walls(None, Walls())
    confine.load_filter(filtered)
    return _YES
