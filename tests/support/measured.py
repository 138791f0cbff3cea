"""Event loops in threads of their own, of whose callbacks the dearest is known: as CPU of the thread, nothing else's.

What other work does to a machine (cold caches, a slow clock) is taken out by ``pace``: it says how much longer a
piece of work that never changes takes here and now than on the machine for which bounds were written down.
"""

from __future__ import annotations

import asyncio
import gc
import json
import re
import threading
import time
from asyncio.events import Handle
from collections.abc import Callable, Coroutine, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

T = TypeVar("T")

CALM = 0.00048  # seconds that ``_work`` needs on a calm machine with CPython 3.11, which 5 ms and 50 ms are said of
PATIENCE = 120.0  # seconds: machines can be busy
_WORDS = re.compile(r"[a-z]+\d")
_RUN = Handle._run


class MeasuredLoop(asyncio.SelectorEventLoop):
    """A loop that runs in a thread of its own and knows the dearest of its callbacks since it was asked."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name, self.dearest, self.where = name, 0.0, ""
        self._thread = ThreadPoolExecutor(1, name)
        self._running = self._thread.submit(self.run_forever)

    def do(self, story: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine there, and wait for it."""
        return asyncio.run_coroutine_threadsafe(story, self).result(PATIENCE)

    def forget(self) -> None:
        """Begin anew, once all that is due has been done."""
        self.do(_rest())
        self.dearest, self.where = 0.0, ""

    def cost(self) -> float:
        """Return the seconds of the dearest callback, once all that is due has been done."""
        self.do(_rest())
        return self.dearest

    def end(self) -> None:
        self.call_soon_threadsafe(self.stop)
        self._running.result(PATIENCE)
        self._thread.shutdown()
        self.close()

    def took(self, seconds: float, handle: Handle) -> None:
        if seconds > self.dearest:
            self.dearest, self.where = seconds, repr(handle)


async def _rest() -> None:
    for _ in range(8):
        await asyncio.sleep(0)


def _measured(handle: Any) -> object:
    loop = handle._loop
    if not isinstance(loop, MeasuredLoop):
        return _RUN(handle)
    before, _collected.spent = time.thread_time(), 0.0
    try:
        return _RUN(handle)
    finally:
        loop.took(time.thread_time() - before - _collected.spent, handle)


class _Collected(threading.local):
    begun = spent = 0.0


_collected = _Collected()


def _collecting(phase: str, info: Mapping[str, int]) -> None:
    """Leave out the collector's look at all there is: it takes as long as there is much of it, in any callback."""
    if info["generation"] < 2:
        return
    if phase == "start":
        _collected.begun = time.thread_time()
    else:
        _collected.spent += time.thread_time() - _collected.begun


@contextmanager
def measured(*names: str) -> Iterator[tuple[MeasuredLoop, ...]]:
    """Run loops of these names, as a process does: what was loaded before is not looked through for garbage."""
    Handle._run = _measured  # type: ignore[method-assign,assignment]  # for the time of the measuring
    gc.collect()
    gc.freeze()
    gc.callbacks.append(_collecting)
    loops = tuple(map(MeasuredLoop, names))
    try:
        yield loops
    finally:
        for loop in loops:
            loop.end()
        gc.callbacks.remove(_collecting)
        gc.unfreeze()
        Handle._run = _RUN  # type: ignore[method-assign]  # as it was


def _work() -> object:
    """Do what the callbacks do that are measured: build, look up, read, search."""
    made = {f"k{n}": [n, str(n), {"a": n}] for n in range(400)}
    text = json.dumps(made)
    return len(json.loads(text)) + len(_WORDS.findall(text)) + len(sorted(text[:4_000]))


def pace() -> float:
    """Return how many times slower than the calm machine this one is now; never less than 1."""

    def once() -> float:
        before = time.thread_time()
        _work()
        return time.thread_time() - before

    return max(1.0, min(once() for _ in range(7)) / CALM)


def best(measure: Callable[[], float], bound: float, tries: int = 5) -> float:
    """Return the least of a few measurements, in multiples of ``bound`` as far as it can be kept here and now.

    The first that is within ends it: what disturbs only adds.
    """
    least = float("inf")
    for _ in range(tries):
        cost = measure()
        least = min(least, cost if cost <= bound else cost / pace())
        if least <= bound:
            break
    return least
