from __future__ import annotations

import zlib

from hypothesis import example, given
from hypothesis import strategies as st

from remit import jose
from remit.jose import status
from tests.support import status_reader

GOOD = status_reader.compress(status.live(range(0, 4_096, 3), 4_096))


def read(lst: str) -> bytes | None:
    """Read a list, or return None for what is refused in the one way there is."""
    try:
        return status_reader.decompress(lst)
    except ValueError:
        return None


@given(st.text(max_size=200))
def test_no_text_is_a_list_by_chance(text: str) -> None:
    assert read(text) is None


@given(st.binary(max_size=400))
def test_no_bytes_are_read_beyond_what_a_list_may_have(data: bytes) -> None:
    packed = read(jose.encode(data))
    assert packed is None or zlib.compress(packed)


@given(st.integers(0, len(GOOD) - 1), st.sampled_from("ABCDabcd0123-_=+/ é\0"))
def test_a_list_with_another_character_is_refused_or_another_list(index: int, char: str) -> None:
    if GOOD[index] != char:
        packed = read(GOOD[:index] + char + GOOD[index + 1 :])
        assert packed is None or packed != status_reader.decompress(GOOD)


@given(st.integers(0, len(GOOD) - 1))
def test_a_list_that_is_cut_is_refused(length: int) -> None:
    assert read(GOOD[:length]) is None


@example(1_000_000_000, 8, b"\xff")
@given(st.integers(), st.sampled_from([1, 2, 4, 8]), st.binary(max_size=40))
def test_every_place_has_a_status_or_is_refused(index: int, bits: int, packed: bytes) -> None:
    try:
        found = status_reader.status(packed, bits, index)
    except ValueError:
        assert not 0 <= index < len(packed) * 8 // bits
        return
    assert 0 <= found < 1 << bits
