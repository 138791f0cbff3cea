from __future__ import annotations

import errno
import socket

import pytest

from remit.process.syscalls import ARCHITECTURES
from remit.run import sandbox
from tests.support.bpf import judge

ALLOWED, REFUSED, FAMILY, OPTION = 0, errno.ENOSYS, errno.EAFNOSUPPORT, errno.ENOPROTOOPT
UNKNOWN = ("add_key", "request_key", "keyctl", "io_uring_setup", "io_uring_enter", "io_uring_register")


def program(machine: str = "x86_64") -> bytes:
    made = sandbox.seccomp(machine)
    assert made is not None
    return made


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
def test_keyrings_and_rings_are_refused(name: str) -> None:
    machine = ARCHITECTURES[name]
    verdicts = {judge(program(name), machine.audit, machine.calls[call]) for call in UNKNOWN}
    assert verdicts == {REFUSED}


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("family", [1, 2, 10, 16, 17])
def test_ordinary_sockets_are_allowed(name: str, family: int) -> None:
    machine = ARCHITECTURES[name]
    assert judge(program(name), machine.audit, machine.calls["socket"], family) == ALLOWED


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("family", [0, 3, 31, 38, 40, 42, 0xFFFFFFFF])
def test_other_socket_families_are_refused(name: str, family: int) -> None:
    machine = ARCHITECTURES[name]
    assert judge(program(name), machine.audit, machine.calls["socket"], family) == FAMILY


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
@pytest.mark.parametrize("high", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_a_socket_cannot_be_made_to_linger(name: str, high: int) -> None:
    """The kernel takes level and option as ints: what is above them changes nothing."""
    machine = ARCHITECTURES[name]
    level, option = high | socket.SOL_SOCKET, high | socket.SO_LINGER
    assert judge(program(name), machine.audit, machine.calls["setsockopt"], 3, level, option) == OPTION


@pytest.mark.parametrize("name", sorted(ARCHITECTURES))
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
    machine = ARCHITECTURES[name]
    assert judge(program(name), machine.audit, machine.calls["setsockopt"], 3, level, option) == ALLOWED


def test_every_other_call_is_allowed() -> None:
    machine = ARCHITECTURES["x86_64"]
    special = {machine.calls[call] for call in (*UNKNOWN, "socket")}
    assert {judge(program(), machine.audit, number) for number in range(470) if number not in special} == {ALLOWED}


def test_calls_of_a_foreign_architecture_are_refused() -> None:
    assert judge(program(), 0x40000003, 1) == REFUSED


def test_the_second_numbering_of_a_pc_is_refused() -> None:
    assert judge(program(), ARCHITECTURES["x86_64"].audit, 0x40000000 | 41, 1) == REFUSED


def test_an_unknown_machine_has_no_filter() -> None:
    assert sandbox.seccomp("riscv64") is None
