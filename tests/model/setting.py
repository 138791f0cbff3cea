"""A broker on the memory store and a simulated target, with time and ids in the test's hands."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from remit.broker import Broker
from remit.broker.begun import unwaited
from remit.core import scope
from remit.core.audit import Event
from remit.core.lease import LeaseState, Revocation
from remit.core.principal import Operator
from remit.core.request import GrantRequest
from remit.core.scope import Detail
from remit.core.secret import Secret
from remit.core.task import Plan, Subject, Task
from remit.errors import NotFoundError
from remit.ports import Engine, Issued, Resource, Store, Write
from tests.broker.world import ClearSealer
from tests.grant_requests import changed
from tests.model.schedule import Actor
from tests.support.kinds import register, serving
from tests.support.memory_store import MemoryStore
from tests.support.simulated_target import BulkEngine, SimulatedEngine, SimulatedTarget

T = TypeVar("T")

register()  # also where no test session did: in a program that breaks on purpose

START = datetime(2026, 1, 1, tzinfo=UTC)
OWNER = Operator(Subject("unix://host#1000", "local-uid"))
TABLES = ["sales.a", "sales.b", "sales.c", "sales.d"]
WIDE: dict[str, object] = {
    "type": "postgres",
    "resource": "warehouse",
    "actions": ["select", "insert"],
    "tables": TABLES,
}
READ: dict[str, object] = {**WIDE, "actions": ["select"], "tables": ["sales.a"], "ttl": 60}
ANYWHERE: dict[str, object] = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/**"]}
SEARCH: dict[str, object] = {**ANYWHERE, "uses": 10}
RESOURCES = (
    Resource("warehouse", "postgres", "postgresql://remit@127.0.0.1:1/db", scope.parse([WIDE]), None, {}),
    Resource("search", "http", "https://search.test", scope.parse([{**ANYWHERE, "args": "any"}]), None, {}),
)


def detail(raw: Mapping[str, object]) -> Detail:
    """Read one detail."""
    return scope.parse_detail(raw)


def wanted(*raw: Mapping[str, object], **more: object) -> GrantRequest:
    """Return what an open or a delegate asks for."""
    details = scope.parse([dict(item) for item in raw])
    return changed(GrantRequest(details), more)


async def at_once(call: Awaitable[T], *_: object) -> T:
    """Wait for an engine, or the store, without a deadline: time is the test's."""
    return await call


@dataclass
class Setting:
    """One state directory, one target, one clock; brokers come and go."""

    revocation: Revocation = Revocation.BY_NAME
    bulk: bool = False
    store: Store = field(default_factory=MemoryStore)
    now: datetime = START
    ids: itertools.count[int] = field(default_factory=lambda: itertools.count(1))
    target: SimulatedTarget = field(init=False)
    in_flight: list[tuple[Plan, datetime]] = field(default_factory=list)
    unwaited: list[Actor] = field(default_factory=list)  # what a broker goes on with by itself

    def __post_init__(self) -> None:
        self.target = SimulatedTarget(lambda: self.now, self.revocation)

    def broker(self, store: Store | None = None) -> Broker:
        """Return a broker on the state, not started."""
        return Broker(
            store=store or self.store,
            **serving(self.engine),
            sealer=ClearSealer(),
            clock=lambda: self.now,
            new_id=lambda prefix: f"{prefix}_{next(self.ids)}",
            bounded=at_once,
            in_time=at_once,
            unwaited=self.go_on,
        )

    def go_on(self, work: Coroutine[Any, Any, object]) -> None:
        """Begin work that nobody waits for, and leave the rest of it to the schedule; on a loop, to that."""
        with suppress(RuntimeError):  # there is no loop, but a schedule
            asyncio.get_running_loop()
            unwaited(work)
            return
        actor = Actor("unwaited", work)
        actor.advance()
        if not actor.over:
            self.unwaited.append(actor)

    def engine(self, _: Resource, __: Secret | None) -> Engine:
        """Return an engine on the target."""
        return BulkEngine(self.target) if self.bulk else InFlightEngine(self.target, self.in_flight)

    def land(self) -> None:
        """Let requests arrive that were sent by a broker which is no more."""
        while self.in_flight:
            plan, expires_at = self.in_flight.pop()
            if self.now < plan.issue_by:
                self.target.create(plan, expires_at)

    async def ready(self) -> Broker:
        """Return a broker that is started and has the resources."""
        broker = self.broker()
        await broker.start()
        for resource in RESOURCES:
            await broker.put_resource(OWNER, resource)
        return broker

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    async def tasks(self) -> list[Task]:
        """Return all tasks as they are stored."""
        return [await self.store.load(task_id) for task_id in await self.store.tasks(1_000)]

    async def wrong(self) -> list[str]:
        """Return what works at the target although nothing that is live says so."""
        entitled: dict[str, datetime] = {}
        for task in await self.tasks():
            for lease in task.leases.values():
                if lease.state is LeaseState.ACTIVE and alive(task, lease.grant, self.now):
                    entitled[(lease.receipt or {}).get("handle", lease.plan.name)] = task.grants[lease.grant].expires_at
        live = self.target.live()
        return [name for name, end in live.items() if name not in entitled or end > entitled[name]]


class YieldingStore(MemoryStore):
    """Lets others go first before each answer, as a store with a medium does."""

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        await super().commit(writes, events)
        await asyncio.sleep(0)


class InFlightEngine(SimulatedEngine):
    """Remembers what was sent and has not arrived, so that it can arrive late."""

    def __init__(self, target: SimulatedTarget, in_flight: list[tuple[Plan, datetime]]) -> None:
        super().__init__(target)
        self.in_flight = in_flight

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        self.in_flight.append((plan, expires_at))
        await self.target.gate("issue", "sent")
        self.in_flight.remove((plan, expires_at))
        return await super().issue(plan, expires_at)


def alive(task: Task, grant_id: str, now: datetime) -> bool:
    """Whether a grant is live as stored."""
    try:
        task.live(grant_id, now)
    except NotFoundError:
        raise
    except Exception:  # noqa: BLE001 - any other refusal means no
        return False
    return True
