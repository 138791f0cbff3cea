"""Cedar text, cut into policies that know their lines."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.policies.sets import Statement, cut


def test_a_text_is_cut_at_semicolons_and_each_policy_knows_its_line() -> None:
    text = "// first\npermit (a);\n\n\n// second\nforbid\n(b);"
    assert list(cut(text)) == [Statement("permit (a);", 2), Statement("forbid\n(b);", 6)]


@pytest.mark.parametrize("inside", ['"a;b"', '"a\\";b"', "// a;b\n", '"//";', '"\n;\n"'])
def test_a_semicolon_in_a_string_or_a_comment_ends_nothing(inside: str) -> None:
    text = f"permit (a) {inside}"
    found = list(cut(text if text.endswith(";") else f"{text};"))
    assert len(found) == 1
    assert found[0].whole


@pytest.mark.parametrize("text", ["", "  \n ", "// nothing\n", "// nothing"])
def test_white_space_and_comments_are_no_policy(text: str) -> None:
    assert list(cut(text)) == []


def test_what_has_no_end_is_not_whole() -> None:
    assert [item.whole for item in cut("permit (a);\npermit (b)")] == [True, False]


def test_an_error_is_about_the_line_that_holds_what_it_quotes() -> None:
    statement = Statement('permit (a)\nwhen {\n  context.foo == "context.bar" // context.baz\n};', 7)
    assert statement.line_of("attribute `foo` not found") == 9
    assert statement.line_of("`baz` is in a comment") == 7
    assert statement.line_of("nothing is quoted") == 7


def test_what_stands_on_several_lines_points_at_none_of_them() -> None:
    assert Statement("permit\n(foo,\nfoo);", 3).line_of("`foo`") == 3


@given(st.text(alphabet='ab;"\\/\n ', max_size=60))
def test_nothing_is_lost_or_made_up(text: str) -> None:
    found = list(cut(text))
    assert all(item.text in text for item in found)
    assert sum(len(item.text) for item in found) <= len(text)
    assert all(item.whole for item in found[:-1])
    assert [item.line for item in found] == sorted(item.line for item in found)
    lines = text.splitlines() or [""]
    assert all(item.text.splitlines()[0] in "\n".join(lines[item.line - 1 :]) for item in found)
