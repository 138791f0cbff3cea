"""A target that hangs, or a medium that fails, holds up the sweep of nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import pytest

from remit.broker import Broker
from remit.core.audit import Event
from remit.core.secret import Secret
from remit.core.task import Grant, Plan, Task
from remit.errors import ExpiredError, UnavailableError
from remit.ports import Engine, Resource, Write
from tests.broker.samples import DETAIL
from tests.broker.world import (
    OPERATOR,
    TABLE,
    FullEngine,
    PlainEngine,
    Target,
    World,
    child,
    details,
    run,
    warehouse,
)
from tests.support.memory_store import MemoryStore

OTHER: Mapping[str, object] = {**TABLE, "resource": "healthy"}


@dataclass
class Hanging(PlainEngine):
    """Answers nothing while it hangs."""

    back: asyncio.Event = field(default_factory=asyncio.Event)
    calls: list[str] = field(default_factory=list)

    async def revoke(self, plan: Plan, receipt: Mapping[str, str] | None) -> None:
        self.calls.append(plan.name)
        await self.back.wait()
        await super().revoke(plan, receipt)


@dataclass
class Two(World):
    """Two databases, of which one hangs when it is to revoke."""

    healthy: Target = field(default_factory=Target)
    hanging: Hanging = field(init=False)

    def __post_init__(self) -> None:
        self.hanging = Hanging(self.target)

    def _engine(self, resource: Resource, _secret: Secret | None) -> Engine:
        return PlainEngine(self.healthy) if resource.name == "healthy" else self.hanging

    async def both(self) -> Broker:
        """Return a broker that knows both."""
        broker = await self.ready()
        resource = warehouse()
        bound = details({**OTHER, "actions": ["select", "insert"], "ttl": 3_600})
        await broker.put_resource(
            OPERATOR, Resource("healthy", "postgres", resource.destination, bound, None, {}), Secret("admin-pw")
        )
        return broker


async def turns(count: int = 200) -> None:
    """Let others go on."""
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.attack("REV-09")
def test_a_database_that_hangs_delays_its_own_leases_alone() -> None:
    async def body() -> None:
        world = Two()
        broker = await world.both()
        stuck = [await world.opened(broker, TABLE) for _ in range(8)]
        for root in stuck:
            await broker.issue(OPERATOR, root.id, DETAIL)
        closing = [asyncio.create_task(broker.close(OPERATOR, broker._tasks.task_of(root.id).id)) for root in stuck]
        await turns()
        root = await world.opened(broker, OTHER, ttl=timedelta(minutes=5))
        await broker.issue(OPERATOR, root.id, details(OTHER)[0])
        sweeps = [asyncio.create_task(broker.sweep())]
        await turns()
        world.later(301)
        sweeps.append(asyncio.create_task(broker.sweep()))  # the one before waits at the database that hangs
        await turns()
        assert world.healthy.accounts == {}
        assert len(world.target.accounts) == 8
        assert not any(done.done() for done in closing)
        with pytest.raises(ExpiredError):
            broker._tasks.check(root.id)
        world.hanging.back.set()
        await asyncio.gather(*sweeps, *closing)
        assert world.target.accounts == {}

    run(body())


@pytest.mark.attack("REV-09")
def test_one_task_with_leases_at_both_ends_the_healthy_one_at_once() -> None:
    async def body() -> None:
        world = Two()
        broker = await world.both()
        root = await world.opened(broker, TABLE, OTHER)
        for raw in (TABLE, OTHER):
            await broker.issue(OPERATOR, root.id, details(raw)[0])
        closing = asyncio.create_task(broker.revoke(OPERATOR, root.id))
        await turns()
        assert (world.healthy.accounts, len(world.target.accounts)) == ({}, 1)
        world.hanging.back.set()
        await closing
        assert world.target.accounts == {}

    run(body())


def test_no_sweep_asks_a_database_that_hangs_a_second_time_while_one_waits_there() -> None:
    async def body() -> None:
        world = Two()
        broker = await world.both()
        for _ in range(3):
            root = await world.opened(broker, TABLE)
            await broker.issue(OPERATOR, root.id, DETAIL)
        world.later(601)
        sweeps = []
        for _ in range(5):
            sweeps.append(asyncio.create_task(broker.sweep()))
            await turns()
            world.later(1)
        assert len(world.hanging.calls) == 1
        world.hanging.back.set()
        await asyncio.gather(*sweeps)
        assert world.target.accounts == {}
        assert len(world.hanging.calls) == 3

    run(body())


async def refused_once(world: Two, broker: Broker) -> list[Grant]:
    """Return the roots of two tasks with a lease each that the hanging database refused to revoke; both are due."""
    roots = [await world.opened(broker, TABLE) for _ in range(2)]
    for root in roots:
        await broker.issue(OPERATOR, root.id, DETAIL)
    world.later(601)
    world.hanging.back.set()
    world.target.fail = {"revoke"}
    await broker.sweep()
    world.hanging.back.clear()
    world.target.fail = set()
    world.later(60)
    return roots


def test_a_sweep_that_is_cancelled_at_a_database_that_hangs_leaves_its_work_to_the_next() -> None:
    async def body() -> None:
        world = Two()
        broker = await world.both()
        await refused_once(world, broker)
        sweeping = asyncio.create_task(broker.sweep())
        await turns()
        sweeping.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sweeping
        assert len(world.target.accounts) == 2
        world.hanging.back.set()
        await broker.sweep()  # no time has passed: what was due is not put off
        assert world.target.accounts == {}

    run(body())


class Worn(MemoryStore):
    """A medium that neither takes nor gives anything while it is out."""

    out = False

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        if self.out and (writes or events):
            raise UnavailableError
        await super().commit(writes, events)

    async def load(self, task_id: str) -> Task:
        if self.out:
            raise UnavailableError
        return await super().load(task_id)


def test_a_task_that_was_lost_while_it_waited_for_a_database_is_visited_by_the_next_sweep_once_it_can_be_read() -> None:
    async def body() -> None:
        store = Worn()
        world = Two(store=store)
        broker = await world.both()
        roots = await refused_once(world, broker)
        sweeping = asyncio.create_task(broker.sweep())
        await turns()
        store.out = True
        with pytest.raises(UnavailableError):  # the second is out of memory, and cannot be read
            await broker.delegate(OPERATOR, roots[1].id, child(TABLE))
        store.out = False
        world.hanging.back.set()
        await sweeping
        assert len(world.target.accounts) == 1
        await broker.sweep()  # no time has passed
        assert world.target.accounts == {}
        assert [broker._tasks.task_of(root.id).leases for root in roots] == [{}, {}]

    run(body())


def test_what_was_cleaned_up_while_the_medium_was_out_is_recorded_by_the_next_sweep() -> None:
    async def body() -> None:
        store, outages = Worn(), iter([True])

        class Outing(FullEngine):
            async def clean(self, plans: Sequence[Plan]) -> frozenset[str]:
                store.out = next(outages, False)
                return await super().clean(plans)

        world = World(store=store, engine=Outing)
        broker = await world.ready()
        root = await world.opened(broker, TABLE)
        task_id = broker._tasks.task_of(root.id).id
        await broker.issue(OPERATOR, root.id, DETAIL)
        world.later(601)
        await broker.sweep()
        assert (world.target.accounts, world.target.residue) == ({}, set())
        assert (await MemoryStore.load(store, task_id)).leases
        store.out = False
        await broker.sweep()  # no time has passed
        assert (await store.load(task_id)).leases == {}

    run(body())
