"""What a principal is shown: tasks, pages of a task, grants, approvals, and what edges are told."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest

from remit.broker import broker as broker_module
from remit.core.principal import Holder, Human
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Access
from remit.core.task import Subject
from remit.errors import DeniedError, InvalidRequestError, NotFoundError, RevokedError
from tests.broker.asking import ANN, MFA, House, wide
from tests.broker.world import OPERATOR, SEARCH, START, TABLE, World, details, holder, run

NARROW = GrantRequest(details(SEARCH), Bounds(depth=1, fan_out=1))
TTL = timedelta(minutes=15)


def test_each_principal_sees_the_tasks_that_it_may_look_at_oldest_first(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        first = await world.opened(broker)
        world.later(1)
        second = await world.opened(broker)
        heads = await broker.tasks(OPERATOR)
        assert [head.root for head in heads] == [first.id, second.id]
        assert await broker.tasks(holder(broker, second)) == heads[1:]
        ann = Human(Subject(ANN, MFA), "token", START, START, "remit")
        assert await broker.tasks(ann) == []

    run(body())


def test_a_task_is_shown_in_pages_parents_first(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        task = broker._tasks.task_of(root.id).id
        child = (await broker.delegate(OPERATOR, root.id, NARROW)).grant
        below = (await broker.delegate(OPERATOR, child.id, replace(NARROW, bounds=Bounds()))).grant
        lease = (await broker.issue(OPERATOR, root.id, details(TABLE)[0])).lease
        await broker.use(child.id, Access("search", "GET", "/v1/search"), "r", 0)
        page = await broker.task(OPERATOR, task, limit=2)
        assert [grant.id for grant in page.grants] == [root.id, child.id]
        assert (page.root, page.next, list(page.leases)) == (root.id, child.id, [lease])
        assert [list(used) for used in page.used] == [[0, 1], [1]]
        last = await broker.task(OPERATOR, task, after=child.id)
        assert ([grant.id for grant in last.grants], last.next, list(last.leases)) == ([below.id], None, [])
        assert (await broker.task(holder(broker, child), task)).root == child.id
        with pytest.raises(NotFoundError):
            await broker.task(holder(broker, child), task, after=root.id)

    run(body())


def test_a_page_ends_before_its_details_get_long_but_has_one_grant_at_least(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        child = (await broker.delegate(OPERATOR, root.id, NARROW)).grant
        monkeypatch.setattr(broker_module, "PAGE_SIZE", 1)
        page = await broker.task(OPERATOR, broker._tasks.task_of(root.id).id)
        assert ([grant.id for grant in page.grants], page.next) == ([root.id], root.id)
        page = await broker.task(OPERATOR, page.header.id, after=root.id)
        assert ([grant.id for grant in page.grants], page.next) == ([child.id], None)

    run(body())


def test_a_grant_that_ended_is_found_but_is_not_live(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        child = (await broker.delegate(OPERATOR, root.id, NARROW)).grant
        await broker.revoke(OPERATOR, child.id)
        with pytest.raises(RevokedError):
            await broker.grant(child.id)
        found = await broker.find(child.id, holder(broker, root))
        assert (found.grant.revoked, [each.grant for each in found.lineage]) == (True, [root.id, child.id])
        assert await broker.find(child.id) == found
        for unknown in (Holder("task_9", "grt_9"), holder(broker, child)):
            with pytest.raises(NotFoundError):
                await broker.find(root.id, unknown)

    run(body())


def test_an_agent_acts_under_what_is_below_it_unless_that_is_bound(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root, other = await world.opened(broker), await world.opened(broker)
        child = (await broker.delegate(OPERATOR, root.id, NARROW)).grant
        bound = replace(NARROW, binding=replace(NARROW.binding, jkt="k" * 43))
        apart = (await broker.delegate(OPERATOR, root.id, bound)).grant
        await broker.check_acting(root.id, child.id)
        with pytest.raises(DeniedError):
            await broker.check_acting(root.id, apart.id)
        for above in (root.id, other.id):
            with pytest.raises(NotFoundError):
                await broker.check_acting(child.id, above)

    run(body())


def test_a_broker_is_busy_until_what_it_opened_is_gone(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        busy = [broker.busy]
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, details(TABLE)[0])
        busy.append(broker.busy)
        world.target.fail = {"revoke"}
        await broker.close(OPERATOR, broker._tasks.task_of(root.id).id)
        busy.append(broker.busy)  # its lease is still at the target
        world.target.fail = set()
        world.later(3_600)
        for _ in range(3):
            world.later(60)
            await broker.sweep()
        assert [*busy, broker.busy] == [False, True, True, False]

    run(body())


def test_a_place_of_the_status_list_is_free_once_its_grant_has_ended(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, jkt="k" * 43)
        ends = broker.feeds.ends
        assert broker.places() == [root.status]
        told = broker.notices()
        await broker.revoke(OPERATOR, root.id)
        assert (await anext(told)).grants == {root.id}
        assert broker.places() == []
        assert broker.feeds.ends > ends

    run(body())


def test_what_was_asked_under_a_grant_lapses_with_it_and_its_page_outlives_its_task() -> None:
    async def body() -> None:
        house = House()
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await house.ask(broker, root, wide())
        view = await broker.look(item.id, OPERATOR)
        assert view.asking is not None
        assert (view.state, view.asking.parent, [d.resource for d in view.asking.offending]) == (
            "pending",
            root.id,
            ["search"],
        )
        assert await broker.approvals(holder(broker, root)) == [item.id]
        assert (await broker.wait(holder(broker, root), item.id, 0)).state == "pending"
        assert await broker.step_up(ANN) == (MFA,)
        me = holder(broker, root)
        await broker.revoke(OPERATOR, root.id)
        assert (await broker.look(item.id)).state == "lapsed"
        broker._tasks.forget(me.task)
        assert (await broker.look(item.id)).asking is None
        for principal in (OPERATOR, me):
            with pytest.raises(NotFoundError):
                await broker._approvals.view(item, principal)
        assert await broker.approvals(OPERATOR) == []

    run(body())


@pytest.mark.parametrize("seconds", [math.nan, math.inf, -1.0, 61.0])
def test_nobody_waits_for_a_time_that_is_none(seconds: float) -> None:
    async def body() -> None:
        house = House()
        broker = await house.world.ready()
        root = await house.root(broker)
        item = await house.ask(broker, root, wide())
        with pytest.raises(InvalidRequestError):
            await broker.wait(holder(broker, root), item.id, seconds)

    run(body())


def test_a_live_grant_is_shown_as_it_was_made(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        assert (await broker.grant(root.id)).grant == (await broker.find(root.id)).grant == root

    run(body())
