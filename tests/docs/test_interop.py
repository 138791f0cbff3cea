"""The page of foreign clients says what ``interop.json`` does, and every row of that is shown by tests that exist."""

from __future__ import annotations

import ast
import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/reference/interop.md"
ROWS: list[dict[str, Any]] = json.loads(Path(__file__).with_name("interop.json").read_text(encoding="utf-8"))
FAILED = 83  # that foreign clients ran into, when they were first let loose on it
HEAD = ["| client, or what asks for it | does | now | | shown by |", "|---|---|---|---|---|"]


def table() -> list[str]:
    """Return the lines of the table."""
    return [*HEAD, *(_line(row) for row in ROWS)]


def _line(row: dict[str, Any]) -> str:
    shown = ", ".join(f"`{test}`" for test in row["tests"])
    return f"| {row['client']} | {row['does']} | {row['now']} | {row['why']} | {shown} |"


@cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row["client"][:30])
def test_a_row_is_shown_by_tests_that_exist_and_says_why_where_it_is_refused(row: dict[str, Any]) -> None:
    assert row["now"] in {"passes", "refused"}
    assert row["tests"]
    assert row["why"] or row["now"] == "passes"
    for test in row["tests"]:
        path, _, name = test.partition("::")
        assert name in functions(path), test


def test_every_row_that_failed_is_there_and_the_page_says_what_the_rows_do() -> None:
    assert sum(row["rows"] for row in ROWS) == FAILED
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert lines == table(), "say `python -m tests.docs.test_interop`"


if __name__ == "__main__":
    text = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if not line.startswith("|")]
    PAGE.write_text("\n".join([*text, *table()]) + "\n", encoding="utf-8")
    sys.exit(0)
