"""One end of a link in a process of its own: `python -m tests.link.far_process {worker|authority} CALLS ENDS [GRANT]`.

The worker uses its grant without end; the authority serves a grant. Each says on stdout which, once it does.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
import sys

import uvloop

from remit.compose.kinds import known
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.link.frames import LinkSockets
from remit.link.worker import connect
from tests.broker.world import SEARCH, World
from tests.link.two_ends import Heard, served

FOREVER = {**SEARCH, "uses": 1_000_000}


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def worker(sockets: LinkSockets, grant: str) -> None:
    link = await connect(sockets, Heard(), lambda: os._exit(3))
    await link.authority.redeem_run(Secret(grant))
    _say(grant)
    for number in itertools.count():
        await link.authority.use(grant, Access("search", "GET", "/v1/x"), f"req_a.{number}", 0)


async def authority(sockets: LinkSockets) -> None:
    world = World()
    broker = await world.ready()
    root = await world.opened(broker, FOREVER)
    held = await served(world, broker, sockets)
    _say(root.id)
    await asyncio.Event().wait()
    del held


def main(role: str, calls: str, ends: str, *grant: str) -> None:
    known()
    sockets = LinkSockets(socket.socket(fileno=int(calls)), socket.socket(fileno=int(ends)))
    uvloop.run(worker(sockets, *grant) if role == "worker" else authority(sockets))


if __name__ == "__main__":
    main(*sys.argv[1:])
