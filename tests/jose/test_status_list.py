from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit import jose
from remit.jose import status_list
from tests.support import status_reader

SIZE = 64


def test_a_live_place_is_valid_and_every_other_invalid() -> None:
    packed = status_list.live([0, 9, 63], SIZE)
    assert [place for place in range(SIZE) if status_reader.status(packed, 1, place) == status_list.VALID] == [0, 9, 63]


@given(st.sampled_from([1, 2, 4, 8]), st.data())
def test_what_is_packed_is_read(bits: int, data: st.DataObject) -> None:
    statuses = data.draw(st.lists(st.integers(0, (1 << bits) - 1), max_size=40))
    packed = status_reader.pack(statuses, bits)
    assert [status_reader.status(packed, bits, index) for index in range(len(statuses))] == statuses
    assert status_reader.decompress(status_reader.compress(packed)) == packed


@given(st.sets(st.integers(0, SIZE - 1)))
def test_a_live_list_is_what_packing_it_would_give(places: set[int]) -> None:
    statuses = [status_list.VALID if place in places else status_list.INVALID for place in range(SIZE)]
    assert status_list.live(places, SIZE) == status_reader.pack(statuses, 1)


@pytest.mark.parametrize("index", [-1, SIZE, 10**9])
def test_a_place_beyond_the_list_is_not_valid(index: int) -> None:
    with pytest.raises(ValueError, match="not in the list"):
        status_reader.status(status_list.live([0], SIZE), 1, index)


@pytest.mark.parametrize(
    "lst",
    [
        "",
        "AAAA",
        "not base64!",
        jose.encode(zlib.compress(b"\xff") + b"more"),
        jose.encode(zlib.compress(b"\xff" * 100)[:-4]),
        jose.encode(zlib.compress(bytes(status_reader.MAX_LIST + 1), 9)),
    ],
)
def test_what_is_not_one_whole_list_is_refused(lst: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - three readers raise it, each with words of its own
        status_reader.decompress(lst)


def test_a_list_says_until_when_it_may_be_believed() -> None:
    claims = status_list.claims("https://remit.test/oauth/status/1", b"\xff", 1_000)
    assert (claims["iat"], claims["exp"], claims["ttl"]) == (1_000, 1_000 + status_list.TTL, status_list.TTL)
    assert status_list.TTL <= 60
