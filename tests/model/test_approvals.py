"""All interleavings of what can happen to one approval; then with a death, a cancellation or an outage at each step.

It is decided once and used once, only what was approved in time is made, and memory is what the store says.
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
from remit.broker.approvals import Approvals
from remit.core.approval import Approval, Verdict
from remit.core.principal import Holder
from remit.core.request import GrantRequest
from remit.core.task import Grant, Task
from remit.errors import RemitError, UnavailableError
from remit.ports.broker import APPROVAL_LIFE as LIFE
from tests.model.schedule import Actor, Harm, QueueStore, alone, cancellation, death, pause, run, schedules
from tests.model.setting import OWNER, READ, WIDE, Setting, alive, wanted

PREEMPTIONS = 3
HARMED = 3 if os.environ.get("REMIT_HYPOTHESIS") == "deep" else 1  # preemptions beside a harm
NARROW = {**WIDE, "actions": ["select"], "tables": ["sales.a"]}
BEYOND = {**READ, "tables": ["sales.b"]}


@dataclass
class Scene:
    """A task whose root asks for more than it has; ``item`` is what was asked, decided on or not."""

    setting: Setting
    broker: Broker
    root: str = ""
    item: Approval = field(init=False)
    said: dict[str, int] = field(default_factory=dict)  # verb -> how often it succeeded

    @property
    def store(self) -> QueueStore:
        """The store."""
        assert isinstance(self.setting.store, QueueStore)
        return self.setting.store

    @property
    def agent(self) -> Holder:
        """Whoever holds the root."""
        return Holder(self.broker._tasks.task_of(self.root).id, self.root)

    async def setup(self, *, approved: bool) -> None:
        """Open, ask, and approve if the verbs are about what comes after."""
        self.broker = await self.setting.ready()
        self.root = (
            await self.broker.open(OWNER, replace(wanted(NARROW, ttl=timedelta(minutes=30)), purpose="race"))
        ).id
        self.item = (await self.broker.ask(self.agent, self.root, beyond())).approval
        if approved:
            await self.broker.approve(self.item.id, self.item.digest, OWNER)

    def break_store(self, _: Actor) -> bool:
        """Let what is queued, and what is queued next, fail."""
        self.store.broken = True
        return False

    async def done(self, verb: str, work: Coroutine[Any, Any, Any]) -> Any:
        """Do something, and note that it succeeded."""
        result = await work
        self.said[verb] = self.said.get(verb, 0) + 1
        return result


def beyond(**more: object) -> GrantRequest:
    """Return what exceeds the root."""
    return wanted(BEYOND, **more)


def scene(*, approved: bool) -> Scene:
    """Set the scene, with nothing interleaved."""
    setting = Setting(store=QueueStore())
    made = Scene(setting, setting.broker())
    alone(made.setup(approved=approved))
    return made


Verb = Callable[[Scene], Coroutine[Any, Any, object]]


async def approve(at: Scene) -> object:
    return await at.done("approve", at.broker.approve(at.item.id, at.item.digest, OWNER))


async def deny(at: Scene) -> object:
    return await at.done("deny", at.broker.refuse(at.item.id, at.item.digest, OWNER))


async def use(at: Scene) -> object:
    return await at.done("use", at.broker.delegate(at.agent, at.root, beyond(), at.broker._approvals.get(at.item.id)))


async def lapse(at: Scene) -> None:
    await pause()
    at.setting.later(LIFE.total_seconds())


async def revoke(at: Scene) -> object:
    return await at.done("revoke", _recorded(at))


async def _recorded(at: Scene) -> object:
    report = await at.broker.revoke(OWNER, at.root)
    if not report.recorded:  # it holds here, and a broker that has nothing but the store need not know of it
        raise UnavailableError
    return report


async def again(at: Scene) -> object:
    return await at.done("ask", at.broker.ask(at.agent, at.root, beyond()))


PAIRS: list[tuple[Verb, Verb, bool]] = [
    (approve, approve, False),
    (approve, deny, False),
    (deny, deny, False),
    (approve, use, False),
    (deny, use, False),
    (approve, lapse, False),
    (approve, revoke, False),
    (deny, again, False),
    (use, use, True),
    (use, lapse, True),
    (use, revoke, True),
    (use, deny, True),
]
NAMES = [f"{left.__name__} and {right.__name__}" for left, right, _ in PAIRS]


def look(at: Scene) -> None:
    """Assert that no decision and no use has succeeded twice, nor both yes and no."""
    said = at.said
    assert said.get("approve", 0) + said.get("deny", 0) <= 1, said
    assert said.get("use", 0) <= 1, said


async def stored(at: Scene) -> tuple[Approval, Task, Broker]:
    """Return the approval and the task as a broker knows them that has nothing but the store."""
    broker = at.setting.broker()
    await broker.start()
    return broker._approvals.get(at.item.id), (await at.setting.tasks())[0], broker


def wrong(at: Scene, kept: Approval, task: Task) -> list[str]:
    """Say what must not be."""
    made = [grant for grant in task.grants.values() if grant.parent is not None]
    found = [f"{len(made)} grants of one approval"] if len(made) > 1 else []
    if bool(made) != (kept.verdict is Verdict.CONSUMED):
        found.append(f"{kept.verdict}, and {len(made)} grants")
    found += [f"made late or from nothing: {grant.id}" for grant in made if not _due(kept, grant)]
    expected = {
        "approve": {Verdict.APPROVED, Verdict.CONSUMED},
        "deny": {Verdict.DENIED},
        "use": {Verdict.CONSUMED},
    }
    broken = [verb for verb in at.said if kept.verdict not in expected.get(verb, set(Verdict))]
    found += [f"{verb} succeeded, and it is {kept.verdict}" for verb in broken]
    if "revoke" in at.said:
        found += [f"outlives its root: {grant.id}" for grant in made if alive(task, grant.id, at.setting.now)]
    return found


def _due(kept: Approval, grant: Grant) -> bool:
    return grant.approval == kept.id and kept.by == OWNER.subject and grant.opened_at < kept.expires_at


def agrees(at: Scene, kept: Approval) -> bool:
    """Whether memory, if it has the approval at all, has it as the store does."""
    with suppress(RemitError):
        return at.broker._approvals.get(at.item.id) == kept
    return True


def explore(pair: tuple[Verb, Verb, bool], harm: str | None = None, preemptions: int = PREEMPTIONS) -> int:
    """Run every schedule of two verbs; return how many there were."""
    left, right, approved = pair
    count = 0
    for schedule in schedules(preemptions):
        at = scene(approved=approved)
        harms: dict[str | None, Harm] = {"death": death, "cancellation": cancellation, "outage": at.break_store}
        actors = [Actor(verb.__name__, verb(at)) for verb in (left, right)]
        died = run(actors, schedule, partial(look, at), harms.get(harm))
        foreseen = (RemitError, NoneType, asyncio.CancelledError if harm == "cancellation" else NoneType)
        assert [actor.error for actor in actors if not isinstance(actor.error, foreseen)] == [], schedule.choices
        if died:
            at.store.queue.clear()
        alone(at.store.flush())
        result = alone(stored(at))
        assert isinstance(result, tuple)
        kept, task, fresh = result
        found = wrong(at, kept, task)
        found += [] if died or agrees(at, kept) else ["memory and store differ"]
        found += _afterwards(at, fresh, kept)
        at.store.dead = True
        for actor in actors:
            actor.bury()
        assert found == [], (found, schedule.choices)
        count += 1
    return count


def _afterwards(at: Scene, fresh: Broker, kept: Approval) -> list[str]:
    """Try to use it, with a broker that has nothing but the store: that works if it says approved, and never twice."""
    live = kept.verdict is Verdict.APPROVED and at.setting.now < kept.expires_at and "revoke" not in at.said
    worked = 0
    for _ in range(2):
        with suppress(RemitError):
            alone(fresh.delegate(Holder(fresh._tasks.task_of(at.root).id, at.root), at.root, beyond(), kept))
            worked += 1
    if "revoke" in at.said or kept.verdict is not Verdict.APPROVED:
        return [] if worked == 0 else ["used although it is over"]
    return [] if worked == int(live) or worked == 0 else ["used twice"]


@pytest.mark.parametrize("pair", PAIRS, ids=NAMES)
def test_no_interleaving_decides_or_uses_it_twice(pair: tuple[Verb, Verb, bool]) -> None:
    assert explore(pair) > 2


@pytest.mark.parametrize("harm", ["death", "cancellation", "outage"])
@pytest.mark.parametrize("pair", PAIRS, ids=NAMES)
def test_nothing_that_breaks_at_any_step_makes_of_it_what_it_is_not(pair: tuple[Verb, Verb, bool], harm: str) -> None:
    assert explore(pair, harm, HARMED) > 5


def test_the_model_looks_at_what_the_broker_keeps() -> None:
    """A scene begins with one request that waits, or that was approved."""
    assert scene(approved=False).item.verdict is Verdict.PENDING
    at = scene(approved=True)
    assert at.broker._approvals.get(at.item.id).verdict is Verdict.APPROVED
    assert isinstance(at.broker._approvals, Approvals)
