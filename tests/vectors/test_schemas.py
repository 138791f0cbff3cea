"""Files that others import are what their schemas say, and the schemas say something."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

HERE = Path(__file__).parent
NAMES = ("attenuation", "tokens")


def loaded(name: str) -> Any:
    return json.loads((HERE / name).read_text(encoding="utf-8"))


def schema(name: str) -> jsonschema_rs.Draft202012Validator:
    return jsonschema_rs.Draft202012Validator(loaded(f"{name}.schema.json"), validate_formats=True)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_is_what_its_schema_says(name: str) -> None:
    assert [str(error) for error in schema(name).iter_errors(loaded(f"{name}.json"))] == []


def _without_result(document: Any) -> None:
    del document["tests"][0]["result"]


def _a_refusal_without_its_code(document: Any) -> None:
    next(test for test in document["tests"] if test["result"] == "invalid")["error"] = None


def _something_more(document: Any) -> None:
    document["tests"][0]["hint"] = "x"


def _no_tests(document: Any) -> None:
    document["tests"] = []


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("spoil", [_without_result, _a_refusal_without_its_code, _something_more, _no_tests])
def test_a_file_that_is_not_right_is_noticed(name: str, spoil: Callable[[Any], None]) -> None:
    document = loaded(f"{name}.json")
    spoil(document)
    assert not schema(name).is_valid(document)


def test_no_key_on_file_is_a_private_one() -> None:
    document = loaded("tokens.json")
    document["keys"][0]["d"] = "AAAA"
    assert not schema("tokens").is_valid(document)


def test_every_file_is_on_the_page() -> None:
    page = (HERE / "README.md").read_text(encoding="utf-8")
    assert [file.name for file in sorted(HERE.glob("*.json")) if f"`{file.name}`" not in page] == []
