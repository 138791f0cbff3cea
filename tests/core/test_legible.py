"""What people can tell apart by looking."""

from __future__ import annotations

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core.legible import MARKS, escaped, is_legible, rows, written

HIDDEN = {
    "soft hyphen": "\u00ad",
    "grapheme joiner": "\u034f",
    "Hangul filler": "\u3164",
    "half-width Hangul filler": "\uffa0",
    "choseong filler": "\u115f",
    "jungseong filler": "\u1160",
    "Khmer vowel": "\u17b4",
    "Mongolian selector": "\u180b",
    "Mongolian separator": "\u180e",
    "Braille blank": "\u2800",
    "zero-width space": "\u200b",
    "word joiner": "\u2060",
    "bidi override": "\u202e",
    "bidi isolate": "\u2066",
    "variation selector": "\ufe0f",
    "supplementary selector": "\U000e0100",
    "tag": "\U000e0041",
    "no-break space": "\u00a0",
    "line separator": "\u2028",
    "shorthand": "\U0001bca0",
    "musical": "\U0001d173",
    "private": "\ue000",
    "line break": "\n",
}


@pytest.mark.attack("OAU-12")
@pytest.mark.parametrize("name", HIDDEN)
def test_what_does_not_show_is_not_legible_and_is_escaped(name: str) -> None:
    char = HIDDEN[name]
    assert not is_legible(f"a{char}b")
    wide = f"\\u{ord(char):04x}" if ord(char) <= 0xFFFF else f"\\U{ord(char):08x}"
    assert escaped(f"a{char}b") == (f"a\\x{ord(char):02x}b" if char.isascii() else f"a{wide}b")


@pytest.mark.attack("OAU-12")
def test_marks_do_not_pile_up() -> None:
    for mark in ("\u0301", "\u0489", "\u20dd"):  # nonspacing and enclosing, one kind or several
        assert is_legible("e" + mark * MARKS)
        assert not is_legible("e" + mark * (MARKS + 1))
        assert not is_legible("e" + f"{mark}\u0302" * 400)


WRITTEN = ["", "draft the CFO summary", "Zażółć gęślą jaźń", "e\u0323\u0302", "संक्षेप में", "ภาษาไทย", "한국어"]
WRITTEN += ["日本語、「」", "😀", "שָׁלוֹם"]


@pytest.mark.parametrize("text", WRITTEN)
def test_what_people_write_is_legible(text: str) -> None:
    assert is_legible(text)


@given(st.text())
def test_what_was_escaped_shows(text: str) -> None:
    assert is_legible(escaped(text))
    assert escaped(text, keep="\n").count("\n") == text.count("\n")


# -- one to one -------------------------------------------------------------------------------------------------------

SAME: list[tuple[object, object]] = [
    ({"body.a": {"exact": "x; body.z: any"}}, {"body.a": "x", "body.z": "any"}),
    ({"body.a": {"one_of": ["a, b", "c"]}}, {"body.a": {"one_of": ["a", "b", "c"]}}),
    ({"body.a": {"exact": "5"}}, {"body.a": {"exact": 5}}),
    ({"body.a": {"exact": "any"}}, {"body.a": "any"}),
    ({"body.a": {"exact": 'x"}, "body.z": "any'}}, {"body.a": {"exact": "x"}, "body.z": "any"}),
    ({"body.a": {"exact": None}}, {"body.a": {"exact": "null"}}),
    ({}, "{}"),
    (["a b", "c"], ["a", "b c"]),
    ({"body.a": {"exact": "\ue0001"}}, {"body.a": {"exact": "\U000e0001"}}),
    ({"body.a": {"exact": "pay \u05d0\u05d1 100"}}, {"body.a": {"exact": "pay 100 \u05d0\u05d1"}}),
    ({"body.\u0627/1": "any"}, {"body.1/\u0627": "any"}),
]


def seen(text: str) -> str:
    """Return text in the order that it is seen in from left to right, roughly: enough for one run of one line."""
    number, right = r"\d+", "\u0590-\u08ff"
    run = re.compile(rf"[{right}](?:[{right}\d /]*[{right}\d])?")
    return run.sub(lambda found: "".join(reversed(re.findall(rf"{number}|.", found[0]))), text)


@pytest.mark.attack("OAU-12")
@pytest.mark.parametrize("one", range(len(SAME)))
def test_no_two_details_are_written_alike(one: int) -> None:
    shown = {
        "\n".join(seen(f"{name} {key}\n{written(value)}") for name, key, value in rows({"args": args}))
        for args in SAME[one]
    }
    assert len(shown) == 2


@pytest.mark.attack("OAU-12")
def test_the_widest_is_not_pushed_out_of_sight() -> None:
    args = {f"body.a{n}": {"exact": "x" * 1_000} for n in range(12)} | {"body.zto": "any"}
    assert next(rows({"args": args})) == ("args", '"body.zto"', "any")
    paths = [f"/v1/a{n}" for n in range(99)] + ["/v1/**"]
    assert written(paths).startswith('["/v1/**", ')
    assert sorted(json.loads(written(paths))) == sorted(paths)


def test_a_detail_has_a_row_for_each_member_but_those_that_head_it() -> None:
    detail = {"type": "http", "resource": "search", "actions": ["GET"], "args": {"query.q": "any"}, "uses": 3}
    assert list(rows(detail)) == [("actions", "", ["GET"]), ("args", '"query.q"', "any"), ("uses", "", 3)]
