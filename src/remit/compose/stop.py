"""Ending everything, with the broker or without it: for when one does not answer, or is not to be trusted any more."""

from __future__ import annotations

import asyncio
import queue
import signal
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from threading import Thread
from typing import Any

from remit.compose import wiring
from remit.compose.wiring import Application
from remit.config.settings import Places, Settings, load
from remit.core.task import Closure
from remit.errors import RemitError, UnavailableError
from remit.process import owner
from remit.sdk import Client, Place, verbs
from remit.stores import private
from remit.web.wire import instant

FIRST = 2.0  # seconds that a broker has to answer
EACH = 6.0  # seconds that it has for each task: it answers in five
ENDING = 20.0  # seconds that it has to end by itself
NOBODY = "no broker serves this state"

Json = dict[str, Any]
Say = Callable[[str], None]


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
    settings = load(environ)
    where = settings.places
    if where.control.exists():
        try:
            return Stopped(_asked(where, say))
        except RemitError as error:
            say(f"the broker does not do it: {error.detail}")
    database = where.state / "remit.db"
    if not database.exists():
        return Stopped([])
    killed = owner.end(database, signal.SIGKILL, private.holder(where.state / "lock"))
    say(NOBODY if killed is None else f"process {killed} and all that it started were killed")
    return Stopped(asyncio.run(_ended(settings, say)), killed)


def down(environ: Mapping[str, str]) -> int | None:
    """Have the broker of this state end its runs, and then itself; return its process, None if there is none.

    One that does not answer in time is told to end all the same: then its runs wait for the next one.
    """
    where = load(environ).places
    if where.control.exists():
        with suppress(RemitError), Client(Place(where.control)) as client:
            client.run(verbs.end_runs())
    return owner.end(where.state / "remit.db", signal.SIGTERM, private.holder(where.state / "lock"), ENDING)


def _asked(where: Places, say: Say) -> list[Json]:
    """Have the broker end every task; UnavailableError once it keeps us waiting."""
    told: queue.SimpleQueue[Json | list[Json] | RemitError] = queue.SimpleQueue()

    def ask() -> None:
        try:
            with Client(Place(where.control)) as client:
                told.put(client.run(verbs.tasks()))
                for task_id in iter(names.get, ""):
                    told.put({"task": task_id, **asdict(client.run(verbs.close(task_id)))})
        except RemitError as error:
            told.put(error)

    def heard(seconds: float) -> Any:
        try:
            answer = told.get(timeout=seconds)
        except queue.Empty:
            raise UnavailableError(f"it does not answer within {seconds:g} seconds") from None
        if isinstance(answer, RemitError):
            raise answer
        return answer

    names: queue.SimpleQueue[str] = queue.SimpleQueue()
    Thread(target=ask, daemon=True).start()
    ended = list[Json]()
    for task in heard(FIRST):
        names.put(task["task"])  # a closed one may have left something at a target
        answer = heard(EACH)
        if not task["closed"] or answer["state"] != Closure.CLOSED:
            ended.append(answer)
            say(_said(answer))
    names.put("")
    return ended


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
    """End every task in a state that was loaded, and visit the targets of all that is left."""
    headers = await app.broker.tasks(app.operator)
    await asyncio.gather(*(app.broker.retry_leases(header.id) for header in headers))
    reports = await asyncio.gather(*(app.broker.close(app.operator, header.id) for header in headers))
    pairs = zip(headers, reports, strict=True)
    told = [(head, report) for head, report in pairs if not head.closed or report.state is not Closure.CLOSED]
    tasks = [{"task": head.id, **report.wire(instant)} for head, report in told]
    for task in tasks:
        say(_said(task))
    return tasks
