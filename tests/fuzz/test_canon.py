"""Whatever a target says: it is refused, or every model reader sees the same segments."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from remit.core import scope
from remit.core.scope import Access
from remit.errors import InvalidRequestError, RemitError
from remit.gateway import canon
from remit.gateway.authorize import compile_rules
from remit.gateway.fronts.path import read_target
from tests.attacks.test_gra import PIECES
from tests.fuzz.readers import READERS, outside
from tests.gateway.rig import http, permitting

GRANT = scope.parse([http(args="any")])
RULES = compile_rules(GRANT, "api")
paths = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=8).map("".join),
    st.text(max_size=30),
    st.lists(st.integers(0, 255).map("%{:02X}".format), max_size=6).map("".join),
)
escapes = st.characters(min_codepoint=0x80, exclude_categories=["Cs"]).map(
    lambda char: "".join(f"%{octet:02X}" for octet in char.encode())
)


@settings(max_examples=3000)
@given(paths)
def test_what_is_accepted_lies_inside_the_grant_for_every_reader(path: str) -> None:
    raw = b"/api/v1/public/" + path.encode("utf-8", "surrogatepass")
    try:
        target = read_target(raw)
    except InvalidRequestError:
        return
    if permitting(RULES, Access("api", "GET", target.path)) is None:
        return
    assert outside(target.path, ("v1", "public")) == []
    assert f"/api{target.path}".encode() == raw.partition(b"?")[0]


@settings(max_examples=2000)
@given(st.lists(escapes, min_size=1, max_size=3).map("".join), st.sampled_from(["{}", "..{}", "{}..", "a{}b", ".{}."]))
def test_a_character_that_folds_to_a_separator_is_refused(escaped: str, around: str) -> None:
    path = "/v1/public/" + around.format(escaped)
    try:
        canon.path(path.encode())
    except InvalidRequestError:
        return
    assert {read(path).count("/") for read in READERS.values()} == {3}


@given(st.binary(max_size=80))
def test_a_target_is_read_or_refused(raw: bytes) -> None:
    try:
        read_target(raw)
    except InvalidRequestError:
        return


names = st.from_regex(r"[A-Za-z0-9_-][A-Za-z0-9_.\[\]-]{0,10}", fullmatch=True)
values = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=12)


@settings(max_examples=800)
@given(st.dictionaries(names, values, max_size=5))
def test_a_query_survives_being_written_and_read(pairs: dict[str, str]) -> None:
    items = tuple(pairs.items())
    assert canon.query_pairs(canon.query_text(items)) == items


@given(st.binary(max_size=80))
def test_a_query_is_read_or_refused(raw: bytes) -> None:
    try:
        target = read_target(b"/api/?" + raw)
        pairs = canon.query_pairs(target.query)
    except RemitError:
        return
    assert canon.query_pairs(canon.query_text(pairs)) == pairs


texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
keys = st.from_regex(r"[a-z]{1,4}", fullmatch=True)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=800)
@given(json_values)
def test_a_json_body_survives_being_judged_and_written(value: object) -> None:
    raw = canon.json_bytes(value)
    assert canon.json_body(raw) == value
    assert canon.leaves(value)


@settings(max_examples=800)
@given(json_values, json_values)
def test_two_bodies_with_the_same_leaves_are_the_same(one: object, other: object) -> None:
    if canon.leaves(one) == canon.leaves(other):
        assert canon.json_bytes(_sorted(one)) == canon.json_bytes(_sorted(other))


def _sorted(value: object) -> object:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(item) for item in value] if isinstance(value, list) else value


@given(st.binary(max_size=60))
def test_a_body_is_read_or_refused(raw: bytes) -> None:
    try:
        canon.leaves(canon.json_body(raw))
    except RemitError:
        return
