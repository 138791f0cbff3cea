"""A broker whose state is on a file system that fails, in a mount namespace of its own; prints what came of a revoke.

Run as ``unshare -rm python -m tests.live.faulty_disk_driver DIRECTORY FAULT``. A first process opens a task, issues,
has the fault happen, revokes and is killed; a second one starts on what is left, while the fault lasts if it can.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from remit.broker import Broker
from remit.broker.checkpoints import Checkpoints
from remit.core.audit import Checkpoint
from remit.core.scope import Access
from remit.errors import GrantEndedError, RemitError, UnavailableError
from remit.keys.file import FileSealer
from remit.stores.sqlite import SqliteStore
from tests.model.setting import OWNER, READ, SEARCH, WIDE, Setting, detail, wanted
from tests.uses import permitted_use

LOCKING = """
import sqlite3, sys
held = sqlite3.connect(sys.argv[1], isolation_level=None)
held.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
"""


class Stalled:
    """A second place that never answers."""

    async def last(self) -> Checkpoint | None:
        await asyncio.Event().wait()
        return None

    async def keep(self, size: int, root: bytes, epoch: int, known: Checkpoint | None) -> tuple[Checkpoint, bool]:
        del size, root, epoch, known
        await asyncio.Event().wait()
        raise AssertionError


class Unsynced:
    """A connection on a disk that takes what is written and fails when it is to be durable."""

    def __init__(self, connection: sqlite3.Connection, code: int) -> None:
        self._connection, self._code = connection, code

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement == "COMMIT":
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = self._code
            raise error
        return self._connection.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)


def fill(place: Path) -> None:
    """Take all the room that there is."""
    with (place / "hog").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4_096)):
                pass
        except OSError:
            return


def crowd(place: Path) -> None:
    """Take all the names that there are."""
    try:
        for number in range(100_000):
            (place / f"name-{number}").touch()
    except OSError:
        return


def fail(fault: str, place: Path, store: SqliteStore, broker: Broker) -> None:
    """Have something fail, until the process is killed."""
    writer: Any = store._writer
    if fault in {"full", "full and stalled"}:
        fill(place)
    elif fault == "no names":
        crowd(place)
    elif fault == "read-only":
        remounted = subprocess.run(["mount", "-o", "remount,ro", str(place)], check=False, capture_output=True)
        assert remounted.returncode, "a file system on which a broker writes cannot be made read-only under it"
        writer.connection = Unsynced(writer.connection, sqlite3.SQLITE_READONLY)
    elif fault == "fsync":
        writer.connection = Unsynced(writer.connection, sqlite3.SQLITE_IOERR_FSYNC)
    elif fault == "locked":
        command = [sys.executable, "-c", LOCKING, str(place / "state" / "remit.db")]
        holding = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # to the end of our pipe
        assert holding.stdout is not None
        holding.stdout.readline()
    if "stalled" in fault:
        broker.checkpoints = Checkpoints(broker._tasks, broker._revoker, Stalled())


def make_room(place: Path) -> None:
    """Take back what filled the disk."""
    for path in (place / "hog", *place.glob("name-*")):
        path.unlink(missing_ok=True)


async def used_up(broker: Broker, grant: str) -> str | None:
    """Use a grant until the medium takes no more; return why it was refused."""
    for number in range(5_000):
        try:
            await permitted_use(broker, grant, Access("search", "GET", path="/x"), f"req_{number}")
        except RemitError as error:
            return error.code
    return None


def refused(broker: Broker, grant: str) -> str | None:
    """Return why a grant is not live, if it is not."""
    try:
        broker._tasks.check(grant)
    except GrantEndedError as error:
        return error.code
    return None


async def played(place: Path, fault: str) -> None:
    """Open, issue, have it fail, revoke; say what came of it, and die."""
    store = SqliteStore(place / "state", FileSealer(bytes(32)))
    setting = Setting(store=store)
    broker = await setting.ready()
    asked = wanted(WIDE, {**SEARCH, "uses": 100_000}, ttl=timedelta(minutes=30), depth=1, fan_out=2)
    root = (await broker.open(OWNER, replace(asked, purpose="fill the disk"))).id
    other = (await broker.open(OWNER, replace(asked, purpose="something else"))).id
    for _ in range(3):
        await broker.issue(OWNER, root, detail(READ))
    seen: dict[str, object] = {"root": root, "other": other}
    fail(fault, place, store, broker)
    if fault.startswith("full"):
        seen["use"] = await used_up(broker, root)
    seen["before"], started = len(setting.target.live()), time.monotonic()
    report = await broker.revoke(OWNER, root)
    seen |= {"seconds": time.monotonic() - started, "state": report.state, "recorded": report.recorded}
    seen |= {"live": len(setting.target.live()), "check": refused(broker, root)}
    if not report.recorded:
        try:
            await broker.open(OWNER, replace(asked, purpose="more"))
        except UnavailableError:
            seen["open"] = "unavailable"
    print(json.dumps(seen), flush=True)  # noqa: T201 - read by the parent
    os.kill(os.getpid(), signal.SIGKILL)


async def looked_at(place: Path, root: str, other: str) -> None:
    """Start once more; say what has ended, and what of it is on record when there is room again."""
    setting = Setting(store=SqliteStore(place / "state", FileSealer(bytes(32))))
    again = setting.broker(setting.store)
    await again.start()
    seen: dict[str, object] = {"restarted": refused(again, root), "other": refused(again, other)}
    make_room(place)
    setting.later(9)
    await again.sweep()
    stored = await setting.store.load(again._tasks.task_of(root).id)
    seen |= {"stored": stored.head.closed, "noted": list(await setting.store.noted_ends())}
    print(json.dumps(seen), flush=True)  # noqa: T201 - read by the parent
    await again.stop()


def main(place: Path, fault: str) -> None:
    """Mount, have it played in a process that dies, and looked at in another."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m,nr_inodes=64", "tmpfs", str(place)], check=True)

    def said(*words: str) -> dict[str, Any]:
        command = [sys.executable, "-m", "tests.live.faulty_disk_driver", str(place), *words]
        done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True)
        return dict(json.loads(done.stdout)) if done.stdout else {"died": done.returncode}

    first = said("play", fault)
    print(json.dumps({**first, "again": said("look", first["root"], first["other"])}))  # noqa: T201 - read by the test


ROLES: dict[str, Callable[..., Any]] = {"play": played, "look": looked_at}

if __name__ == "__main__":
    if sys.argv[2] in ROLES:
        asyncio.run(ROLES[sys.argv[2]](Path(sys.argv[1]), *sys.argv[3:]))
    else:
        main(Path(sys.argv[1]), sys.argv[2])
