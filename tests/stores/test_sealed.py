"""Documents at rest: sealed for their places; those that an earlier version left in clear at the next start."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from datetime import timedelta

import pytest

from remit.errors import IntegrityError
from remit.keys.file import FileSealer
from remit.ports import PutRecord, PutResource, Record
from remit.stores.ledger import Sealed
from remit.stores.sqlite import SqliteStore, _Writer
from remit.stores.tags import Seals
from remit.testing.samples import NOW, RESOURCE, event, task_with_leases
from tests.stores.conftest import KEK, Disk

CANARY = "canary-7f3a91"
RECORD = Record("approval", "apr_1", 1, b'{"purpose":"canary-7f3a91"}', NOW + timedelta(days=1))
SAVED = replace(RESOURCE, settings={"note": CANARY})


class InClear(FileSealer):
    """Seals nothing, as versions before did with documents."""

    def seal(self, plaintext: bytes, associated: bytes) -> bytes:
        del associated
        return plaintext


async def filled(store: SqliteStore) -> None:
    """Store tasks, a resource and a record that say the word."""
    for number in range(3):
        task, changes = task_with_leases(f"task_{number}")
        for change in changes:
            grants = tuple(replace(grant, label=CANARY) for grant in change.grants)
            told = replace(change, head=replace(change.head, purpose=CANARY), grants=grants)
            await store.commit([told], [event(task=task.id)])
    await store.commit([PutResource(SAVED), PutRecord(RECORD)], [event()])


async def read(store: SqliteStore) -> None:
    """Assert that all of it is there."""
    for number in range(3):
        task = await store.load(f"task_{number}")
        assert task.head.purpose == CANARY
        assert {grant.label for grant in task.grants.values()} == {CANARY}
        assert task.leases
    assert list(await store.resources()) == [SAVED]
    assert list(await store.records("approval")) == [RECORD]


def words(disk: Disk) -> int:
    """Count the word in all files of the state."""
    return sum(path.read_bytes().count(CANARY.encode()) for path in disk.path.iterdir())


def of_an_earlier_version(disk: Disk) -> None:
    """Leave a state as a version before would."""

    async def earlier() -> None:
        store = SqliteStore(disk.path, InClear(KEK))
        await filled(store)
        await store.close()

    asyncio.run(earlier())
    connection = sqlite3.connect(disk.path / "remit.db")
    connection.execute("PRAGMA user_version = 2")
    connection.close()
    (disk.path / "ends").unlink()
    assert words(disk) > 10


@pytest.mark.attack("STO-01")
def test_no_document_is_in_clear_in_any_file_while_it_is_served_and_after(disk: Disk) -> None:
    async def served(store: SqliteStore) -> None:
        await filled(store)
        assert words(disk) == 0
        await read(store)

    disk.run(served)
    assert words(disk) == 0
    disk.run(read)


def test_a_state_of_an_earlier_version_is_sealed_when_it_is_opened_and_loses_nothing(disk: Disk) -> None:
    of_an_earlier_version(disk)
    before = disk.rows("SELECT leaf FROM entries")

    async def now(store: SqliteStore) -> None:
        assert words(disk) == 0
        await read(store)
        task = await store.load("task_0")
        await store.commit([task.revoke(task.head.root)], [event()])

    disk.run(now)
    assert disk.rows("SELECT leaf FROM entries")[: len(before)] == before
    assert disk.rows("PRAGMA user_version") == [(3,)]
    assert words(disk) == 0
    disk.run(read)
    assert disk.run(lambda store: store.load("task_0")).head.closed


@pytest.mark.parametrize("tasks", [0, 1, 2])
def test_sealing_that_is_cut_off_goes_on_at_the_next_start(
    disk: Disk, tasks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_an_earlier_version(disk)
    write, left = _Writer._write, [tasks]

    def dies(writer: _Writer, sealed: Sealed) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        write(writer, sealed)

    monkeypatch.setattr(_Writer, "_write", dies)
    with pytest.raises(KeyboardInterrupt):
        disk.open()
    monkeypatch.undo()
    assert words(disk) > 0
    disk.run(read)
    assert words(disk) == 0


def test_an_edited_row_of_an_earlier_version_is_not_sealed_as_if_it_were_good(disk: Disk) -> None:
    of_an_earlier_version(disk)
    disk.edit("UPDATE grants SET body = CAST(replace(body, 'canary', 'CANARY') AS BLOB)")
    with pytest.raises(IntegrityError):
        disk.open()


def test_a_document_opens_in_its_own_place_alone() -> None:
    seals = Seals(FileSealer(KEK))
    sealed = seals.seal(("grants", "task_1", "grt_1"), b'{"a":1}')
    assert seals.open(("grants", "task_1", "grt_1"), sealed) == b'{"a":1}'
    for place in (("grants", "task_1", "grt_2"), ("leases", "task_1", "grt_1"), ("grants", "task_2", "grt_1")):
        with pytest.raises(IntegrityError):
            seals.open(place, sealed)
