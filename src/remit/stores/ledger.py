"""What a group of commits does to the state: every check, and the rows to write. It writes nothing itself.

- A commit is checked against the group so far and the stored rows; if it raises, it leaves nothing in the group.
- Sealing tags the rows and works out the new sums and frontier. They count only once ``Ledger.accept`` is called,
  after the medium has the group: a group that fails leaves the ledger as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from remit.core.audit import Event, encode
from remit.core.task import Change
from remit.core.tree import Frontier, Tile, leaf_hash
from remit.errors import ConflictError, NotFoundError
from remit.ports import DeleteResource, PutRecord, PutResource, PutSecret, Spend, UsedToken, Write
from remit.stores import codec
from remit.stores.sqlite_rows import SqliteRows
from remit.stores.tags import Key, Sums, Top, Values

TASKS_KEPT = 4_096  # sums of tasks held in memory; others are read again when touched
WEIGHTS_KEPT = 65_536  # as above, for rows below no task
PURGE = timedelta(seconds=1)  # between looks for what is over, by the time of events
BURNT_LONGER = timedelta(seconds=60)  # whoever verifies a token may read a clock behind the one of events

Row = tuple[Key, Values, bytes]  # key, columns, tag
Fresh = dict[Key, Values | None]  # None: to be deleted


@dataclass(slots=True)
class Sealed:
    """A group ready to be written."""

    tree: Frontier
    total: int
    tag: bytes = b""  # of the state
    puts: dict[str, list[Row]] = field(default_factory=dict)  # by kind
    deletes: dict[str, list[Key]] = field(default_factory=dict)
    entries: list[tuple[int, bytes, bytes]] = field(default_factory=list)  # seq, leaf, leaf hash
    tiles: Sequence[Tile] = ()
    tasks: dict[str, Sums] = field(default_factory=dict)  # new sums, with the changed weights only; 0: gone
    weights: dict[Key, int] = field(default_factory=dict)  # as above, of rows below no task


class Ledger:
    """The sums over all stored rows, which are verified already, and the frontier of the audit tree."""

    def __init__(self, rows: SqliteRows, tree: Frontier, total: int) -> None:
        self.rows, self.tree, self.total = rows, tree, total
        self._tasks: dict[str, Sums] = {}
        self._weights: dict[Key, int] = {}
        self.purged = datetime.min.replace(tzinfo=UTC)  # when it was last looked for what is over

    def sums(self, task: str) -> Sums:
        """Return the sums of a task, verified when they are read anew."""
        known = self._tasks.get(task)
        if known is None:
            stored = self.rows.task(task)
            known = self._tasks[task] = stored.sums if stored else Sums()
        return known

    def weight(self, key: Key) -> int:
        """Return the weight of a stored row that hangs below no task; 0 when there is none."""
        known = self._weights.get(key)
        if known is not None:
            return known
        stored = self.rows.one(key)
        return self.rows.tags.check(key, *stored) if stored else 0

    def accept(self, sealed: Sealed) -> None:
        """Make a group part of the ledger, once the medium has it; forget what there is too much of."""
        self.tree, self.total = sealed.tree, sealed.total
        for task, change in sealed.tasks.items():
            sums = self.sums(task)
            sums.rev, sums.weight, sums.total = change.rev, change.weight, change.total
            sums.weights.update(change.weights)
            for part in [part for part, weight in change.weights.items() if not weight]:
                del sums.weights[part]
        self._weights.update(sealed.weights)
        if len(self._weights) > WEIGHTS_KEPT:
            self._weights.clear()
        if len(self._tasks) > TASKS_KEPT:
            self._tasks.clear()


class Group:
    """Commits that share one transaction."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger, self._seals = ledger, ledger.rows.seals
        self._rows: Fresh = {}
        self._leaves: list[bytes] = []

    def take(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        """Add one commit, or raise and add nothing."""
        first = self._ledger.tree.size + len(self._leaves)
        leaves = [encode(seq, event) for seq, event in enumerate(events, first)]
        fresh: Fresh = {}
        adds = events and any(isinstance(write, UsedToken | PutRecord) for write in writes)
        now = events[0].at if adds else self._ledger.purged
        if purges := abs(now - self._ledger.purged) >= PURGE:  # so that few are over; a clock set back puts nothing off
            self._purge(fresh, now)
        for write in writes:
            self._write(fresh, write)
        if purges:  # not before: a commit that fails leaves it to the next one
            self._ledger.purged = now
        self._rows.update(fresh)
        self._leaves += leaves

    def put(self, rows: Fresh) -> None:
        """Add rows as they are to be stored, which are checked."""
        self._rows.update(rows)

    def _write(self, fresh: Fresh, write: Write) -> None:
        match write:
            case Change():
                self._change(fresh, write)
            case Spend():
                fresh["spends", write.task, write.grant, write.index] = (write.used,)
            case PutResource():
                key = ("resources", write.resource.name)
                fresh[key] = (self._seals.seal(key, codec.resource_bytes(write.resource)),)
            case DeleteResource():
                self._delete(fresh, write.name)
            case PutSecret():
                secret = write.secret
                row: Values = (secret.version, secret.resource, secret.destination, secret.sealed)
                self._put(fresh, ("secrets", secret.name), row)
            case UsedToken():
                if self._stored(fresh, ("burns", write.digest)) is not None:
                    raise ConflictError
                fresh["burns", write.digest] = (_instant(write.until),)
            case PutRecord():
                record = write.record
                place = ("records", record.kind, record.id)
                self._put(fresh, place, (record.rev, _instant(record.until), self._seals.seal(place, record.body)))

    def _change(self, fresh: Fresh, change: Change) -> None:
        head = change.head
        key = ("tasks", head.id)
        pending = fresh.get(key, self._rows.get(key))
        rev = pending.rev if isinstance(pending, Top) else self._ledger.sums(head.id).rev
        if rev != change.base or head.rev != change.base + 1:
            raise ConflictError
        fresh[key] = Top(head.id, head.rev, int(head.closed), self._seals.seal(key, codec.head_bytes(head)))
        # of a subtree that ends its top alone is written: a reader takes what is below it to have ended (``load``)
        stored, ended = self._ledger.sums(head.id).weights, {grant.id for grant in change.grants if grant.revoked}
        told = [i for i in change.grants if i.parent not in ended or not i.revoked or ("grants", i.id) not in stored]
        parts: list[tuple[Key, bytes]] = [(("grants", head.id, i.id), codec.grant_bytes(i)) for i in told]
        parts += [(("leases", head.id, i.id), codec.lease_bytes(i)) for i in change.leases]
        for place, body in parts:
            fresh[place] = (head.rev, self._seals.seal(place, body))
        for lease_id in change.forget:
            fresh["leases", head.id, lease_id] = None

    def _delete(self, fresh: Fresh, name: str) -> None:
        if self._stored(fresh, ("resources", name)) is None:
            raise NotFoundError
        fresh["resources", name] = None
        pending = {**self._rows, **fresh}
        names = {key[1] for key, row in pending.items() if key[0] == "secrets" and row and row[1] == name}
        for secret in names.union(self._ledger.rows.names("secrets of", name)):
            row = self._stored(fresh, ("secrets", secret))
            if row and row[1] == name:
                fresh["secrets", secret] = None

    def _put(self, fresh: Fresh, key: Key, row: Values) -> None:
        """Write a row whose first column is its revision, which is the next one."""
        stored = self._stored(fresh, key)
        if row[0] != (int(stored[0]) if stored else 0) + 1:
            raise ConflictError
        fresh[key] = row

    def _stored(self, fresh: Fresh, key: Key) -> Values | None:
        for rows in (fresh, self._rows):
            if key in rows:
                return rows[key]
        found = self._ledger.rows.one(key)
        return found[0] if found else None

    def _purge(self, fresh: Fresh, now: datetime) -> None:
        rows = self._ledger.rows
        over: list[Key] = [("burns", digest) for digest in rows.names("burnt before", _instant(now - BURNT_LONGER))]
        over += [("records", str(kind), str(name)) for kind, name in rows.all("over before", _instant(now))]
        for key in over:
            if key not in self._rows:  # else this group has already written it anew
                fresh[key] = None

    def seal(self) -> Sealed:
        """Tag the rows, and work out what the sums and the tree will be."""
        ledger = self._ledger
        hashes = [leaf_hash(leaf) for leaf in self._leaves]
        tree, tiles = ledger.tree.grow(hashes)
        sealed = Sealed(tree, ledger.total, tiles=tiles)
        sealed.entries = list(zip(range(ledger.tree.size, tree.size), self._leaves, hashes, strict=True))
        for key, values in self._rows.items():
            if not isinstance(values, Top):
                self._row(sealed, key, values)
        for values in self._rows.values():
            if isinstance(values, Top):  # after all rows, whose sum its tag covers
                self._top(sealed, values)
        sealed.tag = ledger.rows.tags.state(tree, sealed.total)
        return sealed

    def _row(self, sealed: Sealed, key: Key, values: Values | None) -> None:
        kind, weight = str(key[0]), 0
        if values is None:
            sealed.deletes.setdefault(kind, []).append(key)
        else:
            tag, weight = self._ledger.rows.tags.row(key, values)
            sealed.puts.setdefault(kind, []).append((key, values, tag))
        if kind not in {"grants", "leases"}:
            sealed.total += weight - self._ledger.weight(key)
            sealed.weights[key] = weight
            return
        task, part = map(str, key[1:])
        sums = self._ledger.sums(task)
        change = sealed.tasks.setdefault(task, Sums(total=sums.total))
        change.total += weight - sums.weights.get((kind, part), 0)
        change.weights[kind, part] = weight

    def _top(self, sealed: Sealed, top: Top) -> None:
        sums, tags = self._ledger.sums(top.id), self._ledger.rows.tags
        change = sealed.tasks.setdefault(top.id, Sums(total=sums.total))
        change.rev, change.weight = top.rev, tags.top(top)
        sealed.total += change.weight - sums.weight
        sealed.puts.setdefault("tasks", []).append((("tasks", top.id), top[1:], tags.tree(top, change.total)))


def _instant(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="microseconds")
