"""Both stores keep the contract."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.keys.file import FileSealer
from remit.stores.sqlite import SqliteStore
from remit.testing.store_contract import CASES, Case, store_contract
from tests.support.memory_store import MemoryStore

KEK = b"k" * 32


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_sqlite_keeps_the_contract(case: Case, tmp_path: Path) -> None:
    store_contract(case, lambda: SqliteStore(tmp_path / "state", FileSealer(KEK)))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_memory_keeps_the_contract(case: Case) -> None:
    store = MemoryStore()  # closing it lets go of nothing, so that it reopens as itself
    store_contract(case, lambda: store)
