"""Classic BPF over a struct seccomp_data, run as the kernel runs it."""

from __future__ import annotations

import struct


def judge(program: bytes, audit: int, number: int, *arguments: int) -> int:
    """Return what a filter says of a call: the errno with which it is refused, or 0."""
    data = struct.pack("=IIQ6Q", number, audit, 0, *arguments, *[0] * (6 - len(arguments)))
    steps: list[tuple[int, int, int, int]] = [
        struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)
    ]
    word, at = 0, 0
    while True:
        code, then, otherwise, value = steps[at]
        at += 1
        match code:
            case 0x20:
                (word,) = struct.unpack_from("=I", data, value)
            case 0x54:
                word &= value
            case 0x05:
                at += value
            case 0x15:
                at += then if word == value else otherwise
            case 0x35:
                at += then if word >= value else otherwise
            case 0x45:
                at += then if word & value else otherwise
            case 0x06:
                verdict, refusal = value & 0xFFFF0000, value & 0xFFFF
                assert (verdict, refusal) == (0x7FFF0000, 0) or (verdict == 0x00050000 and refusal)
                return refusal
            case _:
                raise AssertionError(code)
