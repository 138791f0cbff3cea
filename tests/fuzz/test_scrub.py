"""Wherever a stream is cut: a whole secret in a listed form never gets out, and everything else does."""

from __future__ import annotations

import gzip
import zlib
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.errors import RemitError
from remit.gateway.scrub import Inflated, LeakError, Needles, Scrubber
from remit.testing.upstream import CODERS

SECRET = "rmt-k-3f1c0a9be7d24856-Q"
NEEDLES = Needles([SECRET])


def pour(scrubber: Scrubber, data: bytes, cuts: list[int]) -> bytes:
    """Return what gets out of a scrubber; what was let go before a leak counts too."""
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    out = b""
    try:
        for start, end in pairwise(edges):
            out += scrubber.feed(data[start:end])
        return out + scrubber.end()
    except LeakError:
        return out + b"<cut>"


@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize("form", CODERS)
def test_a_secret_cut_in_two_at_any_place_is_found(form: str, *, lines: bool) -> None:
    coded = CODERS[form](SECRET)
    data = b"data: <" + coded + b">\n\n"
    for cut in range(len(data) + 1):
        out = pour(Scrubber(NEEDLES, lines=lines), data, [cut])
        assert out.endswith(b"<cut>"), cut
        assert coded not in out
        assert len(out) <= len(b"data: <") + len(b"<cut>")


@pytest.mark.parametrize("form", CODERS)
def test_a_secret_that_comes_byte_by_byte_is_found(form: str) -> None:
    data = b"x" * 500 + CODERS[form](SECRET) + b"y" * 500
    out = pour(Scrubber(NEEDLES), data, list(range(len(data))))
    assert out.rstrip(b"<cut>").strip(b"x") == b""
    assert out.endswith(b"<cut>")


@settings(max_examples=400)
@given(st.binary(max_size=2000), st.lists(st.integers(0, 2000), max_size=10), st.booleans())
def test_what_holds_no_secret_gets_out_unchanged(data: bytes, cuts: list[int], lines: bool) -> None:  # noqa: FBT001
    if NEEDLES.hit(data):
        return
    try:
        assert pour(Scrubber(NEEDLES, lines=lines), data, cuts) == data
    except RemitError:
        assert data[:4] == b"\x28\xb5\x2f\xfd"


@settings(max_examples=300)
@given(st.binary(max_size=600), st.integers(0, 600))
def test_how_long_bytes_are_held_hangs_on_their_number_alone(data: bytes, prefix: int) -> None:
    near = data + SECRET.encode()[: prefix % len(SECRET)]
    if NEEDLES.hit(near) or near[:2] in {b"\x1f\x8b", b"\x28\xb5"} or near[:1] == b"\x78":
        return
    assert len(Scrubber(NEEDLES).feed(near)) == max(0, len(near) - NEEDLES.keep)


@pytest.mark.parametrize("squeeze", [gzip.compress, zlib.compress])
def test_a_compressed_secret_is_found_wherever_the_stream_is_cut(squeeze: object) -> None:
    assert callable(squeeze)
    data: bytes = squeeze(b"some text, then " + SECRET.encode() + b", then more")
    for cut in range(len(data)):
        inflated = Inflated(NEEDLES)
        with pytest.raises(LeakError):
            _all(inflated, [data[:cut], data[cut:]])


@settings(max_examples=200)
@given(st.binary(max_size=5000), st.lists(st.integers(0, 5000), max_size=6))
def test_what_is_inflated_is_what_was_deflated(data: bytes, cuts: list[int]) -> None:
    if data[:2] in {b"\x1f\x8b", b"\x28\xb5"} or data[:1] == b"\x78":
        return
    squeezed = gzip.compress(data)
    edges = [0, *sorted(cut for cut in cuts if cut < len(squeezed)), len(squeezed)]
    pieces = [squeezed[a:b] for a, b in pairwise(edges)]
    assert _all(Inflated(NEEDLES), pieces) == data


@given(st.binary(max_size=300))
def test_whatever_claims_to_be_compressed_is_inflated_or_refused(data: bytes) -> None:
    try:
        _all(Inflated(NEEDLES), [data])
    except RemitError:
        return


def _all(inflated: Inflated, pieces: list[bytes]) -> bytes:
    out = b"".join(released for piece in pieces for released in inflated.feed(piece))
    return out + inflated.end()


def test_a_bomb_is_inflated_in_steps_and_members_are_all_read() -> None:
    data = gzip.compress(b"\0" * 5_000_000) + gzip.compress(b"end")
    biggest = total = 0
    inflated = Inflated(NEEDLES)
    for piece in inflated.feed(data):
        biggest, total = max(biggest, len(piece)), total + len(piece)
    total += len(inflated.end())
    assert (total, biggest <= 600_000) == (5_000_003, True)
