"""What reaches a real database, as a process of its own that kills itself with SIGKILL at its N-th step.

Run as ``python -m tests.live.targets_driver CALLS ENDS STEP`` with the descriptors of its end of a link. A step is the
moment before or after a call of the engine. STEP 0 is never reached.
"""

from __future__ import annotations

import asyncio
import itertools
import os
import secrets
import signal
import socket
import sys
from datetime import UTC, datetime

from remit.core.secret import Secret
from remit.identity.documents import PublishedDocuments
from remit.identity.providers import ReachedProviders
from remit.kinds.engines import HeldEngines
from remit.kinds.postgres.plan import plan
from remit.link.frames import LinkSockets
from remit.link.targets import answer
from remit.ports import Resource
from remit.ports.targets import TargetsPort
from tests.live.crash_driver import DyingEngine
from tests.support.kinds import NOTHING_LENT, register, simulated


class Mortal(HeldEngines, PublishedDocuments, ReachedProviders, TargetsPort):
    """All that a worker has, with an engine that dies."""

    def __init__(self, die_at: int) -> None:
        def make(resource: Resource, secret: Secret | None) -> DyingEngine:
            made = DyingEngine(resource, secret, clock=lambda: datetime.now(UTC), random=secrets.token_bytes)
            made.step = step
            return made

        def step() -> None:
            if next(count) == die_at:
                os.kill(os.getpid(), signal.SIGKILL)

        count = itertools.count(1)
        HeldEngines.__init__(self, simulated(make, plan), NOTHING_LENT)
        PublishedDocuments.__init__(self, {})


async def _main() -> None:
    calls, ends, die_at = map(int, sys.argv[1:])
    sockets = LinkSockets(socket.socket(fileno=calls), socket.socket(fileno=ends))
    worker = await answer(sockets, Mortal(die_at))
    await worker.reports.started()
    await worker.over.wait()
    worker.close()


if __name__ == "__main__":
    register()
    asyncio.run(_main())
