from __future__ import annotations

import errno
import socket

import pytest

from remit.process.confinement import OTHERWISE, Confinement, Walls, rules
from remit.process.seccomp import program
from remit.process.syscalls import ARCHITECTURES
from tests.support.bpf import judge

MACHINES = pytest.mark.parametrize("machine", sorted(ARCHITECTURES))
SERVES = Confinement(())
APART, BESIDE = Walls(namespaces=True, proc=True, seccomp=True, links=True), Walls(landlock=4, seccomp=True)
CLONE_THREAD, CLONE_NEWUSER, SIGCHLD = 0x10000, 0x10000000, 17
THREAD = 0x3D0F00  # the flags of pthread_create

# What no worker may do on either architecture, whatever its arguments.
NEVER = (
    *("ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "pidfd_getfd", "kcmp"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register", "io_setup", "userfaultfd", "memfd_secret"),
    *("mount", "umount2", "pivot_root", "chroot", "move_mount", "open_tree", "open_tree_attr", "fsopen", "fsconfig"),
    *("fsmount", "fspick", "mount_setattr", "unshare", "setns", "clone3", "bpf", "perf_event_open", "seccomp"),
    *("add_key", "request_key", "keyctl", "kexec_load", "kexec_file_load", "init_module", "finit_module"),
    *("delete_module", "reboot", "swapon", "acct", "settimeofday", "clock_settime", "open_by_handle_at", "quotactl"),
    *(
        "personality",
        "setuid",
        "setgid",
        "setgroups",
        "capset",
        "mknodat",
        "fchownat",
        "syslog",
        "landlock_restrict_self",
    ),
    *("shmget", "msgget", "semget", "mq_open", "name_to_handle_at", "fanotify_init", "rt_sigqueueinfo", "io_submit"),
)
PROCESSES = ("execve", "execveat", "kill", "tkill", "tgkill", "pidfd_open", "pidfd_send_signal", "setsid")


def verdict(machine: str, confinement: Confinement, walls: Walls, call: str, *arguments: int) -> int:
    filtered = program(machine, rules(confinement, walls), otherwise=OTHERWISE)
    assert filtered is not None
    return judge(filtered, ARCHITECTURES[machine].audit, ARCHITECTURES[machine].calls[call], *arguments)


@MACHINES
@pytest.mark.parametrize("call", [*NEVER, *PROCESSES])
def test_no_worker_may(machine: str, call: str) -> None:
    assert {verdict(machine, SERVES, APART, call, first) for first in (0, 1, 17, 1 << 16)} <= {
        errno.EPERM,
        errno.ENOSYS,
    }


@MACHINES
def test_a_worker_starts_threads_and_nothing_else(machine: str) -> None:
    assert verdict(machine, SERVES, APART, "clone", THREAD) == 0
    assert verdict(machine, SERVES, APART, "clone", SIGCHLD) == errno.EPERM
    assert verdict(machine, SERVES, APART, "clone", THREAD | CLONE_NEWUSER) == errno.EPERM


@MACHINES
def test_sockets_are_of_the_internet(machine: str) -> None:
    sockets = {
        (socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0): 0,
        (socket.AF_INET6, socket.SOCK_DGRAM, 17): 0,
        (socket.AF_INET, socket.SOCK_RAW, 0): errno.EAFNOSUPPORT,
        (socket.AF_UNIX, socket.SOCK_STREAM, 0): errno.EAFNOSUPPORT,
        (socket.AF_PACKET, socket.SOCK_RAW, 0): errno.EAFNOSUPPORT,
        (socket.AF_VSOCK, socket.SOCK_STREAM, 0): errno.EAFNOSUPPORT,
        (38, socket.SOCK_SEQPACKET, 0): errno.EAFNOSUPPORT,  # AF_ALG
        (socket.AF_NETLINK, socket.SOCK_RAW, 0): 0,
        (socket.AF_NETLINK, socket.SOCK_RAW, 4): errno.EAFNOSUPPORT,  # NETLINK_SOCK_DIAG: sockets of others
    }
    assert {each: verdict(machine, SERVES, APART, "socket", *each) for each in sockets} == sockets
    assert verdict(machine, SERVES, APART, "socketpair", socket.AF_UNIX, socket.SOCK_STREAM | 0x80800) == 0
    assert verdict(machine, SERVES, APART, "socketpair", socket.AF_UNIX, socket.SOCK_DGRAM) == errno.EPERM


@MACHINES
@pytest.mark.parametrize("walls", [APART, BESIDE], ids=["apart", "beside"])
def test_one_that_reaches_an_agent_of_the_machine_opens_unix_sockets_that_connect(machine: str, walls: Walls) -> None:
    reaches = Confinement((), unix=True)
    assert verdict(machine, reaches, walls, "socket", socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) == 0
    for kind in (socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):  # the latter are those of hand-overs
        assert verdict(machine, reaches, walls, "socket", socket.AF_UNIX, kind) == errno.EAFNOSUPPORT
    assert verdict(machine, reaches, walls, "execve") == errno.EPERM


@MACHINES
def test_it_changes_nothing_of_its_own_confinement(machine: str) -> None:
    refused = {1: errno.EPERM, 4: errno.EPERM, 24: errno.EPERM, 36: errno.EPERM, 15: 0, 16: 0}
    assert {option: verdict(machine, SERVES, APART, "prctl", option) for option in refused} == refused
    assert verdict(machine, SERVES, APART, "prlimit64", 7) == errno.EPERM
    assert verdict(machine, SERVES, APART, "prlimit64", 0) == 0
    assert verdict(machine, SERVES, APART, "ioctl", 2, 0x5412) == errno.ENOTTY  # TIOCSTI


@MACHINES
def test_what_lingers_is_refused_where_the_kernel_lets_descriptors_through(machine: str) -> None:
    linger = (3, socket.SOL_SOCKET, socket.SO_LINGER)
    assert verdict(machine, SERVES, BESIDE, "setsockopt", *linger) == errno.ENOPROTOOPT
    assert verdict(machine, SERVES, BESIDE, "setsockopt", 3, socket.IPPROTO_TCP, socket.SO_LINGER) == 0
    assert verdict(machine, SERVES, APART, "setsockopt", *linger) == 0


@pytest.mark.parametrize(
    ("walls", "names", "lacks"),
    [
        (APART, ("namespaces", "seccomp"), ()),
        (Walls(landlock=6, seccomp=True), ("landlock 6", "seccomp"), ("Landlock, and can learn",)),
        (BESIDE, ("landlock 4", "seccomp"), ("Landlock, and can learn",)),
        (Walls(namespaces=True, seccomp=True), ("namespaces", "seccomp"), ("no fresh /proc",)),
        (Walls(namespaces=True, proc=True), ("namespaces",), ("no system call filter",)),
        (Walls(), (), ("neither user namespaces nor Landlock", "no system call filter")),
    ],
)
def test_what_a_kernel_lacks_is_said(walls: Walls, names: tuple[str, ...], lacks: tuple[str, ...]) -> None:
    assert walls.names == names
    assert [part in line for part, line in zip(lacks, walls.lacks, strict=True)] == [True] * len(lacks)
