"""A store that forgets when the process ends: for tests, and the reference for what ``ports.Store`` means."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import islice
from typing import TypeVar

from remit.core.audit import Entry, Event, encode
from remit.core.task import Change, Task, nothing
from remit.core.tree import Frontier, Range, leaf_hash, root_of
from remit.errors import ConflictError, NotFoundError
from remit.ports import (
    DeleteResource,
    PutRecord,
    PutResource,
    PutSecret,
    Record,
    Resource,
    SealedSecret,
    Spend,
    UsedToken,
    Write,
)

Row = Task | Spend | Resource | SealedSecret | Record | datetime
Key = tuple[str, ...]  # kind, then what identifies the row
T = TypeVar("T", bound=Row)


class MemoryStore:
    """Keeps rows of all kinds in one dict; a commit writes to an overlay that is folded in when all of it held."""

    def __init__(self) -> None:
        self._rows: dict[Key, Row | None] = {}  # None: deleted
        self._entries: list[Entry] = []
        self._leaves: list[bytes] = []

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        """Take all writes and events, or raise and take none."""
        fresh: dict[Key, Row | None] = {}
        rows = ChainMap(fresh, self._rows)
        for write in writes:
            _step(rows, write)
        entries = [Entry(seq, encode(seq, event)) for seq, event in enumerate(events, len(self._entries))]
        self._rows.update(fresh)
        self._entries += entries
        self._leaves += [leaf_hash(entry.leaf) for entry in entries]

    def _all(self, kind: type[T]) -> list[T]:
        return [row for row in self._rows.values() if isinstance(row, kind)]

    async def load(self, task_id: str) -> Task:
        """Return a task, or raise NotFoundError."""
        return _found(self._rows, Task, ("task", task_id))

    async def unsettled(self) -> Sequence[str]:
        """Return the ids of tasks that are open or have leases."""
        return [task.id for task in self._all(Task) if not task.head.closed or task.leases]

    async def tasks(self, limit: int) -> Sequence[str]:
        """Return the ids of the newest tasks, newest first."""
        return [task.id for task in islice(reversed(self._all(Task)), limit)]

    async def spent(self, task_id: str) -> Sequence[Spend]:
        """Return the counters of a task."""
        return [spend for spend in self._all(Spend) if spend.task == task_id]

    async def resources(self) -> Sequence[Resource]:
        """Return all resources, by name."""
        return sorted(self._all(Resource), key=lambda resource: resource.name)

    async def secret(self, name: str) -> SealedSecret:
        """Return a sealed secret, or raise NotFoundError."""
        return _found(self._rows, SealedSecret, ("secret", name))

    async def records(self, kind: str) -> Sequence[Record]:
        """Return all records of a kind, in order of their ids."""
        return sorted((row for row in self._all(Record) if row.kind == kind), key=lambda record: record.id)

    async def entries(self, start: int, limit: int) -> Sequence[Entry]:
        """Return audit entries from sequence number ``start``."""
        return self._entries[start : start + limit]

    async def size(self) -> int:
        """Return the number of audit entries."""
        return len(self._entries)

    async def root(self, size: int | None = None) -> tuple[int, bytes]:
        """Return the size and the root of the audit tree, or of its first ``size`` entries."""
        if size is not None and not 0 <= size <= len(self._leaves):
            raise NotFoundError
        tree, _ = Frontier().grow(self._leaves[:size])
        return tree.size, tree.root()

    async def nodes(self, path: Sequence[Range]) -> Sequence[bytes]:
        """Return the root over each range of audit entries: the proof for a path of ``core.tree``."""
        return [root_of(self._leaves[start:end]) for start, end in path]

    async def leaves(self, start: int, end: int) -> Sequence[bytes]:
        """Return the leaf hashes of entries ``start`` (inclusive) to ``end`` (exclusive)."""
        return self._leaves[start:end]

    async def close(self) -> None:
        """Do nothing: there is no medium."""


def _step(rows: ChainMap[Key, Row | None], write: Write) -> None:
    match write:
        case Change():
            _change(rows, write)
        case Spend():
            rows["spend", write.task, write.grant, str(write.index)] = write
        case UsedToken():
            _use(rows, write)
        case PutResource():
            rows["resource", write.resource.name] = write.resource
        case DeleteResource():
            _delete(rows, write.name)
        case PutSecret():
            _put(rows, ("secret", write.secret.name), write.secret)
        case PutRecord():
            _put(rows, ("record", write.record.kind, write.record.id), write.record)


def _use(rows: ChainMap[Key, Row | None], token: UsedToken) -> None:
    if ("burn", token.digest) in rows:
        raise ConflictError
    rows["burn", token.digest] = token.until


def _change(rows: ChainMap[Key, Row | None], change: Change) -> None:
    if change.head.rev != change.base + 1:
        raise ConflictError
    task = rows.get(("task", change.head.id))
    rows["task", change.head.id] = (task if isinstance(task, Task) else nothing(change.head.id)).apply(change)


def _delete(rows: ChainMap[Key, Row | None], name: str) -> None:
    if rows.get(("resource", name)) is None:
        raise NotFoundError
    rows["resource", name] = None
    for key, row in list(rows.items()):
        if isinstance(row, SealedSecret) and row.resource == name:
            rows[key] = None


def _put(rows: ChainMap[Key, Row | None], key: Key, row: SealedSecret | Record) -> None:
    stored = rows.get(key)
    if _revision(row) != _revision(stored) + 1:
        raise ConflictError
    rows[key] = row


def _revision(row: Row | None) -> int:
    match row:
        case SealedSecret():
            return row.version
        case Record():
            return row.rev
    return 0


def _found(rows: Mapping[Key, Row | None], kind: type[T], key: Key) -> T:
    found = rows.get(key)
    if not isinstance(found, kind):
        raise NotFoundError
    return found
