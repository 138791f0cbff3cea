from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from remit.core import fields
from remit.errors import InvalidRequestError


def test_a_value_of_the_right_type_is_returned_as_it_is() -> None:
    assert fields.text("name", "a b") == "a b"
    assert fields.texts("names", ["a", "b"]) == ("a", "b")
    assert fields.items("list", (1, "a")) == [1, "a"]
    assert fields.flag("on", value=False) is False
    assert fields.whole("count", 3, 1, 3) == 3


@pytest.mark.parametrize(
    ("read", "bad"),
    [
        (fields.text, [None, "", 7, True, ["a"], "a\nb"]),
        (fields.texts, [None, "a", {"a": 1}, ["a", 7], [""]]),
        (fields.items, [None, "a", {"a": 1}, 7]),
        (fields.flag, [None, 0, 1, "true", []]),
        (fields.whole, [None, True, 1.0, "1", -1, 2**53]),
    ],
)
def test_any_other_value_is_refused_by_the_field_s_name(
    read: Callable[[str, object], object], bad: list[object]
) -> None:
    for value in bad:
        with pytest.raises(InvalidRequestError, match="`field` must be"):
            read("field", value)


def test_text_matches_its_pattern_from_end_to_end() -> None:
    assert fields.text("name", "ab", re.compile("[a-z]+")) == "ab"
    with pytest.raises(InvalidRequestError, match="impossible"):
        fields.text("name", "ab1", re.compile("[a-z]+"))
