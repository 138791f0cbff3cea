"""The event stream of ended tasks (SSF 1.0 §8). The audit log is the queue: an end and its entry are one commit.

Each receiver has a cursor in the log of its own, a record: what is before it was acknowledged, or is none of its
business. So after a crash whatever was not acknowledged is sent again, and nothing is sent before it is durable. A
receiver that is new begins at the end of the log.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from remit import jose
from remit.broker.ends import END_EVENTS
from remit.broker.sessions import SessionAccess
from remit.core import audit
from remit.core.audit import Event
from remit.ports import PutRecord, Record

KIND = "stream"
KEPT = timedelta(days=400)  # a cursor that nobody has moved for so long begins anew
PAGE = 512  # entries read at once
STRIDE = 10_000  # entries that were of no interest before a cursor moves on by itself


@dataclass(frozen=True, slots=True)
class EndedTask:
    """A task that ended: ``seq`` is the place of its entry in the log."""

    seq: int
    event: Event


@dataclass
class StreamCursor:
    """Where a receiver is: all before ``next`` is done, and so is what is in ``done``."""

    next: int
    rev: int = 0
    done: set[int] = field(default_factory=set)
    read: int = 0  # the log was looked through up to here
    waiting: dict[int, EndedTask] = field(default_factory=dict)


class EventStream:
    """Ends of tasks, in order, for each receiver until it has taken them."""

    def __init__(self, broker: SessionAccess) -> None:
        self._broker = broker
        self._cursors: dict[str, StreamCursor] | None = None
        self._moving = asyncio.Lock()

    async def pending(self, receiver: str, limit: int) -> Sequence[EndedTask]:
        """Return the first ``limit`` ends that ``receiver`` has not acknowledged."""
        cursor = await self._cursor(receiver)
        while len(cursor.waiting) < limit:
            at = cursor.read
            entries = await self._broker.entries(at, PAGE)
            if cursor.read != at:  # somebody else has read on meanwhile, and may have acknowledged what is here
                continue
            if not entries:
                break
            for entry in entries:
                event = audit.read(entry)
                ends = event.event in END_EVENTS and event.decision == "done" and len(event.lineage) == 1  # of a root
                if ends and entry.seq not in cursor.done:
                    cursor.waiting[entry.seq] = EndedTask(entry.seq, event)
            cursor.read = entries[-1].seq + 1
        async with self._moving:
            if not cursor.waiting and cursor.read - cursor.next >= STRIDE:
                await self._move(receiver, cursor, set())
        return tuple(cursor.waiting[seq] for seq in sorted(cursor.waiting)[:limit])

    async def acknowledge(self, receiver: str, seqs: Iterable[int]) -> None:
        """Note that ``receiver`` has the ends at these places; unknown places are passed over."""
        cursor = await self._cursor(receiver)
        async with self._moving:
            known = {seq for seq in seqs if seq in cursor.waiting}
            if known:
                await self._move(receiver, cursor, known)

    async def _cursor(self, receiver: str) -> StreamCursor:
        async with self._moving:
            if self._cursors is None:
                self._cursors = {}
                for record in await self._broker.records(KIND):
                    raw = json.loads(record.body)
                    cursor = StreamCursor(raw["next"], record.rev, set(raw["done"]), raw["next"])
                    self._cursors[raw["receiver"]] = cursor
            if receiver not in self._cursors:
                size = await self._broker.size()
                cursor = StreamCursor(size, read=size)
                await self._move(receiver, cursor, set())
                self._cursors[receiver] = cursor
            return self._cursors[receiver]

    async def _move(self, receiver: str, cursor: StreamCursor, known: set[int]) -> None:
        now, left = self._broker.now(), cursor.waiting.keys() - known
        to = min(left, default=cursor.read)
        done = {seq for seq in cursor.done | known if seq > to}
        body = json.dumps({"receiver": receiver, "next": to, "done": sorted(done)}).encode()
        record = Record(KIND, jose.digest(receiver), cursor.rev + 1, body, now + KEPT)
        ends = (cursor.waiting[seq].event for seq in sorted(known))
        events = [
            Event("signal.tell", now, "done", task=end.task, subject=end.subject, resource=receiver) for end in ends
        ]
        await self._broker.record((PutRecord(record),), events)
        cursor.next, cursor.rev, cursor.done = to, cursor.rev + 1, done
        for seq in known:
            cursor.waiting.pop(seq, None)
