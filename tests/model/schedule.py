"""A scheduler over coroutines: every interleaving with few preemptions, and a death or a cancellation at every step.

A coroutine is advanced by hand from one ``pause`` to the next; nothing else in the broker waits. Explored depth first:
a schedule is the list of choices made so far, and the next one is the last that still has an untried choice.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from remit.core.audit import Event
from remit.errors import UnavailableError
from remit.ports import Record, Write
from tests.model.mortal import Died
from tests.support.memory_store import MemoryStore

Until = Callable[[], bool]


class _Pause:
    def __init__(self, until: Until) -> None:
        self._until = until

    def __await__(self) -> Generator[Until, None, None]:
        yield self._until


async def pause(until: Until = lambda: True) -> None:
    """Let others go first; go on when ``until`` holds."""
    await _Pause(until)


@dataclass
class _Waiting:
    writes: Sequence[Write]
    events: Sequence[Event]
    error: Exception | None = None


class QueueStore(MemoryStore):
    """A store with group commit: what is called is queued in order, and durable when the first of the queue goes on.

    What is still queued when the process dies is lost.
    """

    def __init__(self) -> None:
        super().__init__()
        self.queue: list[_Waiting] = []
        self.answers: list[_Waiting] = []
        self.dead = False
        self.broken = False  # the next flush fails

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        if self.dead:
            raise Died
        mine = _Waiting(writes, events)
        self.queue.append(mine)
        self.answers.append(mine)
        try:
            await pause()
            await self.flush()
            await pause(lambda: self.answers[0] is mine)  # answers come in the order of calls
        finally:
            self.answers.remove(mine)
        if mine.error is not None:
            raise mine.error

    async def flush(self) -> None:
        """Make all that is queued durable, in order."""
        while self.queue:
            first = self.queue.pop(0)
            try:
                if self.broken:
                    raise UnavailableError  # noqa: TRY301 - the medium fails
                await super().commit(first.writes, first.events)
            except Exception as error:  # noqa: BLE001 - handed to whoever waits for it
                first.error = error
        self.broken = False

    async def load(self, task_id: str) -> Any:
        if self.dead:
            raise Died
        await pause()  # a read is another way to the medium: it sees what is durable, not what is queued
        return await super().load(task_id)

    async def records(self, kind: str) -> Sequence[Record]:
        if self.dead:
            raise Died
        await pause()  # as above
        return await super().records(kind)


@dataclass
class Actor:
    """One coroutine, and what became of it."""

    name: str
    work: Coroutine[Until, None, object]
    result: object = None
    error: BaseException | None = None
    over: bool = False
    ready: Until = lambda: True

    def advance(self) -> None:
        """Go on to the next pause."""
        self._resume(lambda: self.work.send(None))

    def cancel(self) -> None:
        """Be cancelled at the present pause, and run on until that is over."""
        self._resume(lambda: self.work.throw(asyncio.CancelledError()))

    def bury(self) -> None:
        """Let go of a coroutine whose process is no more."""
        with suppress(Died):
            self.work.close()

    def _resume(self, step: Callable[[], Until]) -> None:
        try:
            self.ready = step()
        except StopIteration as stop:
            self.result, self.over = stop.value, True
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - looked at by the test
            self.error, self.over = error, True


@dataclass
class Schedule:
    """One run: which actor goes on at each step, and where somebody dies. Replays ``choices``, then takes the first."""

    preemptions: int
    choices: list[int] = field(default_factory=list)
    options: list[int] = field(default_factory=list)
    at: int = 0

    def choose(self, options: int) -> int:
        """Return the choice for this step."""
        if self.at == len(self.choices):
            self.choices.append(0)
            self.options.append(options)
        self.options[self.at] = options
        self.at += 1
        return self.choices[self.at - 1]

    def following(self) -> Schedule | None:
        """Return the next schedule to try, or None when all have been."""
        choices = list(self.choices)
        while choices and choices[-1] + 1 >= self.options[len(choices) - 1]:
            choices.pop()
        if not choices:
            return None
        choices[-1] += 1
        return Schedule(self.preemptions, choices, self.options[: len(choices)])


Harm = Callable[[Actor], bool]  # done to whoever was last to go on; whether the process is no more


def death(_: Actor) -> bool:
    """End the process."""
    return True


def cancellation(actor: Actor) -> bool:
    """Cancel the actor."""
    actor.cancel()
    return False


def run(actors: Sequence[Actor], schedule: Schedule, look: Callable[[], None], harm: Harm | None = None) -> bool:
    """Run actors to their ends under a schedule, looking after each step. Return whether the process died.

    ``harm`` is done at one step of the schedule's choosing, or at none. There may become more actors meanwhile.
    """
    left = schedule.preemptions
    running: Actor | None = None
    while waiting := [actor for actor in actors if not actor.over and actor.ready()]:
        current = running if running in waiting else None
        if harm and schedule.choose(2):
            if harm(current or waiting[0]):
                return True
            harm = None
        else:
            ready = waiting if current is None else [current]
            ready += [actor for actor in waiting if actor is not current] if current is not None and left else []
            running = ready[schedule.choose(len(ready))] if len(ready) > 1 else ready[0]
            left -= current is not None and running is not current
            running.advance()
        look()
    assert all(actor.over for actor in actors), "everybody waits for somebody"
    return False


def schedules(preemptions: int) -> Iterator[Schedule]:
    """Yield every schedule; each must have been run before the next is asked for."""
    schedule: Schedule | None = Schedule(preemptions)
    while schedule is not None:
        yield schedule
        schedule = schedule.following()


def alone(work: Awaitable[object], unwaited: Sequence[Actor] = ()) -> object:
    """Run one coroutine from start to end, then those that go on by themselves, in the order they began."""

    async def wrapped() -> object:
        return await work

    actor = Actor("alone", wrapped())
    for each in itertools.chain((actor,), unwaited):
        while not each.over:
            each.advance()
    if actor.error is not None:
        raise actor.error
    return actor.result


__all__ = ["Actor", "Harm", "QueueStore", "Schedule", "alone", "cancellation", "death", "pause", "run", "schedules"]
