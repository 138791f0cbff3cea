from __future__ import annotations

import asyncio
import os
import resource
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from remit.core.audit import Event, verify
from remit.core.task import nothing
from remit.core.tree import leaf_hash
from remit.errors import ConflictError, IntegrityError, InvalidRequestError, RemitError, UnavailableError
from remit.ports import NotedEnd, PutRecord, PutResource, Record, Spend, UsedToken
from remit.stores.ends import SIZE
from remit.stores.sqlite import SqliteStore
from remit.testing import raises
from remit.testing.samples import NOW, RESOURCE, event, opening, task_with_leases
from tests.stores.conftest import Disk

# -- opening --------------------------------------------------------------------------------------------------------


async def nothing_more(store: SqliteStore) -> None:
    """Only open and close."""
    assert await store.size() >= 0


async def filled(store: SqliteStore) -> None:
    """Store one of everything."""
    task, changes = task_with_leases()
    for change in changes:
        await store.commit([change], [event(task=task.id)])
    await store.commit([PutResource(RESOURCE), Spend(task.id, "grt_a", 0, 3), UsedToken("digest", NOW)], [event()])


def test_a_second_broker_on_the_same_state_gets_one_clear_error(disk: Disk) -> None:
    async def second(_: SqliteStore) -> None:
        with pytest.raises(UnavailableError, match="another broker serves this state") as caught:
            disk.open()
        assert "REMIT_STATE_DIR" in str(caught.value.help)

    disk.run(second)
    disk.run(nothing_more)


@pytest.mark.attack("STO-07")
@pytest.mark.parametrize("how", ["removed", "replaced", "database replaced", "database linked"])
def test_a_second_broker_is_kept_out_whatever_became_of_the_names(disk: Disk, tmp_path: Path, how: str) -> None:
    lock, database, other = disk.path / "lock", disk.path / "remit.db", disk

    async def second(_: SqliteStore) -> None:
        lock.unlink()
        if how == "replaced":
            lock.touch(0o600)
        if how == "database replaced":
            shutil.copy(database, tmp_path / "older.db")
            (tmp_path / "older.db").replace(database)
        if how == "database linked":
            (tmp_path / "elsewhere").mkdir(0o700)
            (tmp_path / "elsewhere" / "remit.db").hardlink_to(database)
            other.path = tmp_path / "elsewhere"
        with pytest.raises(UnavailableError, match="another broker serves this state"):
            other.open()

    disk.run(second)


@pytest.mark.attack("STO-07")
@pytest.mark.parametrize("seq", [0, 200, 256, 511, 520])
@pytest.mark.parametrize("how", ["forged", "removed", "rest removed"])
def test_an_entry_that_was_replaced_with_its_hash_or_removed_is_not_read(disk: Disk, seq: int, how: str) -> None:
    async def many(store: SqliteStore) -> None:
        await store.commit([], [event()] * 525)

    async def forged(store: SqliteStore) -> None:
        text = '{"event":"nothing.happened"}'
        forge = f"UPDATE entries SET leaf = '{text}', hash = x'{leaf_hash(text.encode()).hex()}' WHERE seq = {seq}"  # noqa: S608 - ours
        remove = f"DELETE FROM entries WHERE seq {'=' if how == 'removed' else '>='} {seq}"  # noqa: S608 - ours
        disk.edit(forge if how == "forged" else remove)
        for start, limit in ((0, 1_000), (seq, 1), (max(seq - 5, 0), 10)):
            with pytest.raises(IntegrityError, match="changed outside remit"):
                await store.entries(start, limit)
        if seq >= 256 and how != "rest removed":
            assert len(await store.entries(0, 256)) == 256  # what is whole can be read

    disk.run(many)
    disk.run(forged)


def test_an_open_that_fails_lets_go_of_the_lock(disk: Disk) -> None:
    disk.run(nothing_more)
    for _ in range(2):
        with pytest.raises(IntegrityError):
            disk.open(b"z" * 32)
    disk.run(nothing_more)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077, 0o777])
