"""One SQLite connection: opening it, its migrations, its rows by key, and what its errors mean."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from importlib import resources
from pathlib import Path

from remit.core.audit import Entry
from remit.core.tree import TILE, Frontier, leaf_hash
from remit.errors import IntegrityError, NotFoundError, RemitError, UnavailableError
from remit.stores.tags import Key, StoredPart, Tags, Top, Values, edited

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
# A quota that is used up (EDQUOT) is no full disk to SQLite, nor is one on which the index of the log cannot grow.
_NO_ROOM = {sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_SHMSIZE}


def _statements() -> dict[str, str]:
    text = (resources.files("remit.stores") / "sqlite.sql").read_text("utf-8")
    named = (part.partition("\n") for part in text.split("-- name: ")[1:])
    return {name.strip(): statement.strip() for name, _, statement in named}


SQL = _statements()


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


def full(error: Exception) -> bool:
    """Whether the disk has no room for a write, or its user has none of it any more."""
    code = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF == sqlite3.SQLITE_FULL or code in _NO_ROOM


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
    files = sorted(
        (file for file in (resources.files("remit.stores") / "migrations").iterdir() if file.name.endswith(".sql")),
        key=lambda file: file.name,
    )
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if version > len(files) or application not in {0, APPLICATION_ID}:
        raise IntegrityError("the state was written by a newer remit, or by another program")
    for number, file in enumerate(files[version:], version + 1):
        connection.executescript(
            f"BEGIN IMMEDIATE; {file.read_text('utf-8')}\n"
            f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = {number}; COMMIT;"
        )


class SqliteRows:
    """The rows of one connection; an implementation of ``tags.StoredRows``, and the reads of the audit tree."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self, name: str, *values: str | int) -> list[Values]:
        """Return all rows of a named statement."""
        return self._connection.execute(SQL[name], values).fetchall()

    def head(self, task: str) -> tuple[Top, bytes] | None:
        """Return the head of a task and its tag."""
        row = self._connection.execute(SQL["head"], (task,)).fetchone()
        return (Top(*row[:4]), row[4]) if row else None

    def parts(self, kind: str, task: str) -> Sequence[StoredPart]:
        """Return the grants or the leases of a task, in the order they were made."""
        return [StoredPart(*row) for row in self._connection.execute(SQL[f"parts {kind}"], (task,))]

    def one(self, key: Key) -> tuple[Values, bytes] | None:
        """Return a resource, secret, counter, burn or record, and its tag."""
        row = self._connection.execute(SQL[f"one {key[0]}"], key[1:]).fetchone()
        return (row[:-1], row[-1]) if row else None

    def secrets_of(self, resource: str) -> Sequence[str]:
        """Return the names of the secrets of a resource."""
        return [str(name) for (name,) in self.all("secrets of", resource)]

    def burnt_before(self, until: str) -> Sequence[str]:
        """Return the digests of burns that are over."""
        return [str(digest) for (digest,) in self.all("burnt before", until)]

    def over_before(self, until: str) -> Sequence[tuple[str, str]]:
        """Return kind and id of the records that are over."""
        return [(str(kind), str(name)) for kind, name in self.all("over before", until)]

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
        """Return the leaf hashes of a range of entries."""
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

    def total(self, tags: Tags) -> int:
        """Return the sum of weights over all that hangs below no head; IntegrityError when a tag does not hold."""
        total = sum(tags.top(Top(*row)) for row in self._connection.execute(SQL["all tasks"]))
        for kind in SINGLE_KINDS:
            for row in self._connection.execute(SQL[f"all {kind}"]):
                total += single(tags, kind, row)
        return total

    def state(self, tags: Tags) -> tuple[Frontier, int, bytes]:
        """Return the audit tree, the sum of weights and the state's tag, verified, or raise IntegrityError."""
        row = self._connection.execute(SQL["state"]).fetchone()
        (last,) = self._connection.execute(SQL["last entry"]).fetchone()
        size = 0 if last is None else last + 1
        if row is None or row[0] != size:
            raise IntegrityError("audit entries are missing", help="restore the state from a copy")
        try:
            tree = self.frontier(0, size)
        except NotFoundError:
            raise IntegrityError("audit entries are missing", help="restore the state from a copy") from None
        total = self.total(tags)
        if tags.state(tree, total) != row[1]:
            raise IntegrityError(
                "the state does not verify: it was changed outside remit, or its key is another",
                help="restore the state together with its `kek`",
            )
        return tree, total, row[1]


def _rewritten(seq: int) -> IntegrityError:
    return IntegrityError(f"the audit log was changed outside remit, at entry {seq} or up to {TILE} after it")


def single(tags: Tags, kind: str, row: Values) -> int:
    """Return the weight of a whole row that hangs below no head, or raise IntegrityError."""
    *values, tag = row
    keys = KEYS.get(kind, 1)
    if not isinstance(tag, bytes):
        raise edited(kind)
    return tags.check((kind, *map(_key, values[:keys])), tuple(values[keys:]), tag)


def _key(value: str | int | bytes) -> str | int:
    return value if isinstance(value, int) else str(value)
