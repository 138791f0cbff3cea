from __future__ import annotations

import errno
import socket

import pytest

from remit.process.syscalls import ARCHITECTURES
from remit.run import calls
from tests.support.bpf import judge

ALLOWED, UNKNOWN, FORBIDDEN, FAMILY, OPTION = 0, errno.ENOSYS, errno.EPERM, errno.EAFNOSUPPORT, errno.ENOPROTOOPT
MACHINES = sorted(ARCHITECTURES)
ANY = pytest.mark.parametrize("name", MACHINES)
NEVER = (
    *("add_key", "request_key", "keyctl", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("bpf", "perf_event_open", "userfaultfd", "open_by_handle_at", "name_to_handle_at", "kexec_load", "init_module"),
    *("finit_module", "delete_module", "reboot", "swapon", "acct", "syslog", "settimeofday", "clock_settime"),
    *("fsopen", "fsconfig", "fsmount", "fspick", "open_tree", "move_mount", "mount_setattr", "pidfd_getfd", "kcmp"),
    *("quotactl", "lookup_dcookie", "move_pages", "mbind", "clone3", "fanotify_init", "setdomainname"),
)
NAMESPACES = ("unshare", "setns", "mount", "umount2", "pivot_root", "chroot", "sethostname")
SPAWN = 0x01200011  # CLONE_CHILD_SETTID, CLONE_CHILD_CLEARTID, SIGCHLD
THREAD = 0x003D0F00
NEW = (0x00020000, 0x02000000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000)


def verdict(name: str, call: str, *arguments: int, nests: bool = False) -> int:
    made = calls.program(name, nests=nests)
    assert made is not None
    machine = ARCHITECTURES[name]
    return judge(made, machine.audit, machine.calls[call], *arguments)


@ANY
@pytest.mark.parametrize("nests", [False, True])
def test_what_no_run_needs_is_unknown_to_every_run(name: str, *, nests: bool) -> None:
    assert {verdict(name, call, nests=nests) for call in NEVER} == {UNKNOWN}


@ANY
def test_a_run_makes_no_namespace_and_no_mount_unless_runs_are_to_be_launched_inside(name: str) -> None:
    assert {verdict(name, call) for call in NAMESPACES} == {FORBIDDEN}
    assert {verdict(name, call, nests=True) for call in NAMESPACES} == {ALLOWED}
    for flag in NEW:
        for with_it in (flag | 17, flag | SPAWN, flag | 1 << 32):
            assert verdict(name, "clone", with_it) == FORBIDDEN
            assert verdict(name, "clone", with_it, nests=True) == ALLOWED


@ANY
@pytest.mark.parametrize("nests", [False, True])
def test_processes_and_threads_are_begun_as_ever(name: str, *, nests: bool) -> None:
    assert {verdict(name, "clone", flags, nests=nests) for flags in (17, SPAWN, THREAD, 0x4111)} == {ALLOWED}
    for call in ("execve", "execveat", "exit_group", "wait4", "kill", "ptrace", "prctl", "seccomp", "futex", "openat"):
        assert verdict(name, call, nests=nests) == ALLOWED


@ANY
def test_a_call_of_a_later_kernel_is_unknown(name: str) -> None:
    made = calls.program(name, nests=True)
    assert made is not None
    assert {judge(made, ARCHITECTURES[name].audit, number) for number in range(480, 600)} == {UNKNOWN}


@ANY
def test_only_the_usual_personalities_are_taken(name: str) -> None:
    assert {verdict(name, "personality", one) for one in (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)} == {ALLOWED}
    assert {verdict(name, "personality", one) for one in (0x40000, 0x400000, 1)} == {FORBIDDEN}


@ANY
@pytest.mark.parametrize("family", [1, 2, 10, 16, 17])
def test_ordinary_sockets_are_allowed(name: str, family: int) -> None:
    assert verdict(name, "socket", family) == ALLOWED


@ANY
@pytest.mark.parametrize("family", [0, 3, 31, 38, 40, 42, 0xFFFFFFFF])
def test_other_socket_families_are_refused(name: str, family: int) -> None:
    assert verdict(name, "socket", family) == FAMILY


@ANY
@pytest.mark.parametrize("high", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_a_socket_cannot_be_made_to_linger(name: str, high: int) -> None:
    """The kernel takes level and option as ints: what is above them changes nothing."""
    assert verdict(name, "setsockopt", 3, high | socket.SOL_SOCKET, high | socket.SO_LINGER) == OPTION


@ANY
@pytest.mark.parametrize(
    ("level", "option"),
    [
        (socket.SOL_SOCKET, socket.SO_REUSEADDR),
        (socket.SOL_SOCKET, socket.SO_RCVBUF),
        (socket.IPPROTO_TCP, socket.SO_LINGER),
        (socket.IPPROTO_IPV6, 13),
    ],
)
def test_other_options_of_a_socket_are_allowed(name: str, level: int, option: int) -> None:
    assert verdict(name, "setsockopt", 3, level, option) == ALLOWED


def test_calls_of_a_foreign_architecture_are_refused() -> None:
    made = calls.program("x86_64", nests=True)
    assert made is not None
    assert judge(made, 0x40000003, 1) == UNKNOWN
    assert judge(made, ARCHITECTURES["x86_64"].audit, 0x40000000 | 41, 1) == UNKNOWN


def test_an_unknown_machine_has_no_filter() -> None:
    assert calls.program("riscv64", nests=False) is None
