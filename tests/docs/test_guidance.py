from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/guidance.md").read_text(encoding="utf-8")
LINES = [line for line in PAGE.splitlines() if re.match(r"\| (CoSAI|MCP\d\d|T3|ASI\d\d|CSA|CyberArk)\b", line)]
ROWS = [line for line in LINES if line.count("|") == 6]
PROOF = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")


@cache
def functions(path: str) -> frozenset[str]:
    tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
    return frozenset(node.name for node in tree.body if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:50])
def test_a_row_names_tests_that_exist_or_says_what_is_missing(row: str) -> None:
    _, asked, done, proven, missing = (cell.strip() for cell in row.strip("|").split("|"))
    assert asked
    proofs = PROOF.findall(proven)
    assert proofs or (proven == "none" and not done and missing)
    for path, name in proofs:
        assert name in functions(path), f"{path}::{name}"


@pytest.mark.parametrize(
    ("kind", "count"), [("MCP", 10), ("ASI", 10), ("T3", 7)], ids=["OWASP MCP", "OWASP agentic", "OWASP T3"]
)
def test_there_is_a_row_for_every_entry_of_a_list(kind: str, count: int) -> None:
    assert len([row for row in ROWS if row.startswith(f"| {kind}")]) == count


def test_every_layer_of_the_patterns_has_a_row() -> None:
    assert {row.split()[2] for row in ROWS if row.startswith("| CoSAI")} >= set("123456")
