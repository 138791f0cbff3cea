"""The sweep: what is due and nothing else, ends before visits, and no target that holds up another."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.broker import Broker
from remit.core.grant import GrantContext
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Grant, Subject, Task, open_task
from remit.errors import ExpiredError, RemitError, RevokedError
from tests.broker.samples import DETAIL
from tests.broker.world import (
    OPERATOR,
    SEARCH,
    START,
    TABLE,
    World,
    child,
    details,
    holder,
    on_end,
    run,
)


class Counting(dict[str, Task]):
    """The loaded tasks, counting how often one is looked at."""

    looks = 0

    def __getitem__(self, key: str) -> Task:
        self.looks += 1
        return super().__getitem__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.looks += 1
        return super().get(key, default)

    def __iter__(self) -> Iterator[str]:
        self.looks += len(self)
        return super().__iter__()

    def values(self) -> Any:
        self.looks += len(self)
        return super().values()


async def crowded(world: World, idle: int) -> tuple[Broker, Counting]:
    """Return a broker with idle tasks that end in hours, and what counts how often they are looked at."""
    broker = await world.ready()
    heads, wanted = broker._tasks, GrantRequest(details(TABLE), Bounds(timedelta(hours=8)), purpose="idle")
    for number in range(idle):
        opened = open_task(
            f"task_{number}x",
            f"grt_{number}x",
            Subject("s", "a"),
            wanted,
            GrantContext(),
            START,
        )
        await heads.step(opened)
    heads._tasks = counting = Counting(heads._tasks)
    return broker, counting


@pytest.mark.attack("DOS-08")
def test_a_sweep_over_ten_thousand_idle_tasks_looks_at_none_and_at_the_one_in_which_something_is_due(
    world: World,
) -> None:
    async def body() -> None:
        broker, counting = await crowded(world, 10_000)
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        await broker.sweep()
        counting.looks = 0
        await broker.sweep()
        assert counting.looks == 0
        world.later(601)
        await broker.sweep()
        assert world.target.accounts == {}
        assert counting.looks < 40

    run(body())


@pytest.mark.attack("DOS-08")
def test_ten_thousand_tasks_that_end_at_once_end_in_few_commits_and_are_forgotten(world: World) -> None:
    async def body() -> None:
        broker, _ = await crowded(world, 10_000)
        ended: set[str] = set()
        on_end(broker, ended.update)
        world.later(28_800)
        await broker.sweep()
        assert len(ended) == 10_000
        assert list(broker._tasks) == []

    run(body())


Step = tuple[str, int]


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["open", "issue", "issue", "delegate", "renew", "revoke", "close", "wait", "sweep", "fail"]),
        st.integers(0, 900),
    ),
    max_size=25,
)


@dataclass
class Run:
    """One broker that takes steps by numbers, so that two of them take the same."""

    world: World = field(default_factory=World)
    grants: list[Grant] = field(default_factory=list)
    leases: list[str] = field(default_factory=list)

    async def take(self, broker: Broker, step: Step) -> None:
        """Take one step; what is refused is refused in both."""
        verb, number = step
        if verb == "wait":
            self.world.later(number)
        elif verb == "fail":
            self.world.target.fail = {"revoke"} if number % 2 else {"clean"} if number % 3 else set()
        elif verb == "open":
            self.grants.append(await self.world.opened(broker, TABLE, ttl=timedelta(seconds=1 + number)))
        elif self.grants:
            await self._on(broker, verb, self.grants[number % len(self.grants)], number)

    async def _on(self, broker: Broker, verb: str, grant: Grant, number: int) -> None:
        try:
            if verb == "issue":
                raw = {**TABLE, "ttl": 1 + number % 600}
                made = await broker.issue(holder(broker, grant), grant.id, details(raw)[0])
                self.leases.append(made.lease.id)
            elif verb == "delegate":
                self.grants.append((await broker.delegate(OPERATOR, grant.id, child(TABLE))).grant)
            elif verb == "renew" and self.leases:
                lease = self.leases[number % len(self.leases)]
                await broker.renew(OPERATOR, lease, timedelta(seconds=1 + number % 600))
            elif verb == "revoke":
                await broker.revoke(OPERATOR, grant.id)
            elif verb == "close":
                await broker.close(OPERATOR, broker._tasks.task_of(grant.id).id)
        except RemitError:
            return


async def everything(broker: Broker) -> None:
    """Sweep as if something were due in every task: the oracle."""
    heads = broker._tasks
    for task in heads:
        heads.deadlines.put(task.id, heads.now())
    await broker.sweep()


def left_over(broker: Broker, world: World) -> list[str]:
    """Return what a look at everything finds due after a sweep, unless a target refuses."""
    found = []
    for task in list(broker._tasks):
        found += [f"{task.id} is open"] if world.now >= task.head.expires_at and not task.head.closed else []
        found += [f"{lease.id} is overdue" for lease in task.leases.values() if lease.overdue(world.now)]
        found += [f"{lease.id} is due" for lease in task.due(world.now) if not world.target.fail]
    return found


@settings(max_examples=200, deadline=None)
@given(STEPS)
def test_looking_at_what_is_due_does_all_that_looking_at_everything_does(steps: list[Step]) -> None:
    async def body() -> None:
        one, other = Run(), Run()
        brokers = [await made.world.ready() for made in (one, other)]
        for step in [("open", 700), *steps, ("sweep", 0)]:
            for made, broker, sweep in zip((one, other), brokers, (Broker.sweep, everything), strict=True):
                await (sweep(broker) if step[0] == "sweep" else made.take(broker, step))
            if step[0] == "sweep":
                assert left_over(brokers[0], one.world) == []
                assert one.world.target.accounts == other.world.target.accounts
                assert await brokers[0].tasks(OPERATOR) == await brokers[1].tasks(OPERATOR)
        for name in await other.world.store.tasks(100):
            assert (await one.world.store.load(name)).leases == (await other.world.store.load(name)).leases

    run(body())


@pytest.mark.attack("CLK-03")
@pytest.mark.parametrize("back", [timedelta(days=1), timedelta(minutes=10)])
def test_a_broker_started_with_its_clock_behind_ends_what_there_is_when_its_time_is_up(back: timedelta) -> None:
    async def body() -> None:
        world, up = World(), [50.0]
        broker = await world.ready()
        root = await world.opened(broker)
        short = (await broker.delegate(OPERATOR, root.id, child(SEARCH, ttl=timedelta(seconds=40)))).grant
        await broker.issue(OPERATOR, root.id, DETAIL)
        world.now -= back
        again = world.broker(elapsed=lambda: up[0])
        await again.start()
        assert again._tasks.check(short.id).grant.id == short.id
        for passed, gone in ((41, {short.id}), (560, {short.id}), (300, {short.id, root.id})):
            world.later(passed)
            up[0] += passed
            await again.sweep()
            for grant in gone:
                with pytest.raises(ExpiredError):
                    again._tasks.check(grant)
            assert bool(world.target.accounts) is (up[0] - 50 < 600)
        times = [event.at for event in await world.events()]
        assert times == sorted(times)
        assert times[-1] >= START + timedelta(seconds=900)

    run(body())


@pytest.mark.attack("REV-10")
def test_a_grant_whose_task_is_over_and_swept_is_said_to_have_expired(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        me = holder(broker, root)
        world.later(901)
        await broker.sweep()
        assert list(broker._tasks) == []
        with pytest.raises(ExpiredError):
            broker._tasks.check(root.id)
        for attempt in (broker.issue(me, root.id, DETAIL), broker.delegate(me, root.id, child(TABLE))):
            with pytest.raises(ExpiredError):
                await attempt

    run(body())


@pytest.mark.attack("REV-10")
def test_a_grant_whose_task_its_owner_closed_is_said_to_be_revoked(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.close(OPERATOR, broker._tasks.task_of(root.id).id)
        await broker.sweep()
        with pytest.raises(RevokedError):
            broker._tasks.check(root.id)

    run(body())


def test_how_grants_ended_is_remembered_within_bounds(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    async def body() -> None:
        from remit.broker import tasks as tasks_module

        monkeypatch.setattr(tasks_module, "PAST", 2)
        broker = await world.ready()
        for _ in range(5):
            await world.opened(broker)
        world.later(901)
        await broker.sweep()
        assert len(broker._tasks._past) == 2

    run(body())
