"""Path patterns: against a reference matcher, one by one and many at once."""

from __future__ import annotations

import itertools
import re
import string
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.core import paths
from remit.core.paths import Places, check_path, check_uri, matched, path_le, places, uri_path, within
from remit.errors import UnknownDetailError
from tests.core.drawn import below_path, paths_in, patterns

UNIVERSE = [
    "/" + "/".join([*head, last])
    for length in range(4)
    for head in itertools.product(("a", "b", "z"), repeat=length)
    for last in ("a", "z", "x%2Ay", "")
]


def reference(pattern: str) -> re.Pattern[str]:
    """Return what a pattern means, written another way."""
    expression = re.escape(pattern).replace(r"\*\*", "\0").replace(r"\*", "[^/]+")
    expression = re.sub("^/\0$", "/.*", expression)
    return re.compile(expression.replace("/\0", "(?:/.*)?") + r"\Z")


@given(patterns(), st.sampled_from(UNIVERSE))
def test_a_pattern_matches_what_the_reference_matches(pattern: str, path: str) -> None:
    assert path_le(path, pattern) == (reference(pattern).match(path) is not None)


def paths_around(left: str, right: str) -> Iterator[str]:
    """Yield literal paths that tell two patterns apart: their own segments, and one that neither has."""
    stars = {"*", "**", ""}
    columns = itertools.zip_longest(left[1:].split("/"), right[1:].split("/"), ["z"], fillvalue="z")
    choices = [sorted({*column, "z"} - stars) for column in columns]
    choices.append(["z"])
    for length in range(len(choices) + 1):
        for segments in itertools.product(*choices[:length]):
            yield "/" + "/".join(segments)
            yield "/" + "/".join([*segments, ""])


@given(patterns(), patterns())
def test_a_pattern_is_part_of_another_when_all_its_paths_are(left: str, right: str) -> None:
    matched = [path for path in paths_around(left, right) if reference(left).match(path)]
    assert path_le(left, right) == all(reference(right).match(path) for path in matched)


@given(patterns())
def test_a_path_pattern_is_part_of_itself_and_of_everything(pattern: str) -> None:
    assert path_le(pattern, pattern)
    assert path_le(pattern, "/**")


@given(st.data())
def test_what_is_drawn_below_a_pattern_is_part_of_it_and_so_are_its_paths(data: st.DataObject) -> None:
    pattern = data.draw(patterns())
    narrow = data.draw(below_path(pattern))
    assert path_le(narrow, pattern)
    assert path_le(data.draw(paths_in(narrow)), pattern)


@given(patterns(), patterns())
def test_patterns_that_are_part_of_each_other_are_the_same(left: str, right: str) -> None:
    assert not (path_le(left, right) and path_le(right, left)) or left == right


@given(patterns(), patterns(), patterns())
def test_being_part_of_is_transitive_for_paths(a: str, b: str, c: str) -> None:
    assert not (path_le(a, b) and path_le(b, c)) or path_le(a, c)


NARROWER = [
    ("/v1/search", "/v1/*"),
    ("/v1/search", "/v1/**"),
    ("/v1", "/v1/**"),
    ("/v1/", "/v1/**"),
    ("/v1/*/x", "/v1/**"),
    ("/v1/**", "/**"),
    ("/", "/**"),
    ("/a/*/**", "/a/**"),
]


@pytest.mark.parametrize(("narrow", "wide"), NARROWER)
def test_a_narrower_pattern_is_part_of_the_wider_and_not_the_other_way(narrow: str, wide: str) -> None:
    assert path_le(narrow, wide)
    assert not path_le(wide, narrow)


APART = [
    ("/v1/", "/v1/*"),
    ("/v1", "/v1/*"),
    ("/v1/a/b", "/v1/*"),
    ("/v10", "/v1/**"),
    ("/V1", "/v1"),
    ("/**", "/*/**"),
]


@pytest.mark.parametrize(("left", "right"), APART)
def test_near_misses_stay_apart(left: str, right: str) -> None:
    assert not path_le(left, right)


IMPOSSIBLE = [
    "",
    "v1",
    "//",
    "/a//b",
    "/.",
    "/..",
    "/a/../b",
    "/a/./b",
    "/**/a",
    "/a*",
    "/***",
    "/a?b",
    "/a#b",
    "/a b",
    "/a\n",
    "/a\\b",
    "/é",
    "/%2e%2e",
    "/%2E%2E",
    "/%2F",
    "/%2f",
    "/%5C",
    "/%25",
    "/%00",
    "/%0A",
    "/%41",
    "/%7E",
    "/%C3%a9",
    "/%4",
    "/%",
    "/" + "a" * 1_024,
    None,
    7,
]


@pytest.mark.parametrize(
    "path", IMPOSSIBLE, ids=[str(path)[:20].encode("unicode_escape").decode() for path in IMPOSSIBLE]
)
def test_a_path_in_another_form_is_refused(path: object) -> None:
    with pytest.raises(UnknownDetailError):
        check_path("paths", path)


