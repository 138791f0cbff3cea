"""What the strict reader accepts, and every way in which two readers could disagree."""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.errors import InvalidRequestError, TooLargeError
from remit.jose.strict import MAX_DEPTH, MAX_INT, read_json

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
LEAF = (
    st.none() | st.booleans() | st.integers(-MAX_INT, MAX_INT) | TEXT | st.floats(allow_nan=False, allow_infinity=False)
)
VALUES = st.recursive(LEAF, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4))


@given(VALUES)
def test_ordinary_json_is_read_as_it_was_written(value: object) -> None:
    assert read_json(json.dumps(value)) == value
    assert read_json(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.attack("DOS-12")
@pytest.mark.parametrize("piece", ["1,", "[],", "{},", '"",', '{"a":1},'])
def test_many_small_values_are_refused_by_their_number_before_they_are_read(piece: str) -> None:
    assert isinstance(read_json("[" + piece * 1_000 + "0]"), list)
    with pytest.raises(TooLargeError, match="4096 values"):
        read_json("[" + piece * 4_096 + "oops")
    with pytest.raises(TooLargeError, match="256 values"):
        read_json("[" + piece * 256 + "oops", limit=4_096)


@given(st.binary(max_size=200) | st.text(max_size=200))
def test_hostile_bytes_are_read_or_refused_as_a_bad_request(raw: bytes | str) -> None:
    with suppress(InvalidRequestError):  # anything else it raises fails the test
        json.dumps(read_json(raw), allow_nan=False)


REFUSED = {
    "a duplicate name": '{"a":1,"a":2}',
    "a duplicate name that is spelled with an escape": '{"a":1,"\\u0061":2}',
    "a duplicate name deep inside": '[{"x":[{"a":1,"a":1}]}]',
    "not a number": "NaN",
    "infinity": "[Infinity]",
    "minus infinity": "-Infinity",
    "a fraction that overflows": "1e999",
    "a whole number that doubles cannot tell apart": str(2**53),
    "the same below zero": str(-(2**53)),
    "a whole number of many digits": "9" * 5_000,
    "half a surrogate pair": '"\\ud800"',
    "half a surrogate pair in a name": '{"\\udc00":1}',
    "text that is not UTF-8": b'"\xff"',
    "an overlong encoding": b'"\xc0\xaf"',
    "UTF-16": '{"a":1}'.encode("utf-16"),
    "a byte order mark": b'\xef\xbb\xbf{"a":1}',
    "a byte order mark as text": '\ufeff{"a":1}',
    "a half surrogate in the text itself": '"\ud800"',
    "two values": "1 2",
    "nothing": "",
    "a trailing comma": "[1,]",
    "a comment": "[1] // one",
    "single quotes": "{'a':1}",
    "a raw newline in a string": '"a\nb"',
    "a leading zero": "01",
    "deeper than a reader can go": "[" * 60_000,
    "deeper than this reader can go, of few values": "[" * 4_000,
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED.keys())
def test_what_two_readers_could_read_differently_is_refused(raw: bytes | str) -> None:
    with pytest.raises(InvalidRequestError):
        read_json(raw)


def test_nesting_is_accepted_up_to_the_limit_and_no_deeper() -> None:
    assert read_json("[" * MAX_DEPTH + "]" * MAX_DEPTH) is not None
    with pytest.raises(InvalidRequestError, match="deep"):
        read_json("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1))
    with pytest.raises(InvalidRequestError, match="deep"):
        read_json('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1))


def test_more_bytes_than_the_limit_are_refused_as_too_large() -> None:
    assert read_json('"é"', limit=4) == "é"
    with pytest.raises(TooLargeError):
        read_json('"é"', limit=3)


def test_whole_numbers_are_accepted_up_to_what_a_double_holds() -> None:
    assert read_json(f"[{MAX_INT},{-MAX_INT}]") == [MAX_INT, -MAX_INT]


def test_a_refusal_says_why_and_repeats_nothing_of_the_input() -> None:
    with pytest.raises(InvalidRequestError, match="a name occurs twice") as caught:
        read_json('{"hunter2":1,"hunter2":2}')
    assert "hunter2" not in caught.value.detail


def test_one_and_true_stay_apart() -> None:
    assert read_json("[1,true]") == [1, True]
    assert [type(item) for item in read_json("[1,true]")] == [int, bool]  # type: ignore[attr-defined]  # a list
