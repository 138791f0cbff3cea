"""Revoke and close; uses, until they end."""

from __future__ import annotations

import pytest

from remit.core.scope import Access
from remit.core.task import Closure, Revocation
from remit.errors import (
    BudgetError,
    ExpiredError,
    RemitError,
    RevokedError,
)
from remit.ports.broker import Outcome
from tests.broker.samples import DETAIL
from tests.broker.world import (
    OPERATOR,
    SEARCH,
    TABLE,
    PlainEngine,
    World,
    child,
    holder,
    on_end,
    run,
)
from tests.uses import permitted_use


def test_revoke_ends_exactly_the_subtree(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        one = (await broker.delegate(OPERATOR, root.id, child(TABLE))).grant
        below = (await broker.delegate(OPERATOR, one.id, child(TABLE, depth=0, fan_out=0))).grant
        two = (await broker.delegate(OPERATOR, root.id, child(TABLE))).grant
        mine = await broker.issue(OPERATOR, below.id, DETAIL)
        also = await broker.issue(OPERATOR, one.id, DETAIL)
        theirs = await broker.issue(OPERATOR, two.id, DETAIL)
        ended: set[str] = set()
        on_end(broker, ended.update)
        report = await broker.revoke(holder(broker, root), one.id)
        assert (report.state, report.revoked, report.outstanding, report.residue) == (Closure.CLOSED, 2, (), 2)
        assert set(world.target.accounts) == {theirs.lease.plan.name}
        assert ended == {one.id, below.id}
        assert {mine.lease.plan.name, also.lease.plan.name} == world.target.residue
        with pytest.raises(RevokedError):
            broker._tasks.check(below.id)
        broker._tasks.check(two.id)
        await broker.sweep()
        assert world.target.residue == set()

    run(body())


def test_revoking_twice_changes_nothing_and_is_recorded_once(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.revoke(OPERATOR, root.id)
        size = await broker._store.size()
        again = await broker.revoke(OPERATOR, root.id)
        assert (again.state, again.revoked, await broker._store.size()) == (Closure.CLOSED, 0, size)

    run(body())


def test_a_target_out_of_reach_is_reported_and_retried(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        world.target.fail = {"revoke"}
        report = await broker.close(OPERATOR, broker._tasks.task_of(root.id).id)
        assert report.state is Closure.UNKNOWN
        assert [lease.id for lease in report.outstanding] == [issued.lease.id]
        world.target.fail = set()
        world.later(2)
        await broker.sweep()
        assert world.target.accounts == {}

    run(body())


def test_one_lease_can_be_revoked_alone(world: World) -> None:
    async def body() -> None:
        world.engine = PlainEngine
        broker = await world.ready()
        root = await world.opened(broker)
        one = await broker.issue(OPERATOR, root.id, DETAIL)
        two = await broker.issue(OPERATOR, root.id, DETAIL)
        report = await broker.revoke_lease(holder(broker, root), one.lease.id)
        assert (report.state, report.revoked) == (Closure.CLOSED, 1)
        assert set(world.target.accounts) == {two.lease.plan.name}
        assert (await broker.revoke_lease(OPERATOR, one.lease.id)).revoked == 0

    run(body())


def test_what_ends_only_by_expiry_is_reported_as_partial(world: World) -> None:
    async def body() -> None:
        world.target.revocation = Revocation.BY_EXPIRY
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        report = await broker.revoke(OPERATOR, root.id)
        assert report.state is Closure.PARTIAL
        assert report.outstanding[0].expires_at == issued.lease.expires_at
        world.later(600)
        await broker.sweep()
        assert broker._tasks.task_of(root.id).leases == {}

    run(body())


def test_use_is_recorded_before_it_is_permitted(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        use = await permitted_use(broker, root.id, Access("search", "GET", "/v1/search"), "req-1")
        entry = (await world.events())[-1]
        assert (entry.event, entry.decision, entry.request, entry.subject) == (
            "resource.use",
            "allow",
            "req-1",
            "unix://host#1000",
        )
        assert broker._registry._opened["search"].reveal() == "api-key-0123456789ab"
        await broker.outcomes([Outcome(use, "done", None, "200")])
        assert (await world.events())[-1].event == "resource.outcome"
        assert broker._tasks.spent[root.id, 1] == 1

    run(body())


def test_a_budget_is_shared_by_all_below(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        kids = [(await broker.delegate(OPERATOR, root.id, child(SEARCH))).grant for _ in range(2)]
        access = Access("search", "GET", "/v1/search")
        for grant in (kids[0], kids[1], root):
            await permitted_use(broker, grant.id, access, "r")
        for grant in (kids[0], root):
            with pytest.raises(BudgetError):
                await permitted_use(broker, grant.id, access, "r")

    run(body())


def test_use_after_revoke_and_after_expiry_is_refused(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        access = Access("search", "GET", "/v1/search")
        one = (await broker.delegate(OPERATOR, root.id, child(SEARCH))).grant
        await broker.revoke(OPERATOR, one.id)
        with pytest.raises(RevokedError):
            await permitted_use(broker, one.id, access, "r")
        world.later(900)
        with pytest.raises(ExpiredError):
            await permitted_use(broker, root.id, access, "r")

    run(body())


def test_every_refusal_is_a_remit_error(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        with pytest.raises(RemitError):
            broker._tasks.task_of_lease("lse_unknown")

    run(body())
