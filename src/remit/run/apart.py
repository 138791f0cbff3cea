"""Edges for one task alone: what dies twice with a task's runs serves them apart from the others from then on."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from pathlib import Path
from typing import Protocol

from remit.errors import RemitError, UnavailableError

DEATHS = 2  # of edges that served a task, until it has one of its own
MOST = 4  # tasks with an edge of their own

_LOG = logging.getLogger("remit.run")


class EdgeStarter(Protocol):
    """What starts and ends edges that serve the runs of one task."""

    async def start_own(self) -> str:
        """Start one; return its hand-over socket once it takes runs. UnavailableError."""

    async def end_own(self, handover: str) -> None:
        """End it for good."""


class OwnEdges:
    """Which tasks have an edge of their own, or are about to."""

    def __init__(self, moved: Callable[[str, str], None]) -> None:
        """``moved`` is called with a task and the hand-over socket at which its runs are served from now on."""
        self.starter: EdgeStarter | None = None  # None: there is one edge, and there will be no other
        self._moved = moved
        self._deaths = Counter[str]()
        self._places: dict[str, str] = {}  # by task; empty while its edge starts
        self._doing: set[asyncio.Task[None]] = set()

    def died(self, tasks: Collection[str]) -> None:
        """Take note that an edge has died that served runs of these tasks."""
        self._deaths.update(tasks)
        self.need([task for task in tasks if self._deaths[task] >= DEATHS])

    def need(self, tasks: Collection[str]) -> None:
        """Give each of these tasks an edge of its own, as far as there may be more."""
        for task in tasks:
            if self.starter is not None and task not in self._places and len(self._places) < MOST:
                self._places[task] = ""
                self._do(self._start(self.starter, task))

    def ended(self, task: str, others: Collection[str]) -> None:
        """Take note that a run of a task has ended; ``others`` are the tasks of those that there are."""
        if task in others:
            return
        self._deaths.pop(task, None)
        place = self._places.pop(task, "")
        if place and self.starter is not None:
            self._do(self.starter.end_own(place))

    def check(self, task: str, handover: str) -> None:
        """Raise UnavailableError if runs of a task are not served at a socket any more: it says at which they are."""
        place = self._places.get(task, handover)
        if place != handover:
            where = [{"handover": Path(place).name}] if place else []
            raise UnavailableError("this run gets an edge of its own", help="try again", offending=where)

    async def _start(self, starter: EdgeStarter, task: str) -> None:
        try:
            place = await starter.start_own()
        except RemitError as error:
            _LOG.error("%s gets no edge of its own: %s", task, error.detail)
            self._places.pop(task, None)
            return
        if self._places.get(task) != "":  # its runs have ended meanwhile, and perhaps others have begun
            await starter.end_own(place)
            return
        _LOG.warning("%s has an edge of its own: %d edges have died that served it", task, self._deaths[task])
        self._places[task] = place
        self._moved(task, place)

    def _do(self, what: Coroutine[None, None, None]) -> None:
        doing = asyncio.get_running_loop().create_task(what)
        self._doing.add(doing)
        doing.add_done_callback(self._doing.discard)
