"""Revocation and time under attack, at the broker and the target: REV-01, REV-04, REV-05, REV-06, CLK-02."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from remit.broker import Broker
from remit.core import audit
from remit.core.lease import Closure
from remit.core.principal import Holder, Operator
from remit.core.scope import Access
from remit.core.task import Grant, Subject
from remit.errors import (
    AttenuationError,
    DeniedError,
    ExpiredError,
    GrantEndedError,
    InvalidRequestError,
    NotFoundError,
    RemitError,
    RevokedError,
    UnknownDetailError,
)
from remit.ports.broker import Use
from tests.broker.world import on_end
from tests.model.setting import OWNER, READ, RESOURCES, SEARCH, START, WIDE, Setting, YieldingStore, detail, wanted
from tests.uses import permitted_use

MINUTES = timedelta(minutes=30)
MANY = {**SEARCH, "uses": 1_000_000}
CALL = Access("search", "GET", path="/x")
FAN_OUT = 5
LEVELS = 5


# -- REV-01 ---------------------------------------------------------------------------------------------------------


async def grown(broker: Broker) -> tuple[Grant, dict[str, list[str]]]:
    """Open a task and delegate to a tree of 3,906 grants; return its root and everybody's children."""
    asked = wanted(MANY, ttl=MINUTES, depth=LEVELS, fan_out=FAN_OUT)
    root = (await broker.open(OWNER, replace(asked, purpose="attack"))).grant
    children: dict[str, list[str]] = {}
    row = [root.id]
    for level in range(1, LEVELS + 1):
        below = wanted(MANY, depth=LEVELS - level, fan_out=FAN_OUT)
        for parent in row:
            made = [(await broker.delegate(OWNER, parent, below)).grant for _ in range(FAN_OUT)]
            children[parent] = [grant.id for grant in made]
        row = [child for parent in row for child in children[parent]]
    return root, children


