"""How servers describe their tools: what was seen first or accepted is kept, and what differs is held for a human.

Whoever reports is a worker, which reads what the server says. Its word can pin what nobody had seen yet, and have an
item held; it can accept nothing, and free nothing (``docs/decisions/0042-descriptions-are-pinned.md``).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import msgspec
from msgspec.structs import replace

from remit.broker.tasks import TaskCache
from remit.core import description
from remit.core.audit import Event
from remit.core.description import MOST, Described, DescriptionChoice, DescriptionPin, KeptDescription, Key
from remit.core.principal import Principal
from remit.errors import ConflictError, IntegrityError, LimitError, NotFoundError
from remit.ports import NewId, PutRecord, Record, Resource

KIND = "description"
_EVER = datetime.max.replace(tzinfo=UTC)
_Items = dict[Key, KeptDescription]


class DescriptionPins:
    """The pins of all resources. They end with the resource, and where it is to be another server."""

    def __init__(self, tasks: TaskCache, new_id: NewId, resource: Callable[[str], Resource]) -> None:
        self._tasks, self._new_id, self._resource = tasks, new_id, resource
        self._of: dict[str, _Items] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._doubted = set[str]()  # resources of which a write that failed may have been durable

    async def load(self) -> None:
        self._of = await self._stored()

    async def _stored(self) -> dict[str, _Items]:
        found: dict[str, _Items] = {}
        for record in await self._tasks.store.records(KIND):
            if record.until < _EVER:  # its resource has gone
                continue
            try:
                kept = msgspec.json.decode(record.body, type=KeptDescription)
            except msgspec.MsgspecError as error:
                raise IntegrityError("a description that was kept cannot be read") from error
            found.setdefault(kept.resource, {})[kept.key] = kept
        return found

    def kept(self, resource: str) -> list[KeptDescription]:
        return sorted(self._of.get(resource, {}).values(), key=lambda each: each.key)

    def pin(self, resource: Resource, key: Key) -> DescriptionPin:
        """Return what counts of one item."""
        rule = description.policy(resource.settings)
        kept = self._of.get(resource.name, {}).get(key)
        return description.unseen(key, rule) if kept is None or rule == description.OPEN else kept.pin

    async def asked(self, resource: Resource, key: Key) -> DescriptionPin:
        """Return what counts of one item, once what was begun with this resource is durable or not."""
        if resource.name in self._doubted:
            async with self.lock(resource.name, resource):
                pass
        return self.pin(resource, key)

    async def seen(self, grant_id: str, resource: Resource, items: Sequence[Described]) -> list[DescriptionPin]:
        """Take note of what a server says under a grant; return what counts of each item after all of it."""
        rule, name = description.policy(resource.settings), resource.name
        if rule == description.OPEN:
            return [self.pin(resource, item.key) for item in items]
        async with self.lock(name, resource):
            kept, fresh, full = self._of.get(name, {}), _Items(), dict[Key, None]()
            room = description.ROOM - sum(each.size for each in kept.values())
            for item in items:
                before = fresh.get(item.key) or kept.get(item.key)
                free = room if before is not None or len(kept) + len(fresh) < MOST else 0
                after = self._step(name, item, before, rule, free)
                if after is None:
                    full[item.key] = None
                elif after is not before:
                    fresh[item.key], room = after, room - after.size + (before.size if before else 0)
            if full:
                error = LimitError(f"too much is described by `{name}`", help="have grants name the tools they need")
                what, named = next(iter(full))
                told = {"resource": name, "action": what, "path": named}
                await self._tasks.denied("description.pin", grant_id, error, len(full), **told)
            if fresh:
                await self._put(kept, fresh, [self._told(grant_id, each) for each in fresh.values()])
        return [DescriptionPin(held=True) if item.key in full else self.pin(resource, item.key) for item in items]

    def _step(
        self, name: str, item: Described, before: KeptDescription | None, rule: str, room: int
    ) -> KeptDescription | None:
        now = self._tasks.now()
        if before is not None:
            return before.seen(item.text, now, room)  # empty: of one that is too long
        blank = KeptDescription(self._new_id("dsc"), 0, name, item.what, item.name, now)
        return description.first(blank, item.text, rule, room)

    def _told(self, grant_id: str, each: KeptDescription) -> Event:
        verb, decision, s256 = ("hold", "deny", each.pending) if each.pending else ("pin", "done", each.accepted[-1])
        told = {"resource": each.resource, "action": each.what, "path": each.name, "detail_s256": s256}
        return self._tasks.event(f"description.{verb}", decision, grant_id, **told)

    async def accept(self, operator: Principal, name: str, chosen: Sequence[DescriptionChoice]) -> None:
        """Take what a human accepts: all of it, or nothing."""
        async with self.lock(name):
            kept, fresh, events = self._of.get(name, {}), _Items(), []
            for choice in chosen:
                found = kept.get((choice.what, choice.name))
                if found is None:
                    raise NotFoundError(f"no {choice.what} `{choice.name}` of `{name}` is known")
                fresh[found.key] = found.accept(choice.s256, self._tasks.now())
                told = {"resource": name, "action": choice.what, "path": choice.name, "detail_s256": choice.s256}
                events.append(self._tasks.event("description.accept", "done", None, subject=operator.name, **told))
            await self._put(kept, fresh, events)

    async def _put(self, kept: Mapping[Key, KeptDescription], fresh: _Items, events: Sequence[Event]) -> None:
        """Make changes durable; from then on they count, and who may know the pins of before is told."""
        stored = [replace(each, rev=kept[key].rev + 1 if key in kept else 1) for key, each in fresh.items()]
        names = frozenset(each.resource for each in stored)
        self._doubted |= names
        await self._tasks.store.commit([_written(each) for each in stored], events)
        self._doubted -= names
        for each in stored:
            self._of.setdefault(each.resource, {})[each.key] = each
        if any(each.rev > 1 or each.pending for each in stored):
            self._tasks.notices.tell(descriptions=names)

    @asynccontextmanager
    async def lock(self, name: str, known: Resource | None = None) -> AsyncIterator[None]:
        """Let one change the pins of a resource at a time, as long as it is ``known``, from those that are durable."""
        async with self._locks.setdefault(name, asyncio.Lock()):
            if known is not None and self._resource(name) is not known:  # and perhaps another server
                raise ConflictError(f"`{name}` was changed meanwhile", help="try again")
            if name in self._doubted:
                self._of[name] = (await self._stored()).get(name, {})
                self._doubted.discard(name)
            yield

    def ended(self, name: str) -> Iterable[PutRecord]:
        """Return what ends the pins of a resource, once that is durable."""
        now = self._tasks.now()
        for each in self.kept(name):
            yield PutRecord(Record(KIND, each.id, each.rev + 1, b"{}", now))

    def forget(self, name: str) -> None:
        """Forget the pins that have ended."""
        self._of.pop(name, None)


def _written(kept: KeptDescription) -> PutRecord:
    return PutRecord(Record(KIND, kept.id, kept.rev, msgspec.json.encode(kept), _EVER))
