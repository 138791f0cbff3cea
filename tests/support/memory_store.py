"""A store in memory, as simple as ``ports.Store`` lets it be: for tests of what stands on a store."""

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
    NotedEnd,
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
        self.noted: Sequence[NotedEnd] = ()

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
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
        return _found(self._rows, Task, ("task", task_id))

    async def unsettled(self) -> Sequence[str]:
        return [task.id for task in self._all(Task) if not task.head.closed or task.leases]

    async def tasks(self, limit: int) -> Sequence[str]:
        return [task.id for task in islice(reversed(self._all(Task)), limit)]

    async def spent(self, task_id: str) -> Sequence[Spend]:
        return [spend for spend in self._all(Spend) if spend.task == task_id]

    async def resources(self) -> Sequence[Resource]:
        return sorted(self._all(Resource), key=lambda resource: resource.name)

    async def secret(self, name: str) -> SealedSecret:
        return _found(self._rows, SealedSecret, ("secret", name))

    async def records(self, kind: str) -> Sequence[Record]:
        return sorted((row for row in self._all(Record) if row.kind == kind), key=lambda record: record.id)

    async def entries(self, start: int, limit: int) -> Sequence[Entry]:
        return self._entries[start : start + limit]

    async def size(self) -> int:
        return len(self._entries)

    async def root(self, size: int | None = None) -> tuple[int, bytes]:
        if size is not None and not 0 <= size <= len(self._leaves):
            raise NotFoundError
        tree, _ = Frontier().grow(self._leaves[:size])
        return tree.size, tree.root()

    async def nodes(self, path: Sequence[Range]) -> Sequence[bytes]:
        return [root_of(self._leaves[start:end]) for start, end in path]

    async def leaves(self, start: int, end: int) -> Sequence[bytes]:
        return self._leaves[start:end]

    async def note_ends(self, ends: Sequence[NotedEnd]) -> None:
        self.noted = tuple(ends)

    async def noted_ends(self) -> Sequence[NotedEnd]:
        return self.noted

    async def close(self) -> None:
        """Do nothing: there is no medium."""


def _step(rows: ChainMap[Key, Row | None], write: Write) -> None:
    match write:
        case Change():
            if write.head.rev != write.base + 1:
                raise ConflictError
            task = rows.get(("task", write.head.id))
            rows["task", write.head.id] = (task if isinstance(task, Task) else nothing(write.head.id)).apply(write)
        case Spend():
            rows["spend", write.task, write.grant, str(write.index)] = write
        case UsedToken():
            if ("burn", write.digest) in rows:
                raise ConflictError
            rows["burn", write.digest] = write.until
        case PutResource():
            rows["resource", write.resource.name] = write.resource
        case DeleteResource():
            _delete(rows, write.name)
        case PutSecret():
            _put(rows, ("secret", write.secret.name), write.secret)
        case PutRecord():
            _put(rows, ("record", write.record.kind, write.record.id), write.record)


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
    if isinstance(row, SealedSecret):
        return row.version
    return row.rev if isinstance(row, Record) else 0


def _found(rows: Mapping[Key, Row | None], kind: type[T], key: Key) -> T:
    found = rows.get(key)
    if not isinstance(found, kind):
        raise NotFoundError
    return found
