"""Whom a token is for: nothing that was asked for becomes more, and nothing is named that its grant has not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core.audience import Audiences, Service, at_one_place, concerning, narrowed, settled
from remit.core.request import UNBOUND, Binding
from remit.errors import TargetError
from tests.broker.world import SEARCH, TABLE, details

ISSUER, GATEWAY = "https://remit.test", "http://127.0.0.1:8471"
ENDPOINT, OTHER = f"{GATEWAY}/search", f"{GATEWAY}/warehouse"
SHOP, BILLS = (
    Service("shop", "https://shop.test"),
    Service("bills", "https://shop.test/bills", "spiffe://a.test/bills/*"),
)
KNOWN = Audiences(ISSUER, GATEWAY, {"shop": SHOP, "bills": BILLS})
BUY = {"type": "elsewhere", "resource": "shop", "actions": ["buy"]}
ANY = st.sampled_from([None, GATEWAY, ENDPOINT])


@given(ANY, st.sampled_from([None, GATEWAY, ENDPOINT, OTHER, f"{ENDPOINT}er"]))
def test_it_is_for_the_same_or_for_less(meant: str | None, named: str | None) -> None:
    if meant is None or named == meant or (meant == GATEWAY and named is not None):
        assert narrowed(meant, named, GATEWAY) == named
        return
    with pytest.raises(TargetError):
        narrowed(meant, named, GATEWAY)


def test_what_is_below_a_service_is_another_service() -> None:
    assert narrowed(SHOP.uri, SHOP.uri, GATEWAY) == SHOP.uri
    for meant, named in ((SHOP.uri, BILLS.uri), (GATEWAY, SHOP.uri), (SHOP.uri, None), (SHOP.uri, GATEWAY)):
        with pytest.raises(TargetError):
            narrowed(meant, named, GATEWAY)


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
        assert settled(audience, scope, binding, KNOWN) == got
        return
    with pytest.raises(TargetError):
        settled(audience, scope, binding, KNOWN)


ONE, TWO = ({"type": "mcp", "resource": name, "actions": ["tools/call"], "tools": "any"} for name in ("bank", "forge"))
MANY = f"{GATEWAY}/mcp"


@pytest.mark.parametrize(
    ("scope", "bearer", "audience", "got"),
    [
        ((ONE, TWO), None, MANY, MANY),
        ((ONE, SEARCH), None, MANY, MANY),
        ((SEARCH,), None, MANY, TargetError),
        ((ONE, TWO), "mcp", None, MANY),
        ((ONE, TWO), "mcp", MANY, MANY),
        ((ONE, TWO), "mcp", f"{GATEWAY}/bank", TargetError),
        ((ONE, TWO), "mcp", GATEWAY, TargetError),
        ((ONE, TWO), "mcp", ISSUER, TargetError),
        ((ONE,), "bank", MANY, MANY),
        ((ONE,), "bank", None, f"{GATEWAY}/bank"),
        ((SEARCH,), "search", MANY, TargetError),
    ],
)
def test_the_endpoint_of_servers_is_for_what_has_one_and_for_a_bearer_of_nothing_else(
    scope: tuple[dict[str, object], ...], bearer: str | None, audience: str | None, got: object
) -> None:
    binding = UNBOUND if bearer is None else Binding(bearer=bearer)
    if got is not TargetError:
        assert settled(audience, details(*scope), binding, KNOWN) == got
        return
    with pytest.raises(TargetError):
        settled(audience, details(*scope), binding, KNOWN)


@pytest.mark.parametrize(
    ("scope", "place"),
    [((SEARCH,), "search"), ((ONE,), "bank"), ((ONE, TWO), "mcp"), ((ONE, SEARCH), None), ((SEARCH, TABLE), None)],
)
def test_what_is_reached_at_one_place_is_for_one_resource_or_for_servers_of_mcp_alone(
    scope: tuple[dict[str, object], ...], place: str | None
) -> None:
    assert at_one_place(details(*scope)) == place


def test_where_there_is_no_gateway_nothing_is_for_one() -> None:
    assert settled(None, details(TABLE), UNBOUND, Audiences(ISSUER)) is None
    for audience, binding in ((GATEWAY, UNBOUND), ("None/warehouse", UNBOUND), (None, Binding(bearer="warehouse"))):
        with pytest.raises(TargetError):
            settled(audience, details(TABLE), binding, Audiences(ISSUER))


@pytest.mark.parametrize(
    ("audience", "bearer", "got"),
    [
        (None, None, None),
        (SHOP.uri, None, SHOP.uri),
        (f"{GATEWAY}/search", None, ENDPOINT),
        (BILLS.uri, None, TargetError),
        (f"{GATEWAY}/shop", None, TargetError),
        (None, "shop", SHOP.uri),
        (ENDPOINT, "shop", TargetError),
        (GATEWAY, "shop", TargetError),
        (ISSUER, "shop", TargetError),
    ],
)
def test_what_is_granted_at_a_service_is_for_that_service_and_for_nothing_at_the_gateway(
    audience: str | None, bearer: str | None, got: object
) -> None:
    scope, binding = details(SEARCH, BUY), UNBOUND if bearer is None else Binding(bearer=bearer)
    if got is not TargetError:
        assert settled(audience, scope, binding, KNOWN) == got
        return
    with pytest.raises(TargetError):
        settled(audience, scope, binding, KNOWN)


def test_a_service_is_told_of_what_is_granted_there_and_everybody_else_of_it_all() -> None:
    scope = details(SEARCH, BUY)
    assert concerning(scope, SHOP.uri, KNOWN) == details(BUY)
    assert concerning(scope, f"{SHOP.uri}/", KNOWN) == details(BUY)
    assert [concerning(scope, whom, KNOWN) for whom in (None, ISSUER, GATEWAY, BILLS.uri)] == [scope, scope, scope, ()]


@pytest.mark.parametrize(
    ("service", "client", "served"),
    [
        (Service("a", "https://a.test", "app"), "app", True),
        (Service("a", "https://a.test", "app"), "apple", False),
        (Service("a", "https://a.test", "*"), "app", False),
        (SHOP, "", False),
        (SHOP, "app", False),
        (BILLS, "spiffe://a.test/bills/one", True),
        (BILLS, "spiffe://b.test/bills/one", False),
        (BILLS, "spiffe://a.test/bills/one/two", False),
    ],
)
def test_a_service_is_served_by_one_client_or_by_the_workloads_of_a_pattern(
    service: Service, client: str, *, served: bool
) -> None:
    assert service.is_served_by(client) is served


def test_who_has_tokens_by_rsa_is_who_asked_for_them() -> None:
    ledger = Service("ledger", "https://ledger.test", rsa=True)
    assert KNOWN.by_rsa == frozenset()
    assert Audiences(ISSUER, services={"shop": SHOP, "ledger": ledger}).by_rsa == {"https://ledger.test"}
