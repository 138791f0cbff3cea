"""Humans who log in at an issuer and open tasks, and a store that fails when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from remit.broker import Broker
from remit.core.audit import Event
from remit.core.policy import Decision, Question
from remit.core.principal import Human, Signal
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Grant, Subject
from remit.errors import GrantEndedError
from remit.ports import Write
from tests.broker.world import SEARCH, START, TABLE, World, details
from tests.support.memory_store import MemoryStore

ALICE, BOB = "https://idp.test#alice", "https://idp.test#bob"
ONE, TWO = "https://idp.test#session-1", "https://idp.test#session-2"


def everybody(question: Question) -> Decision:
    """Allow whatever resources allow, to any human."""
    del question
    return Decision(allowed=True, reasons=("anybody may",), version="test-1")


class Brittle(MemoryStore):
    """A memory store whose next writes can be told to fail, or to wait."""

    def __init__(self) -> None:
        super().__init__()
        self.fail: list[Exception] = []
        self.gate: asyncio.Event | None = None
        self.reached = asyncio.Event()  # that somebody waits for it

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        if writes and self.gate is not None:
            self.reached.set()
            await self.gate.wait()
        if writes and self.fail:
            raise self.fail.pop(0)
        await super().commit(writes, events)


@dataclass
class Issuer:
    """Logs humans in at a broker, each with a token that was never seen before."""

    world: World = field(default_factory=lambda: World(store=Brittle(), decide=everybody))
    tokens: int = 0

    @property
    def store(self) -> Brittle:
        assert isinstance(self.world.store, Brittle)
        return self.world.store

    def human(self, sub: str = ALICE, sid: str | None = ONE, *, at: datetime | None = None) -> Human:
        """Return a human by a new ID token; ``at`` is when they logged in."""
        self.tokens += 1
        now = self.world.now
        subject = Subject(sub, "urn:test:password", auth_time=at, sid=sid)
        return Human(subject, f"token-{self.tokens}", now, now + timedelta(minutes=10), "remit")

    async def opened(self, broker: Broker, sub: str = ALICE, sid: str | None = ONE) -> Grant:
        """Open a task as a human who has just logged in."""
        wanted = GrantRequest(details(TABLE, SEARCH), Bounds(timedelta(minutes=15), depth=1, fan_out=1))
        return (await broker.open(self.human(sub, sid), replace(wanted, purpose="draft the CFO summary"))).grant


def said(sub: str | None = ALICE, sid: str | None = None, digest: str = "event-1") -> Signal:
    """Return what an issuer said."""
    return Signal(START, "session-revoked", digest, sub, sid)


def alive(broker: Broker, grant: Grant) -> bool:
    """Whether a grant is accepted."""
    try:
        broker._tasks.check(grant.id)
    except GrantEndedError:
        return False
    return True