def test_every_file_is_private_whatever_the_umask(disk: Disk, umask: int) -> None:
    async def modes(store: SqliteStore) -> dict[str, int]:
        await filled(store)
        return {path.name: stat.S_IMODE(path.stat().st_mode) for path in disk.path.iterdir()}

    before = os.umask(umask)
    try:
        found = disk.run(modes)
    finally:
        os.umask(before)
    assert found == dict.fromkeys(("remit.db", "remit.db-wal", "remit.db-shm", "lock", "ends"), 0o600)
    assert stat.S_IMODE(disk.path.stat().st_mode) == 0o700


@pytest.mark.parametrize(("name", "mode"), [(".", 0o755), (".", 0o770), ("remit.db", 0o644), ("lock", 0o640)])
def test_looser_modes_are_refused_and_the_chmod_named(disk: Disk, name: str, mode: int) -> None:
    disk.run(nothing_more)
    path = disk.path / name
    right = stat.S_IMODE(path.stat().st_mode)
    path.chmod(mode)
    with pytest.raises(IntegrityError) as caught:
        disk.open()
    assert caught.value.help == f"chmod {right:o} '{path}'"
    path.chmod(right)
    disk.run(nothing_more)


def test_something_else_in_place_of_the_state_is_refused(disk: Disk, tmp_path: Path) -> None:
    disk.path.mkdir(mode=0o700)
    (tmp_path / "elsewhere").touch(mode=0o600)
    (disk.path / "remit.db").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(IntegrityError, match="something else"):
        disk.open()


def test_a_place_that_cannot_be_a_directory_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="cannot be used"):
        Disk(tmp_path / "file" / "state").open()


def test_a_schema_of_a_newer_remit_is_refused(disk: Disk) -> None:
    disk.run(nothing_more)
    connection = sqlite3.connect(disk.path / "remit.db")
    connection.execute("PRAGMA user_version = 999")
    connection.close()
    with pytest.raises(IntegrityError, match="newer remit"):
        disk.open()


def test_a_file_that_is_no_database_is_reported_as_damaged(disk: Disk) -> None:
    disk.run(nothing_more)
    (disk.path / "remit.db").write_bytes(b"no database" * 1000)
    with pytest.raises(IntegrityError, match="damaged"):
        disk.open()


def test_a_damaged_page_is_reported_as_damaged_and_not_served(disk: Disk) -> None:
    disk.run(filled)
    content = bytearray((disk.path / "remit.db").read_bytes())
    for page in range(1, len(content) // 4096):
        content[page * 4096 : page * 4096 + 64] = os.urandom(64)
    (disk.path / "remit.db").write_bytes(content)
    with pytest.raises(IntegrityError):
        disk.open()


# -- the writer -----------------------------------------------------------------------------------------------------


def test_the_fsync_is_shared_by_those_who_wait_together(disk: Disk) -> None:
    async def count(store: SqliteStore) -> int:
        commits: list[str] = []
        store._writer.connection.set_trace_callback(lambda text: commits.append(text) if text == "COMMIT" else None)
        await asyncio.gather(*(store.commit([], [event()]) for _ in range(500)))
        store._writer.connection.set_trace_callback(None)
        return len(commits)

    assert disk.run(count) < 50


def test_a_commit_answers_only_after_the_transaction_ended(disk: Disk) -> None:
    async def seen(store: SqliteStore) -> None:
        for number in range(1, 30):
            await store.commit([], [event()])
            assert disk.rows("SELECT count(*) FROM entries") == [(number,)]

    disk.run(seen)


def test_every_transaction_waits_for_the_disk(disk: Disk) -> None:
    async def pragmas(store: SqliteStore) -> list[object]:
        run = store._writer.connection.execute
        return [run(f"PRAGMA {name}").fetchone()[0] for name in ("journal_mode", "synchronous", "secure_delete")]

    assert disk.run(pragmas) == ["wal", 2, 1]


def test_a_cancelled_caller_harms_nobody(disk: Disk) -> None:
    async def cancel(store: SqliteStore) -> None:
        waiting = [asyncio.ensure_future(store.commit([], [event(request=str(n))])) for n in range(50)]
        await asyncio.sleep(0)
        for one in waiting[::2]:
            one.cancel()
        outcomes = await asyncio.gather(*waiting, return_exceptions=True)
        assert outcomes[1::2] == [None] * 25
        await store.commit([], [event()])
        assert await store.size() == 51

    disk.run(cancel)


def test_a_closed_store_takes_and_gives_nothing(disk: Disk) -> None:
    async def closed() -> None:
        store = disk.open()
        waiting = [asyncio.ensure_future(store.commit([], [event()])) for _ in range(20)]
        await asyncio.sleep(0)
        await store.close()
        await store.close()
        assert await asyncio.gather(*waiting) == [None] * 20
        await raises(UnavailableError, store.commit([], [event()]))
        await raises(UnavailableError, store.load("task_1"))

    asyncio.run(closed())
    assert disk.run(SqliteStore.size) == 20


def test_a_closed_store_leaves_no_thread(disk: Disk) -> None:
    disk.run(filled)
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("remit-")] == []


