from __future__ import annotations

import pytest
import typer

from remit.cli.options import duration, fields, loaded, wish, wishes


def test_a_bare_name_stays_a_name() -> None:
    assert wish("search") == "search"


def test_fields_follow_the_name() -> None:
    assert wish("search:paths=/v1/search,actions=GET") == {
        "resource": "search",
        "paths": ["/v1/search"],
        "actions": ["GET"],
    }


def test_a_part_without_a_name_is_one_more_value() -> None:
    assert fields("actions=GET,HEAD,paths=/a,/b=c") == {"actions": ["GET", "HEAD"], "paths": ["/a", "/b=c"]}


def test_a_colon_in_a_value_stays_in_it() -> None:
    assert wish("docs:paths=/v1/a:b") == {"resource": "docs", "paths": ["/v1/a:b"]}


def test_numbers_and_durations_are_read() -> None:
    assert fields("uses=5,ttl=2m") == {"uses": 5, "ttl": 120}


def test_maps_are_written_as_json() -> None:
    assert fields('args={"query.q":"any"}') == {"args": {"query.q": "any"}}
    assert fields("args=any") == {"args": "any"}


def test_json_with_commas_is_put_together_again() -> None:
    assert fields('args={"query.q":"any","query.n":{"at_most":5}},uses=1') == {
        "args": {"query.q": "any", "query.n": {"at_most": 5}},
        "uses": 1,
    }


@pytest.mark.parametrize("text", ["GET", "", ",", "=x", "paths"])
def test_what_is_not_a_field_is_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="FIELD=VALUE"):
        fields(text)


def test_a_number_that_is_none_is_left_for_the_broker_to_refuse() -> None:
    assert fields("uses=many") == {"uses": "many"}


def test_resources_come_before_details_and_arrays_are_flat() -> None:
    details = ['{"type": "http"}', '[{"type": "mcp"}, {"type": "postgres"}]']
    assert wishes(["a"], details) == ["a", {"type": "http"}, {"type": "mcp"}, {"type": "postgres"}]


@pytest.mark.parametrize("text", ["[1]", '"x"', "7", "null"])
def test_a_detail_is_an_object(text: str) -> None:
    with pytest.raises(typer.BadParameter, match="JSON object"):
        wishes(None, [text])


def test_nothing_asked_for_is_a_misuse() -> None:
    with pytest.raises(typer.BadParameter, match="say what is granted"):
        wishes(None, [])


def test_json_that_is_none_is_a_misuse() -> None:
    with pytest.raises(typer.BadParameter, match="not JSON"):
        loaded("{")


def test_a_duration_is_normalised_and_an_odd_one_is_a_misuse() -> None:
    assert duration("15m") == "900s"
    assert duration(None) is None
    with pytest.raises(typer.BadParameter, match="`ttl`"):
        duration("soon")
