"""One reader and one writer of grant requests: what one writes, the other reads, and nothing is cut or clamped."""

from __future__ import annotations

import json
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core import request as requests
from remit.core import scope, spiffe
from remit.core.request import FIELDS, MAX_NUMBER, UNBOUND, Binding, Bounds, GrantRequest, check, read, written
from remit.errors import InvalidRequestError, UnknownDetailError
from tests.grant_requests import changed

SEARCH = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"]}
LEAST = {"authorization_details": [SEARCH]}
BOUNDS = st.builds(
    Bounds,
    st.none() | st.integers(0, 10**6).map(lambda seconds: timedelta(seconds=seconds)),
    st.integers(0, MAX_NUMBER),
    st.integers(0, MAX_NUMBER),
    st.booleans(),
    st.none() | st.lists(st.text(max_size=9), max_size=3).map(tuple),
    st.booleans(),
)
BINDINGS = st.builds(Binding, st.none() | st.text(), st.none() | st.text(), st.none() | st.text())


@given(BOUNDS, BINDINGS, st.text(max_size=300), st.text(max_size=300))
def test_what_is_written_is_read_back(bounds: Bounds, binding: Binding, label: str, purpose: str) -> None:
    asked = GrantRequest(scope.parse([SEARCH]), bounds, binding, label, purpose)
    said = {name: value for name, value in json.loads(json.dumps(written(asked))).items() if value is not None}
    assert read(said, binding) == asked


def test_what_is_not_said_is_as_it_is_for_a_grant_of_which_nothing_is_said() -> None:
    assert read(LEAST) == GrantRequest(scope.parse([SEARCH]), Bounds(None, 0, 0, exercise=True, unattested=True))


def test_what_it_is_bound_to_is_proven_and_never_read() -> None:
    assert read({**LEAST, "jkt": "k", "x5t": "x", "agent": "spiffe://a/b", "claims": {"a": "b"}}).binding == UNBOUND


OTHER_TYPES: dict[tuple[str, ...], tuple[object, ...]] = {
    ("ttl", "depth", "fan_out"): (-1, 1.5, True, "1", MAX_NUMBER + 1, []),
    ("exercise", "unattested"): (0, 1, "true", None),
    ("delegates",): ("*", [1], {}, [["*"]]),
    ("label", "purpose"): (1, None, ["a"]),
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for names, values in OTHER_TYPES.items() for name in names for value in values]
)
def test_what_is_of_another_type_is_refused_by_name(name: str, value: object) -> None:
    with pytest.raises(InvalidRequestError, match=f"`{name}`"):
        read({**LEAST, name: value})


def test_a_request_without_details_or_with_impossible_ones_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match="`authorization_details` is missing"):
        read({"ttl": 1})
    with pytest.raises(UnknownDetailError):
        read({"authorization_details": [{**SEARCH, "paths": "/v1"}]})


@pytest.mark.parametrize(
    "more",
    [
        {"depth": requests.MAX_DEPTH + 1},
        {"fan_out": requests.MAX_FAN_OUT + 1},
        {"ttl": timedelta(0)},
        {"ttl": requests.MAX_TTL + timedelta(seconds=1)},
        {"label": "a" * (requests.MAX_LABEL + 1)},
        {"label": "a\u200b"},
        {"delegates": ("spiffe://",)},
        {"delegates": ("*",) * (spiffe.MAX_PATTERNS + 1)},
        {"delegates": tuple(f"{n}" + "a" * 2_000 for n in range(5))},
    ],
    ids=lambda more: next(iter(more)),
)
def test_what_no_grant_may_have_is_refused_and_not_made_to_fit(more: dict[str, object]) -> None:
    asked = changed(read(LEAST), more)
    with pytest.raises(InvalidRequestError):
        check(asked)


def test_the_fields_are_those_that_are_read() -> None:
    said = written(GrantRequest(scope.parse([SEARCH]), Bounds(timedelta(1))))
    assert said.keys() >= FIELDS
    assert said.keys() - FIELDS == {"agent", "bearer", "claims", "jkt", "x5t"}


def test_more_delegates_than_can_be_compared_are_not_even_read() -> None:
    with pytest.raises(InvalidRequestError, match="at most 32 patterns"):
        read({**LEAST, "delegates": ["*"] * (spiffe.MAX_PATTERNS + 1)})


def test_as_many_delegates_as_can_be_compared_are_taken() -> None:
    check(changed(read(LEAST), {"delegates": ("*",) * spiffe.MAX_PATTERNS}))
    check(changed(read(LEAST), {"delegates": ("a" * spiffe.MAX_TEXT,)}))


def test_a_token_is_bound_to_the_key_or_the_certificate_that_the_grant_is() -> None:
    assert [Binding(jkt="k").thumbprint, Binding(x5t="x").thumbprint, UNBOUND.thumbprint] == ["k", "x", None]


def test_a_grant_is_held_by_a_token_where_a_key_is_named_or_one_resource_takes_bearers() -> None:
    assert [one.by_token for one in (Binding("key"), Binding(x5t="certificate"), Binding(bearer="search"))] == [
        True
    ] * 3
    assert not UNBOUND.by_token
    assert Binding(bearer="search").thumbprint is None
