"""What workers are told of at once: ends and changes, each worker in the order in which they came to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any

from remit.ports.broker import Notice

WAIT = 0.25  # seconds: longer than that no end waits for a worker to act on it
TURNS = 3  # of the loop, in which what has arrived is read, where it was this loop that was late
GONE = 2.0  # seconds: as long an end waits for a worker to be gone that has not acted

Holds = Callable[[frozenset[str]], bool]  # whether something may move under grants


class Feed:
    """What one worker was not told yet; ``idle`` is set when it has acted on all that it was told."""

    def __init__(self, feeds: list[Feed], stuck: Callable[[], None] | None, holds: Holds) -> None:
        self.grants, self.resources, self.descriptions = set[str](), set[str](), set[str]()
        self.published: dict[str, Any] = {}  # what is published anew, by its name in a notice
        self.stuck, self.holds = stuck, holds
        self.waiting = asyncio.Event()
        self._told, self._untold = _over(), _over()  # whether the notice that it has, and the next, were acted on
        self._feeds = feeds
        feeds.append(self)

    async def next(self) -> Notice:
        """Return what came since, once something has; asking says that all before was acted on."""
        self._told.set()
        await self.waiting.wait()
        self._told, self._untold = self._untold, _over()
        grants, resources, descriptions = map(frozenset, (self.grants, self.resources, self.descriptions))
        notice = Notice(grants, resources, descriptions, **self.published)
        self.grants, self.resources, self.descriptions, self.published = set(), set(), set(), {}
        self.waiting.clear()
        return notice

    def told(self, *, waits: bool = True) -> None:
        """Have it told; ``waits``: and waited for."""
        if waits:
            self._untold.clear()
        self.waiting.set()

    @property
    def acted(self) -> asyncio.Event:
        """What is set once it has acted on all that there is to tell by now."""
        return self._told if self._untold.is_set() else self._untold

    def close(self) -> None:
        """Tell it no more, and let nobody wait for it."""
        if self in self._feeds:
            self._feeds.remove(self)
        self._told.set()
        self._untold.set()


class Notices:
    """Streams notices to any number of workers."""

    def __init__(self) -> None:
        self._feeds: list[Feed] = []
        self.ends = 0  # that there were, or more

    def tell(
        self,
        grants: frozenset[str] = frozenset(),
        resources: frozenset[str] = frozenset(),
        descriptions: frozenset[str] = frozenset(),
    ) -> None:
        """Tell of grants that ended, of resources that changed, and of those whose descriptions count otherwise."""
        self.ends += len(grants)
        for feed in self._feeds if grants or resources or descriptions else ():
            feed.grants |= grants
            feed.resources |= resources
            feed.descriptions |= descriptions
            feed.told(waits=bool(resources or descriptions) or feed.holds(grants))

    def publish(self, **published: object) -> None:
        """Tell of what is published anew, by its name in a notice; workers need but the newest."""
        for feed in self._feeds:
            feed.published |= published
            feed.told()

    async def runs_ended(self) -> None:
        """Tell what serves runs that all have ended, also those whose grants go on; return when it has heard."""
        self.publish(runs=True)
        await self.acted_on()

    def feed(self, stuck: Callable[[], None] | None = None, holds: Holds = lambda _: True) -> Feed:
        """Begin to tell a worker; an end waits for it only if it ``holds`` something under the grants.

        ``stuck`` is called when it has not acted in time, and is to see that it is gone.
        """
        return Feed(self._feeds, stuck, holds)

    def listen(self) -> AsyncIterator[Notice]:
        return _stream(self.feed())

    async def acted_on(self) -> bool:
        """Wait until every worker has acted on what it was told, but no longer than a quarter of a second.

        Who has not by then is said to be ``stuck``, and waited for until it is gone; False: it is not known to be.
        """
        ending = []
        for feed in await _late(self._feeds, WAIT):
            if feed.stuck is not None:
                feed.stuck()
                ending.append(feed)
        return not await _late(ending, GONE)


async def _late(feeds: Iterable[Feed], seconds: float) -> list[Feed]:
    """Return those that have not acted after so many seconds; what has come by then is read first."""
    busy = [(feed, acted) for feed in feeds if not (acted := feed.acted).is_set()]
    if not busy:
        return []
    _, left = await asyncio.wait([asyncio.ensure_future(acted.wait()) for _, acted in busy], timeout=seconds)
    for task in left:  # a worker that hangs must not gather one for every end
        task.cancel()
    for _ in range(TURNS) if left else ():
        await asyncio.sleep(0)
    return [feed for feed, acted in busy if not acted.is_set()]


def _over() -> asyncio.Event:
    event = asyncio.Event()
    event.set()
    return event


async def _stream(feed: Feed) -> AsyncIterator[Notice]:
    try:
        while True:
            yield await feed.next()
    finally:
        feed.close()
