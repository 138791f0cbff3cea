"""A process forked from this one: into namespaces of its own, or beside us. It dies with us."""

from __future__ import annotations

import gc
import os
import select
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from typing import NoReturn

from remit.process import confine, kernel

CRASHED = 70  # the status of a process that raised: EX_SOFTWARE of sysexits.h
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # meant for the supervisor alone
_REPORT = struct.Struct("ii")  # pid, errno
_STANDARD = 3  # descriptors: input, output, errors


@dataclass(frozen=True, slots=True)
class Child:
    """A process of ours: its pid here, and a descriptor of it."""

    pid: int
    pidfd: int


def prepare() -> None:
    """Make this process one that children are forked from, again and again: call it once, when all is imported.

    What was allocated so far stays shared: the collector no longer writes to it.
    """
    if len(os.listdir("/proc/self/task")) > 1:  # noqa: PTH208 - a number of threads
        raise RuntimeError("a process with threads cannot be forked")
    gc.collect()
    gc.freeze()


def forked(body: Callable[[], int], keep: Collection[int], *, apart: bool) -> Child:
    """Fork a process that runs ``body`` and ends with its status; ``apart``: in namespaces of its own.

    Of our descriptors it has ``keep`` alone, and standard input is empty. Raises OSError.
    """
    kernel.prctl(kernel.PR_SET_CHILD_SUBREAPER, 1)  # who descends from us and has lost its parent is ours, too
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    ours = os.pidfd_open(os.getpid())
    try:
        pid = _apart(body, keep, ours) if apart else _fork(body, keep, ours)
        return Child(pid, os.pidfd_open(pid))
    finally:
        os.close(ours)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _fork(body: Callable[[], int], keep: Collection[int], parent: int) -> int:
    pid = os.fork()
    if pid == 0:
        _end(lambda: _begun(body, keep, parent))
    return pid


def _apart(body: Callable[[], int], keep: Collection[int], parent: int) -> int:
    """Fork twice: the one in between enters the namespaces, and the first of its children is their first process.

    That child becomes ours as the one in between dies. Until then it waits: it would die with the one in between.
    """
    reads, writes = os.pipe()
    between = os.fork()
    if between == 0:
        _end(lambda: _between(body, keep, parent, writes))
    os.close(writes)
    said = os.read(reads, _REPORT.size)
    os.close(reads)
    os.waitpid(between, 0)
    pid, error = _REPORT.unpack(said) if said else (0, 0)
    if not pid:
        raise OSError(error, os.strerror(error) if error else "the fork died")
    return int(pid)


def _between(body: Callable[[], int], keep: Collection[int], parent: int, says: int) -> int:
    try:
        confine.enter_namespaces()
        gate = os.pidfd_open(os.getpid())
        pid = os.fork()
    except OSError as error:
        os.write(says, _REPORT.pack(0, error.errno or 0))
        return 1
    if pid == 0:
        select.select([gate], [], [])
        _end(lambda: _begun(body, keep, parent))
    os.write(says, _REPORT.pack(pid, 0))
    return 0


def _begun(body: Callable[[], int], keep: Collection[int], parent: int) -> int:
    """Become a process of its own: dying with its parent, deaf to a terminal, without others' descriptors."""
    die_with(parent)
    signal.set_wakeup_fd(-1)
    for number in SIGNALS:
        signal.signal(number, lambda _number, _frame: None)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.setsid()
    with suppress(OSError):  # this machine's calls are not known
        kernel.take_short_turns()
    _close_all_but(keep)
    nothing = os.open(os.devnull, os.O_RDONLY)
    if nothing != 0:
        os.dup2(nothing, 0)
        os.close(nothing)
    return body()


def reaped(child: Child) -> int:
    """Wait for a death; return the exit status, or minus the number of a signal."""
    found = os.waitid(os.P_PIDFD, child.pidfd, os.WEXITED)
    os.close(child.pidfd)
    assert found is not None  # noqa: S101 - without WNOHANG it waits
    return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status


def die_with(parent: int) -> None:
    """End with the process of a pidfd, also if it has ended already. A change of credentials undoes it."""
    kernel.prctl(kernel.PR_SET_PDEATHSIG, signal.SIGKILL)
    if select.select([parent], [], [], 0)[0]:
        os.kill(os.getpid(), signal.SIGKILL)
        os._exit(1)  # the first process of a namespace cannot kill itself


def _close_all_but(keep: Collection[int]) -> None:
    ends = [descriptor for descriptor in sorted(set(keep)) if descriptor >= _STANDARD]
    for at, end in zip((_STANDARD, *(each + 1 for each in ends)), (*ends, os.sysconf("SC_OPEN_MAX")), strict=True):
        if at < end:  # an empty range would be everything
            os.closerange(at, end)


def _end(body: Callable[[], int]) -> NoReturn:
    """End this process with the status of ``body``, and run nothing of what stands above."""
    status = CRASHED
    try:
        status = body()
    except SystemExit as ended:
        status = ended.code if isinstance(ended.code, int) else CRASHED
    except BaseException:  # noqa: BLE001 - told, and the status says so
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError, AttributeError):
                continue
        os._exit(status)
