from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/aims-conformance.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if re.match(r"\| [0-9]", line)]
PROOF = re.compile(r"`(tests/[a-z0-9_/]+\.py)::(test_[a-z0-9_]+)`")
MUSTS = 22  # MUST and MUST NOT of the draft; "audit events MUST record" counts for each of its seven


def test_there_is_a_row_for_every_must() -> None:
    assert len(ROWS) == MUSTS


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row[2:60])
def test_a_row_names_tests_that_exist(row: str) -> None:
    proofs = PROOF.findall(row.rsplit("|", 2)[1])
    assert proofs
    for path, name in proofs:
        tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, f"{path}::{name}"
