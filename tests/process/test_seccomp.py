from __future__ import annotations

import ctypes
import errno
import os
import re
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.process.seccomp import CallRule, allow, arg, program, refuse
from remit.process.syscalls import ARCHITECTURES
from tests.support.bpf import judge

CLONE_THREAD, SIGCHLD = 0x10000, 17
RULES = (
    allow("read write futex"),
    allow("socket", arg(0, socket.AF_INET, socket.AF_INET6), arg(1, socket.SOCK_STREAM, mask=0xF)),
    refuse(errno.EAFNOSUPPORT, "socket"),
    allow("clone", arg(0, CLONE_THREAD, mask=CLONE_THREAD)),
)
MACHINES = pytest.mark.parametrize("machine", sorted(ARCHITECTURES))


def verdict(machine: str, rules: Sequence[CallRule], otherwise: int, call: str | int, *arguments: int) -> int:
    known, filtered = ARCHITECTURES[machine], program(machine, rules, otherwise=otherwise)
    assert filtered is not None
    return judge(filtered, known.audit, call if isinstance(call, int) else known.calls[call], *arguments)


@MACHINES
def test_what_no_rule_names_is_decided_by_what_holds_otherwise(machine: str) -> None:
    assert {verdict(machine, RULES, errno.EPERM, call) for call in ("read", "write", "futex")} == {0}
    others = set(ARCHITECTURES[machine].calls) - {"read", "write", "futex", "socket", "clone"}
    assert {verdict(machine, RULES, errno.EPERM, call) for call in others} == {errno.EPERM}
    assert {verdict(machine, RULES, errno.EPERM, number) for number in (400, 1000, 0x3FFFFFFF)} == {errno.EPERM}
    assert {verdict(machine, RULES, 0, call) for call in others} == {0}


@MACHINES
@pytest.mark.parametrize(
    ("family", "kind", "refusal"),
    [
        (socket.AF_INET, socket.SOCK_STREAM, 0),
        (socket.AF_INET6 | 1 << 32, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, 0),
        (socket.AF_UNIX, socket.SOCK_STREAM, errno.EAFNOSUPPORT),
        (socket.AF_INET, socket.SOCK_DGRAM, errno.EAFNOSUPPORT),
    ],
)
def test_all_conditions_must_hold_on_the_low_words(machine: str, family: int, kind: int, refusal: int) -> None:
    assert verdict(machine, RULES, errno.EPERM, "socket", family, kind) == refusal


@MACHINES
def test_only_the_bits_of_a_mask_are_compared(machine: str) -> None:
    assert verdict(machine, RULES, errno.EPERM, "clone", CLONE_THREAD | 0x3D0F00) == 0
    assert verdict(machine, RULES, errno.EPERM, "clone", SIGCHLD) == errno.EPERM


@MACHINES
def test_foreign_numbers_mean_nothing_here(machine: str) -> None:
    filtered, known = program(machine, RULES, otherwise=0), ARCHITECTURES[machine]
    assert filtered is not None
    assert judge(filtered, 0x40000003, known.calls["read"]) == errno.ENOSYS
    if known.x32:
        assert judge(filtered, known.audit, 0x40000000 | known.calls["read"]) == errno.ENOSYS


def test_a_name_that_one_architecture_lacks_says_nothing_there() -> None:
    rules = (refuse(errno.EACCES, "open"),)
    assert verdict("x86_64", rules, 0, "open") == errno.EACCES
    filtered = program("aarch64", rules, otherwise=0)
    assert filtered is not None
    assert {judge(filtered, ARCHITECTURES["aarch64"].audit, number) for number in range(500)} == {0}


def test_a_name_that_none_knows_is_an_error() -> None:
    with pytest.raises(ValueError, match="raed"):
        program("x86_64", (allow("raed"),), otherwise=errno.EPERM)


def test_a_machine_whose_numbers_are_not_known_has_no_filter() -> None:
    assert program("riscv64", RULES, otherwise=errno.EPERM) is None


def _first(rules: Sequence[CallRule], otherwise: int, call: str, arguments: Sequence[int]) -> int:
    """Decide as the rules are read, without a tree."""
    for rule in rules:
        if call in rule.calls and all(arguments[c.argument] & c.mask in c.values for c in rule.conditions):
            return rule.refusal
    return otherwise


CALLS = ("read", "write", "close", "socket", "mmap", "pidfd_open", "statx", "clone", "brk")
WORDS = st.integers(0, 3)
CONDITIONS = st.builds(
    lambda at, values, mask: arg(at, *values, mask=mask), WORDS, st.lists(WORDS, min_size=1, max_size=3), WORDS
)
ANY = st.builds(
    lambda calls, refusal, conditions: CallRule(tuple(calls), refusal, tuple(conditions)),
    st.lists(st.sampled_from(CALLS), min_size=1, max_size=3),
    st.sampled_from([0, errno.EPERM, errno.ENOSYS]),
    st.lists(CONDITIONS, max_size=2),
)


@given(st.lists(ANY, max_size=8), st.sampled_from([0, errno.EPERM]), st.lists(WORDS, min_size=4, max_size=4))
@settings(max_examples=200, deadline=None)
def test_the_first_rule_that_holds_decides(rules: list[CallRule], otherwise: int, arguments: list[int]) -> None:
    for call in CALLS:
        assert verdict("x86_64", rules, otherwise, call, *arguments) == _first(rules, otherwise, call, arguments)


def test_every_call_can_have_a_rule_of_its_own() -> None:
    """Jumps reach over the longest program; the kernel takes 4,096 steps."""
    known = ARCHITECTURES["x86_64"]
    rules = tuple(refuse(1 + number, name) for name, number in known.calls.items())
    filtered = program("x86_64", rules, otherwise=0)
    assert filtered is not None
    assert len(filtered) // 8 <= 4096
    assert {name: judge(filtered, known.audit, number) for name, number in known.calls.items()} == {
        name: 1 + number for name, number in known.calls.items()
    }


HEADER = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


@pytest.mark.skipif(not HEADER.exists(), reason="the kernel's headers are not installed")
def test_the_numbers_are_those_of_the_kernels_headers() -> None:
    found = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+) (\d+)", HEADER.read_text("utf-8"))}
    known = ARCHITECTURES["x86_64"].calls
    assert {name: known.get(name) for name in found} == found


def test_this_kernel_takes_a_filter() -> None:
    """A child that loads it is refused what a rule refuses, and goes on otherwise."""
    filtered = program(os.uname().machine, (refuse(errno.EXDEV, "getpgid"),), otherwise=0)
    if filtered is None:
        pytest.skip("no numbers for this machine")
    child = os.fork()
    if child == 0:
        os._exit(_filtered(filtered))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == errno.EXDEV


def _filtered(filtered: bytes) -> int:
    libc, held = ctypes.CDLL(None, use_errno=True), ctypes.create_string_buffer(filtered)
    described = ctypes.create_string_buffer(
        (len(filtered) // 8).to_bytes(8, "little") + ctypes.addressof(held).to_bytes(8, "little")
    )
    libc.prctl(38, 1, 0, 0, 0)
    if libc.prctl(22, 2, described) != 0:
        return 0
    try:
        return os.getpgid(0) and 0
    except OSError as error:
        return error.errno or 0
