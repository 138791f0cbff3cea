from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core import spiffe
from remit.core.spiffe import check_pattern, matches, parse, pattern_le, within
from remit.errors import InvalidRequestError

SEGMENT = st.sampled_from(["a", "b", "A", "ns", "a.b", "a-b", "-", "..."])
DOMAIN = st.sampled_from(["td.example", "td", "td.example.org"])


@st.composite
def identities(draw: st.DrawFn) -> str:
    path = draw(st.lists(SEGMENT, min_size=1, max_size=4))
    return f"spiffe://{draw(DOMAIN)}/{'/'.join(path)}"


@st.composite
def patterns(draw: st.DrawFn) -> str:
    path = draw(st.lists(st.one_of(SEGMENT, st.just("*")), max_size=3))
    last = draw(st.one_of(SEGMENT, st.sampled_from(["*", "**"])))
    return draw(st.sampled_from([f"spiffe://{draw(DOMAIN)}/{'/'.join([*path, last])}", "*"]))


def meant(pattern: str, identity: str) -> bool:
    """Match as the documentation says it, by another way than the code's."""
    if pattern == "*":
        return True
    text = re.escape(pattern).replace(r"/\*\*", r"(/[^/]+)*").replace(r"\*", r"[^/]+")
    return re.fullmatch(text, identity) is not None


@given(patterns(), identities())
def test_a_pattern_matches_what_its_segments_say(pattern: str, identity: str) -> None:
    assert matches(identity, [pattern]) == meant(pattern, identity)


@given(patterns(), patterns(), identities())
def test_whatever_a_narrower_pattern_matches_the_wider_one_matches(narrow: str, wide: str, identity: str) -> None:
    if pattern_le(narrow, wide) and matches(identity, [narrow]):
        assert matches(identity, [wide])


@given(patterns())
def test_a_pattern_is_within_itself_and_within_any(pattern: str) -> None:
    assert pattern_le(pattern, pattern)
    assert pattern_le(pattern, spiffe.ANY)
    assert pattern_le(spiffe.ANY, pattern) == (pattern == spiffe.ANY)


@given(patterns(), patterns(), patterns())
def test_being_within_is_transitive(first: str, second: str, third: str) -> None:
    if pattern_le(first, second) and pattern_le(second, third):
        assert pattern_le(first, third)


@given(patterns(), patterns())
def test_two_patterns_within_each_other_match_the_same(first: str, second: str) -> None:
    if pattern_le(first, second) and pattern_le(second, first):
        assert first == second


@given(patterns())
def test_every_pattern_that_can_be_written_is_accepted_as_it_is(pattern: str) -> None:
    assert check_pattern(pattern) == pattern


@given(identities())
def test_an_identity_reads_and_writes_back_as_itself(identity: str) -> None:
    assert str(parse(identity)) == identity
    assert check_pattern(identity) == identity


@given(identities(), st.integers(0, 40), st.sampled_from(list("*?%#@:/ \\\n\x00é")))
def test_an_identity_with_a_foreign_character_is_another_or_none(identity: str, at: int, character: str) -> None:
    place = min(max(at, len("spiffe://")), len(identity))
    changed = identity[:place] + character + identity[place:]
    try:
        parsed = parse(changed)
    except InvalidRequestError:
        return
    assert str(parsed) == changed != identity


@pytest.mark.parametrize(
    "text",
    [
        "",
        "td.example/a",
        "SPIFFE://td.example/a",
        "spiffe:/td.example/a",
        "spiffe:///a",
        "spiffe://TD.example/a",
        "spiffe://td.example:443/a",
        "spiffe://user@td.example/a",
        "spiffe://td.example/",
        "spiffe://td.example/a/",
        "spiffe://td.example//a",
        "spiffe://td.example/a/../b",
        "spiffe://td.example/./a",
        "spiffe://td.example/a%2fb",
        "spiffe://td.example/a?b",
        "spiffe://td.example/a#b",
        "spiffe://td.example/a*",
        "spiffe://td.example/*",
        "spiffe://td.example/é",
        "spiffe://td.example/a\n",
        "spiffe://" + "d" * 256 + "/a",
        "spiffe://td.example/" + "a" * 2_048,
    ],
)
def test_what_is_not_canonical_is_no_identity(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        parse(text)


def test_a_trust_domain_alone_is_an_identity_without_a_path() -> None:
    assert parse("spiffe://td.example").path == ""


@pytest.mark.parametrize(
    "text",
    [
        "",
        "spiffe://td.example",
        "spiffe://*/a",
        "spiffe://td.*/a",
        "spiffe://td.example/a*",
        "spiffe://td.example/**/a",
        "spiffe://td.example/a/***",
        "spiffe://td.example/a//**",
        "spiffe://td.example/../**",
        "https://idp.example#*",
        "**",
    ],
)
def test_a_pattern_has_whole_segments_and_a_literal_trust_domain(text: str) -> None:
    with pytest.raises(InvalidRequestError):
        check_pattern(text)


@pytest.mark.parametrize(
    ("identity", "pattern"),
    [
        ("spiffe://td.example/ns/ab", "spiffe://td.example/ns/a"),
        ("spiffe://td.example/ns/ab", "spiffe://td.example/ns/a/**"),
        ("spiffe://td.example/ns/a", "spiffe://td.example/ns/ab/**"),
        ("spiffe://td.example/ns/a/b", "spiffe://td.example/ns/*"),
        ("spiffe://td.example/NS/a", "spiffe://td.example/ns/*"),
        ("spiffe://td.example.evil/ns/a", "spiffe://td.example/ns/*"),
        ("spiffe://evil.td.example/ns/a", "spiffe://td.example/ns/*"),
        ("spiffe://td/example/ns/a", "spiffe://td/example"),
        ("spiffe://td.example", "spiffe://td.example/**"),
        ("*", "*"),
        ("spiffe://td.example/ns/*", "spiffe://td.example/ns/*"),
    ],
)
def test_a_name_that_only_looks_alike_does_not_match(identity: str, pattern: str) -> None:
    assert not matches(identity, [pattern])


def test_a_name_that_is_no_spiffe_id_matches_itself_alone() -> None:
    name = "https://token.actions.example#repo:acme/site"
    assert matches(name, [check_pattern(name)])
    assert not matches(name + "2", [name])
    assert not matches(name, ["spiffe://td.example/**"])
    assert matches(name, ["*"])


def test_each_pattern_must_be_within_one_of_the_others() -> None:
    wide = ("spiffe://td.example/a/**", "spiffe://td.example/b/*")
    assert within(("spiffe://td.example/a/*", "spiffe://td.example/b/c"), wide)
    assert not within(("spiffe://td.example/a/*", "spiffe://td.example/c"), wide)
    assert within((), wide)
    assert not within(("spiffe://td.example/a/x",), ())


def test_a_name_of_one_scheme_is_none_of_another() -> None:
    assert matches("wimse://td.example/agents/a", ["wimse://td.example/agents/*"])
    assert not matches("wimse://td.example/agents/a", ["spiffe://td.example/**"])
    assert not matches("spiffe://td.example/agents/a", ["wimse://td.example/**"])
    assert not matches("wimse://td.example.evil/agents/a", ["wimse://td.example/**"])
    assert not pattern_le("wimse://td.example/**", "spiffe://td.example/**")
    assert check_pattern("wimse://td.example/agents/**")
    for bad in ("wimse://td.example", "wimse://*/a", "wimse://td.example/a/**/b"):
        with pytest.raises(InvalidRequestError):
            check_pattern(bad)
    with pytest.raises(InvalidRequestError):
        parse("wimse://td.example/agents/a")
