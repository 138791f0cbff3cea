"""One SQLite connection: opening it, its migrations, its rows by key, and what its errors mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import datetime
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from remit.core.audit import Entry
from remit.core.task import Change, Grant, Task, nothing
from remit.core.tree import TILE, Frontier, Range, leaf_hash
from remit.errors import IntegrityError, NotFoundError, RemitError, UnavailableError
from remit.ports import Record, Resource, SealedSecret, Spend
from remit.stores import codec
from remit.stores.tags import Key, Seals, Sums, Tags, Top, Values, clear, edited

APPLICATION_ID = 0x72656D74  # "remt"
PRAGMAS = (
    "journal_mode = WAL",
    "synchronous = FULL",
    "wal_autocheckpoint = 4000",  # pages in the log before they are moved into the database
    "secure_delete = ON",
    "trusted_schema = OFF",
    "cell_size_check = ON",
    "temp_store = MEMORY",
)
SINGLE_KINDS = ("spends", "resources", "secrets", "burns", "records")
SEALED = 3  # the version of the schema since which no document is in clear: the rows change, the tables do not
KEYS = {"spends": 3, "records": 2}  # columns that identify a row; of others it is one

_BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_FORMAT}
_MEDIUM = {
    sqlite3.SQLITE_FULL: "the disk is full, so nothing can be recorded",
    sqlite3.SQLITE_BUSY: "another program has locked the state",
    sqlite3.SQLITE_LOCKED: "another program has locked the state",
    sqlite3.SQLITE_READONLY: "the state cannot be written",
    sqlite3.SQLITE_CANTOPEN: "the state cannot be opened",
    sqlite3.SQLITE_PERM: "the state cannot be opened",
}
_PARTS = (resources.files("remit.stores") / "sqlite.sql").read_text("utf-8").split("-- name: ")[1:]
SQL = {name.strip(): statement.strip() for name, _, statement in (part.partition("\n") for part in _PARTS)}


@contextmanager
def translated() -> Iterator[None]:
    """Raise SQLite's errors as what they mean: the medium fails, or what is on it is broken."""
    try:
        yield
    except sqlite3.Error as error:
        raise meaning(error) from error


def meaning(error: sqlite3.Error) -> RemitError:
    """Return the RemitError for an error of SQLite, which becomes its cause."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind, the others say more
    if code in _BROKEN:
        found: RemitError = IntegrityError("the state's database is damaged", help="restore it from a copy")
    else:
        found = UnavailableError(_MEDIUM.get(code, "the state cannot be read or written now"))
    found.__cause__ = error
    return found


def connect(path: Path, busy: float) -> sqlite3.Connection:
    """Open a connection that makes every commit durable before it returns, and waits ``busy`` seconds for a lock."""
    connection = sqlite3.connect(path, timeout=busy, isolation_level=None, check_same_thread=False)
    try:
        for pragma in PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")
    except BaseException:
        connection.close()
        raise
    return connection


def last_entry(path: Path) -> Entry | None:
    """Return the last audit entry of a database that a broker may serve, as it is there; None where there is none."""
    alone = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    with translated(), closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{alone}", uri=True)) as connection:
        row = connection.execute("SELECT seq, leaf FROM entries ORDER BY seq DESC LIMIT 1").fetchone()
    return None if row is None else Entry(row[0], row[1].encode())


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date, one file and one transaction at a time; refuse one from a newer remit."""
    found = (resources.files("remit.stores") / "migrations").iterdir()
    files = sorted((file for file in found if file.name.endswith(".sql")), key=lambda file: file.name)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if version > SEALED or application not in {0, APPLICATION_ID}:
        raise IntegrityError("the state was written by a newer remit, or by another program")
    for number, file in enumerate(files[version:], version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE; {file.read_text('utf-8')}\n"
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
        )


class StoredTask(NamedTuple):
    """A task's rows, verified."""

    head: bytes
    grants: Sequence[bytes]
    leases: Sequence[bytes]
    sums: Sums


