"""The system call filter of a run, as classic BPF for bubblewrap's ``--seccomp``. Pure.

Namespaces do not cover these, so the filter does:

- keyrings: a user's keyring can be found by its number from any namespace with the same uid;
- socket families other than unix, internet, netlink and packet: vsock reaches the host of a virtual machine;
- io_uring, which makes sockets and sets their options without those calls;
- SO_LINGER: whoever closes the last copy of such a socket waits, and a run can pass it to the broker;
- calls of a foreign architecture, whose numbers mean something else.
"""

from __future__ import annotations

import errno
import struct
from dataclasses import dataclass

FAMILIES = (1, 2, 10, 16, 17)  # AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET

_LOAD, _EQUAL, _SET, _RETURN = 0x20, 0x15, 0x45, 0x06  # BPF: ld abs word, jeq, jset, ret
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_NUMBER, _ARCHITECTURE, _FIRST = 0, 4, 16  # offsets in struct seccomp_data; the first argument's low half
_SECOND, _THIRD = 24, 32
_SOL_SOCKET, _SO_LINGER = 1, 13
_X32 = 0x40000000


@dataclass(frozen=True, slots=True)
class SyscallNumbers:
    """What an architecture calls things: its audit name and the numbers of the filtered calls."""

    audit: int
    socket: int
    setsockopt: int
    keys: tuple[int, int, int]  # add_key, request_key, keyctl
    rings: tuple[int, int, int] = (425, 426, 427)  # io_uring_setup, _enter, _register
    x32: bool = False


ARCHITECTURES = {
    "x86_64": SyscallNumbers(0xC000003E, 41, 54, (248, 249, 250), x32=True),
    "aarch64": SyscallNumbers(0xC00000B7, 198, 208, (217, 218, 219)),
}


def program(machine: str) -> bytes | None:
    """Return the filter for ``os.uname().machine``, or None where the numbers are not known."""
    known = ARCHITECTURES.get(machine)
    if known is None:
        return None
    foreign = _give(_ERRNO | errno.ENOSYS)
    native = (_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, known.audit, 1, 0), foreign, _step(_LOAD, _NUMBER))
    no_x32 = (_step(_SET, _X32, 0, 1), foreign) if known.x32 else ()
    calls = (*_refuse((*known.keys, *known.rings)), *_families(known.socket), *_linger(known.setsockopt))
    return b"".join((*native, *no_x32, *calls, _give(_ALLOW)))


def _refuse(numbers: tuple[int, ...]) -> tuple[bytes, ...]:
    tests = (_step(_EQUAL, number, len(numbers) - at, 0) for at, number in enumerate(numbers))
    return (*tests, _step(0x05, 1), _give(_ERRNO | errno.ENOSYS))  # none of them: jump over the refusal


def _families(call: int) -> tuple[bytes, ...]:
    tests = (_step(_EQUAL, family, len(FAMILIES) - at, 0) for at, family in enumerate(FAMILIES))
    body = (_step(_LOAD, _FIRST), *tests, _give(_ERRNO | errno.EAFNOSUPPORT))
    return (_step(_EQUAL, call, 0, len(body)), *body)


def _linger(call: int) -> tuple[bytes, ...]:
    level = (_step(_LOAD, _SECOND), _step(_EQUAL, _SOL_SOCKET, 0, 3))
    option = (_step(_LOAD, _THIRD), _step(_EQUAL, _SO_LINGER, 0, 1), _give(_ERRNO | errno.ENOPROTOOPT))
    return (_step(_EQUAL, call, 0, len(level) + len(option) + 1), *level, *option, _give(_ALLOW))


def _give(value: int) -> bytes:
    return _step(_RETURN, value)


def _step(code: int, value: int, then: int = 0, otherwise: int = 0) -> bytes:
    return struct.pack("=HBBI", code, then, otherwise, value)
