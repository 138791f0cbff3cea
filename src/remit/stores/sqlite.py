"""State and audit in one SQLite file: WAL, FULL, one writer thread, group commit.

- Commits queue in order of calls. The writer takes all that wait, checks each against the ledger, writes those that
  hold in one transaction, and answers after it is on the disk: one fsync for many callers.
- A commit that conflicts fails alone. When the medium fails the whole group does, and nothing of it stays.
- What ended and could not be written is noted in ``ends``, which needs neither room nor the database.
- The directory holds ``remit.db`` (0600), ``lock`` and ``ends``; one process serves it at a time.
- Opening verifies every head, resource, secret and counter and the audit tree; ``load`` verifies a task's rows.
"""

from __future__ import annotations

import asyncio
import queue
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import NamedTuple, TypeVar, TypeVarTuple

from remit.core.audit import Entry, Event
from remit.core.task import Task
from remit.core.tree import Frontier, Range
from remit.errors import IntegrityError, NotFoundError, RemitError, UnavailableError
from remit.ports import NotedEnd, Record, Resource, SealedSecret, Sealer, Spend, Write
from remit.stores import private
from remit.stores.ends import EndsFile
from remit.stores.ledger import Group, Ledger, Sealed
from remit.stores.sqlite_rows import SEALED, SQL, SqliteRows, connect, meaning, migrate, translated
from remit.stores.tags import Seals, Tags

BUSY = 1.0  # seconds to wait for another program's lock before giving up
GROUP = 1_024  # commits that share one transaction at most
CHUNK = 128  # audit entries in one INSERT at most

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class _Request(NamedTuple):
    writes: Sequence[Write]
    events: Sequence[Event]
    answer: asyncio.Future[None]


_Outcome = tuple[_Request, Exception | None]