class SqliteRows:
    """The rows of one connection, each verified by its tag when it is read, and the reads of the audit tree."""

    def __init__(self, connection: sqlite3.Connection, tags: Tags, seals: Seals) -> None:
        self._connection, self.tags, self.seals = connection, tags, seals

    def all(self, name: str, *values: str | int) -> list[Values]:
        """Return all rows of a named statement, as they are stored."""
        return self._connection.execute(SQL[name], values).fetchall()

    def _weight(self, kind: str, row: Values) -> int:
        """Return the weight of a whole row that hangs below no head, or raise IntegrityError."""
        *values, tag = row
        keys = KEYS.get(kind, 1)
        key = (kind, *(value if isinstance(value, int) else str(value) for value in values[:keys]))
        return self.tags.check(key, tuple(values[keys:]), tag)

    def _verified(self, kind: str, name: str, *values: str | int) -> list[Values]:
        """Return the rows of a kind that a named statement finds, or raise IntegrityError."""
        found = self.all(name, *values)
        for row in found:
            self._weight(kind, row)
        return found

    def names(self, name: str, *values: str | int) -> list[str]:
        """Return the first column of a named statement."""
        return [str(row[0]) for row in self.all(name, *values)]

    def task(self, task: str) -> StoredTask | None:
        """Return a task's rows; None when there is none, IntegrityError when a row is wrong, missing or old."""
        row = self._connection.execute(SQL["head"], (task,)).fetchone()
        if row is None:
            return None
        *columns, tag = row
        top, weights = Top(*columns), {}
        bodies: dict[str, list[bytes]] = {"grants": [], "leases": []}
        for kind, some in bodies.items():  # in the order they were made
            for part, rev, body, own in self._connection.execute(SQL[f"parts {kind}"], (task,)):
                weights[kind, part] = self.tags.check((kind, task, part), (rev, body), own)
                some.append(self.seals.open((kind, task, part), body))
        sums = Sums(top.rev, self.tags.top(top), sum(weights.values()), weights)
        if self.tags.tree(top, sums.total) != tag:
            raise edited("tasks")
        return StoredTask(self.seals.open(("tasks", task), top.body), bodies["grants"], bodies["leases"], sums)

    def load(self, task_id: str) -> Task:
        """Return a task; NotFoundError, or IntegrityError when a row was changed, removed or put back."""
        stored = self.task(task_id)
        if stored is None:
            raise NotFoundError
        head = codec.read_head(stored.head)
        grants: dict[str, Grant] = {}
        for grant in map(codec.read_grant, stored.grants):
            above = grants.get(grant.parent or "")
            grants[grant.id] = replace(grant, revoked=grant.revoked or (above is not None and above.revoked))
        leases = tuple(map(codec.read_lease, stored.leases))
        return nothing(task_id).apply(Change(0, head, tuple(grants.values()), leases))

    def one(self, key: Key) -> tuple[Values, bytes] | None:
        """Return a resource, secret, counter, burn or record as it is stored, and its tag, which nobody has checked."""
        row = self._connection.execute(SQL[f"one {key[0]}"], key[1:]).fetchone()
        return (row[:-1], row[-1]) if row else None

    def in_clear(self) -> Iterator[dict[Key, Values | None]]:
        """Yield the rows that an earlier version left in clear, sealed: those of each task together, then the rest."""
        for task in self.names("in clear"):
            found = self.task(task)  # verified
            _, rev, closed, body, _ = self._connection.execute(SQL["head"], (task,)).fetchone()
            rows: dict[Key, Values | None] = {
                ("tasks", task): Top(task, rev, closed, self._sealed(("tasks", task), body))
            }
            for part_of in ("grants", "leases") if found else ():
                for part, rev, document, _ in self.all(f"parts {part_of}", task):
                    rows[part_of, task, str(part)] = (rev, self._sealed((part_of, task, str(part)), document))
            yield rows
        rows = {}
        for name, body, _ in self._verified("resources", "all resources"):
            rows["resources", str(name)] = (self._sealed(("resources", str(name)), body),)
        for kind, name, rev, until, body, _ in self._verified("records", "all records"):
            rows["records", str(kind), str(name)] = (rev, until, self._sealed(("records", str(kind), str(name)), body))
        yield rows

    def _sealed(self, key: Key, body: object) -> bytes:
        if not isinstance(body, bytes):
            raise edited(str(key[0]))
        return self.seals.seal(key, body) if clear(body) else body

    def spent(self, task_id: str) -> list[Spend]:
        found = self._verified("spends", "spent", task_id)
        return [Spend(str(task), str(grant), int(index), int(used)) for task, grant, index, used, _ in found]

    def resources(self) -> list[Resource]:
        found = self._verified("resources", "all resources")
        opened = (self.seals.open(("resources", str(n)), body) for n, body, _ in found if isinstance(body, bytes))
        return [codec.read_resource(body) for body in opened]

    def secret(self, name: str) -> SealedSecret:
        found = self.one(("secrets", name))
        if found is None:
            raise NotFoundError
        self.tags.check(("secrets", name), *found)
        version, resource, destination, sealed = found[0]
        if not isinstance(sealed, bytes):
            raise IntegrityError
        return SealedSecret(name, int(version), str(resource), str(destination), sealed)

    def records(self, kind: str) -> list[Record]:
        return [
            Record(
                kind,
                str(name),
                int(rev),
                self.seals.open(("records", kind, str(name)), body),
                datetime.fromisoformat(str(until)),
            )
            for _, name, rev, until, body, _ in self._verified("records", "records of", kind)
            if isinstance(body, bytes)
        ]

    def entries(self, start: int, limit: int, tree: Frontier) -> list[Entry]:
        """Return audit entries of ``tree`` from ``start``; IntegrityError unless they are what it was grown from."""
        found: list[Entry] = []
        count = max(min(limit, tree.size - start), 0)
        for seq, leaf, digest in self._connection.execute(SQL["entries"], (start, count)):
            entry = Entry(seq, leaf.encode())
            if leaf_hash(entry.leaf) != digest or seq != start + len(found):
                raise _rewritten(start + len(found))
            found.append(entry)
        if len(found) != count:
            raise _rewritten(start + len(found))
        for tile in range(start // TILE, -(-(start + count) // TILE) if count else 0):
            self._check_tile(tile, tree)
        return found

    def _check_tile(self, tile: int, tree: Frontier) -> None:
        """Check leaf hashes against their tile, or against the edge of the tree where there is none yet."""
        start, end = tile * TILE, min((tile + 1) * TILE, tree.size)
        leaves = self.leaves(start, end)
        made = Frontier().grow(leaves)[0].peaks
        right = tree.peaks[-len(made) :]
        if end - start == TILE:
            right = tuple(row[0] for row in self._connection.execute(SQL["tiles"], (tile, tile + 1)))
        if len(leaves) != end - start or made != right:
            raise _rewritten(start)

    def leaves(self, start: int, end: int) -> list[bytes]:
        return [row[0] for row in self._connection.execute(SQL["leaves"], (start, end))]

    def frontier(self, start: int, end: int) -> Frontier:
        """Return the tree over a range of entries, from its whole tiles and the leaves after them."""
        whole = (end - start) // TILE if start % TILE == 0 else 0
        first = start // TILE
        tiles = [row[0] for row in self._connection.execute(SQL["tiles"], (first, first + whole))]
        tree = Frontier.over(tiles, self.leaves(start + whole * TILE, end))
        if tree.size != end - start:
            raise NotFoundError
        return tree

    def nodes(self, path: Sequence[Range]) -> list[bytes]:
        return [self.frontier(start, end).root() for start, end in path]

    def state(self) -> tuple[Frontier, int, bytes]:
        """Return the audit tree, the sum of weights and the state's tag, verified, or raise IntegrityError."""
        row = self._connection.execute(SQL["state"]).fetchone()
        (last,) = self._connection.execute(SQL["last entry"]).fetchone()
        size = 0 if last is None else last + 1
        missing = IntegrityError("audit entries are missing", help="restore the state from a copy")
        if row is None or row[0] != size:
            raise missing
        try:
            tree = self.frontier(0, size)
        except NotFoundError:
            raise missing from None
        total = sum(self.tags.top(Top(*row)) for row in self._connection.execute(SQL["all tasks"]))
        for kind in SINGLE_KINDS:
            total += sum(self._weight(kind, row) for row in self._connection.execute(SQL[f"all {kind}"]))
        if self.tags.state(tree, total) != row[1]:
            raise IntegrityError(
                "the state does not verify: it was changed outside remit, or its key is another",
                help="restore the state together with its `kek`",
            )
        return tree, total, row[1]


def _rewritten(seq: int) -> IntegrityError:
    return IntegrityError(f"the audit log was changed outside remit, at entry {seq} or up to {TILE} after it")
