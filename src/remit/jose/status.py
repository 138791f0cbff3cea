"""Token Status List (draft-ietf-oauth-status-list §4, §5): who is live, in one bit each. Pure.

A place is VALID while the grant that has it is live, and INVALID otherwise: whatever is not known is not valid.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence

from remit import jose

VALID, INVALID = 0, 1
TYPE = "statuslist+jwt"
MEDIA = "application/statuslist+jwt"
TTL = 30  # seconds that a list may be believed
BITS = 1
QUICK = 4  # level of zlib: with 10,000 live grants a list of 18 kB in 1 ms, at the best 14 kB in 60 ms of everybody's
MAX_LIST = 1 << 24  # bytes of a list that is read


def live(places: Iterable[int], size: int) -> bytes:
    """Return the statuses of ``size`` places (a multiple of eight), of which ``places`` are VALID, one bit each."""
    packed = bytearray(b"\xff" * (size // 8))
    for place in places:
        packed[place >> 3] &= ~(1 << (place & 7)) & 0xFF
    return bytes(packed)


def pack(statuses: Sequence[int], bits: int) -> bytes:
    """Return statuses of ``bits`` bits each, the first in the least significant bits of the first byte (§4.1)."""
    per = 8 // bits
    packed = bytearray(-(-len(statuses) // per))
    for index, status in enumerate(statuses):
        packed[index // per] |= status << (index % per * bits)
    return bytes(packed)


def status(packed: bytes, bits: int, index: int) -> int:
    """Return the status at ``index``; ValueError beyond the list, which is to be taken for INVALID (§8.3)."""
    per = 8 // bits
    if not 0 <= index < len(packed) * per:
        raise ValueError("the index is not in the list")
    return packed[index // per] >> (index % per * bits) & ((1 << bits) - 1)


def compress(packed: bytes, level: int = 9) -> str:
    """Return the ``lst`` of a list: zlib (RFC 1950), at its best unless another level is given, base64url (§4.2)."""
    return jose.encode(zlib.compress(packed, level))


def decompress(lst: str) -> bytes:
    """Return the packed statuses of ``lst``, or raise ValueError."""
    reader = zlib.decompressobj()
    try:
        packed = reader.decompress(jose.decode(lst), MAX_LIST)
    except zlib.error as error:
        raise ValueError("not a zlib stream") from error
    if not reader.eof or reader.unused_data:
        raise ValueError("not one whole list of a sensible size")
    return packed


def claims(uri: str, packed: bytes, now: int) -> Mapping[str, object]:
    """Return the claims of a status list token (§5.1); ``now`` is in seconds since the epoch."""
    return {
        "sub": uri,
        "iat": now,
        "exp": now + TTL,
        "ttl": TTL,
        "status_list": {"bits": BITS, "lst": compress(packed, QUICK)},
    }