class SqliteStore:
    """The embedded store."""

    def __init__(self, directory: Path, sealer: Sealer, *, busy: float = BUSY) -> None:
        """Open the state in ``directory``, making it if there is none; wait ``busy`` seconds for a lock of others.

        UnavailableError when another process serves it or the medium fails; IntegrityError when modes are too loose,
        or when what is stored does not verify.
        """
        try:
            private.make_directory(directory)
            self._held = [private.lock(directory / "lock")]
        except OSError as error:
            raise UnavailableError("the state directory cannot be used", help=f"look at `{directory}`") from error
        path = directory / "remit.db"
        try:
            private.make_file(path)
            for place in (directory, path):  # a lock file can be removed
                self._held.append(private.hold(place))
            self._open(path, Tags(sealer.mac), Seals(sealer), busy)
        except BaseException:
            private.release(self._held)
            raise

    def _open(self, path: Path, tags: Tags, seals: Seals, busy: float) -> None:
        path.with_name("reserve").unlink(missing_ok=True)  # of earlier versions
        self._ends = EndsFile(path.with_name("ends"), tags)
        try:
            with translated():
                self._connect(path, tags, seals, busy)
        except BaseException:
            self._ends.close()
            raise
        self._rows = SqliteRows(self._reading, tags, seals)
        self._readers = ThreadPoolExecutor(1, "remit-reader")
        self._noting = ThreadPoolExecutor(1, "remit-ends")  # what a disk holds up here holds up nothing else
        self._closed = False
        self._writer.start()

    def _connect(self, path: Path, tags: Tags, seals: Seals, busy: float) -> None:
        writing = connect(path, busy)
        try:
            self._writer = _Writer(writing, tags, seals)
            self._reading = connect(path, busy)
            self._reading.execute("PRAGMA query_only = ON")
        except BaseException:
            writing.close()
            raise

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        """Make everything durable, or raise and change nothing. A caller cancelled while it waits does not know."""
        if self._closed:
            raise UnavailableError("the state is closed")
        answer = asyncio.get_running_loop().create_future()
        self._writer.queue.put(_Request(writes, events, answer))
        await answer

    async def _read(self, work: Callable[[SqliteRows, *Ts], T], *args: *Ts) -> T:
        if self._closed:
            raise UnavailableError("the state is closed")

        def transaction() -> T:
            with translated():
                self._reading.execute("BEGIN")
                try:
                    return work(self._rows, *args)
                finally:
                    self._reading.execute("COMMIT")

        return await asyncio.get_running_loop().run_in_executor(self._readers, transaction)

    async def load(self, task_id: str) -> Task:
        return await self._read(SqliteRows.load, task_id)

    async def unsettled(self) -> Sequence[str]:
        return await self._read(SqliteRows.names, "unsettled")

    async def tasks(self, limit: int) -> Sequence[str]:
        return await self._read(SqliteRows.names, "newest", limit)

    async def spent(self, task_id: str) -> Sequence[Spend]:
        return await self._read(SqliteRows.spent, task_id)

    async def resources(self) -> Sequence[Resource]:
        return await self._read(SqliteRows.resources)

    async def secret(self, name: str) -> SealedSecret:
        return await self._read(SqliteRows.secret, name)

    async def records(self, kind: str) -> Sequence[Record]:
        return await self._read(SqliteRows.records, kind)

    async def entries(self, start: int, limit: int) -> Sequence[Entry]:
        return await self._read(SqliteRows.entries, start, limit, self._writer.ledger.tree)

    async def size(self) -> int:
        return self._writer.ledger.tree.size

    async def leaves(self, start: int, end: int) -> Sequence[bytes]:
        return await self._read(SqliteRows.leaves, start, end)

    async def root(self, size: int | None = None) -> tuple[int, bytes]:
        tree = self._writer.ledger.tree
        if size is not None and size != tree.size:
            if not 0 <= size < tree.size:
                raise NotFoundError
            tree = await self._read(SqliteRows.frontier, 0, size)
        return tree.size, tree.root()

    async def nodes(self, path: Sequence[Range]) -> Sequence[bytes]:
        return await self._read(SqliteRows.nodes, path)

    async def note_ends(self, ends: Sequence[NotedEnd]) -> None:
        await asyncio.get_running_loop().run_in_executor(self._noting, self._ends.write, ends)

    async def noted_ends(self) -> Sequence[NotedEnd]:
        return await asyncio.get_running_loop().run_in_executor(self._noting, self._ends.read)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        await asyncio.get_running_loop().run_in_executor(self._readers, self._release)
        self._readers.shutdown()

    def abandon(self) -> None:
        """Let go of what nothing was done with, where what was to work on it could not be built."""
        self._closed = True
        self._release()
        self._readers.shutdown()

    def _release(self) -> None:
        self._writer.queue.put(None)
        self._writer.join()
        self._noting.shutdown()
        self._ends.close()
        self._reading.close()
        with suppress(sqlite3.Error):
            self._writer.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._writer.connection.close()
        private.release(self._held)


