"""System call filters: rules in words, compiled to classic BPF (seccomp(2)).

How rules are written::

    RULES = (
        allow("read write futex"),  # names, parted by spaces
        allow("socket", arg(0, AF_INET, AF_INET6)),  # only where the first argument is one of these
        refuse(EAFNOSUPPORT, "socket"),  # every other socket
        allow("clone", arg(0, CLONE_THREAD, mask=CLONE_THREAD)),  # of the argument, only these bits are compared
        refuse(ENOPROTOOPT, "setsockopt", arg(1, SOL_SOCKET), arg(2, SO_LINGER)),  # all conditions must hold
    )
    filtered = program(os.uname().machine, RULES, otherwise=EPERM)  # an allow-list; otherwise=0 makes a deny-list

For each call the first rule decides that names it and whose conditions hold; where none does, ``otherwise``. A name
that one architecture lacks (``open`` on aarch64) says nothing there; one that none knows is a ValueError. Calls of a
foreign architecture, and of x32, are refused with ENOSYS. Only the low 32 bits of an argument are compared: the kernel
reads ints, families, options and clone's flags so; do not judge an address or a size by them.

A call is found by its number in a binary tree; a leaf is a chain of its conditions. The kernel keeps the calls that are
always allowed in a bitmap (5.11), so those cost nothing.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from remit.process.syscalls import ARCHITECTURES

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06  # BPF: ld abs word, and, ret
_JUMP, _EQUAL, _AT_LEAST, _SET = 0x05, 0x15, 0x35, 0x45  # ja, jeq, jge, jset
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # offsets in struct seccomp_data
_WORD = 0xFFFFFFFF
_X32 = 0x40000000
_NAMES = frozenset().union(*(machine.calls for machine in ARCHITECTURES.values()))


@dataclass(frozen=True, slots=True)
class Condition:
    """That an argument's low word, under a mask, is one of some values."""

    argument: int
    values: tuple[int, ...]
    mask: int = _WORD


@dataclass(frozen=True, slots=True)
class CallRule:
    """What happens to some calls where all conditions hold: refused with an errno, or allowed (0)."""

    calls: tuple[str, ...]
    refusal: int
    conditions: tuple[Condition, ...] = ()


def arg(argument: int, *values: int, mask: int = _WORD) -> Condition:
    """Return the condition that an argument, counted from 0, is one of some values (at most 200)."""
    return Condition(argument, tuple(value & mask for value in values), mask)


def allow(calls: str, *conditions: Condition) -> CallRule:
    return CallRule(tuple(calls.split()), 0, conditions)


def refuse(refusal: int, calls: str, *conditions: Condition) -> CallRule:
    return CallRule(tuple(calls.split()), refusal, conditions)


def program(machine: str, rules: Sequence[CallRule], *, otherwise: int) -> bytes | None:
    """Return the filter for ``os.uname().machine`` as struct sock_filters; None: its numbers are not known."""
    unknown = {name for rule in rules for name in rule.calls} - _NAMES
    if unknown:
        raise ValueError(f"there are no system calls {sorted(unknown)}")
    known = ARCHITECTURES.get(machine)
    if known is None:
        return None
    foreign = _return(errno.ENOSYS)
    native = (_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, known.audit, 1, 0), foreign, _step(_LOAD, _NUMBER))
    no_x32 = (_step(_SET, _X32, 0, 1), foreign) if known.x32 else ()
    spans = list(_spans(_chains(known.calls, rules), (CallRule((), otherwise),)))
    return b"".join((*native, *no_x32, *_tree(spans)))


_Chain = tuple[CallRule, ...]


def _chains(calls: Mapping[str, int], rules: Sequence[CallRule]) -> Mapping[int, _Chain]:
    """Return the rules for each number that has some, in order."""
    chains: dict[int, _Chain] = {}
    for rule in rules:
        for number in {calls[name] for name in rule.calls if name in calls}:
            chains[number] = (*chains.get(number, ()), CallRule((), rule.refusal, rule.conditions))
    return chains


def _spans(chains: Mapping[int, _Chain], last: _Chain) -> Iterator[tuple[int, _Chain]]:
    """Yield where a chain begins to hold, from 0 on, each with the last rule at its end."""
    every = {0: last, **{number + 1: last for number in chains}}
    every |= {number: (*chain, *last) for number, chain in chains.items()}
    for _, same in groupby(sorted(every.items()), key=lambda item: _reached(item[1])):
        yield next(same)


def _reached(chain: _Chain) -> _Chain:
    """Return the rules that can decide: up to the first without conditions."""
    return chain[: 1 + next(at for at, rule in enumerate(chain) if not rule.conditions)]


def _tree(spans: Sequence[tuple[int, _Chain]]) -> tuple[bytes, ...]:
    if len(spans) == 1:
        return tuple(step for rule in _reached(spans[0][1]) for step in _decided(rule))
    middle = len(spans) // 2
    below, above = _tree(spans[:middle]), _tree(spans[middle:])
    return (_step(_AT_LEAST, spans[middle][0], 0, 1), _step(_JUMP, len(below)), *below, *above)


def _decided(rule: CallRule) -> tuple[bytes, ...]:
    """Return the steps that end with a rule's verdict, or go past their own end where a condition does not hold."""
    body: tuple[bytes, ...] = (_return(rule.refusal),)
    for condition in reversed(rule.conditions):
        count, past = len(condition.values), len(body)
        tests = (_step(_EQUAL, value, count - at, 0) for at, value in enumerate(condition.values))
        masked = (_step(_LOAD, _ARGUMENTS + 8 * condition.argument), _step(_AND, condition.mask))
        body = (*masked, *tests, _step(_JUMP, past), *body)
    return body


def _return(refusal: int) -> bytes:
    return _step(_RETURN, _ERRNO | refusal if refusal else _ALLOW)


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)
