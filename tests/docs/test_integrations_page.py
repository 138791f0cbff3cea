"""The page of integrations says what the records say, and a test stands behind each record."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.integrations.page import GROUPS, PAGE, Record, records, rendered

ROOT = Path(__file__).parents[2]
ALL = [record for group in GROUPS for record in records(group)]


def test_the_page_is_made_from_the_records() -> None:
    assert PAGE.read_text(encoding="utf-8") == rendered(), "say `python -m tests.integrations.page`"


@cache
def _functions(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("record", ALL, ids=lambda record: record.software)
def test_a_test_stands_behind_each_record(record: Record) -> None:
    path, _, name = record.test.partition("::")
    assert name in _functions(ROOT / path)


def test_a_software_has_one_record() -> None:
    names = [(record.group, record.software) for record in ALL]
    assert len(set(names)) == len(names)
