"""All interleavings of two verbs with few preemptions; then with a death of the process, or a cancellation, at a step.

The store queues commits (what is queued dies with the process), and a request that was sent to the target arrives even
if its sender is no more.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import partial
from types import NoneType
from typing import Any

import pytest

from remit.broker import Broker
from remit.core.lease import Closure, LeaseState, Report
from remit.core.scope import Access
from remit.core.task import Grant, Task
from remit.errors import NotFoundError, RemitError
from remit.ports.broker import IssuedLease
from tests.model.schedule import Actor, Harm, QueueStore, alone, cancellation, death, pause, run, schedules
from tests.model.setting import OWNER, READ, SEARCH, WIDE, Setting, alive, detail, wanted
from tests.uses import permitted_use

PREEMPTIONS = 3
HARMED = 3 if os.environ.get("REMIT_HYPOTHESIS") == "deep" else 1  # preemptions beside a harm: 3 takes minutes


@dataclass
class Scene:
    """A broker with a task: root, two children under it, and a lease under one."""

    setting: Setting
    broker: Broker
    task: str = ""
    root: str = ""
    child: str = ""
    bare: str = ""
    lease: str = ""
    told: list[tuple[str, Report]] = field(default_factory=list)  # what a revoke of a grant answered
    asked: set[str] = field(default_factory=set)  # what a revoke was to end, though nobody may have been told
    renewed: bool = False  # whether somebody was told that the task goes on

    @property
    def store(self) -> QueueStore:
        """The store."""
        assert isinstance(self.setting.store, QueueStore)
        return self.setting.store

    async def setup(self) -> None:
        """Open, delegate, issue."""
        self.broker = await self.setting.ready()
        asked = wanted(WIDE, SEARCH, ttl=timedelta(minutes=30), depth=2, fan_out=2)
        self.root = (await self.broker.open(OWNER, replace(asked, purpose="race"))).id
        self.task = self.broker._tasks.task_of(self.root).id
        below = wanted(WIDE, SEARCH, depth=1, fan_out=1)
        self.child = (await self.broker.delegate(OWNER, self.root, below)).id
        self.bare = (await self.broker.delegate(OWNER, self.root, below)).id
        self.lease = (await self.broker.issue(OWNER, self.child, detail(READ), "key")).lease.id

    def break_store(self, _: Actor) -> bool:
        """Let what is queued, and what is queued next, fail."""
        self.store.broken = True
        return False

    async def revoke(self, grant: str) -> Report:
        """Revoke, and note the answer."""
        self.asked.add(grant)
        report = await self.broker.revoke(OWNER, grant)
        self.told.append((grant, report))
        return report


def scene() -> Scene:
    """Set the scene, with nothing interleaved."""
    setting = Setting(store=QueueStore())
    made = Scene(setting, setting.broker())
    alone(made.setup(), setting.unwaited)
    setting.unwaited.clear()

    async def gate(_: str, __: str) -> None:
        await pause()

    setting.target.gate = gate
    return made


Verb = Callable[[Scene], Coroutine[Any, Any, object]]


async def issue(at: Scene) -> IssuedLease:
    return await at.broker.issue(OWNER, at.child, detail(READ))


async def issue_again(at: Scene) -> IssuedLease:
    return await at.broker.issue(OWNER, at.child, detail(READ), "key")


async def delegate(at: Scene) -> Grant:
    return (await at.broker.delegate(OWNER, at.child, wanted(WIDE))).grant


async def renew(at: Scene) -> object:
    return await at.broker.renew(OWNER, at.lease, timedelta(seconds=30))


async def use(at: Scene) -> object:
    return await permitted_use(at.broker, at.child, Access("search", "GET", path="/x"), "req_1")


async def revoke_child(at: Scene) -> Report:
    return await at.revoke(at.child)


async def revoke_root(at: Scene) -> Report:
    return await at.revoke(at.root)


async def revoke_bare(at: Scene) -> Report:
    return await at.revoke(at.bare)


async def revoke_lease(at: Scene) -> Report:
    return await at.broker.revoke_lease(OWNER, at.lease)


async def renew_task(at: Scene) -> None:
    await at.broker.renew_task(OWNER, at.task, timedelta(hours=1))
    at.renewed = True


async def come_to_its_end(at: Scene) -> None:
    await pause()
    at.setting.later(30 * 60)
    await at.broker.sweep()


async def sweep(at: Scene) -> None:
    await at.broker.sweep()


PAIRS: list[tuple[Verb, Verb]] = [
    (issue, revoke_child),
    (issue, revoke_root),
    (issue, sweep),
    (issue_again, issue_again),
    (issue_again, revoke_child),
    (delegate, revoke_child),
    (delegate, delegate),
    (renew, revoke_child),
    (renew, revoke_lease),
    (use, revoke_child),
    (revoke_child, revoke_child),
    (revoke_child, revoke_root),
    (revoke_bare, revoke_bare),
    (revoke_bare, revoke_root),
    (revoke_lease, revoke_child),
    (revoke_lease, sweep),
    (renew_task, revoke_root),
    (renew_task, come_to_its_end),
    (renew_task, renew_task),
    (renew_task, delegate),
    (renew_task, use),
]
NAMES = [f"{left.__name__} and {right.__name__}" for left, right in PAIRS]


def agrees(at: Scene) -> list[str]:
    """Return the grants that the broker, when all is over, takes for live although the store says they ended."""
    task = alone(at.store.load(at.task))
    assert isinstance(task, Task)
    wrong = []
    for name in task.grants:
        with suppress(RemitError):
            at.broker._tasks.check(name)
            wrong += [] if alive(task, name, at.setting.now) else [f"live in memory only: {name}"]
    return wrong


async def lost(at: Scene) -> list[str]:
    """Return the grants that were said to end, and are not refused, or not recorded when the medium is back."""
    wrong = []
    for grant, report in at.told:
        with suppress(RemitError):
            at.broker._tasks.check(grant)
            wrong.append(f"taken back: {grant}")
        if not report.recorded:
            at.setting.later(8)
            await at.broker.sweep()
            task = await at.store.load(at.broker._tasks.task_of(grant).id)
            wrong += [f"never recorded: {grant}"] if alive(task, grant, at.setting.now) else []
    return wrong


def look(at: Scene) -> None:
    """Assert that whatever was called closed is closed."""
    for grant, report in at.told:
        if report.state is Closure.CLOSED:
            try:
                task = at.broker._tasks.task_of(grant)
            except NotFoundError:  # it is being read again, and nothing of it is permitted meanwhile
                continue
            below = {item.id for item in task.subtree(grant)}
            names = {lease.plan.name for lease in task.leases.values() if lease.grant in below}
            assert not names & at.setting.target.live().keys(), "closed, and a credential works"
            for name in below:
                with pytest.raises(RemitError):
                    at.broker._tasks.check(name)


async def aftermath(at: Scene) -> list[str]:
    """Let what was sent arrive, recover with a broker that knows only the store, and say what is wrong."""
    broker = at.setting.broker()
    await broker.start()
    await broker.sweep()
    at.setting.land()
    at.setting.later(11)
    for _ in range(2):
        await broker.sweep()
    wrong = [f"orphan {name}" for name in await at.setting.wrong()]
    tasks = {grant: task for task in await at.setting.tasks() for grant in task.grants}
    told = (grant for grant, report in at.told if report.recorded)
    wrong += [f"undead {grant}" for grant in told if alive(tasks[grant], grant, at.setting.now)]
    head, root = tasks[at.root].head, tasks[at.root].grants[at.root]
    wrong += ["renewed by half"] if head.expires_at != root.expires_at else []
    if at.renewed and at.root not in at.asked and not alive(tasks[at.root], at.root, at.setting.now):
        wrong.append("renewed, and over")
    children = [g for g in tasks[at.child].grants.values() if g.parent == at.child and not g.revoked]
    wrong += ["more children than its fan-out"] if len(children) > 1 else []
    states = [i for i in tasks[at.child].leases.values() if i.key == "key" and i.state is LeaseState.ACTIVE]
    return wrong + (["two leases under one key"] if len(states) > 1 else [])


def explore(pair: tuple[Verb, Verb], harm: str | None = None, preemptions: int = PREEMPTIONS) -> int:
    """Run every schedule of two verbs; return how many there were."""
    count = 0
    for schedule in schedules(preemptions):
        at = scene()
        harms: dict[str | None, Harm] = {"death": death, "cancellation": cancellation, "outage": at.break_store}
        actors = at.setting.unwaited
        actors += [Actor(verb.__name__, verb(at)) for verb in pair]
        died = run(actors, schedule, partial(look, at), harms.get(harm))
        foreseen = (RemitError, NoneType, asyncio.CancelledError if harm == "cancellation" else NoneType)
        assert [actor.error for actor in actors if not isinstance(actor.error, foreseen)] == [], schedule.choices
        if died:
            at.store.queue.clear()
        alone(at.store.flush())
        assert died or agrees(at) == [], schedule.choices
        assert died or alone(lost(at)) == [], schedule.choices
        wrong = alone(aftermath(at))
        at.store.dead = True
        for actor in actors:
            actor.bury()
        assert wrong == [], (wrong, schedule.choices)
        count += 1
    return count


@pytest.mark.parametrize("pair", PAIRS, ids=NAMES)
def test_no_interleaving_of_two_verbs_does_harm(pair: tuple[Verb, Verb]) -> None:
    assert explore(pair) > 5


@pytest.mark.parametrize("harm", ["death", "cancellation", "outage"])
@pytest.mark.parametrize("pair", PAIRS, ids=NAMES)
def test_no_interleaving_in_which_something_breaks_does_harm(pair: tuple[Verb, Verb], harm: str) -> None:
    """The process dies, one of the two is cancelled, or the store fails, at each step."""
    assert explore(pair, harm, HARMED) > 10


def test_a_lease_that_was_handed_out_and_not_confirmed_when_the_process_died_is_revoked() -> None:
    at = scene()
    actor = Actor("issue", issue(at))
    while not actor.over:
        actor.advance()
    assert isinstance(actor.result, IssuedLease)
    name = actor.result.lease.plan.name
    assert name in at.setting.target.live()
    assert [change for waiting in at.store.queue for change in waiting.writes] != []  # what confirms it
    at.store.queue.clear()
    assert alone(aftermath(at)) == []
    assert name not in at.setting.target.live()
    at.store.dead = True
    for rest in at.setting.unwaited:
        rest.bury()


def test_a_lease_that_was_handed_out_is_confirmed_by_the_commit_that_follows() -> None:
    at = scene()
    issued = alone(issue(at), at.setting.unwaited)
    assert isinstance(issued, IssuedLease)
    task = alone(at.store.load(at.broker._tasks.task_of(at.root).id))
    assert isinstance(task, Task)
    assert task.lease(issued.lease.id) == issued.lease
    assert (issued.lease.state, issued.lease.confirmed) == (LeaseState.ACTIVE, True)
