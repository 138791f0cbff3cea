"""A tree of 10,000 grants: revoking a node in its middle ends exactly what hangs below it, at once; and places."""

from __future__ import annotations

from datetime import timedelta

import pytest

from remit.broker import Broker
from remit.broker import tasks as tasks_module
from remit.core import task as tasks
from remit.core.request import Binding, Bounds, GrantRequest
from remit.core.scope import Access
from remit.core.task import Closure, Grant
from remit.errors import LimitError, RevokedError
from tests.broker.world import OPERATOR, SEARCH, World, details, holder, on_end, run
from tests.grant_requests import changed
from tests.uses import permitted_use

MANY = details({**SEARCH, "uses": 1_000_000})
CALL = Access("search", "GET", path="/v1/x")
BELOW = 100  # grants below each of the root's children
KIDS = 99


async def grown(world: World, broker: Broker) -> tuple[Grant, list[Grant], dict[str, list[Grant]]]:
    """Return a root, its 99 children, and what hangs below each: 100 grants, the last ten in a row."""
    more = {"scope": MANY, "depth": 20, "fan_out": 1_000, "jkt": "k" * 43}
    root = await world.opened(broker, **more)
    wanted = GrantRequest(MANY, Bounds(depth=15, fan_out=1_000), Binding(jkt="k" * 43))
    kids = [(await broker.delegate(OPERATOR, root.id, wanted)).grant for _ in range(KIDS)]
    below: dict[str, list[Grant]] = {}
    for kid in kids:
        flat = [
            (await broker.delegate(holder(broker, kid), kid.id, changed(wanted, {"depth": 11}))).grant
            for _ in range(BELOW - 10)
        ]
        row = [flat[-1]]
        for hop in range(10):
            row.append(
                (await broker.delegate(holder(broker, row[-1]), row[-1].id, changed(wanted, {"depth": 10 - hop}))).grant
            )
        below[kid.id] = [*flat, *row[1:]]
    return root, kids, below


def test_revoking_a_middle_node_of_ten_thousand_ends_exactly_its_subtree_at_once(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root, kids, below = await grown(world, broker)
        task = broker._tasks.task_of(root.id)
        assert len(task.grants) == 1 + KIDS * (1 + BELOW) == 10_000
        places = broker._tasks.places()
        assert len(places) == len(set(places)) == 10_000
        ended: list[frozenset[str]] = []
        on_end(broker, ended.append)
        middle = kids[KIDS // 2]
        report = await broker.revoke(holder(broker, middle), middle.id)
        gone = {middle.id, *(grant.id for grant in below[middle.id])}
        assert (report.state, report.revoked) == (Closure.CLOSED, 1 + BELOW)
        assert ended == [frozenset(gone)]  # in one step
        for grant in task.grants.values():
            if grant.id in gone:
                with pytest.raises(RevokedError):
                    broker._tasks.check(grant.id)
            else:
                assert not broker._tasks.check(grant.id).grant.revoked
        with pytest.raises(RevokedError):
            await permitted_use(broker, below[middle.id][-1].id, CALL, "req_1")
        await permitted_use(broker, below[kids[0].id][-1].id, CALL, "req_2")
        assert set(places) - set(broker._tasks.places()) == {task.grant(name).status for name in gone}
        revoked = [e for e in await world.events() if e.event == "grant.revoke"]
        assert [(e.grant, e.cause, e.lineage) for e in revoked] == [
            (middle.id, f"{1 + BELOW} grants", (root.id, middle.id))
        ]

    run(body())


def test_an_agent_that_delegates_and_revokes_for_ever_comes_to_an_end(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks, "MAX_GRANTS", 10)

    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, fan_out=1, depth=1)
        me = holder(broker, root)
        for _ in range(9):
            made = (await broker.delegate(me, root.id, GrantRequest(details(SEARCH)))).grant
            await broker.revoke(me, made.id)
        with pytest.raises(LimitError):
            await broker.delegate(me, root.id, GrantRequest(details(SEARCH)))
        last = (await world.events())[-1]
        assert (last.event, last.decision, last.code) == ("grant.delegate", "deny", "limit")
        assert len(broker._tasks.task_of(root.id).grants) == 10
        await permitted_use(broker, root.id, CALL, "req_1")  # it goes on with what it has

    run(body())


# -- places in the status list ----------------------------------------------------------------------------------------


def test_a_place_is_taken_from_no_other_and_given_again_only_when_its_task_is_forgotten(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks_module, "PLACES", 4)

    async def body() -> None:
        broker = await world.ready()
        bound = {"jkt": "k" * 43, "fan_out": 10}
        root = await world.opened(broker, **bound)
        wanted = GrantRequest(details(SEARCH), binding=Binding(jkt="k" * 43))
        kids = [(await broker.delegate(OPERATOR, root.id, wanted)).grant for _ in range(3)]
        assert sorted(broker._tasks.places()) == [0, 1, 2, 3]
        await broker.revoke(OPERATOR, kids[0].id)
        assert len(broker._tasks.places()) == 3
        with pytest.raises(LimitError, match="too many grants"):  # a token of the revoked one may still be around
            await broker.delegate(OPERATOR, root.id, wanted)
        await broker.delegate(OPERATOR, root.id, changed(wanted, {"jkt": None}))  # a run has no token, and no place
        again = world.broker()
        await again.start()
        assert sorted(again._tasks.places()) == sorted(broker._tasks.places())
        await broker.close(OPERATOR, broker._tasks.task_of(root.id).id)
        assert broker._tasks.places() == []
        world.later(timedelta(minutes=20).total_seconds())
        await broker.sweep()
        assert len({(await world.opened(broker, **bound)).status for _ in range(4)}) == 4

    run(body())


def test_a_grant_that_has_expired_is_not_live_in_the_list(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, jkt="k" * 43)
        assert broker._tasks.places() == [root.status]
        world.now = root.expires_at
        assert broker._tasks.places() == []

    run(body())
