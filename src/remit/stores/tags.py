"""Tags on stored rows, and the sums that make a missing or an old row visible.

- Each row carries a tag, half of a MAC over its kind, key, revision and body. The other half is its weight.
- The tag of a task's head covers the sum of the weights of its grants and leases: a row that was deleted, or put back
  from an older copy, breaks the task. The tag of the state covers the sum over heads, resources, secrets, counters,
  burns and records, and the frontier of the audit tree: an older task beside newer entries breaks the state.
- Weights are never stored, so nobody without the key can find another set of rows with the same sum.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from remit.core.tree import Frontier
from remit.errors import IntegrityError
from remit.ports import Sealer

HALF = 16  # bytes of a tag, and of a weight

Key = tuple[str | int, ...]  # kind, then what identifies the row
Values = tuple[str | int | bytes, ...]  # the other columns; bytes, if any, come last

_json = msgspec.json.encode


class Top(NamedTuple):
    """A task's head as stored, before its tag."""

    id: str
    rev: int
    closed: int
    body: bytes


@dataclass(slots=True)
class Sums:
    """What is held in memory of a task's rows. ``weights`` has a key (kind, id) for each grant and lease."""

    rev: int = 0
    weight: int = 0  # of the head
    total: int = 0
    weights: dict[tuple[str, str], int] = field(default_factory=dict)


class Tags:
    """Makes and checks tags. A MAC input is a JSON list, then a line feed, which JSON cannot hold, then the body."""

    def __init__(self, mac: Callable[[bytes], bytes]) -> None:
        self._mac = mac

    def row(self, key: Key, values: Values) -> tuple[bytes, int]:
        """Return the tag and the weight of a row."""
        body = b""
        if values and isinstance(values[-1], bytes):
            body, values = values[-1], values[:-1]
        digest = self._mac(_json((*key, *values)) + b"\n" + body)
        return digest[:HALF], int.from_bytes(digest[HALF:], "big")

    def check(self, key: Key, values: Values, tag: object) -> int:
        """Return the weight of a row whose tag holds, or raise IntegrityError."""
        right, weight = self.row(key, values)
        if right != tag:  # what is compared came from the disk, where timing tells nobody anything
            raise edited(str(key[0]))
        return weight

    def top(self, top: Top) -> int:
        """Return the weight of a head."""
        return self.row(("tasks", top.id), top[1:])[1]

    def tree(self, top: Top, total: int) -> bytes:
        """Return the tag of a head, which covers the sum of its task's rows."""
        return self.row(("tree", f"{total:x}", top.id), top[1:])[0]

    def state(self, tree: Frontier, total: int) -> bytes:
        """Return the tag of the state: the audit tree, and the sum over all that hangs below no head."""
        return self.row(("state", f"{total:x}", tree.size), (b"".join(tree.peaks),))[0]


class Seals:
    """Seals the documents of rows, each for its place. One that begins otherwise is of an earlier version, in clear."""

    def __init__(self, sealer: Sealer) -> None:
        self._sealer = sealer

    def seal(self, key: Key, body: bytes) -> bytes:
        return self._sealer.seal(body, _json(key))

    def open(self, key: Key, body: bytes) -> bytes:
        """Return a document whose tag was checked, or raise IntegrityError."""
        return body if clear(body) else self._sealer.open(body, _json(key))


def clear(body: bytes) -> bool:
    """Whether a document is JSON as it stands: what is sealed begins with the number of its format."""
    return body[:1] == b"{"


def edited(kind: str) -> IntegrityError:
    """Return the error for a row that remit did not write like this."""
    return IntegrityError(
        f"`{kind}` was changed outside remit, or its key is another", help="restore the state together with its `kek`"
    )
