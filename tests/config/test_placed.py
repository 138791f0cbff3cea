"""Texts whose values have a place: JSON with comments, and assignments."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.config.placed import Edit, Placed, assignments, edited, read_json, without_members
from remit.errors import InvalidRequestError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)


@given(value=VALUES, indent=st.sampled_from([None, 0, 2, "\t"]), plain=st.booleans())
def test_json_means_what_the_standard_reader_says(value: object, indent: int | str | None, *, plain: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=plain)
    found = read_json(f" {text}\n")
    assert found.plain() == value
    assert f" {text}\n"[found.start : found.end] == text


@given(st.text(alphabet='{}[]",:/*\\ \n1a', max_size=40))
def test_whatever_it_reads_the_standard_reader_reads_too_without_comments_and_last_commas(text: str) -> None:
    try:
        expected = json.loads(text)
    except ValueError:
        return
    try:
        assert read_json(text).plain() == expected
    except InvalidRequestError:  # a name twice is the one thing that the other one takes
        assert json.dumps(expected).count('"') < text.count('"')


def test_comments_and_last_commas_are_as_if_they_were_not_there() -> None:
    text = '// a\n{"a" /* : 2, */ : [1, 2,], // "b": 3\n"c": "//", "d": "/* */",\n}/**/'
    assert read_json(text).plain() == {"a": [1, 2], "c": "//", "d": "/* */"}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        '{"a" 1}',
        '{"a": 1 "b": 2}',
        "[1 2]",
        "[,]",
        "{,}",
        '"a\n"',
        "nul",
        "1x",
        "/* ",
        "[1] 2",
        '{"a":1,"a":1}',
        '"\\x"',
        "{1: 2}",
        "[" * 66 + "]" * 66,
    ],
)
def test_what_is_no_json_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"line [12] is no JSON"):
        read_json(text)


def test_a_comment_that_never_ends_takes_no_time() -> None:
    with pytest.raises(InvalidRequestError):
        read_json("/*" * 500_000)


@given(members=st.dictionaries(st.text(max_size=3), st.integers(), max_size=5), data=st.data(), trailing=st.booleans())
def test_members_are_taken_out_and_the_others_stay(
    members: dict[str, int], data: st.DataObject, *, trailing: bool
) -> None:
    gone = data.draw(st.lists(st.sampled_from(sorted(members)), unique=True)) if members else []
    inner = ", ".join(f"{json.dumps(name)}: {value} /* {value} */" for name, value in members.items())
    text = "{" + inner + (", " if trailing and members else "") + "}"
    read = read_json(text).value
    assert isinstance(read, dict)
    after = edited(text, without_members(read, gone))
    assert read_json(after).plain() == {name: value for name, value in members.items() if name not in gone}
    assert all(f"/* {value} */" in after for value in members.values())


def test_edits_that_overlap_are_no_edits() -> None:
    with pytest.raises(ValueError, match="overlap"):
        edited("abcdef", [Edit(0, 3, ""), Edit(2, 4, "")])


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A=1", [("A", "1")]),
        ("\ufeffA=1\r\nB=2\r\n", [("A", "1"), ("B", "2")]),
        ("export A='a b' # x", [("A", "a b")]),
        ('A="x\\"y"', [("A", 'x\\"y')]),
        ("A=a#b # c", [("A", "a#b")]),
        ("# A=1\n #B=2\nC=", [("C", "")]),
        ('A="two\nB=lines"\nC=3', [("A", "two\nB=lines"), ("C", "3")]),
        ('A="never closed\nB=2', [("A", '"never closed'), ("B", "2")]),
        ("A==\n1B=2\nA.B=3\nA B=4", [("A", "=")]),
        ("A= # nothing", [("A", "")]),
    ],
)
def test_assignments_are_found_as_programs_find_them(text: str, found: list[tuple[str, str]]) -> None:
    read = list(assignments(text))
    assert [(each.name, each.value) for each in read] == found
    assert all(each.value in text[each.start : each.end] for each in read)


@given(
    st.lists(
        st.tuples(st.from_regex(r"[A-Z_]{1,5}", fullmatch=True), st.from_regex(r"[!$-&(-[^-~]{0,9}", fullmatch=True))
    )
)
def test_each_value_is_changed_where_it_stands(pairs: list[tuple[str, str]]) -> None:
    text = "".join(f"{name}={value}\n" for name, value in pairs)
    found = list(assignments(text))
    new = edited(text, [Edit(each.start, each.end, "new") for each in found])
    assert [each.value for each in assignments(new)] == ["new"] * len(found)


def test_a_place_tells_scalars_and_structures_apart() -> None:
    assert Placed(0, 4, [Placed(1, 2, 1)]).plain() == [1]
