"""An answer on its way to the client: a slice a turn of the loop, and no faster than the client takes it.

What inflates is not looked through at one go, whatever its size and however many come together: others get their turns
in between. Until it is, its upstream is not read.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from remit.errors import RemitError
from remit.gateway.answer import Answer


class Receiver(Protocol):
    """Whose answer it is."""

    def deliver(self, data: bytes) -> None:
        """Send bytes to the client, which may be full then."""
        ...

    def hold_upstream(self, *, hold: bool) -> None:
        """Read no more of the upstream for now, or read on."""
        ...

    def delivered(self) -> None:
        """Take note that an answer that is all there is all sent."""
        ...

    def cut(self, error: RemitError) -> None:
        """End it at once: the rest must not be sent."""
        ...


class Turns:
    """What is due in later turns of the loop: one step of one answer in each, of one task after the other."""

    __slots__ = ("_due", "_loop", "_scheduled")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start with nothing due."""
        self._loop = loop
        self._due: dict[str, deque[Callable[[], None]]] = {}  # by task, in the order they came
        self._scheduled = False

    def add(self, task: str, step: Callable[[], None]) -> None:
        """Have a step done when it is its task's turn, and its own."""
        self._due.setdefault(task, deque()).append(step)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._one)

    async def wait(self, task: str) -> None:
        """Wait for a turn of a task."""
        turn = asyncio.Event()
        self.add(task, turn.set)
        await turn.wait()

    def _one(self) -> None:
        task = next(iter(self._due))
        mine = self._due.pop(task)
        step = mine.popleft()
        if mine:
            self._due[task] = mine  # behind the others
        self._scheduled = bool(self._due)
        if self._scheduled:
            self._loop.call_soon(self._one)
        step()


class Delivery:
    """One answer. ``take`` raises what ``Answer.feed`` does."""

    __slots__ = ("_answer", "_done", "_full", "_out", "_receiver", "_task", "_turns", "_waits")

    def __init__(self, receiver: Receiver, answer: Answer, head: bytes, turns: Turns, task: str) -> None:
        """Begin with a head. ``turns`` are taken by ``task``."""
        self._receiver = receiver
        self._answer = answer
        self._turns = turns
        self._task = task
        self._out = [head]
        self._full = False  # the client takes no more for now
        self._done = False  # the upstream has said all
        self._waits = False  # for its turn

    def take(self, payload: bytes, *, done: bool) -> None:
        """Take payload of the body."""
        self._out.append(self._answer.feed(payload, done=done))
        if self._answer.busy:
            self._later()

    def flush(self) -> bool:
        """Pass on what has come together; return whether anything had."""
        if not self._out:
            return False
        data = self._out[0] if len(self._out) == 1 else b"".join(self._out)
        self._out.clear()
        self._receiver.deliver(data)
        return True

    def end(self) -> None:
        """Take note that the upstream has said all."""
        if self._answer.busy:
            self._done = True
        else:
            self._receiver.delivered()

    def writable(self, *, writable: bool) -> None:
        """Take note that the client takes no more, or takes more again."""
        self._full = not writable
        if not self._answer.busy:
            self._receiver.hold_upstream(hold=self._full)
        elif writable:
            self._later()

    def stop(self) -> None:
        """Send no more."""
        self._out.clear()
        self._full = True

    def _later(self) -> None:
        self._receiver.hold_upstream(hold=True)
        if not self._waits:
            self._waits = True
            self._turns.add(self._task, self._go_on)

    def _go_on(self) -> None:
        self._waits = False
        if self._full:
            return
        try:
            self._out.append(self._answer.more())
        except RemitError as error:
            self._receiver.cut(error)
            return
        self.flush()
        if self._answer.busy:
            self._later()
        elif self._done:
            self._receiver.delivered()
        else:
            self._receiver.hold_upstream(hold=self._full)