class Callers:
    """Agents that call again and again; a call has a place in the order of beginnings."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.ticks = itertools.count()
        self.accepted: list[tuple[int, str]] = []  # began at, grant
        self.requests = itertools.count()

    async def call(self, grant: str) -> None:
        """Call once; an accepted call is noted with its beginning."""
        began = next(self.ticks)
        try:
            used = await permitted_use(self.broker, grant, CALL, f"req_{next(self.requests)}")
        except GrantEndedError:
            return
        assert isinstance(used, Use)
        self.accepted.append((began, grant))

    async def keep_calling(self, grants: list[str], stop: asyncio.Event) -> None:
        """Call from all grants in turn until told to stop."""
        for grant in itertools.cycle(grants):
            if stop.is_set():
                return
            await self.call(grant)
            await asyncio.sleep(0)


@pytest.mark.attack("REV-01")
def test_no_call_that_starts_after_the_answer_to_a_revoke_is_accepted_anywhere_below_it() -> None:
    """Every inner node of the tree is revoked once, leaves first, so that one tree gives 781 rounds."""

    async def body() -> None:
        broker = await Setting(store=YieldingStore()).ready()
        root, children = await grown(broker)
        assert len(broker._tasks.task_of(root.id).grants) == 3_906
        callers = Callers(broker)
        order, total = list(reversed(children)), 0
        for place, node in enumerate(order):
            below = [node, *children[node], *(g for c in children[node] for g in children.get(c, [])[:1])]
            spared = order[place + 1] if place + 1 < len(order) else None
            stop = asyncio.Event()
            busy = [asyncio.create_task(callers.keep_calling(below[i::3], stop)) for i in range(3)]
            for _ in range(4):  # turns of the loop: by then each has had an answer
                await asyncio.sleep(0)
            report = await broker.revoke(OWNER, node)
            answered = next(callers.ticks)
            for grant in below:
                await callers.call(grant)
            stop.set()
            await asyncio.gather(*busy)
            assert report.state is Closure.CLOSED
            assert [grant for began, grant in callers.accepted if began > answered and grant in below] == []
            total += len(callers.accepted)
            callers.accepted.clear()
            if spared is not None:
                await callers.call(spared)
                assert [grant for _, grant in callers.accepted] == [spared]
                callers.accepted.clear()
        assert len(order) == 781
        assert total >= 3 * 781  # the callers were at work until then

    asyncio.run(body())


@pytest.mark.attack("REV-01")
def test_revoking_a_child_of_the_root_spares_its_siblings_and_all_below_them() -> None:
    async def body() -> None:
        broker = await Setting(store=YieldingStore()).ready()
        root, children = await grown(broker)
        victim, *siblings = children[root.id]
        ended: set[str] = set()
        on_end(broker, ended.update)
        report = await broker.revoke(OWNER, victim)
        task = broker._tasks.task_of(root.id)
        below = {grant.id for grant in task.subtree(victim)}
        assert (report.revoked, len(below)) == (781, 781)
        assert ended == below
        for sibling in siblings:
            assert not any(broker._tasks.check(grant.id).grant.revoked for grant in task.subtree(sibling))

    asyncio.run(body())


# -- REV-04 ---------------------------------------------------------------------------------------------------------


async def family(broker: Broker) -> tuple[str, str]:
    """Open a task with a child that holds a lease; return root and child."""
    root = (
        await broker.open(OWNER, replace(wanted(WIDE, SEARCH, ttl=MINUTES, depth=2, fan_out=3), purpose="attack"))
    ).grant
    child = (await broker.delegate(OWNER, root.id, wanted(WIDE, SEARCH, depth=1, fan_out=1))).grant
    await broker.issue(OWNER, child.id, detail(READ), "key")
    return root.id, child.id


ORDERS: dict[str, Callable[[Broker, str, str], Awaitable[object]]] = {
    "parent twice": lambda b, root, _: _each(b, root, root),
    "child, then parent": lambda b, root, child: _each(b, child, root),
    "parent, then child": lambda b, root, child: _each(b, root, child, root),
    "twenty at once": lambda b, root, child: asyncio.gather(*(b.revoke(OWNER, g) for g in [root, child] * 10)),
}


async def _each(broker: Broker, *grants: str) -> None:
    for grant in grants:
        await broker.revoke(OWNER, grant)


@pytest.mark.attack("REV-04")
@pytest.mark.parametrize("order", ORDERS)
def test_in_any_order_a_revoke_has_one_final_state_and_one_event_for_each_effect(order: str) -> None:
    async def body() -> None:
        setting = Setting(store=YieldingStore())
        broker = await setting.ready()
        root, child = await family(broker)
        await ORDERS[order](broker, root, child)
        task = broker._tasks.task_of(root)
        assert all(grant.revoked for grant in task.grants.values())
        assert task.head.closed
        assert setting.target.live() == {}
        final = await broker.revoke(OWNER, root)
        assert (final.state, final.revoked, final.outstanding) == (Closure.CLOSED, 0, ())
        events = [audit.read(entry) for entry in await broker.entries(0, 100)]
        revokes = [
            event for event in events if event.event in {"grant.revoke", "lease.revoke"} and event.decision == "done"
        ]
        assert len(revokes) == (2 if order == "child, then parent" else 1)

    asyncio.run(body())


@pytest.mark.attack("REV-04")
def test_unknown_and_foreign_are_the_same_not_found() -> None:
    async def body() -> None:
        broker = await Setting().ready()
        root, child = await family(broker)
        other = (await broker.open(OWNER, replace(wanted(WIDE, ttl=MINUTES), purpose="bob's"))).grant
        below, bob = Holder(broker._tasks.task_of(root).id, child), Holder(broker._tasks.task_of(other.id).id, other.id)
        callers: list[tuple[Operator | Holder, str]] = [
            (OWNER, "grt_999"),
            (below, "grt_999"),
            (below, root),
            (bob, "grt_999"),
            (bob, root),
            (bob, child),
            (Holder("task_9", "grt_9"), child),
        ]
        said = set()
        for caller, grant in callers:
            with pytest.raises(NotFoundError) as caught:
                await broker.revoke(caller, grant)
            said.add((caught.value.detail, caught.value.help, caught.value.status))
        assert len(said) == 1
        assert [broker._tasks.check(grant).grant.revoked for grant in (root, child)] == [False, False]

    asyncio.run(body())


# -- REV-05 ---------------------------------------------------------------------------------------------------------


@pytest.mark.attack("REV-05")
def test_nothing_brings_a_revoked_grant_or_its_lease_back() -> None:
    async def body() -> None:
        setting = Setting()
        broker = await setting.ready()
        root, child = await family(broker)
        lease = next(iter(broker._tasks.task_of(root).leases))
        await broker.revoke(OWNER, child)
        for restarted in (False, True):
            if restarted:
                broker = setting.broker()
                await broker.start()
            attempts: list[Awaitable[object]] = [
                broker.renew(OWNER, lease, timedelta(seconds=30)),
                broker.delegate(OWNER, child, wanted(WIDE)),
                broker.issue(OWNER, child, detail(READ)),
                broker.issue(OWNER, child, detail(READ), "key"),
                permitted_use(broker, child, CALL, "req_1"),
            ]
            for attempt in attempts:
                with pytest.raises((GrantEndedError, NotFoundError)):
                    await attempt
            for resource in RESOURCES:  # an administrator's update
                await broker.put_resource(OWNER, resource)
            setting.now -= timedelta(minutes=10)  # a clock that is set back
            with pytest.raises(RevokedError):
                broker._tasks.check(child)
            setting.now += timedelta(minutes=10)
            await broker.sweep()
            assert broker._tasks.task_of(root).grants[child].revoked
            assert setting.target.live() == {}

    asyncio.run(body())


# -- REV-06 ---------------------------------------------------------------------------------------------------------


@pytest.mark.attack("REV-06")
def test_knowing_the_id_of_a_lease_is_no_authority_over_it() -> None:
    async def body() -> None:
        setting = Setting()
        broker = await setting.ready()
        root, child = await family(broker)
        task = broker._tasks.task_of(root)
        lease = next(iter(task.leases))
        sibling = (await broker.delegate(OWNER, root, wanted(WIDE))).grant
        other = (await broker.open(OWNER, replace(wanted(WIDE, ttl=MINUTES), purpose="bob's"))).grant
        bobs = [
            Holder(task.id, sibling.id),
            Holder(broker._tasks.task_of(other.id).id, other.id),
            Holder(broker._tasks.task_of(other.id).id, child),
        ]
        before = (broker._tasks.task_of(root), dict(setting.target.accounts))
        for bob in bobs:
            for name in (lease, "lse_999"):
                with pytest.raises(NotFoundError):
                    await broker.renew(bob, name, timedelta(seconds=30))
                with pytest.raises(NotFoundError):
                    await broker.revoke_lease(bob, name)
            with pytest.raises(NotFoundError):
                await broker.issue(bob, child, detail(READ), "key")
        assert (broker._tasks.task_of(root), dict(setting.target.accounts)) == before

    asyncio.run(body())


@pytest.mark.attack("REV-06")
def test_the_owner_of_the_state_ends_what_another_human_opened_and_never_acts_in_their_name() -> None:
    async def body() -> None:
        setting = Setting()
        broker = await setting.ready()
        root, child = await family(broker)
        lease = next(iter(broker._tasks.task_of(root).leases))
        owner = Operator(Subject("unix://host#1001", "local-uid"))  # OWNER is somebody else to them
        attempts: list[Awaitable[object]] = [
            broker.issue(owner, child, detail(READ)),
            broker.issue(owner, child, detail(READ), "key"),
            broker.renew(owner, lease, timedelta(seconds=30)),
            broker.delegate(owner, child, wanted(WIDE)),
            broker.ask(owner, child, wanted(WIDE, depth=5)),
        ]
        before = (broker._tasks.task_of(root), dict(setting.target.accounts))
        for attempt in attempts:
            with pytest.raises(DeniedError, match="somebody else"):
                await attempt
        assert (broker._tasks.task_of(root), dict(setting.target.accounts)) == before
        assert (await broker.revoke(owner, child)).state is Closure.CLOSED
        assert setting.target.live() == {}

    asyncio.run(body())


# -- CLK-02 ---------------------------------------------------------------------------------------------------------

INSTANT = timedelta(microseconds=1)


@pytest.mark.attack("CLK-02")
@pytest.mark.parametrize(
    "ttl",
    [
        timedelta(0),
        -INSTANT,
        timedelta(days=-1),
        timedelta(seconds=2**31),
        timedelta.max,
        timedelta.min,
        datetime.max.replace(tzinfo=UTC) - START,
    ],
)
def test_a_ttl_that_is_no_time_or_too_much_is_a_bad_request(ttl: timedelta) -> None:
    async def body() -> None:
        broker = await Setting().ready()
        with pytest.raises(InvalidRequestError) as caught:
            await broker.open(OWNER, replace(wanted(WIDE, ttl=ttl), purpose="attack"))
        assert caught.value.status == 400
        root = (
            await broker.open(OWNER, replace(wanted(WIDE, ttl=MINUTES, depth=1, fan_out=1), purpose="attack"))
        ).grant
        with pytest.raises((InvalidRequestError, AttenuationError)):
            await broker.delegate(OWNER, root.id, wanted(WIDE, ttl=ttl))

    asyncio.run(body())


@pytest.mark.attack("CLK-02")
@pytest.mark.parametrize("ttl", [0, -1, 0.5, 2**31, 2**63, 253_402_300_799, True, "60", None])
def test_a_detail_has_a_ttl_of_whole_seconds_that_fit_an_instant(ttl: object) -> None:
    with pytest.raises(UnknownDetailError):
        detail({**READ, "ttl": ttl})


@pytest.mark.attack("CLK-02")
def test_the_longest_ttl_of_a_detail_still_ends_with_its_grant() -> None:
    async def body() -> None:
        setting = Setting()
        broker = await setting.ready()
        root = (await broker.open(OWNER, replace(wanted(WIDE, ttl=MINUTES), purpose="attack"))).grant
        made = await broker.issue(OWNER, root.id, detail({**READ, "ttl": 10**9}))
        assert made.lease.expires_at == root.expires_at
        for ttl in (timedelta(0), -INSTANT, timedelta.max):
            with pytest.raises(RemitError):
                await broker.renew(OWNER, made.lease.id, ttl)
        assert set(setting.target.live().values()) == {root.expires_at}

    asyncio.run(body())


@pytest.mark.attack("CLK-02")
def test_a_grant_and_its_lease_live_from_their_beginning_up_to_and_without_their_end() -> None:
    async def body() -> None:
        setting = Setting()
        broker = await setting.ready()
        root = (
            await broker.open(OWNER, replace(wanted(WIDE, SEARCH, ttl=MINUTES, depth=1, fan_out=1), purpose="attack"))
        ).grant
        lease = (await broker.issue(OWNER, root.id, detail(READ))).lease
        setting.now = lease.expires_at - timedelta(milliseconds=1)
        await broker.sweep()
        assert lease.plan.name in setting.target.live()
        setting.now = lease.expires_at
        assert lease.plan.name not in setting.target.live()
        with pytest.raises(ExpiredError):
            await broker.renew(OWNER, lease.id, timedelta(seconds=1))
        setting.now = root.expires_at - INSTANT
        assert (await permitted_use(broker, root.id, CALL, "req_1")).grant == root.id
        assert (await broker.issue(OWNER, root.id, detail(READ))).lease.expires_at == root.expires_at
        setting.now = root.expires_at
        attempts: list[Awaitable[object]] = [
            permitted_use(broker, root.id, CALL, "req_2"),
            broker.issue(OWNER, root.id, detail(READ)),
            broker.delegate(OWNER, root.id, wanted(WIDE)),
        ]
        for attempt in attempts:
            with pytest.raises(ExpiredError):
                await attempt
        assert setting.target.live() == {}

    asyncio.run(body())
