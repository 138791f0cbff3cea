"""What this process knows of the pins of descriptions, which are the authority's: asked for once, until they change."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from remit.core.description import Described, DescriptionPin, Key
from remit.core.orders import digest
from remit.errors import UnavailableError
from remit.gateway.mcp import descriptions
from remit.gateway.mcp.descriptions import UndescribedError
from remit.gateway.mcp.messages import Message
from remit.ports.broker import DESCRIBED, BrokerPort

KNOWN = 4_096  # items of one resource
SIZE = 65_536  # characters of one call
ASKED = 4  # times for one message: others may change pins meanwhile

V = TypeVar("V")


@dataclass(eq=False)
class ResourcePins:
    """Those of one resource. When they change it is forgotten whole: what was asked before comes to nobody."""

    known: dict[Key, DescriptionPin] = field(default_factory=dict)
    told: set[tuple[Key, str]] = field(default_factory=set)  # what the authority has seen, by digest
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    def knows(self, key: Key, s256: str) -> bool:
        pin = self.known.get(key)
        return pin is not None and (pin.open or s256 in pin.accepted or (key, s256) in self.told)

    def keep(self, key: Key, pin: DescriptionPin, s256: str = "") -> None:
        if len(self.known) >= KNOWN or len(self.told) >= KNOWN:
            self.known.clear()
            self.told.clear()
        self.known[key] = pin
        self.told.add((key, s256))


@dataclass(eq=False)
class KnownPins:
    """Those of all resources."""

    _broker: BrokerPort
    _of: dict[str, ResourcePins] = field(default_factory=dict)

    def of(self, resource: str) -> ResourcePins:
        return self._of.setdefault(resource, ResourcePins())

    def forget(self, resources: frozenset[str]) -> None:
        for name in resources & self._of.keys():
            del self._of[name]

    def shows(self, resource: str, items: Sequence[Described]) -> Sequence[bool]:
        """Return which items are as they were accepted, or raise UndescribedError; in any thread."""
        pins = self.of(resource)
        each = [(item, digest(item.text)) for item in items]
        if unknown := [item for item, s256 in each if not pins.knows(item.key, s256)]:
            raise UndescribedError(unknown)
        found = [(pins.known.get(item.key), s256) for item, s256 in each]
        return [pin is not None and pin.shows(s256) for pin, s256 in found]

    async def learn(self, grant_id: str, resource: str, items: Sequence[Described]) -> None:
        """Tell the authority of items, and keep what counts of them."""
        pins = self.of(resource)
        async with pins.turn:
            left = [item for item in items if not pins.knows(item.key, digest(item.text))]
            for some in _batches(left):
                found = await self._broker.described(grant_id, resource, some)
                for item, pin in zip(some, found, strict=True):
                    pins.keep(item.key, pin, digest(item.text))

    async def told(self, grant_id: str, resource: str, judge: Callable[[], Coroutine[None, None, V]]) -> V:
        """Return what is judged of what a server said; the authority is told first of what is new in it."""
        for _ in range(ASKED):
            try:
                return await judge()
            except UndescribedError as new:
                await self.learn(grant_id, resource, new.items)
        raise UnavailableError("how the server is described changes all the time", help="try again")

    async def check(self, grant_id: str, resource: str, said: Message | None) -> None:
        """Raise DescriptionError for a message that uses what is held."""
        for key in () if said is None else descriptions.used(said):
            pins = self.of(resource)
            pin = pins.known.get(key)
            if pin is None:
                pin = await self._broker.description(grant_id, resource, key[0], key[1])
                pins.keep(key, pin)
            if pin.held:
                raise descriptions.held(key, resource)


def _batches(items: Sequence[Described]) -> Iterator[list[Described]]:
    """Yield items in as many calls as they take."""
    some, size = list[Described](), 0
    for item in items:
        room = len(item.text) + len(item.name)
        if some and (len(some) == DESCRIBED or size + room > SIZE):
            yield some
            some, size = [], 0
        some.append(item)
        size += room
    if some:
        yield some
