from __future__ import annotations

from datetime import timedelta

import pytest

from remit.errors import InvalidRequestError, ScopeError
from remit.sdk.detail import TTL, DetailLike, detail, expand, expand_one, name_of, seconds, whole

SEARCH = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"]}
SALES = {
    "type": "postgres",
    "resource": "warehouse",
    "actions": ["select"],
    "tables": ["sales.revenue", "sales.cost"],
    "columns": {"sales.revenue": ["amount"], "sales.cost": ["amount"]},
}


@pytest.mark.parametrize(
    ("ttl", "expected"),
    [("900", 900), ("90s", 90), ("15m", 900), ("1h", 3600), ("1d", 86400), (60, 60), (timedelta(minutes=2), 120)],
)
def test_a_duration_is_read_in_each_form(ttl: TTL, expected: int) -> None:
    assert seconds(ttl) == expected


@pytest.mark.parametrize("ttl", ["", "m", "15 m", "1.5h", "-1m", "15M", "1h30m", "٣m", "9" * 10, True])
def test_what_is_no_duration_is_refused(ttl: TTL) -> None:
    with pytest.raises(InvalidRequestError, match="`ttl`"):
        seconds(ttl)


def test_a_name_stands_for_the_only_detail_there_is() -> None:
    assert expand_one("search", [SEARCH, SALES]) == SEARCH


def test_overrides_replace_fields_and_the_rest_stays() -> None:
    assert expand_one(detail("search", paths=["/v1/a"]), [SEARCH]) == {**SEARCH, "paths": ["/v1/a"]}


def test_a_whole_detail_is_sent_as_it_is() -> None:
    odd = {"type": "http", "resource": "elsewhere"}
    assert expand_one(odd, [SEARCH]) == odd
    assert whole(odd)
    assert not whole("search")
    assert not whole({"resource": "search"})


def test_a_name_with_two_details_is_ambiguous() -> None:
    with pytest.raises(ScopeError, match="2 details") as error:
        expand_one("search", [SEARCH, {**SEARCH, "actions": ["POST"]}])
    assert error.value.help == "write the whole detail"


def test_a_name_without_a_detail_is_refused() -> None:
    with pytest.raises(ScopeError, match="no detail for `mail`") as error:
        expand_one("mail", [SEARCH])
    assert error.value.help == "ask whoever delegates for it"


def test_a_name_that_is_nearly_one_of_the_grants_is_asked_back() -> None:
    with pytest.raises(ScopeError, match="no detail for `saerch`") as error:
        expand_one("saerch", [SEARCH])
    assert error.value.help == "did you mean `search`?"


def test_columns_of_tables_left_out_are_left_out_with_them() -> None:
    narrowed = expand_one(detail("warehouse", tables=["sales.revenue"]), [SALES])
    assert narrowed["columns"] == {"sales.revenue": ["amount"]}


def test_columns_vanish_with_the_last_of_their_tables() -> None:
    known = {**SALES, "columns": {"sales.cost": ["amount"]}}
    assert "columns" not in expand_one(detail("warehouse", tables=["sales.revenue"]), [known])


def test_columns_that_are_named_are_kept_for_the_broker_to_judge() -> None:
    columns = {"sales.cost": ["amount"]}
    narrowed = expand_one(detail("warehouse", tables=["sales.revenue"], columns=columns), [SALES])
    assert narrowed["columns"] == columns


def test_several_wishes_keep_their_order() -> None:
    assert expand(["warehouse", "search"], [SEARCH, SALES]) == [SALES, SEARCH]


@pytest.mark.parametrize("wish", ["", {}, {"resource": 7}, {"resource": ""}])
def test_a_wish_without_a_resource_is_refused(wish: DetailLike) -> None:
    with pytest.raises(InvalidRequestError, match="`resource`"):
        name_of(wish)


def test_expanding_changes_nothing_that_was_given() -> None:
    before = {**SALES, "tables": [*SALES["tables"]]}
    expand_one(detail("warehouse", tables=["sales.revenue"]), [SALES])
    assert before == SALES
