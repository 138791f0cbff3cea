from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core.tree import (
    EMPTY_ROOT,
    TILE,
    Frontier,
    Range,
    consistency_path,
    inclusion_path,
    leaf_hash,
    node_hash,
    root_of,
    verify_consistency,
    verify_inclusion,
)
from remit.errors import IntegrityError, InvalidRequestError

# The reference tree of Certificate Transparency: its test vectors for RFC 6962.
VECTOR = [
    leaf_hash(bytes.fromhex(leaf))
    for leaf in (
        "",
        "00",
        "10",
        "2021",
        "3031",
        "40414243",
        "5051525354555657",
        "606162636465666768696a6b6c6d6e6f",
    )
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
SIXTH_OF_EIGHT = [
    "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
]
SIX_TO_EIGHT = [
    "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
    "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
]

MANY = [leaf_hash(number.to_bytes(2, "big")) for number in range(3 * TILE)]


def prove(path: Sequence[Range], leaves: Sequence[bytes]) -> tuple[bytes, ...]:
    """Return the proof for a path, from all leaf hashes; stores do it from tiles."""
    return tuple(root_of(leaves[start:end]) for start, end in path)


# The recursive definitions of RFC 9162 §2.1, as it writes them: slow, and plainly right.


def split(size: int) -> int:
    k = 1
    while k * 2 < size:
        k *= 2
    return k


def mth(leaves: Sequence[bytes]) -> bytes:
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = split(len(leaves))
    return sha256(b"\x01" + mth(leaves[:k]) + mth(leaves[k:])).digest()


def path(m: int, leaves: Sequence[bytes]) -> list[bytes]:
    if len(leaves) == 1:
        return []
    k = split(len(leaves))
    if m < k:
        return [*path(m, leaves[:k]), mth(leaves[k:])]
    return [*path(m - k, leaves[k:]), mth(leaves[:k])]


def subproof(m: int, leaves: Sequence[bytes], *, whole: bool) -> list[bytes]:
    if m == len(leaves):
        return [] if whole else [mth(leaves)]
    k = split(len(leaves))
    if m <= k:
        return [*subproof(m, leaves[:k], whole=whole), mth(leaves[k:])]
    return [*subproof(m - k, leaves[k:], whole=False), mth(leaves[:k])]


def hexes(values: Sequence[bytes]) -> list[str]:
    return [value.hex() for value in values]


def test_roots_are_those_of_the_reference_vectors() -> None:
    assert [root_of(VECTOR[:size]).hex() for size in range(1, 9)] == ROOTS


def test_the_empty_tree_has_the_hash_of_nothing() -> None:
    assert root_of([]).hex() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def test_proofs_are_those_of_the_reference_vectors() -> None:
    assert hexes(prove(inclusion_path(5, 8), VECTOR)) == SIXTH_OF_EIGHT
    assert hexes(prove(consistency_path(6, 8), VECTOR)) == SIX_TO_EIGHT


def test_roots_and_proofs_are_those_of_the_definitions_at_every_small_size() -> None:
    for size in range(1, 40):
        leaves = MANY[:size]
        root = mth(leaves)
        assert root_of(leaves) == root
        for seq in range(size):
            proof = prove(inclusion_path(seq, size), leaves)
            assert list(proof) == path(seq, leaves)
            verify_inclusion(leaves[seq], seq, size, proof, root)
        for old in range(1, size + 1):
            steps = prove(consistency_path(old, size), leaves)
            assert list(steps) == subproof(old, leaves, whole=True)
            verify_consistency(old, mth(leaves[:old]), size, root, steps)


@given(st.lists(st.integers(0, 3 * TILE), min_size=1, max_size=6))
def test_growing_in_any_steps_gives_the_same_tree_and_every_whole_tile_once(cuts: list[int]) -> None:
    tree, tiles, done = Frontier(), [], 0
    for cut in sorted(cuts):
        tree, fresh = tree.grow(MANY[done:cut])
        tiles += fresh
        done = cut
    assert tree.root() == root_of(MANY[:done])
    assert tiles == [(n, root_of(MANY[n * TILE : (n + 1) * TILE])) for n in range(done // TILE)]
    assert Frontier.over([tile for _, tile in tiles], MANY[done // TILE * TILE : done]) == tree


@given(st.data())
def test_a_proof_holds_for_its_own_leaf_place_size_and_root_only(data: st.DataObject) -> None:
    size = data.draw(st.integers(2, 70))
    seq = data.draw(st.integers(0, size - 1))
    leaves, root = MANY[:size], root_of(MANY[:size])
    proof = list(prove(inclusion_path(seq, size), leaves))
    other = data.draw(st.integers(0, size - 1).filter(lambda place: place != seq))
    spot = data.draw(st.integers(0, len(proof) - 1))
    for leaf, place, count, steps, top in (
        (MANY[-1], seq, size, proof, root),
        (leaves[seq], other, size, proof, root),
        (leaves[seq], seq, size, [*proof[:spot], MANY[-1], *proof[spot + 1 :]], root),
        (leaves[seq], seq, size, [*proof[:spot], *proof[spot + 1 :]], root),
        (leaves[seq], seq, size, [*proof, MANY[-1]], root),
        (leaves[seq], seq, size, proof, MANY[-1]),
        (leaves[seq], size, size, proof, root),
        (leaves[seq], -1, size, proof, root),
    ):
        with pytest.raises(IntegrityError):
            verify_inclusion(leaf, place, count, steps, top)


@given(st.data())
def test_a_consistency_proof_holds_for_its_own_trees_only(data: st.DataObject) -> None:
    new = data.draw(st.integers(2, 70))
    old = data.draw(st.integers(1, new - 1))
    old_root, new_root = root_of(MANY[:old]), root_of(MANY[:new])
    proof = list(prove(consistency_path(old, new), MANY))
    spot = data.draw(st.integers(0, len(proof) - 1))
    for first, before, second, after, steps in (
        (old, MANY[-1], new, new_root, proof),
        (old, old_root, new, MANY[-1], proof),
        (old, old_root, new, new_root, [*proof[:spot], MANY[-1], *proof[spot + 1 :]]),
        (old, old_root, new, new_root, [*proof[:spot], *proof[spot + 1 :]]),
        (old, old_root, new, new_root, [*proof, MANY[-1]]),
        (old, old_root, new, new_root, []),
        (new, new_root, old, old_root, proof),
        (-1, old_root, new, new_root, proof),
    ):
        with pytest.raises(IntegrityError):
            verify_consistency(first, before, second, after, steps)


def test_a_tree_extends_itself_and_the_empty_one_without_a_proof() -> None:
    root = root_of(VECTOR)
    assert consistency_path(8, 8) == consistency_path(0, 8) == ()
    verify_consistency(8, root, 8, root, [])
    verify_consistency(0, EMPTY_ROOT, 8, root, [])


@pytest.mark.parametrize(
    ("old", "old_root", "proof"),
    [(8, VECTOR[0], []), (8, root_of(VECTOR), [VECTOR[0]]), (0, VECTOR[0], []), (0, EMPTY_ROOT, [VECTOR[0]])],
)
def test_a_tree_extends_itself_and_the_empty_one_only_by_their_roots(
    old: int, old_root: bytes, proof: list[bytes]
) -> None:
    with pytest.raises(IntegrityError):
        verify_consistency(old, old_root, 8, root_of(VECTOR), proof)


@pytest.mark.parametrize(("seq", "size"), [(0, 0), (8, 8), (-1, 8)])
def test_there_is_no_path_to_an_entry_outside_the_tree(seq: int, size: int) -> None:
    with pytest.raises(InvalidRequestError):
        inclusion_path(seq, size)


@pytest.mark.parametrize(("old", "new"), [(9, 8), (-1, 8)])
def test_there_is_no_path_from_a_larger_tree(old: int, new: int) -> None:
    with pytest.raises(InvalidRequestError):
        consistency_path(old, new)


def test_a_leaf_cannot_pass_for_an_inner_node() -> None:
    left, right = VECTOR[0], VECTOR[1]
    assert leaf_hash(left + right) != node_hash(left, right)
