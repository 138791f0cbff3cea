"""A broker whose state is on a disk that is full, in a mount namespace of its own; prints what came of a revoke.

Run as ``unshare -rm python -m tests.live.full_disk_driver DIRECTORY kept|used|eaten``: the room that is kept for ends
is there, or was used up before, or an agent has ended children of its own and used what that may have freed.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from remit.broker import Broker
from remit.core.scope import Access
from remit.errors import GrantEndedError, RemitError, UnavailableError
from remit.keys.file import FileSealer
from remit.stores.sqlite import SqliteStore
from tests.model.setting import OWNER, READ, SEARCH, WIDE, Setting, detail, wanted
from tests.uses import permitted_use

CHILDREN = 20  # more than there are steps in the room that is kept


def fill(place: Path) -> None:
    """Take all the room that there is."""
    with (place / "hog").open("wb", buffering=0) as file:
        try:
            while file.write(bytes(4_096)):
                pass
        except OSError:
            return


async def used_up(broker: Broker, grant: str) -> str | None:
    """Use a grant until the disk takes no more; return why it was refused."""
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


async def scene(place: Path, room: str) -> dict[str, object]:
    """Open, issue, fill the disk, revoke, make room, sweep; and look again with another broker."""
    store = SqliteStore(place / "state", FileSealer(bytes(32)))
    setting = Setting(store=store)
    broker = await setting.ready()
    asked = wanted(WIDE, {**SEARCH, "uses": 100_000}, ttl=timedelta(minutes=30), depth=1, fan_out=CHILDREN)
    root = (await broker.open(OWNER, replace(asked, purpose="fill the disk"))).id
    child = wanted(SEARCH, ttl=timedelta(minutes=5))
    children = [(await broker.delegate(OWNER, root, child)).id for _ in range(CHILDREN if room == "eaten" else 0)]
    for _ in range(3):
        await broker.issue(OWNER, root, detail(READ))
    if room == "used":
        os.truncate(place / "state" / "reserve", 0)
    fill(place)
    for name in children:
        await used_up(broker, root)
        await broker.revoke(OWNER, name)
    seen: dict[str, object] = {"use": await used_up(broker, root), "before": len(setting.target.live())}
    report = await broker.revoke(OWNER, root)
    seen |= {"state": report.state, "recorded": report.recorded, "live": len(setting.target.live())}
    seen |= {"check": refused(broker, root), "use after": await used_up(broker, root)}
    try:
        await broker.open(OWNER, replace(asked, purpose="more"))
    except UnavailableError:
        seen["open"] = "unavailable"
    stored = await store.load(broker._tasks.task_of(root).id)
    seen["stored"] = stored.head.closed
    (place / "hog").unlink()
    setting.later(9)
    await broker.sweep()
    await broker.stop()
    again = setting.broker(SqliteStore(place / "state", FileSealer(bytes(32))))
    await again.start()
    seen["restarted"] = refused(again, root)
    await again.stop()
    return seen


def main() -> None:
    """Mount, play, print."""
    place = Path(sys.argv[1])
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(place)], check=True)
    print(json.dumps(asyncio.run(scene(place, sys.argv[2]))))  # noqa: T201 - read by the test


if __name__ == "__main__":
    main()
