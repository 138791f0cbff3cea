"""A Merkle tree over audit entries (RFC 9162 §2.1): frontier, roots, inclusion and consistency proofs. Pure.

- The frontier (the roots of the perfect subtrees that make up the tree, largest first) is all that appending needs.
- A proof is a list of ranges of leaves, which whoever holds the leaves hashes: from the hashes of whole tiles of 256
  leaves and what is left over (``Frontier.over``), so that no proof reads the whole log.
- Verifying raises IntegrityError; nothing here returns a boolean for a security result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256

from remit.errors import IntegrityError, InvalidRequestError

TILE_HEIGHT = 8
TILE = 1 << TILE_HEIGHT  # leaves
EMPTY_ROOT = sha256().digest()

Range = tuple[int, int]  # leaves from (inclusive) to (exclusive)
Tile = tuple[int, bytes]  # index, hash of the subtree over leaves index * TILE to (index + 1) * TILE


def leaf_hash(leaf: bytes) -> bytes:
    """Return the hash of a leaf (RFC 9162 §2.1.1)."""
    return sha256(b"\x00" + leaf).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node (RFC 9162 §2.1.1)."""
    return sha256(b"\x01" + left + right).digest()


@dataclass(frozen=True, slots=True)
class Frontier:
    """The right edge of a tree of ``size`` leaves: the roots of its perfect subtrees, largest first."""

    size: int = 0
    peaks: tuple[bytes, ...] = ()

    @classmethod
    def over(cls, tiles: Sequence[bytes], leaves: Sequence[bytes]) -> Frontier:
        """Build a frontier from the hashes of whole tiles and the leaf hashes (fewer than ``TILE``) after them."""
        high, low = cls().grow(tiles)[0], cls().grow(leaves)[0]
        return cls(high.size * TILE + low.size, high.peaks + low.peaks)

    def grow(self, leaves: Sequence[bytes]) -> tuple[Frontier, list[Tile]]:
        """Append leaf hashes; return the new frontier and the tiles that became whole."""
        peaks, size, tiles = list(self.peaks), self.size, []
        for leaf in leaves:
            node, rest, height = leaf, size, 0
            while rest & 1:
                node = sha256(b"\x01" + peaks.pop() + node).digest()
                rest >>= 1
                height += 1
                if height == TILE_HEIGHT:
                    tiles.append((size >> TILE_HEIGHT, node))
            peaks.append(node)
            size += 1
        return Frontier(size, tuple(peaks)), tiles

    def root(self) -> bytes:
        """Return the root of the tree (RFC 9162 §2.1.1)."""
        if not self.peaks:
            return EMPTY_ROOT
        root = self.peaks[-1]
        for peak in self.peaks[-2::-1]:
            root = node_hash(peak, root)
        return root


def root_of(leaves: Sequence[bytes]) -> bytes:
    return Frontier().grow(leaves)[0].root()


def _split(start: int, end: int) -> int:
    return start + (1 << ((end - start - 1).bit_length() - 1))


def inclusion_path(seq: int, size: int) -> tuple[Range, ...]:
    """Return the ranges whose roots prove that leaf ``seq`` is in the tree of ``size`` (RFC 9162 §2.1.3.1)."""
    if not 0 <= seq < size:
        raise InvalidRequestError("there is no such entry in a tree of this size")
    start, end, path = 0, size, []
    while end - start > 1:
        middle = _split(start, end)
        if seq < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    return tuple(reversed(path))


def consistency_path(old: int, new: int) -> tuple[Range, ...]:
    """Return the ranges whose roots prove that tree ``new`` extends tree ``old`` (RFC 9162 §2.1.4.1)."""
    if not 0 <= old <= new:
        raise InvalidRequestError("a tree can only extend one that is not larger")
    start, end, whole, path = 0, new, True, []
    while old not in {0, end}:
        middle = _split(start, end)
        if old <= middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start, whole = middle, False
    if not whole:
        path.append((start, end))
    return tuple(reversed(path))


def verify_inclusion(leaf: bytes, seq: int, size: int, proof: Sequence[bytes], root: bytes) -> None:
    """Check that the leaf hash is at ``seq`` in the tree (RFC 9162 §2.1.3.2), or raise IntegrityError."""
    found = _climb(seq, size - 1, [leaf, *proof]) if 0 <= seq < size else None
    if found is None or found[1] != root:
        raise IntegrityError("the inclusion proof does not hold")


def verify_consistency(old: int, old_root: bytes, new: int, new_root: bytes, proof: Sequence[bytes]) -> None:
    """Check that the new tree extends the old one (RFC 9162 §2.1.4.2), or raise IntegrityError."""
    broken = IntegrityError("the consistency proof does not hold")
    if not 0 <= old <= new:
        raise broken
    if old in {0, new}:
        if proof or old_root != (EMPTY_ROOT if old == 0 else new_root):
            raise broken
        return
    path = [old_root, *proof] if old & (old - 1) == 0 else list(proof)
    at, last = old - 1, new - 1
    while at & 1:
        at, last = at >> 1, last >> 1
    if not path or _climb(at, last, path) != (old_root, new_root):
        raise broken


def _climb(at: int, last: int, path: Sequence[bytes]) -> tuple[bytes, bytes] | None:
    """Return the roots that a path from node ``at`` leads to, of the old tree and the new; None: it does not end."""
    old = new = path[0]
    for node in path[1:]:
        if last == 0:
            return None
        if at & 1 or at == last:
            old, new = node_hash(node, old), node_hash(node, new)
            while at and not at & 1:
                at, last = at >> 1, last >> 1
        else:
            new = node_hash(new, node)
        at, last = at >> 1, last >> 1
    return (old, new) if last == 0 else None