def test_a_value_that_cannot_be_stored_fails_alone(disk: Disk) -> None:
    async def odd(store: SqliteStore) -> None:
        bad = replace(RESOURCE, settings={"text": "\ud800"})
        naive = Event("a.b", "not an instant", "allow")  # type: ignore[arg-type]  # what a bug would send
        outcomes = await asyncio.gather(
            store.commit([], [event()]),
            store.commit([PutResource(bad)], [event()]),
            store.commit([Spend("t", "g", 0, 1)], [event(), naive]),
            store.commit([], [event()]),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [type(None), InvalidRequestError, AttributeError, type(None)]
        assert (await store.size(), list(await store.spent("t"))) == (2, [])

    disk.run(odd)


def test_burns_that_are_over_are_swept_with_the_next_one(disk: Disk) -> None:
    async def burn(store: SqliteStore) -> None:
        await store.commit(
            [UsedToken("old", NOW - timedelta(seconds=61)), UsedToken("young", NOW + timedelta(hours=1))], []
        )
        await store.commit([UsedToken("just over", NOW - timedelta(seconds=5))], [])
        await store.commit([UsedToken("next", NOW + timedelta(hours=1))], [event()])
        await raises(ConflictError, store.commit([UsedToken("young", NOW)], [event()]))

    disk.run(burn)
    assert disk.rows("SELECT digest FROM burns ORDER BY digest") == [("just over",), ("next",), ("young",)]
    disk.run(nothing_more)


def test_what_is_over_is_looked_for_once_a_second_and_stays_few(disk: Disk) -> None:
    async def burn(store: SqliteStore) -> None:
        looks = list[str]()
        store._writer.connection.set_trace_callback(looks.append)
        most = 0
        for tick in range(100):  # ten seconds
            now = NOW + timedelta(seconds=tick / 10)
            token = UsedToken(f"token {tick}", now - timedelta(seconds=60))  # over a moment later
            record = PutRecord(Record("chain", f"record {tick}", 1, b"{}", now))
            await store.commit([token, record], [replace(event(), at=now)])
            most = max(most, len(disk.rows("SELECT 1 FROM burns")), len(disk.rows("SELECT 1 FROM records")))
        assert most <= 11
        assert sum("FROM burns WHERE until <" in said for said in looks) == 10
        assert sum("FROM records WHERE until <" in said for said in looks) == 10
        await store.commit([UsedToken("back", NOW)], [replace(event(), at=NOW - timedelta(days=1))])
        assert sum("FROM burns WHERE until <" in said for said in looks) == 11  # a clock set back puts nothing off

    disk.run(burn)


def test_a_commit_that_fails_leaves_what_is_over_to_the_next_one(disk: Disk) -> None:
    async def burn(store: SqliteStore) -> None:
        later = NOW + timedelta(hours=1)
        await store.commit([UsedToken("kept", later), UsedToken("over", NOW)], [event()])
        again = replace(event(), at=NOW + timedelta(minutes=2))
        await raises(ConflictError, store.commit([UsedToken("kept", later)], [again]))
        await store.commit([UsedToken("next", later)], [again])
        assert disk.rows("SELECT digest FROM burns ORDER BY digest") == [("kept",), ("next",)]

    disk.run(burn)
    disk.run(nothing_more)


def test_a_value_burnt_anew_after_its_time_stays_burnt(disk: Disk) -> None:
    async def burn(store: SqliteStore) -> None:
        await store.commit([UsedToken("old", NOW - timedelta(seconds=61))], [])
        later = NOW + timedelta(hours=1)
        await asyncio.gather(
            store.commit([UsedToken("old", later)], [event()]), store.commit([UsedToken("other", later)], [event()])
        )
        await raises(ConflictError, store.commit([UsedToken("old", later)], [event()]))

    disk.run(burn)


def test_the_ledger_forgets_leases_that_are_forgotten(disk: Disk) -> None:
    async def forget(store: SqliteStore) -> None:
        task, changes = task_with_leases()
        await store.commit(changes, [event()])
        await store.commit([replace(task.revoke_leases(()), forget=tuple(task.leases))], [event()])
        assert {kind for kind, _ in store._writer.ledger.sums(task.id).weights} == {"grants"}

    disk.run(forget)


def test_the_ledger_reads_again_what_it_has_forgotten(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.stores.ledger.TASKS_KEPT", 1)
    monkeypatch.setattr("remit.stores.ledger.WEIGHTS_KEPT", 1)

    async def many(store: SqliteStore) -> None:
        tasks = {number: nothing(f"task_{number}") for number in range(5)}
        for number, task in tasks.items():
            change = opening(task.id)
            tasks[number] = task.apply(change)
            await store.commit([change, Spend(task.id, "g", 0, 1), Spend(task.id, "g", 1, 1)], [event()])
        for task in tasks.values():
            await store.commit([task.revoke(task.head.root), Spend(task.id, "g", 0, 2)], [event()])

    disk.run(many)
    disk.run(nothing_more)


# -- when the medium fails ------------------------------------------------------------------------------------------


@contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """Have the kernel refuse to let any file of this process grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def broken(store: SqliteStore) -> bool:
    return isinstance(store._writer.failure, UnavailableError)


def test_a_full_disk_refuses_changes_nothing_and_recovers(disk: Disk) -> None:
    async def full(store: SqliteStore) -> None:
        await filled(store)
        head = await store.root()
        assert not broken(store)
        task = await store.load("task_1")
        closing = task.revoke(task.head.root)
        with files_no_longer_than((disk.path / "remit.db-wal").stat().st_size):
            for _ in range(3):
                await raises(UnavailableError, store.commit([closing, Spend("task_1", "grt_a", 0, 4)], [event()]))
            assert broken(store)
            assert await store.root() == head
            assert await store.load("task_1") == task
        await store.commit([closing], [event()])
        assert not broken(store)
        assert (await store.load("task_1")).head.closed
        assert (await store.spent("task_1"))[0].used == 3

    disk.run(full)
    assert verify(disk.run(lambda store: store.entries(0, 1_000))).size == disk.run(SqliteStore.size)


def test_what_has_ended_is_noted_on_a_full_disk_and_in_a_locked_database_and_read_at_the_next_start(disk: Disk) -> None:
    ends = [NotedEnd("task_1", ("grt_a",)), NotedEnd("task_2", (), ("lse_b",))]

    async def full(store: SqliteStore) -> None:
        while (disk.path / "remit.db-wal").stat().st_size < SIZE:  # what may grow no more is not the file of ends
            await store.commit([], [event()] * 500)
        with files_no_longer_than((disk.path / "remit.db-wal").stat().st_size):
            await raises(UnavailableError, store.commit([], [event()]))
            await store.note_ends(ends[:1])
        other = sqlite3.connect(disk.path / "remit.db", isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        await store.note_ends(ends)
        other.close()

    disk.run(full)
    assert list(disk.run(SqliteStore.noted_ends)) == ends


def test_the_room_that_earlier_versions_kept_is_given_back(disk: Disk) -> None:
    disk.run(nothing_more)
    (disk.path / "reserve").write_bytes(b"0" * 4096)
    disk.run(nothing_more)
    assert not (disk.path / "reserve").exists()


def test_the_text_of_a_failure_names_no_path_and_no_driver(disk: Disk) -> None:
    async def full(store: SqliteStore) -> RemitError:
        with files_no_longer_than(1):
            with pytest.raises(UnavailableError) as caught:
                await store.commit([], [event()])
            return caught.value

    error = disk.run(full)
    assert isinstance(error.__cause__, sqlite3.Error)
    assert not any(word in error.detail.lower() for word in ("sqlite", str(disk.path), "i/o", "error"))


def test_a_database_locked_by_another_program_refuses_and_recovers(disk: Disk) -> None:
    async def locked(store: SqliteStore) -> None:
        await store.commit([], [event()])
        other = sqlite3.connect(disk.path / "remit.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(UnavailableError, match="another program has locked"):
            await store.commit([opening()], [event()])
        other.execute("ROLLBACK")
        other.close()
        await store.commit([opening()], [event()])
        assert await store.size() == 2

    disk.run(locked)


def test_a_second_writer_is_noticed_before_anything_is_added(disk: Disk) -> None:
    async def rival(store: SqliteStore) -> None:
        await store.commit([], [event()])
        disk.edit("CREATE TABLE kept AS SELECT tag FROM state", "UPDATE state SET tag = x'00'")
        await raises(IntegrityError, store.commit([opening()], [event()]))
        assert await store.size() == 1
        assert disk.rows("SELECT count(*) FROM entries") == [(1,)]
        disk.edit("UPDATE state SET tag = (SELECT tag FROM kept)")
        await store.commit([opening()], [event()])

    disk.run(rival)
    assert disk.rows("SELECT count(*) FROM entries") == [(2,)]


# -- kill -9 --------------------------------------------------------------------------------------------------------

CHILD = """
import asyncio, os, sys
from pathlib import Path
from remit.keys.file import FileSealer
from remit.stores.sqlite import SqliteStore
from remit.testing.samples import event, opening
from remit.ports import Spend

async def client(store, name):
    number = 0
    while True:
        writes = [opening(f"task_{name}_{number}"), Spend("t", name, 0, number)]
        await store.commit(writes, [event(request=f"{name}.{number}")])
        os.write(1, f"{name} {number}\\n".encode())
        number += 1

async def main():
    store = SqliteStore(Path(sys.argv[1]), FileSealer(b"k" * 32))
    await asyncio.gather(*(client(store, f"c{i}") for i in range(8)))

asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 40, 333])
def test_a_killed_process_loses_no_commit_that_it_acknowledged(disk: Disk, lines: int) -> None:
    acknowledged = []
    with subprocess.Popen([sys.executable, "-c", CHILD, str(disk.path)], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            acknowledged.append(line.split())
            if len(acknowledged) == lines:
                child.kill()
    assert len(acknowledged) >= lines

    async def check(store: SqliteStore) -> None:
        entries = await store.entries(0, 1_000_000)
        verify(entries)
        requests = {entry.leaf.split(b'"request":"')[1].split(b'"')[0].decode() for entry in entries}
        tasks = set(await store.tasks(1_000_000))
        used = {spend.grant: spend.used for spend in await store.spent("t")}
        for name, number in acknowledged:
            assert f"{name}.{number}" in requests
            assert f"task_{name}_{number}" in tasks
            assert used[name] >= int(number)
        assert len(entries) == len(tasks)  # both or neither, for the commits that nobody waited for too
        await store.commit([opening("task_after")], [event()])

    disk.run(check)


@pytest.mark.parametrize("together", [True, False])
def test_of_a_subtree_that_ends_its_top_alone_is_written_and_all_of_it_has_ended(
    disk: Disk,
    together: bool,  # noqa: FBT001 - whether it ends in the transaction that made it
) -> None:
    task, changes = task_with_leases()
    end = task.revoke("task_1_child")

    async def ended(store: SqliteStore) -> None:
        before = [store.commit([change], [event(task=task.id)]) for change in changes]
        if together:
            await asyncio.gather(*before, store.commit([end], [event(task=task.id)]))
        else:
            await asyncio.gather(*before)
            await store.commit([end], [event(task=task.id)])

    async def loaded(store: SqliteStore) -> None:
        found = await store.load(task.id)
        assert found == task.apply(end)
        assert {i.id for i in found.grants.values() if i.revoked} == {"task_1_child", "task_1_grandchild"}

    disk.run(ended)
    disk.run(loaded)
    if not together:
        written = disk.rows("SELECT id FROM grants WHERE rev = (SELECT max(rev) FROM tasks)")
        assert written == [("task_1_child",)]
