"""Ending everything, with the broker or without it: for when one does not answer, or is not to be trusted any more."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from remit.compose import wiring
from remit.compose.embedded import reached
from remit.compose.wiring import Application
from remit.config.settings import Places, Settings, load
from remit.core.lease import Closure
from remit.core.task import TaskHeader
from remit.errors import RemitError, UnavailableError
from remit.process import owner
from remit.sdk import AsyncClient, Client, Place, verbs
from remit.sdk.verbs import Report
from remit.stores import private
from remit.web.wire import instant

FIRST = 2.0  # seconds that a broker has to answer
EACH = 6.0  # seconds that it has for each task: it answers in five, unless a target hangs
AT_ONCE = 64  # tasks that it is asked to end at a time: its socket takes twice as many connections
ENDING = 20.0  # seconds that it has to end by itself
NOBODY = "no broker serves this state"

Json = dict[str, Any]
Say = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Stopped:
    """What came of it: the answer for each task, and the broker that was killed for not answering, if one was."""

    tasks: Sequence[Json]
    killed: int | None = None

    @property
    def outstanding(self) -> bool:
        """Whether something may still act."""
        return any(task["state"] != Closure.CLOSED for task in self.tasks)


def stop_all(environ: Mapping[str, str], say: Say) -> Stopped:
    """End every task: have the broker do it, or, where it does not answer in time, kill it and do it ourselves."""
    settings, where = load(environ), reached(environ)
    if where.control.exists():
        try:
            return Stopped(asyncio.run(_asked(where, say)))
        except RemitError as error:
            say(f"the broker does not do it: {error.detail}")
    if not where.database.exists():
        return Stopped([])
    killed = owner.end(where.database, signal.SIGKILL, private.holder(where.lock))
    say(NOBODY if killed is None else f"process {killed} and all that it started were killed")
    return Stopped(asyncio.run(_ended(settings, say)), killed)


def down(environ: Mapping[str, str]) -> int | None:
    """Have the broker of this state end its runs, and then itself; return its process, None if there is none.

    One that does not answer in time is told to end all the same: then its runs wait for the next one.
    """
    where = reached(environ)
    if owner.holder(where.database, private.holder(where.lock)) is None:  # systemd would start one
        return None
    if where.control.exists():
        with suppress(RemitError), Client(Place(where.control)) as client:
            client.run(verbs.end_runs())
    return owner.end(where.database, signal.SIGTERM, private.holder(where.lock), ENDING)


async def _asked(where: Places, say: Say) -> list[Json]:
    """Have the broker end every task, side by side, as one may wait long for a target that does not answer.

    UnavailableError once the broker keeps us waiting. What a task waits for at its targets is not that: it has ended,
    and the broker goes on trying.
    """
    async with AsyncClient(Place(where.control)) as client:

        async def closed(task: Json) -> Json | None:
            async with room:
                report = await _heard(client.run(verbs.close(task["task"])), EACH)
            answer = None if report is None else {"task": task["task"], **asdict(report)}
            if answer is not None and (not task["closed"] or answer["state"] != Closure.CLOSED):
                say(_said(answer))
                told.append(answer)
            return answer

        told, room = list[Json](), asyncio.Semaphore(AT_ONCE)
        tasks = await _listed(client)  # a closed one may have left something at a target
        answers = await asyncio.gather(*map(closed, tasks))
        late = {task["task"] for task, answer in zip(tasks, answers, strict=True) if answer is None}
        if not late <= {task["task"] for task in (await _listed(client) if late else []) if task["closed"]}:
            raise UnavailableError(f"it does not answer within {EACH:g} seconds")
    for task_id in sorted(late):
        told.append({"task": task_id, **asdict(Report(Closure.UNKNOWN, 0, [], 0))})
        say(_said(told[-1]))
    return told


async def _listed(client: AsyncClient) -> list[Json]:
    found = await _heard(client.run(verbs.tasks()), FIRST)
    if found is None:
        raise UnavailableError(f"it does not answer within {FIRST:g} seconds")
    return found


async def _heard(asked: Awaitable[T], seconds: float) -> T | None:
    """Return an answer; None: there was none in time."""
    with suppress(TimeoutError):
        return await asyncio.wait_for(asked, seconds)
    return None


def _said(task: Json) -> str:
    return f"{task['task']}: {task['state']}"


async def _ended(settings: Settings, say: Say) -> list[Json]:
    """Take the state, and end every task in it."""
    app = wiring.build(settings)
    try:
        await app.broker.load()
        return await ended(app, say)
    finally:
        await app.broker.stop()


async def ended(app: Application, say: Say) -> list[Json]:
    """End every task in a state that was loaded, and visit the targets of all that is left. None waits for another."""

    async def end(head: TaskHeader) -> Json | None:
        report = await app.broker.close(app.operator, head.id)
        if report.state is not Closure.CLOSED:  # what was put off after a failure is visited as well
            await app.broker.retry_leases(head.id)
            report = await app.broker.close(app.operator, head.id)
        if head.closed and report.state is Closure.CLOSED:
            return None
        task = {"task": head.id, **report.wire(instant)}
        say(_said(task))
        return task

    ended = await asyncio.gather(*map(end, await app.broker.tasks(app.operator)))
    return [task for task in ended if task is not None]
