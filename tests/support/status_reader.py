"""A relying party's reader of token status lists (draft-ietf-oauth-status-list §4, §8)."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

from remit import jose

MAX_LIST = 1 << 24  # bytes of a list that is read


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


def compress(packed: bytes) -> str:
    """Return the ``lst`` of a list: zlib (RFC 1950) at its best, base64url (§4.2)."""
    return jose.encode(zlib.compress(packed, 9))


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
