"""The confinement of a worker, raised from inside: once it stands nothing takes it down."""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from contextlib import suppress

from remit.process import files, kernel, landlock, mounts, seccomp
from remit.process.confinement import OTHERWISE, Confinement, Walls, rules

_FILTER = 2  # SECCOMP_MODE_FILTER
_CAPABILITIES = 64  # more than there are
_VERSION_3 = 0x20080522  # of capset's header


def enter_namespaces() -> None:
    """Enter user, mount and ipc namespaces, and a pid namespace with the next fork; nobody is somebody else in them."""
    uid, gid = os.geteuid(), os.getegid()
    kernel.prctl(kernel.PR_SET_DUMPABLE, 1)  # else the files that map our ids would belong to root
    kernel.unshare(kernel.CLONE_NEWUSER | kernel.CLONE_NEWNS | kernel.CLONE_NEWIPC | kernel.CLONE_NEWPID)
    for name, line in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as file:  # noqa: PTH123 - one write
            file.write(line)


def raise_walls(confinement: Confinement | None, walls: Walls) -> None:
    """Keep others out of this process; confine it, if it is to be confined. Raises OSError where a wall fails."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
    kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
    if confinement is None:
        return
    leave_terminals()
    seen = files.view(confinement.readable, confinement.covered)
    if walls.namespaces:
        mounts.replace_root(seen)
    elif walls.landlock:
        landlock.restrict(walls.landlock, files.around(seen), files.DEVICES)
    drop_capabilities()
    if walls.seccomp:
        filtered = seccomp.program(os.uname().machine, rules(confinement, walls), otherwise=OTHERWISE)
        load_filter(filtered or b"")


def leave_terminals() -> None:
    """Have standard output and error lead nowhere if they lead to a terminal: who writes there can read what is typed.

    What a worker has to say goes over its link, and its death is in the log.
    """
    for stream in (1, 2):
        with suppress(OSError):  # it is closed
            if os.isatty(stream):
                nowhere = os.open(os.devnull, os.O_WRONLY)
                os.dup2(nowhere, stream)
                os.close(nowhere)


def drop_capabilities() -> None:
    """Give up every capability, for good; also those that a program could come to."""
    for capability in range(_CAPABILITIES):
        with suppress(OSError):  # without CAP_SETPCAP there are none to drop; past the last there is none
            kernel.prctl(kernel.PR_CAPBSET_DROP, capability)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _VERSION_3, 0))
    kernel.syscall("capset", header, ctypes.create_string_buffer(24))


def load_filter(program: bytes) -> None:
    """Filter the system calls of this process, which must have no new privileges, from now on."""
    held = ctypes.create_string_buffer(program, len(program))
    described = ctypes.create_string_buffer(struct.pack("@HP", len(program) // 8, ctypes.addressof(held)))
    kernel.prctl(kernel.PR_SET_SECCOMP, _FILTER, described)
