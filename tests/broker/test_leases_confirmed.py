"""A lease is handed out once what revokes it is durable; what becomes of it until it is confirmed, or if it is not."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import timedelta

import pytest

from remit.core.audit import Event
from remit.core.task import LeaseState, Revocation
from remit.errors import DeniedError, ExpiredError, NotFoundError, UnavailableError
from remit.ports import Write
from tests.broker.samples import DETAIL
from tests.broker.world import OPERATOR, Handles, World, run
from tests.support.memory_store import MemoryStore


class Held(MemoryStore):
    """Commits wait for ``open``; the one of a confirmed lease fails when it is told so."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.fails = asyncio.Event(), False
        self.open.set()

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        await self.open.wait()
        if self.fails and any(event.decision == "done" for event in events):
            self.fails = False
            raise UnavailableError
        await super().commit(writes, events)

    def kept(self) -> MemoryStore:
        """Return what is durable, as another process finds it."""
        other = MemoryStore()
        other._rows, other._entries, other._leaves = dict(self._rows), list(self._entries), list(self._leaves)
        return other


async def until(done: Callable[[], bool]) -> None:
    """Let everybody else go on until that holds."""
    for _ in range(1_000):
        if done():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


def held(world: World, revocation: Revocation = Revocation.BY_NAME) -> Held:
    """Have a store that stops while the target makes a credential."""
    world.store = store = Held()
    world.target.revocation = revocation

    async def stop() -> None:
        world.target.during_issue = None
        store.open.clear()

    world.target.during_issue = stop
    return store


def test_a_lease_is_handed_out_once_its_plan_is_durable(world: World) -> None:
    async def body() -> None:
        store = held(world)
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        [stored] = (await store.load(broker._tasks.task_of(root.id).id)).leases.values()
        assert (stored.id, stored.state, issued.lease.state) == (
            issued.lease.id,
            LeaseState.PLANNED,
            LeaseState.ACTIVE,
        )
        await broker.admit(root.id, DETAIL.resource, issued.lease.plan.name)
        store.open.set()
        for _ in range(5):
            await asyncio.sleep(0)
        [stored] = (await store.load(broker._tasks.task_of(root.id).id)).leases.values()
        assert stored == issued.lease

    run(body())


@pytest.mark.parametrize("revocation", [Revocation.BY_RECEIPT, Revocation.BY_EXPIRY])
def test_what_its_plan_cannot_end_is_handed_out_once_it_is_confirmed(world: World, revocation: Revocation) -> None:
    async def body() -> None:
        world.engine = Handles
        store = held(world, revocation)
        broker = await world.ready()
        root = await world.opened(broker)
        issuing = asyncio.ensure_future(broker.issue(OPERATOR, root.id, DETAIL))
        await until(lambda: not store.open.is_set())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not issuing.done()
        store.open.set()
        issued = await issuing
        assert (await store.load(broker._tasks.task_of(root.id).id)).lease(issued.lease.id) == issued.lease
        assert issued.lease.receipt == {"handle": "handle-7"}

    run(body())


def test_a_lease_whose_confirmation_fails_is_revoked_though_it_was_handed_out(world: World) -> None:
    async def body() -> None:
        store = held(world)
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        store.fails = True
        store.open.set()
        await until(lambda: world.target.accounts == {})
        with pytest.raises(DeniedError):
            await broker.admit(root.id, DETAIL.resource, issued.lease.plan.name)
        with pytest.raises(ExpiredError):
            await broker.renew(OPERATOR, issued.lease.id, timedelta(seconds=60))
        said = [(e.decision, e.code) for e in await world.events() if e.event == "lease.issue"]
        assert said == [("allow", None), ("failed", UnavailableError.code)]

    run(body())


def test_a_grant_that_ends_before_the_confirmation_is_durable_is_closed_with_its_lease(world: World) -> None:
    async def body() -> None:
        store = held(world)
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        closing = asyncio.ensure_future(broker.revoke(OPERATOR, root.id))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not closing.done()  # what it ends has to be durable first
        store.open.set()
        report = await closing
        assert (report.state, report.recorded, world.target.accounts) == ("closed", True, {})
        told = [(e.event, e.decision) for e in await world.events() if e.event in {"lease.issue", "grant.revoke"}]
        assert told == [("lease.issue", "allow"), ("lease.issue", "done"), ("grant.revoke", "done")]

    run(body())


def test_an_idempotency_key_ends_what_was_handed_out_and_is_not_confirmed_yet(world: World) -> None:
    async def body() -> None:
        store = held(world)
        broker = await world.ready()
        root = await world.opened(broker)
        first = await broker.issue(OPERATOR, root.id, DETAIL, "key")
        again = asyncio.ensure_future(broker.issue(OPERATOR, root.id, DETAIL, "key"))
        store.open.set()
        second = await again
        assert set(world.target.accounts) == {second.lease.plan.name} != {first.lease.plan.name}

    run(body())


def test_an_idempotency_key_ends_what_was_handed_out_before_a_crash(world: World) -> None:
    async def body() -> None:
        store = held(world)
        broker = await world.ready()
        root = await world.opened(broker)
        first = await broker.issue(OPERATOR, root.id, DETAIL, "key")
        world.store = store.kept()  # the process that holds the rest is no more
        after = world.broker()
        await after.start()
        second = await after.issue(OPERATOR, root.id, DETAIL, "key")
        assert set(world.target.accounts) == {second.lease.plan.name} != {first.lease.plan.name}
        world.later(11)
        await after.sweep()
        assert set(world.target.accounts) == {second.lease.plan.name}
        store.open.set()

    run(body())


def test_abandoning_reaches_the_target_when_the_store_fails_too(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        commit = world.store.commit

        async def refuse(*_: object) -> None:
            raise UnavailableError

        async def cut() -> None:
            world.store.commit = refuse  # type: ignore[method-assign,assignment]  # it fails

        world.target.during_issue = cut
        await broker.issue(OPERATOR, root.id, DETAIL)
        await until(lambda: world.target.accounts == {})
        world.store.commit = commit  # type: ignore[method-assign]  # a test stands in its way
        world.later(11)
        await broker.sweep()
        task = await world.store.load(broker._tasks.task_of(root.id).id)
        assert [lease.state for lease in task.leases.values()] in ([], [LeaseState.REVOKED])

    run(body())


def test_abandoning_reaches_the_target_while_the_task_cannot_be_read(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)

        async def refuse(*_: object) -> None:
            raise UnavailableError

        async def cut() -> None:
            world.store.commit = refuse  # type: ignore[method-assign,assignment]  # it fails
            world.store.load = refuse  # type: ignore[method-assign,assignment]  # it fails

        world.target.during_issue = cut
        await broker.issue(OPERATOR, root.id, DETAIL)
        await until(lambda: world.target.accounts == {})
        with pytest.raises(NotFoundError):
            broker._tasks.task_of(root.id)

    run(body())
