"""A broker on a real store that kills itself with SIGKILL at the N-th commit after it heard that a session is over.

Run as ``python -m tests.live.signal_driver STATE STEP``. It prints ``taken`` when the issuer would be answered, and the
number of steps there were when it has told its receiver of everything. STEP 0 is never reached.
"""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from remit.broker import Broker
from remit.core import scope
from remit.core.audit import Event
from remit.core.policy import Decision, Question
from remit.core.principal import Human, Signal
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Subject
from remit.keys.file import FileSealer, load_kek
from remit.ports import Resource, Write
from remit.sessions.revocations import SessionRevocations
from remit.sessions.transmitter import EventStream
from remit.stores.sqlite import SqliteStore
from tests.support.kinds import NOTHING_LENT, register, simulated

ALICE = "https://idp.test#alice"
DETAIL = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}
SAID = Signal(datetime(2026, 1, 1, tzinfo=UTC), "session-revoked", "event-1", ALICE)
TASKS = 3
RECEIVER = "siem"


class DyingStore(SqliteStore):
    """A store whose process dies before or after a commit, once that is armed."""

    die_at = 0
    steps = 0
    armed = False

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        self._step()
        await super().commit(writes, events)
        self._step()

    def _step(self) -> None:
        if self.armed:
            self.steps += 1
            if self.steps == self.die_at:
                os.kill(os.getpid(), signal.SIGKILL)


def anybody(question: Question) -> Decision:
    """Allow everything."""
    del question
    return Decision(allowed=True, reasons=("anybody may",), version="test-1")


def broker(state: Path) -> tuple[Broker, DyingStore]:
    """Return a broker over ``state``."""
    sealer = FileSealer(load_kek(state.parent / "kek", create=not (state.parent / "kek").exists()))
    store = DyingStore(state, sealer)
    made = Broker(
        store=store,
        kinds=simulated(),
        context=NOTHING_LENT,
        sealer=sealer,
        clock=lambda: datetime.now(UTC),
        new_id=lambda prefix: f"{prefix}_{secrets.token_urlsafe(16)}",
        decide=anybody,
        revocations=SessionRevocations,
    )
    return made, store


def alice(token: str) -> Human:
    """Return who has logged in just now."""
    now = datetime.now(UTC)
    return Human(Subject(ALICE, "urn:test:password"), token, now, now + timedelta(minutes=5), "remit")


async def story(state: Path, die_at: int) -> None:
    """Open tasks, hear that their session is over, and tell a receiver of their ends."""
    from tests.broker.world import OPERATOR

    made, store = broker(state)
    await made.start()
    stream = EventStream(made.sessions)
    await stream.pending(RECEIVER, TASKS)
    details = scope.parse([DETAIL])
    await made.put_resource(OPERATOR, Resource("search", "http", "https://search.test", details, None, {}), None)
    for count in range(TASKS):
        await made.open(alice(f"token-{count}"), GrantRequest(details, Bounds(timedelta(minutes=10)), purpose="draft"))
    store.die_at, store.armed = die_at, True
    await made.signal([SAID])
    print("taken", flush=True)  # noqa: T201 - to the test
    for ended in await stream.pending(RECEIVER, TASKS):
        print("told", ended.event.task, flush=True)  # noqa: T201 - to the test
        await stream.acknowledge(RECEIVER, [ended.seq])
    store.armed = False
    await made.stop()
    print("steps", store.steps, flush=True)  # noqa: T201 - to the test


if __name__ == "__main__":
    register()
    asyncio.run(story(Path(sys.argv[1]), int(sys.argv[2])))
