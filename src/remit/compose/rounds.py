"""What is done again and again in the background of a role."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from remit.errors import RemitError

Round = Callable[[], Awaitable[None]]

_LOG = logging.getLogger("remit")


@contextmanager
def ticking(rounds: Sequence[tuple[float, Round]], overlapping: Sequence[tuple[float, Round]] = ()) -> Iterator[None]:
    """Do rounds, each so many seconds after the one before; those that may overlap, each so many after that began."""
    tasks = [asyncio.create_task(every(seconds, what)) for seconds, what in rounds]
    tasks += [asyncio.create_task(overlaps(seconds, what)) for seconds, what in overlapping]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()


async def every(seconds: float, what: Round) -> None:
    told = ""  # the same trouble is told once
    while True:
        await asyncio.sleep(seconds)
        told = await _one(what, told)


async def overlaps(seconds: float, what: Round) -> None:
    """Begin a round every so often, though one before may still wait for a target."""
    async with asyncio.TaskGroup() as rounds:
        while True:
            await asyncio.sleep(seconds)
            rounds.create_task(_one(what))


async def _one(what: Round, told: str = "") -> str:
    """Do one round; return the trouble it had, which is told unless it was told of the round before."""
    try:
        await what()
    except RemitError as error:
        if told != error.detail:
            _LOG.warning("%s: %s", error.code, error.detail)
        return error.detail
    except Exception:  # noqa: BLE001 - told to the log; the next round comes
        _LOG.exception("a background round failed")
    return ""
