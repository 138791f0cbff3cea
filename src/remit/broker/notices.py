"""What edges are told of at once: ends and changes, each edge in the order in which they came to be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from remit.ports.broker import Notice

WAIT = 0.25  # seconds: longer than that no end waits for an edge to act on it


class _Feed:
    """What one edge was not told yet; ``idle`` is set when it has acted on all that it was told."""

    def __init__(self) -> None:
        self.grants: set[str] = set()
        self.resources: set[str] = set()
        self.waiting, self.idle = asyncio.Event(), asyncio.Event()
        self.idle.set()


class Notices:
    """Streams notices to any number of edges."""

    def __init__(self) -> None:
        self._feeds: list[_Feed] = []
        self.ends = 0  # that there were, or more

    def tell(self, grants: frozenset[str] = frozenset(), resources: frozenset[str] = frozenset()) -> None:
        """Tell of grants that ended and of resources that changed."""
        self.ends += len(grants)
        for feed in self._feeds if grants or resources else ():
            feed.grants |= grants
            feed.resources |= resources
            feed.idle.clear()
            feed.waiting.set()

    def listen(self) -> AsyncIterator[Notice]:
        feed = _Feed()
        self._feeds.append(feed)
        return self._stream(feed)

    async def _stream(self, feed: _Feed) -> AsyncIterator[Notice]:
        try:
            while True:
                await feed.waiting.wait()
                notice = Notice(frozenset(feed.grants), frozenset(feed.resources))
                feed.grants.clear()
                feed.resources.clear()
                feed.waiting.clear()
                yield notice
                if not feed.waiting.is_set():
                    feed.idle.set()
        finally:
            self._feeds.remove(feed)
            feed.idle.set()

    async def acted_on(self) -> None:
        """Wait until every edge has acted on what it was told, but no longer than a quarter of a second."""
        waiting = [asyncio.ensure_future(feed.idle.wait()) for feed in self._feeds if not feed.idle.is_set()]
        if waiting:
            _, left = await asyncio.wait(waiting, timeout=WAIT)
            for task in left:  # an edge that hangs must not gather one for every end
                task.cancel()
