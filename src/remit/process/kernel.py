"""Calls of the kernel that Python's library has no name for. Each raises OSError where it fails."""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import struct
from typing import Final

from remit.process.syscalls import ARCHITECTURES

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID = 0x20000, 0x8000000, 0x10000000, 0x20000000

PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_NAME, PR_SET_SECCOMP, PR_CAPBSET_DROP = 1, 4, 15, 22, 24
PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 36, 38

_PASS_RIGHTS = 83  # SO_PASSRIGHTS

TURN = 100_000  # nanoseconds, the least there is
_SCHED = struct.Struct("=IIQiIQQQ")  # struct sched_attr: size, policy, flags, nice, priority, runtime, deadline, period

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_CALLS: Final = ARCHITECTURES[os.uname().machine].calls if os.uname().machine in ARCHITECTURES else {}


def prctl(option: int, *arguments: object) -> int:
    """Set an option of this process (``prctl`` of section 2); numbers are passed as longs."""
    return _checked(_LIBC.prctl(option, *map(_long, arguments), *[ctypes.c_ulong(0)] * (4 - len(arguments))))


def unshare(flags: int) -> None:
    """Leave namespaces for new ones (``unshare``)."""
    _checked(_LIBC.unshare(flags))


def mount(source: str | None, target: str, kind: str | None, flags: int, data: str | None = None) -> None:
    """Mount, or bind, or change a mount (``mount``)."""
    _checked(_LIBC.mount(_text(source), _text(target), _text(kind), ctypes.c_ulong(flags), _text(data)))


def umount(target: str, flags: int) -> None:
    """Take a mount away (``umount2``)."""
    _checked(_LIBC.umount2(_text(target), flags))


def syscall(name: str, *arguments: object) -> int:
    """Make a system call by its name; ENOSYS where its number is not known."""
    if name not in _CALLS:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    return _checked(_LIBC.syscall(ctypes.c_long(_CALLS[name]), *map(_long, arguments)))


def take_short_turns() -> None:
    """Have the kernel let this process run soon, and for a short turn at a time, where others want its core.

    A slice of SCHED_OTHER is asked for as ``sched_runtime`` (Linux 6.12, ``sched_setattr`` of section 2): who wakes up
    with a shorter one than whoever runs goes first. Before 6.12 it is not looked at.
    """
    syscall("sched_setattr", 0, _SCHED.pack(_SCHED.size, 0, 0, os.getpriority(os.PRIO_PROCESS, 0), 0, TURN, 0, 0), 0)


def refuse_descriptors(sock: socket.socket) -> bool:
    """Have the kernel refuse what is sent of descriptors to a unix socket, or to a connection that it will accept.

    Return whether it does: Linux before 6.16 has no such option. There the filters of runs and workers refuse what
    makes a descriptor slow to close.
    """
    try:
        sock.setsockopt(socket.SOL_SOCKET, _PASS_RIGHTS, 0)
    except OSError as error:
        if error.errno != errno.ENOPROTOOPT:
            raise
        return False
    return True


def takes_descriptors(sock: socket.socket) -> bool:
    """Whether a unix socket may have been sent descriptors; False where the kernel cannot tell."""
    try:
        return bool(sock.getsockopt(socket.SOL_SOCKET, _PASS_RIGHTS))
    except OSError:
        return False


def _long(value: object) -> object:
    return ctypes.c_ulong(value) if isinstance(value, int) else os.fsencode(value) if isinstance(value, str) else value


def _text(value: str | None) -> bytes | None:
    return None if value is None else os.fsencode(value)


def _checked(result: int) -> int:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
