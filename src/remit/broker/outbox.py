"""What others are told of tasks that ended. The audit log is the queue: an end and its entry are one commit.

Each receiver has a place in the log of its own, a record: what is before it was taken, or is none of its business. So
after a crash whatever was not acknowledged is told again, and nothing is told before it is durable. A receiver that is
new begins at the end of the log.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

from remit import jose
from remit.broker.tasks import TaskCache
from remit.core import audit
from remit.core.audit import Event
from remit.jose import token
from remit.ports import PutRecord, Record

KIND = "stream"
KEPT = timedelta(days=400)  # a place that nobody has moved for so long begins anew
PAGE = 512  # entries read at once
STRIDE = 10_000  # entries that were of no interest before a place moves on by itself
ENDS = frozenset({"task.close", "grant.revoke"})


@dataclass(frozen=True, slots=True)
class Ended:
    """A task that ended: ``seq`` is the place of its entry in the log."""

    seq: int
    event: Event


@dataclass
class Place:
    """Where a receiver is: all before ``next`` is done, and so is what is in ``done``."""

    next: int
    rev: int = 0
    done: set[int] = field(default_factory=set)
    read: int = 0  # the log was looked through up to here
    waiting: dict[int, Ended] = field(default_factory=dict)


class Outbox:
    """Ends of tasks, in order, for each receiver until it has taken them."""

    def __init__(self, tasks: TaskCache) -> None:
        """Start empty; ``load`` fills."""
        self._tasks = tasks
        self._places: dict[str, Place] = {}
        self._moving = asyncio.Lock()

    async def load(self) -> None:
        """Read the places that are kept."""
        for record in await self._tasks.store.records(KIND):
            raw = json.loads(record.body)
            place = Place(raw["next"], record.rev, set(raw["done"]), raw["next"])
            self._places[raw["receiver"]] = place

    async def pending(self, receiver: str, limit: int) -> Sequence[Ended]:
        """Return the first ``limit`` ends that ``receiver`` has not taken."""
        place = await self._place(receiver)
        while len(place.waiting) < limit:
            at = place.read
            entries = await self._tasks.store.entries(at, PAGE)
            if place.read != at:  # somebody else has read on meanwhile, and may have taken what is here
                continue
            if not entries:
                break
            for entry in entries:
                event = audit.read(entry)
                if _ends_a_task(event) and entry.seq not in place.done:
                    place.waiting[entry.seq] = Ended(entry.seq, event)
            place.read = entries[-1].seq + 1
        async with self._moving:
            if not place.waiting and place.read - place.next >= STRIDE:
                await self._move(receiver, place, set())
        return tuple(place.waiting[seq] for seq in sorted(place.waiting)[:limit])

    async def taken(self, receiver: str, seqs: Iterable[int]) -> None:
        """Note that ``receiver`` has what is at these places; it is not told again. Unknown places are passed over."""
        place = await self._place(receiver)
        async with self._moving:
            known = {seq for seq in seqs if seq in place.waiting}
            if known:
                await self._move(receiver, place, known)

    async def lately(self) -> set[str]:
        """Return the tasks in which something ended whose token could still be shown to others: their places are taken.

        A token that was revoked earlier has expired since; the log tells, and its time never goes back.
        """
        store, since = self._tasks.store, self._tasks.now() - token.LIFE - timedelta(seconds=token.SKEW)
        found, end = set[str](), await store.size()
        while end:
            start = max(0, end - PAGE)
            for entry in reversed(await store.entries(start, end - start)):
                event = audit.read(entry)
                if event.at < since:
                    return found
                if event.event in ENDS and event.task is not None:
                    found.add(event.task)
            end = start
        return found

    # -- inside -------------------------------------------------------------------------------------------------

    async def _place(self, receiver: str) -> Place:
        async with self._moving:
            if receiver not in self._places:
                size = await self._tasks.store.size()
                place = Place(size, read=size)
                await self._move(receiver, place, set())
                self._places[receiver] = place
            return self._places[receiver]

    async def _move(self, receiver: str, place: Place, known: set[int]) -> None:
        left = place.waiting.keys() - known
        to = min(left, default=place.read)
        done = {seq for seq in place.done | known if seq > to}
        body = json.dumps({"receiver": receiver, "next": to, "done": sorted(done)}).encode()
        record = Record(KIND, jose.digest(receiver), place.rev + 1, body, self._tasks.now() + KEPT)
        told = [self._told(receiver, place.waiting[seq]) for seq in sorted(known)]
        await self._tasks.record((PutRecord(record),), told)
        place.next, place.rev, place.done = to, place.rev + 1, done
        for seq in known:
            place.waiting.pop(seq, None)

    def _told(self, receiver: str, ended: Ended) -> Event:
        event = ended.event
        return Event(
            "signal.tell", self._tasks.now(), "done", task=event.task, subject=event.subject, resource=receiver
        )


def _ends_a_task(event: Event) -> bool:
    """Whether this is the end of a root grant, and so of its task."""
    return event.event in ENDS and event.decision == "done" and len(event.lineage) == 1
