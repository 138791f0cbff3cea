"""What the API's description says of details is what the tables of the kinds say."""

from __future__ import annotations

from pathlib import Path

import jsonschema_rs
import pytest
import yaml

from remit.compose.kinds import BUILT_IN
from remit.core import scope
from tests.core.drawn import details, read
from hypothesis import given

DESCRIPTION = Path(__file__).parents[2] / "docs" / "reference" / "openapi.yaml"
SCHEMAS = yaml.safe_load(DESCRIPTION.read_text("utf-8"))["components"]["schemas"]


def _name(kind: str) -> str:
    return f"{kind.capitalize()}Detail"


@pytest.mark.parametrize("kind", BUILT_IN)
def test_the_description_of_a_detail_is_that_of_its_table(kind: str) -> None:
    written = yaml.safe_dump({_name(kind): scope.json_schema(kind)}, sort_keys=False, width=1_000)
    assert SCHEMAS[_name(kind)] == scope.json_schema(kind), f"write into {DESCRIPTION.name}:\n{written}"


def test_a_detail_is_of_one_of_the_kinds() -> None:
    assert SCHEMAS["Detail"]["anyOf"] == [{"$ref": f"#/components/schemas/{_name(kind)}"} for kind in BUILT_IN]


@given(details(tuple(BUILT_IN)))
def test_what_is_read_and_what_is_written_meets_the_schema(raw: dict[str, object]) -> None:
    schema = scope.json_schema(str(raw["type"]))
    jsonschema_rs.validate(schema, raw)
    jsonschema_rs.validate(schema, scope.dump((read(raw),))[0])
