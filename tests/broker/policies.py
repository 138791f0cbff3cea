"""Policies and stores to reload under: what the tests of the ceiling share."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from remit.broker import Broker
from remit.core.audit import Event
from remit.core.policy import Decision, Question
from remit.core.request import GrantRequest
from remit.core.scope import Access
from remit.core.task import Change, Grant, Task
from remit.errors import GrantEndedError, UnavailableError
from remit.ports import Write
from tests.broker.world import SEARCH, details, holder
from tests.grant_requests import changed
from tests.support.memory_store import MemoryStore

GET = Access("search", "GET", "/v1/search")


@dataclass
class Rule:
    """A policy that denies what ``denies`` says, and remembers what it was asked."""

    version: str
    denies: Callable[[Question], bool] = lambda _: False
    questions: list[Question] = field(default_factory=list)
    first: asyncio.Event = field(default_factory=asyncio.Event)

    def __call__(self, question: Question) -> Decision:
        self.questions.append(question)
        self.first.set()
        if self.denies(question):
            return Decision(allowed=False, reasons=("`no` forbids it",), offending=question.scope, version=self.version)
        return Decision(allowed=True, reasons=("`yes` permits it",), version=self.version)


@dataclass
class Brittle(MemoryStore):
    """A memory store whose commits and reads can be held back, and whose changes of tasks can be told to fail."""

    gate: asyncio.Event | None = None
    waiting: asyncio.Event = field(default_factory=asyncio.Event)
    hold: asyncio.Event | None = None
    unreadable: bool = False
    fail: list[Exception] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    async def load(self, task_id: str) -> Task:
        if self.hold is not None:
            self.waiting.set()
            await self.hold.wait()
        if self.unreadable:
            raise UnavailableError
        return await super().load(task_id)

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        if self.fail and any(isinstance(write, Change) for write in writes):
            failure = self.fail.pop(0)
            if self.gate is not None:
                self.waiting.set()
                await self.gate.wait()
            raise failure
        await super().commit(writes, events)


def forbids(resource: str, verb: str | None = None) -> Rule:
    """Return a policy that denies one resource, for one verb or for all."""
    return Rule(
        f"no-{resource}",
        lambda q: any(d.resource == resource for d in q.scope) and verb in {None, q.verb},
    )


async def child(broker: Broker, parent: Grant, *raw: dict[str, object], **more: object) -> Grant:
    """Delegate to a child of ``parent``."""
    wanted = changed(GrantRequest(details(*(raw or (SEARCH,)))), more)
    return (await broker.delegate(holder(broker, parent), parent.id, wanted)).grant


def ended(broker: Broker, grant: Grant) -> bool:
    """Whether a grant is not accepted any more."""
    try:
        broker._tasks.check(grant.id)
    except GrantEndedError:
        return True
    return False
