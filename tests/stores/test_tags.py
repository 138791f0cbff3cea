"""Whatever somebody with the file changes, removes or puts back, nothing is served from it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from remit.core.audit import verify
from remit.core.tree import leaf_hash
from remit.errors import IntegrityError, NotFoundError
from remit.ports import PutResource, PutSecret, SealedSecret, Spend, UsedToken
from remit.stores.sqlite import SqliteStore
from remit.testing.samples import NOW, RESOURCE, event, opening, task_with_leases
from tests.stores.conftest import Disk

SECRET = SealedSecret("key", 1, "search", RESOURCE.destination, b"sealed one")
OTHER = replace(SECRET, name="other", sealed=b"sealed two")


async def fill(store: SqliteStore) -> None:
    """Two tasks with leases, and one or two of everything else."""
    for task_id in ("task_1", "task_2"):
        for change in task_with_leases(task_id)[1]:
            await store.commit([change], [event(task=task_id)])
    await store.commit([opening("task_3")], [event()])
    await store.commit([PutResource(RESOURCE), PutSecret(SECRET), PutSecret(OTHER)], [event()])
    await store.commit([Spend("task_1", "task_1_root", 0, 5), UsedToken("digest", NOW + timedelta(days=1))], [event()])


async def move_on(store: SqliteStore) -> None:
    """Change everything once more: task_1 ends, the secret is rotated, the counter grows."""
    task = await store.load("task_1")
    closing = task.revoke(task.head.root)
    await store.commit([closing, Spend("task_1", "task_1_root", 0, 6)], [event()])
    await store.commit([PutResource(replace(RESOURCE, settings={}))], [event()])
    await store.commit([PutSecret(replace(SECRET, version=2, sealed=b"sealed new"))], [event()])


async def serve(store: SqliteStore) -> None:
    """Read all that a broker would."""
    for task_id in await store.tasks(1_000):
        await store.load(task_id)
        await store.spent(task_id)
    await store.resources()
    for name in ("key", "other"):
        await store.secret(name)
    verify(await store.entries(0, 1_000))


@pytest.fixture
def copied(disk: Disk) -> Disk:
    """A state whose older copy stands beside it as ``old.db``."""
    disk.run(fill)
    shutil.copy(disk.path / "remit.db", disk.path / "old.db")
    disk.run(move_on)
    return disk


OLD = "ATTACH '{place}/old.db' AS old"


def old_rows(table: str, where: str) -> str:
    return f"INSERT OR REPLACE INTO main.{table} SELECT * FROM old.{table} WHERE {where}"  # noqa: S608 - made up here


EDITS = {
    "a grant is un-revoked": [
        ("UPDATE grants SET body = CAST('{\"revoked\":false}' AS BLOB) WHERE id = 'task_1_root'")
    ],
    "a grant is widened in place": [
        "UPDATE grants SET body = CAST(body || x'00' AS BLOB) WHERE id = 'task_2_root'",
    ],
    "a grant gets another revision": ["UPDATE grants SET rev = rev + 1 WHERE id = 'task_2_root'"],
    "two grants swap their bodies": [
        (
            "UPDATE grants SET (rev, body, tag) = (SELECT rev, body, tag FROM grants WHERE id = 'task_2_root')"
            " WHERE id = 'task_2_aside'"
        )
    ],
    "a grant moves to another task": ["UPDATE grants SET task = 'task_2' WHERE id = 'task_1_aside'"],
    "a grant is copied to another task": [
        (
            "INSERT INTO grants (task, id, rev, body, tag) SELECT 'task_2', id, rev, body, tag FROM grants"
            " WHERE id = 'task_1_aside'"
        )
    ],
    "a grant is deleted": ["DELETE FROM grants WHERE id = 'task_2_aside'"],
    "an old grant is put back": [OLD, old_rows("grants", "id = 'task_1_root'")],
    "a lease is deleted": ["DELETE FROM leases WHERE id = 'task_2_lse1'"],
    "an old lease is put back": [OLD, old_rows("leases", "task = 'task_1' AND id = 'task_1_lse1'")],
    "a lease is renamed": ["UPDATE leases SET id = 'task_2_lse9' WHERE id = 'task_2_lse1'"],
    "a closed task is opened": ["UPDATE tasks SET closed = 0 WHERE id = 'task_1'"],
    "an open task is hidden as closed": ["UPDATE tasks SET closed = 1 WHERE id = 'task_3'"],
    "an old head is put back": [OLD, old_rows("tasks", "id = 'task_1'")],
    "a whole old task is put back": [
        OLD,
        *(
            old_rows(table, f"{key} = 'task_1'")
            for table, key in (("tasks", "id"), ("grants", "task"), ("leases", "task"))
        ),
    ],
    "a whole task is deleted": [
        "DELETE FROM tasks WHERE id = 'task_2'",
        "DELETE FROM grants WHERE task = 'task_2'",
        "DELETE FROM leases WHERE task = 'task_2'",
    ],
    "a task takes the name of another": ["UPDATE tasks SET id = 'task_9' WHERE id = 'task_3'"],
    "a resource leads elsewhere": ["UPDATE resources SET body = substr(body, 2)"],
    "a resource is deleted": ["DELETE FROM resources"],
    "an old resource is put back": [OLD, old_rows("resources", "name = 'search'")],
    "two secrets swap": [
        "UPDATE secrets SET sealed = (SELECT sealed FROM secrets WHERE name = 'key') WHERE name = 'other'"
    ],
    "an old secret is put back": [OLD, old_rows("secrets", "name = 'key'")],
    "a secret gets another destination": ["UPDATE secrets SET destination = 'https://evil.example'"],
    "a secret is deleted": ["DELETE FROM secrets WHERE name = 'key'"],
    "a counter is set back": ["UPDATE spends SET used = 0"],
    "an old counter is put back": [OLD, old_rows("spends", "task = 'task_1'")],
    "a counter is deleted": ["DELETE FROM spends"],
    "a burn is deleted": ["DELETE FROM burns"],
    "a burn ends sooner": ["UPDATE burns SET until = '2026-01-01T00:00:00.000000+00:00'"],
    "an entry is rewritten": ["UPDATE entries SET leaf = replace(leaf, 'allow', 'deny') WHERE seq = 3"],
    "an entry gets another hash": ["UPDATE entries SET hash = zeroblob(32) WHERE seq = 3"],
    "an entry in the middle is deleted": ["DELETE FROM entries WHERE seq = 3"],
    "the last entries are deleted": ["DELETE FROM entries WHERE seq > 3"],
    "the last entries are deleted and not counted": [
        "DELETE FROM entries WHERE seq > 3",
        "UPDATE state SET size = 4",
    ],
    "all entries are deleted": ["DELETE FROM entries", "UPDATE state SET size = 0"],
    "the log is put back with its count": [
        OLD,
        "DELETE FROM entries WHERE seq >= (SELECT size FROM old.state)",
        old_rows("state", "one = 1"),
    ],
    "the state is forgotten": ["DELETE FROM state"],
    "the state, the tasks and the log are forgotten": [
        "DELETE FROM state",
        "DELETE FROM tasks",
        "DELETE FROM entries",
    ],
}


def test_a_state_that_nobody_touched_is_served(copied: Disk) -> None:
    copied.run(serve)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_state_is_not_served(copied: Disk, edit: str) -> None:
    plain = [statement.format(place=copied.path) if statement == OLD else statement for statement in EDITS[edit]]
    copied.edit(*plain)
    with pytest.raises(IntegrityError):
        copied.run(serve)


def test_a_state_under_another_key_is_not_served(copied: Disk) -> None:
    with pytest.raises(IntegrityError, match="key"):
        copied.run(serve, b"z" * 32)


def test_an_edited_task_is_not_built_upon_either(copied: Disk) -> None:
    async def go_on(store: SqliteStore) -> None:
        task = task_with_leases("task_2")[0]
        await store.commit([task.revoke(task.head.root)], [event()])

    copied.edit("DELETE FROM leases WHERE id = 'task_2_lse1'")
    with pytest.raises(IntegrityError):
        copied.run(go_on)


def test_the_file_holds_no_weight(copied: Disk) -> None:
    tags = [
        row[0] for row in copied.rows("SELECT tag FROM grants UNION SELECT tag FROM tasks UNION SELECT tag FROM state")
    ]
    assert {len(tag) for tag in tags if isinstance(tag, bytes)} == {16}


LIVE = {
    "resources": "UPDATE resources SET body = CAST('{}' AS BLOB)",
    "secrets": "UPDATE secrets SET destination = 'https://evil.example' WHERE name = 'key'",
    "spends": "UPDATE spends SET used = 0",
    "grants": "UPDATE grants SET rev = 9 WHERE id = 'task_1_root'",
}


READS: dict[str, Callable[[SqliteStore], Awaitable[object]]] = {
    "resources": SqliteStore.resources,
    "secrets": lambda store: store.secret("key"),
    "spends": lambda store: store.spent("task_1"),
    "grants": lambda store: store.load("task_1"),
}


@pytest.mark.parametrize("table", LIVE)
def test_a_row_that_is_edited_while_a_broker_runs_is_not_served(copied: Disk, table: str) -> None:
    async def read(store: SqliteStore) -> None:
        copied.edit(LIVE[table])
        with pytest.raises(IntegrityError, match=table):
            await READS[table](store)

    copied.run(read)


def test_an_entry_rewritten_together_with_its_hash_is_noticed(copied: Disk) -> None:
    thief = sqlite3.connect(copied.path / "remit.db", isolation_level=None)
    (leaf,) = thief.execute("SELECT replace(leaf, 'allow', 'deny') FROM entries WHERE seq = 3").fetchone()
    thief.execute("UPDATE entries SET leaf = ?, hash = ? WHERE seq = 3", (leaf, leaf_hash(leaf.encode())))
    thief.close()
    with pytest.raises(IntegrityError):
        copied.run(serve)


def test_a_tree_with_holes_has_no_root(disk: Disk) -> None:
    async def holes(store: SqliteStore) -> None:
        await store.commit([], [event()] * 600)
        disk.edit("DELETE FROM tiles WHERE n = 1")
        for size in (512, 599):
            with pytest.raises(NotFoundError):
                await store.root(size)

    disk.run(holes)
    with pytest.raises(IntegrityError, match="missing"):
        disk.run(serve)
