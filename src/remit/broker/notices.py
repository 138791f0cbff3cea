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
        self.grants: set[str] = set()
        self.resources: set[str] = set()
        self.published: dict[str, Any] = {}  # what is published anew, by its name in a notice
        self.stuck, self.holds = stuck, holds
        self.waiting, self.idle = asyncio.Event(), asyncio.Event()
        self.idle.set()
        self._feeds = feeds
        feeds.append(self)

    async def next(self) -> Notice:
        """Return what came since, once something has; asking says that all before was acted on."""
        if not self.waiting.is_set():
            self.idle.set()
        await self.waiting.wait()
        notice = Notice(frozenset(self.grants), frozenset(self.resources), **self.published)
        self.grants.clear()
        self.resources.clear()
        self.published.clear()
        self.waiting.clear()
        return notice

    def told(self, *, waits: bool = True) -> None:
        """Have it told; ``waits``: and waited for."""
        if waits:
            self.idle.clear()
        self.waiting.set()

    def close(self) -> None:
        """Tell it no more, and let nobody wait for it."""
        if self in self._feeds:
            self._feeds.remove(self)
        self.idle.set()


class Notices:
    """Streams notices to any number of workers."""

    def __init__(self) -> None:
        self._feeds: list[Feed] = []
        self.ends = 0  # that there were, or more

    def tell(self, grants: frozenset[str] = frozenset(), resources: frozenset[str] = frozenset()) -> None:
        """Tell of grants that ended and of resources that changed."""
        self.ends += len(grants)
        for feed in self._feeds if grants or resources else ():
            feed.grants |= grants
            feed.resources |= resources
            feed.told(waits=bool(resources) or feed.holds(grants))

    def publish(self, **published: object) -> None:
        """Tell of what is published anew, by its name in a notice; workers need but the newest."""
        for feed in self._feeds:
            feed.published |= published
            feed.told()

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
    busy = [feed for feed in feeds if not feed.idle.is_set()]
    if not busy:
        return []
    waiting = [asyncio.ensure_future(feed.idle.wait()) for feed in busy]
    _, left = await asyncio.wait(waiting, timeout=seconds)
    for task in left:  # a worker that hangs must not gather one for every end
        task.cancel()
    for _ in range(TURNS) if left else ():
        await asyncio.sleep(0)
    return [feed for feed in busy if not feed.idle.is_set()]


async def _stream(feed: Feed) -> AsyncIterator[Notice]:
    try:
        while True:
            yield await feed.next()
    finally:
        feed.close()
