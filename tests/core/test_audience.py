"""Whom a token is for: nothing that was asked for becomes more, and nothing is named that its grant has not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core.audience import narrowed, settled
from remit.core.request import UNBOUND, Binding
from remit.errors import TargetError
from tests.broker.world import SEARCH, TABLE, details

ISSUER, GATEWAY = "https://remit.test", "http://127.0.0.1:8471"
ENDPOINT, OTHER = f"{GATEWAY}/search", f"{GATEWAY}/warehouse"
ANY = st.sampled_from([None, GATEWAY, ENDPOINT])


@given(ANY, st.sampled_from([None, GATEWAY, ENDPOINT, OTHER, f"{ENDPOINT}er"]))
def test_it_is_for_the_same_or_for_less(meant: str | None, named: str | None) -> None:
    if meant is None or named == meant or (meant == GATEWAY and named is not None):
        assert narrowed(meant, named) == named
        return
    with pytest.raises(TargetError):
        narrowed(meant, named)


@pytest.mark.parametrize(
    ("audience", "bearer", "got"),
    [
        (None, None, None),
        (ISSUER, None, ISSUER),
        (GATEWAY, None, GATEWAY),
        (ENDPOINT, None, ENDPOINT),
        (OTHER, None, TargetError),
        ("https://elsewhere.test", None, TargetError),
        (None, "search", ENDPOINT),
        (ENDPOINT, "search", ENDPOINT),
        (GATEWAY, "search", TargetError),
        (ISSUER, "search", TargetError),
        (OTHER, "search", TargetError),
    ],
)
def test_a_grant_has_the_broker_the_gateway_and_what_it_names_and_a_bearer_one_endpoint(
    audience: str | None, bearer: str | None, got: object
) -> None:
    scope, binding = details(SEARCH), UNBOUND if bearer is None else Binding(bearer=bearer)
    if got is not TargetError:
        assert settled(audience, scope, binding, ISSUER, GATEWAY) == got
        return
    with pytest.raises(TargetError):
        settled(audience, scope, binding, ISSUER, GATEWAY)


def test_where_there_is_no_gateway_nothing_is_for_one() -> None:
    assert settled(None, details(TABLE), UNBOUND, ISSUER, None) is None
    for audience, binding in ((GATEWAY, UNBOUND), ("None/warehouse", UNBOUND), (None, Binding(bearer="warehouse"))):
        with pytest.raises(TargetError):
            settled(audience, details(TABLE), binding, ISSUER, None)
