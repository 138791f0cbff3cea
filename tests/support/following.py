"""An edge beside its broker, for tests: it acts on every notice, as the end of a link does."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager

from remit.ports.broker import Notice

_LOG = logging.getLogger("remit.tests")


@contextmanager
def following(notices: AsyncIterator[Notice], noticed: Callable[[Notice], None]) -> Iterator[None]:
    """Act on every notice of the broker until the block ends: by then asking for the next says that it is done."""

    async def follow() -> None:
        async for notice in notices:
            try:
                noticed(notice)
            except Exception:  # noqa: BLE001 - one that went wrong keeps the edge from no other
                _LOG.exception("a notice of the broker was not acted on")

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        task.cancel()
