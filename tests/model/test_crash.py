"""Die before every port call of a whole task's life, restart on the same store, sweep, and look at the target.

A request that was on its way when the broker died arrives after the first sweep. Then the same with a second death
inside the recovery.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from remit.broker import Broker
from remit.core.lease import Revocation
from remit.core.task import Task
from remit.errors import RemitError
from tests.model.mortal import Died, Fuse, mortal
from tests.model.setting import OWNER, READ, WIDE, Setting, alive, detail, wanted

HOUR = timedelta(hours=1)
CLASSES = list(Revocation)


@dataclass
class Acknowledged:
    """What callers were told."""

    opened: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)


async def life(broker: Broker, told: Acknowledged) -> None:
    """Open, delegate, issue twice and once more under a key, renew a lease and the task, revoke, close another task."""
    root = (
        await broker.open(OWNER, replace(wanted(WIDE, ttl=timedelta(minutes=30), depth=1, fan_out=2), purpose="live"))
    ).grant
    told.opened.append(root.id)
    child = (await broker.delegate(OWNER, root.id, wanted({**WIDE, "tables": ["sales.a", "sales.b"]}))).grant
    told.opened.append(child.id)
    await broker.issue(OWNER, root.id, detail(READ), "key")
    made = await broker.issue(OWNER, child.id, detail(READ), "key")
    with suppress(RemitError):
        await broker.renew(OWNER, made.lease.id, timedelta(seconds=50))
    await broker.renew_task(OWNER, broker._tasks.task_of(root.id).id, timedelta(hours=1))
    told.renewed.append(root.id)
    await broker.issue(OWNER, root.id, detail(READ), "key")
    await broker.revoke(OWNER, child.id)
    told.ended.append(child.id)
    other = (await broker.open(OWNER, replace(wanted(WIDE, ttl=timedelta(minutes=30)), purpose="live again"))).grant
    await broker.issue(OWNER, other.id, detail(READ))
    await broker.close(OWNER, broker._tasks.task_of(other.id).id)
    told.ended.append(other.id)


async def recover(setting: Setting, broker: Broker) -> None:
    """Start over, sweep, let what was on its way arrive, and sweep again when it may be settled."""
    await broker.start()
    await broker.sweep()
    setting.land()
    await broker.sweep()
    setting.later(11)
    await broker.sweep()


async def one_life(revocation: Revocation, at: int | None) -> tuple[Setting, Acknowledged, Fuse]:
    """Live until the fuse burns down."""
    setting, told, fuse = Setting(revocation), Acknowledged(), Fuse(at)
    await setting.ready()
    setting.target.gate = fuse.gate
    broker = setting.broker(mortal(setting.store, fuse))
    with suppress(Died):
        await broker.start()
        await life(broker, told)
    setting.target.gate = Fuse().gate
    return setting, told, fuse


async def faults(setting: Setting, told: Acknowledged) -> list[str]:
    """Return what is wrong after a recovery, and after everything was then closed."""
    found = [f"orphan {name}" for name in await setting.wrong() if revocable(setting)]
    tasks = {grant_id: task for task in await setting.tasks() for grant_id in task.grants}
    found += [f"lost {name}" for name in told.opened if name not in tasks]
    found += [f"undead {name}" for name in told.ended if alive(tasks[name], name, setting.now)]
    found += [f"renewed by half {task.id}" for task in tasks.values() if _half(task)]
    found += [f"not renewed {i}" for i in told.renewed if tasks[i].head.expires_at - tasks[i].head.opened_at < HOUR]
    broker = setting.broker()
    await broker.start()
    for task in list(broker._tasks):
        await broker.close(OWNER, task.id)
    for _ in range(2):
        setting.later(3_600)
        await broker.sweep()
    found += [f"left {name}" for name in setting.target.live()]
    found += [f"unsettled {task.id}" for task in await setting.tasks() if task.leases]
    return found


def _half(task: Task) -> bool:
    """Whether the end of a task has moved and not that of its root."""
    return task.head.expires_at != task.grants[task.head.root].expires_at


def revocable(setting: Setting) -> bool:
    """Whether a credential without its record can be ended before it expires."""
    return setting.revocation is Revocation.BY_NAME


async def calls(revocation: Revocation) -> int:
    """Return how many port calls a life has."""
    return len((await one_life(revocation, None))[2].calls)


@pytest.mark.parametrize("revocation", CLASSES)
def test_a_death_before_any_port_call_leaves_no_orphan_and_nothing_undead(revocation: Revocation) -> None:
    async def body() -> list[tuple[int, list[str]]]:
        count = await calls(revocation)
        assert count > 40
        wrong = []
        for at in range(count + 1):
            setting, told, _ = await one_life(revocation, at)
            await recover(setting, setting.broker())
            wrong += [(at, found)] if (found := await faults(setting, told)) else []
        return wrong

    assert asyncio.run(body()) == []


@pytest.mark.parametrize("revocation", CLASSES)
def test_a_second_death_inside_the_recovery_changes_nothing(revocation: Revocation) -> None:
    async def body() -> tuple[int, list[tuple[int, int, list[str]]]]:
        wrong, pairs = [], 0
        for at in range(await calls(revocation) + 1):
            second = 0
            while True:
                setting, told, _ = await one_life(revocation, at)
                fuse = Fuse(second)
                died = await dies(setting, fuse)
                await recover(setting, setting.broker())
                wrong += [(at, second, found)] if (found := await faults(setting, told)) else []
                pairs += 1
                if not died:
                    break
                second += 1
        return pairs, wrong

    pairs, wrong = asyncio.run(body())
    assert wrong == []
    assert pairs > 400


async def dies(setting: Setting, fuse: Fuse) -> bool:
    """Recover under a fuse; return whether it burned down."""
    setting.target.gate = fuse.gate
    try:
        await recover(setting, setting.broker(mortal(setting.store, fuse)))
    except Died:
        return True
    finally:
        setting.target.gate = Fuse().gate
    return False
