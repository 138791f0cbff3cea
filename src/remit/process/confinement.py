"""What a worker may see and do, and what of that this kernel can hold it to. Pure."""

from __future__ import annotations

import errno
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from remit.process.seccomp import CallRule, allow, arg, refuse


@dataclass(frozen=True, slots=True)
class Confinement:
    """What a worker may see of the file system. It may write nothing, and start no program."""

    readable: tuple[Path, ...]  # folders and files, each at its own path
    covered: tuple[Path, ...] = ()  # what it does not see, wherever that lies
    unix: bool = False  # it may open unix sockets, and so connect to those that lie in what it sees


@dataclass(frozen=True, slots=True)
class Walls:
    """What this kernel can hold a worker to. Once found, that is what every worker is held to."""

    namespaces: bool = False  # user, mount, pid and ipc
    proc: bool = False  # a /proc that shows the worker's own processes
    landlock: int = 0  # the ABI, used where there are no namespaces
    seccomp: bool = False
    links: bool = False  # the kernel keeps descriptors from the authority that a worker sends it over a link

    @property
    def names(self) -> tuple[str, ...]:
        """Return what confines a worker, for status."""
        files = "namespaces" if self.namespaces else f"landlock {self.landlock}" if self.landlock else ""
        return tuple(name for name in (files, "seccomp" if self.seccomp else "") if name)

    @property
    def lacks(self) -> tuple[str, ...]:
        """Return the lines that say what this kernel lacks, and what that leaves open."""
        return tuple(self._lacks())

    def _lacks(self) -> Iterator[str]:
        if not self.namespaces and self.landlock:
            yield "no user namespaces: workers are held by Landlock, and can learn which files and processes there are"
        elif not self.namespaces:
            yield "neither user namespaces nor Landlock: a worker that is taken over can read what you can read"
        elif not self.proc:
            yield "no fresh /proc can be mounted: workers have none"
        if not self.seccomp:
            yield "no system call filter: a worker that is taken over can start programs and reach unix sockets"


_CLONE_THREAD = 0x10000
_NEW = 0x20000 | 0x80 | 0x2000000 | 0x4000000 | 0x8000000 | 0x10000000 | 0x20000000 | 0x40000000  # CLONE_NEW*
_TYPE = 0xF  # of a socket, without its flags
_NETLINK_ROUTE = 0
_IOCTLS = (
    *(0x5401, 0x5413),  # TCGETS, TIOCGWINSZ: is this a terminal
    *(0x541B, 0x5421, 0x5450, 0x5451),  # FIONREAD, FIONBIO, FIONCLEX, FIOCLEX
    *(0x8910, 0x8933),  # SIOCGIFNAME, SIOCGIFINDEX
)
_PRCTLS = (3, 15, 16, 23, 29, 30, 0x53564D41)  # GET_DUMPABLE, SET_NAME, GET_NAME, CAPBSET_READ, *_TIMERSLACK, SET_VMA

_BASE = (
    allow("read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek close close_range"),
    allow("open openat openat2 stat lstat fstat newfstatat statx statfs fstatfs access faccessat faccessat2"),
    allow("readlink readlinkat getdents getdents64 getcwd dup dup2 dup3 fcntl pipe pipe2 fadvise64 readahead umask"),
    allow("memfd_create ftruncate fallocate sendfile splice tee copy_file_range"),
    allow("poll ppoll select pselect6 epoll_create epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2"),
    allow("eventfd eventfd2 signalfd signalfd4 timerfd_create timerfd_settime timerfd_gettime"),
    allow("mmap munmap mprotect mremap madvise msync mincore brk membarrier pkey_alloc pkey_free pkey_mprotect"),
    allow("futex futex_wait futex_wake futex_waitv futex_requeue set_robust_list get_robust_list rseq"),
    allow("set_tid_address arch_prctl gettid getpid getppid getpgrp getpgid getsid exit exit_group restart_syscall"),
    allow("sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_get_priority_max"),
    allow("sched_get_priority_min getpriority getcpu getrandom uname sysinfo getrusage times getrlimit capget"),
    allow("prlimit64", arg(0, 0)),  # its own
    allow("getuid geteuid getgid getegid getresuid getresgid getgroups wait4 waitid"),
    allow("rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigtimedwait rt_sigsuspend sigaltstack pause"),
    allow("clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time getitimer setitimer alarm"),
    allow("bind listen accept accept4 connect shutdown getsockname getpeername getsockopt setsockopt"),
    allow("sendto sendmsg sendmmsg recvfrom recvmsg recvmmsg"),
    allow(
        "socket",
        arg(0, socket.AF_INET, socket.AF_INET6),
        arg(1, socket.SOCK_STREAM, socket.SOCK_DGRAM, mask=_TYPE),
    ),
    allow("socket", arg(0, socket.AF_NETLINK), arg(2, _NETLINK_ROUTE)),  # getaddrinfo asks for addresses of our own
    refuse(errno.EAFNOSUPPORT, "socket"),
    allow("socketpair", arg(1, socket.SOCK_STREAM, mask=_TYPE)),  # one of datagrams can be connected to a path
    allow("clone", arg(0, _CLONE_THREAD, mask=_CLONE_THREAD | _NEW)),
    allow("ioctl", arg(1, *_IOCTLS)),
    refuse(errno.ENOTTY, "ioctl"),
    allow("prctl", arg(0, *_PRCTLS)),
    refuse(errno.EPERM, "prctl clone fork vfork execve execveat kill tkill tgkill ptrace prlimit64 socketpair"),
)
_UNIX = (allow("socket", arg(0, socket.AF_UNIX), arg(1, socket.SOCK_STREAM, mask=_TYPE)),)
_LINGER = (refuse(errno.ENOPROTOOPT, "setsockopt", arg(1, socket.SOL_SOCKET), arg(2, socket.SO_LINGER)),)
OTHERWISE = errno.ENOSYS  # so that libraries fall back to calls that are known


def rules(confinement: Confinement, walls: Walls) -> Sequence[CallRule]:
    """Return the system calls that a worker may make: for ``seccomp.program`` with ``OTHERWISE``.

    Where the kernel lets descriptors through a link, none can be made slow to close: who reads the link closes them.
    """
    return (*(() if walls.links else _LINGER), *(_UNIX if confinement.unix else ()), *_BASE)
