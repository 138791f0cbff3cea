"""Opening the embedded store in tests, and editing its file as somebody with the disk would."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest

from remit.keys.file import FileSealer
from remit.stores.sqlite import SqliteStore

T = TypeVar("T")
KEK = b"k" * 32


class Disk:
    """A state directory that can be opened as a store, or edited behind its back."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, kek: bytes = KEK) -> SqliteStore:
        return SqliteStore(self.path, FileSealer(kek), busy=0.05)

    def run(self, work: Callable[[SqliteStore], Awaitable[T]], kek: bytes = KEK) -> T:
        """Open the store, do ``work`` and close it."""

        async def done() -> T:
            store = self.open(kek)
            try:
                return await work(store)
            finally:
                await store.close()

        return asyncio.run(done())

    def edit(self, *statements: str) -> None:
        """Change the file with plain SQL while no broker runs; fail when a statement changes nothing."""
        connection = sqlite3.connect(self.path / "remit.db", isolation_level=None)
        for statement in statements:
            assert connection.execute(statement).rowcount, statement
        connection.close()

    def rows(self, query: str) -> list[tuple[object, ...]]:
        connection = sqlite3.connect(self.path / "remit.db")
        found = connection.execute(query).fetchall()
        connection.close()
        return found


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    return Disk(tmp_path / "state")
