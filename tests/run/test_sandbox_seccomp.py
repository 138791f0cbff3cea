from __future__ import annotations

import errno
import socket
import struct

import pytest

from remit.run import sandbox

ALLOWED, REFUSED, FAMILY, OPTION = "allow", errno.ENOSYS, errno.EAFNOSUPPORT, errno.ENOPROTOOPT


def judge(program: bytes, audit: int, number: int, first: int = 0, second: int = 0, third: int = 0) -> str | int:
    """Run classic BPF over a struct seccomp_data, as the kernel does."""
    data = struct.pack("=IIQ6Q", number, audit, 0, first, second, third, 0, 0, 0)
    steps = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    word = at = 0
    while True:
        code, then, otherwise, value = steps[at]
        at += 1
        match code:
            case 0x20:
                word = struct.unpack_from("=I", data, value)[0]
            case 0x15:
                at += then if word == value else otherwise
            case 0x45:
                at += then if word & value else otherwise
            case 0x05:
                at += value
            case 0x06:
                return ALLOWED if value == 0x7FFF0000 else value & 0xFFFF
            case _:
                raise AssertionError(code)


def program(machine: str = "x86_64") -> bytes:
    made = sandbox.seccomp(machine)
    assert made is not None
    return made


@pytest.mark.parametrize("name", sorted(sandbox.ARCHITECTURES))
def test_keyrings_and_rings_are_refused(name: str) -> None:
    machine = sandbox.ARCHITECTURES[name]
    verdicts = {judge(program(name), machine.audit, number) for number in (*machine.keys, *machine.rings)}
    assert verdicts == {REFUSED}


@pytest.mark.parametrize("name", sorted(sandbox.ARCHITECTURES))
@pytest.mark.parametrize("family", [1, 2, 10, 16, 17])
def test_ordinary_sockets_are_allowed(name: str, family: int) -> None:
    machine = sandbox.ARCHITECTURES[name]
    assert judge(program(name), machine.audit, machine.socket, family) == ALLOWED


@pytest.mark.parametrize("name", sorted(sandbox.ARCHITECTURES))
@pytest.mark.parametrize("family", [0, 3, 31, 38, 40, 42, 0xFFFFFFFF])
def test_other_socket_families_are_refused(name: str, family: int) -> None:
    machine = sandbox.ARCHITECTURES[name]
    assert judge(program(name), machine.audit, machine.socket, family) == FAMILY


@pytest.mark.parametrize("name", sorted(sandbox.ARCHITECTURES))
@pytest.mark.parametrize("high", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_a_socket_cannot_be_made_to_linger(name: str, high: int) -> None:
    """The kernel takes level and option as ints: what is above them changes nothing."""
    machine = sandbox.ARCHITECTURES[name]
    level, option = high | socket.SOL_SOCKET, high | socket.SO_LINGER
    assert judge(program(name), machine.audit, machine.setsockopt, 3, level, option) == OPTION


@pytest.mark.parametrize("name", sorted(sandbox.ARCHITECTURES))
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
    machine = sandbox.ARCHITECTURES[name]
    assert judge(program(name), machine.audit, machine.setsockopt, 3, level, option) == ALLOWED


def test_every_other_call_is_allowed() -> None:
    machine = sandbox.ARCHITECTURES["x86_64"]
    special = {*machine.keys, *machine.rings, machine.socket}
    assert {judge(program(), machine.audit, number) for number in range(470) if number not in special} == {ALLOWED}


def test_calls_of_a_foreign_architecture_are_refused() -> None:
    assert judge(program(), 0x40000003, 1) == REFUSED


def test_the_second_numbering_of_a_pc_is_refused() -> None:
    assert judge(program(), sandbox.ARCHITECTURES["x86_64"].audit, 0x40000000 | 41, 1) == REFUSED


def test_an_unknown_machine_has_no_filter() -> None:
    assert sandbox.seccomp("riscv64") is None