@pytest.mark.parametrize(
    "path", ["/", "/*", "/**", "/a/*/b/**", "/a/", "/%C3%A9", "/%2A", "/x;y=1,2/@me", "/~u/a.b_c-d"]
)
def test_a_path_in_canonical_form_is_kept(path: str) -> None:
    assert check_path("paths", path) == path


def test_an_octet_is_encoded_exactly_where_it_has_no_other_spelling() -> None:
    unreserved = f"{string.ascii_letters}{string.digits}-._~".encode()
    other = {*unreserved, *b"/\\%", *range(0x20), 0x7F}
    taken = set[int]()
    for octet in range(256):
        with suppress(UnknownDetailError):
            check_path("paths", f"/a%{octet:02X}b/c")
            taken.add(octet)
    assert taken == set(range(256)) - other


# -- many at once ---------------------------------------------------------------------------------------------------

AWKWARD = ["", "/", "//", "/a//b", "/**/a", "/*/", "/a/**", "/**", "/a//", "/*/*", "*"]  # no patterns, some of them


@settings(max_examples=400)
@given(st.data())
def test_a_path_is_within_many_exactly_when_one_of_them_covers_it(data: st.DataObject) -> None:
    wide = data.draw(st.lists(st.one_of(patterns(), st.sampled_from(AWKWARD)), max_size=6))
    near = [below_path(path) for path in wide if path.startswith("/")]
    path = data.draw(st.one_of(patterns(), st.sampled_from([*UNIVERSE, *AWKWARD]), *near))
    assert within(path, places(tuple(wide))) == any(path_le(path, pattern) for pattern in wide)


def test_both_answers_are_drawn() -> None:
    """The law above would say nothing if its paths were never, or always, within."""
    seen: set[bool] = set()

    @settings(max_examples=100, database=None, derandomize=True)
    @given(st.data())
    def draw(data: st.DataObject) -> None:
        wide = data.draw(st.lists(patterns(), min_size=1, max_size=3))
        seen.add(within(data.draw(st.one_of(patterns(), below_path(wide[0]))), places(tuple(wide))))

    draw()
    assert seen == {True, False}


def test_a_path_is_compared_with_any_number_of_patterns_at_the_cost_of_its_own_segments() -> None:
    """Patterns that all go on together would be walked one by one: here every prefix is shared by half of them."""
    wide = tuple("/" + "/".join([*row, "end"]) for row in itertools.product(("a", "*"), repeat=8))
    looked = []

    class Place(dict[str, int]):
        def get(self, segment: str, default: int) -> int:  # type: ignore[override]  # the one way it is asked
            looked.append(segment)
            return super().get(segment, default)

    counting: Places = [(Place(named), any_, rest) for named, any_, rest in places(wide)]
    assert len(wide) == 256
    assert within("/a/a/a/a/a/a/a/a/end", counting)
    assert not within("/a/a/a/a/a/a/a/a/other", counting)
    assert len(looked) == 10 + 9


@given(st.lists(patterns(), min_size=1, max_size=4).flatmap(lambda wide: st.tuples(st.just(wide), paths_in(wide[0]))))
def test_a_requests_path_is_matched_as_it_would_be_covered(drawn: tuple[list[str], str]) -> None:
    wide, path = drawn
    at = places(tuple(wide))
    assert matched(path, at) == within(path, at) == any(path_le(path, one) for one in wide)


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("**", "/**"),
        ("https://a.example/b/c", "/https:/a.example/b/c"),
        ("https://a.example", "/https:/a.example"),
        ("https://a.example/", "/https:/a.example/"),
        ("file:///srv/*", "/file:/:/srv/*"),
        ("repo://*/**", "/repo:/*/**"),
    ],
)
def test_a_uri_is_compared_as_its_scheme_its_place_and_its_path(uri: str, path: str) -> None:
    assert (uri_path(uri), check_uri("resources", uri)) == (path, uri)


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "*",
        "/srv/a",
        "mailto:a@b.example",
        "HTTPS://a.example/b",
        "https://:/b",
        "https://a.example/b?c=d",
        "https://a.example/b#c",
        "https://a.example/../b",
        "https://a.example/%62",
        "https://a.example/b c",
        "**/b",
        "x" * 33 + "://a.example/b",
        "https://a.example/" + "b" * 1_024,
        7,
    ],
)
def test_what_is_no_uri_in_canonical_form_is_refused_in_a_grant_and_meets_only_the_one_pattern_for_all(
    uri: object,
) -> None:
    with pytest.raises(UnknownDetailError):
        check_uri("resources", uri)
    if isinstance(uri, str) and len(uri) <= 1_024:
        narrow = uri_path(uri)
        assert within(narrow, places(("/**",)))
        assert not within(narrow, places(("/https:/**", "/https:/a.example/**", "/*/**/", "/*/*/**")))


def test_nothing_is_kept_of_what_no_pattern_can_be() -> None:
    before = paths._uri_path.cache_info().currsize
    for uri in ("file:///" + "a" * 1_017, "file:///\u00e9", "x" * 1_025):
        assert uri_path(uri) == f"//{uri}"
    assert paths._uri_path.cache_info().currsize == before