class _Writer(Thread):
    """Owns the connection that writes."""

    def __init__(self, connection: sqlite3.Connection, tags: Tags, seals: Seals) -> None:
        super().__init__(name="remit-writer", daemon=True)
        self.connection = connection
        self.queue: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self.failure: RemitError | None = None  # why the last group was lost to the medium; None: it can be written
        migrate(connection)
        if connection.execute(SQL["new"]).fetchone()[0]:
            connection.execute(SQL["start state"], (tags.state(Frontier(), 0),))
        rows = SqliteRows(connection, tags, seals)
        tree, total, self._tag = rows.state()
        self.ledger = Ledger(rows, tree, total)
        if connection.execute("PRAGMA user_version").fetchone()[0] < SEALED:
            self._seal()

    def _seal(self) -> None:
        """Seal what an earlier version left in clear, some rows at a time; one that is cut off begins anew."""
        for rows in filter(None, self.ledger.rows.in_clear()):
            group = Group(self.ledger)
            group.put(rows)
            self._write(group.seal())
        self.connection.execute(f"PRAGMA user_version = {SEALED}")
        self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # the log has the pages as they were before

    def run(self) -> None:
        last = False
        while not last:
            requests: list[_Request] = []
            request = self.queue.get()
            while request is not None:
                requests.append(request)
                if self.queue.empty() or len(requests) == GROUP:
                    break
                request = self.queue.get()
            last = request is None
            if requests:
                _answer(self._group(requests))

    def _group(self, requests: list[_Request]) -> list[_Outcome]:
        group = Group(self.ledger)
        outcomes = [(request, _taken(group, request)) for request in requests]
        if all(outcome for _, outcome in outcomes):
            return outcomes
        try:
            self._write(group.seal())
        except Exception as error:  # noqa: BLE001 - whatever it is, its callers are told, and the writer lives on
            self.failure = _lost(error)
            return [(request, outcome or _lost(error)) for request, outcome in outcomes]
        self.failure = None
        return outcomes

    def _write(self, sealed: Sealed) -> None:
        self.connection.execute("BEGIN IMMEDIATE")
        try:
            self._write_rows(sealed)
            self.connection.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                self.connection.execute("ROLLBACK")
            raise
        self._tag = sealed.tag
        self.ledger.accept(sealed)

    def _write_rows(self, sealed: Sealed) -> None:
        run, many = self.connection.execute, self.connection.executemany
        for kind, keys in sealed.deletes.items():
            many(SQL[f"delete {kind}"], [key[1:] for key in keys])
        for kind, rows in sealed.puts.items():
            many(SQL[f"put {kind}"], [(*key[1:], *values, tag) for key, values, tag in rows])
        done = 0
        while done < len(sealed.entries):
            count = min(CHUNK, 1 << ((len(sealed.entries) - done).bit_length() - 1))
            chunk = sealed.entries[done : done + count]
            run(_INSERTS[count], [value for seq, leaf, digest in chunk for value in (seq, leaf.decode(), digest)])
            done += count
        if sealed.tiles:
            many(SQL["put tiles"], sealed.tiles)
        # INVARIANT: the state row is as this writer left it; otherwise somebody else writes here.
        if run(SQL["put state"], (sealed.tree.size, sealed.tag, self._tag)).rowcount != 1:
            raise IntegrityError("the state was changed outside remit")


# One statement for many entries: SQLite gives up the interpreter's lock at every step, and each time a busy event loop
# may keep it for milliseconds.
_INSERTS = {
    1 << power: SQL["put entries"].rstrip(";") + ", (?, ?, ?)" * ((1 << power) - 1)
    for power in range(CHUNK.bit_length())
}


def _taken(group: Group, request: _Request) -> Exception | None:
    try:
        group.take(request.writes, request.events)
    except Exception as error:  # noqa: BLE001 - the caller is told, and the others go on
        return meaning(error) if isinstance(error, sqlite3.Error) else error
    return None


def _lost(error: Exception) -> RemitError:
    """Return an error of its own for each caller of a group: a shared one would collect all their tracebacks."""
    if isinstance(error, sqlite3.Error):
        return meaning(error)
    lost = type(error)(error.detail, help=error.help) if isinstance(error, RemitError) else UnavailableError()
    lost.__cause__ = error
    return lost


def _answer(outcomes: list[_Outcome]) -> None:
    loops: dict[asyncio.AbstractEventLoop, list[_Outcome]] = {}
    for outcome in outcomes:
        loops.setdefault(outcome[0].answer.get_loop(), []).append(outcome)
    for loop, some in loops.items():
        with suppress(RuntimeError):  # the loop has ended, and with it whoever waited
            loop.call_soon_threadsafe(_resolve, some)


def _resolve(outcomes: list[_Outcome]) -> None:
    for request, error in outcomes:
        if request.answer.done():  # cancelled
            continue
        if error is None:
            request.answer.set_result(None)
        else:
            request.answer.set_exception(error)
