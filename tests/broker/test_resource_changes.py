"""Resources that change while something is held on them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from remit.core.policy import Decision, Question
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.core.task import Closure
from remit.errors import (
    BearerError,
    ConflictError,
    InvalidRequestError,
    RevokedError,
)
from remit.ports import Finding, PutResource
from tests.broker.samples import DETAIL
from tests.broker.world import (
    OPERATOR,
    SEARCH,
    World,
    details,
    run,
    search,
    warehouse,
)
from tests.uses import permitted_use


def test_a_changed_destination_needs_its_secret_again(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        with pytest.raises(InvalidRequestError, match="destination"):
            await broker.put_resource(OPERATOR, search("https://evil.test"))
        await broker.put_resource(OPERATOR, search("https://other.test"), Secret("new-key-0123456789ab"))
        assert broker._registry.resource("search").destination == "https://other.test"

    run(body())


def test_findings_at_the_target_are_refused_unless_accepted_by_name(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        world.target.findings = [Finding("public-functions", "everybody may run `f`", acceptable=True)]
        with pytest.raises(ConflictError, match="everybody may run") as caught:
            await broker.put_resource(OPERATOR, warehouse())
        assert "public-functions" in str(caught.value.help)
        await broker.put_resource(OPERATOR, warehouse(accept=["public-functions"]))
        world.target.findings = [Finding("superuser", "the login is superuser", acceptable=False)]
        with pytest.raises(ConflictError, match="superuser") as caught:
            await broker.put_resource(OPERATOR, warehouse(accept=["superuser"]))
        assert caught.value.help == "fix it at the target"

    run(body())


def test_a_resource_with_leases_is_neither_moved_nor_removed(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        with pytest.raises(ConflictError, match="leases stand"):
            await broker.put_resource(OPERATOR, warehouse("postgresql://b@127.0.0.1:1/other"), Secret("x"))
        with pytest.raises(ConflictError, match="leases stand"):
            await broker.delete_resource(OPERATOR, "warehouse")
        await broker.revoke_lease(OPERATOR, issued.lease.id)
        await broker.sweep()
        await broker.delete_resource(OPERATOR, "warehouse")
        assert [r.name for r in broker._registry.resources()] == ["search"]

    run(body())


def test_a_new_secret_replaces_the_old(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.put_secret(OPERATOR, "search", Secret("rotated-0123456789ab"))
        await permitted_use(broker, root.id, Access("search", "GET", "/v1/x"), "r")
        assert broker._registry._opened["search"].reveal() == "rotated-0123456789ab"

    run(body())


def test_a_removed_target_leaves_its_leases_due(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        del broker._registry._resources["warehouse"]
        report = await broker.revoke(OPERATOR, root.id)
        assert report.state is Closure.UNKNOWN

    run(body())


def test_a_narrower_bound_ends_the_tasks_that_hold_more_before_it_is_acknowledged(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        wide, narrow = await world.opened(broker), await world.opened(broker, {**SEARCH, "paths": ["/v1/news/**"]})
        issued = await broker.issue(OPERATOR, wide.id, DETAIL)
        bound = details({**{k: v for k, v in SEARCH.items() if k != "uses"}, "paths": ["/v1/news/**"]})
        await broker.put_resource(OPERATOR, replace(search(), bound=bound))
        with pytest.raises(RevokedError):
            broker._tasks.check(wide.id)
        assert issued.lease.plan.name not in world.target.accounts
        broker._tasks.check(narrow.id)
        [cause] = [e.cause for e in await world.events() if e.event == "task.close"]
        assert cause == "the resource was changed: wider than the bound of `search`"

    run(body())


def test_no_grant_is_borne_whose_resource_stopped_taking_bearers_while_it_was_asked_for() -> None:
    async def body() -> None:
        def taken_back(_: Question) -> Decision:
            broker._registry._resources["search"] = replace(search(), settings={})
            return Decision(allowed=True, reasons=())

        world = World()
        broker = await world.ready()
        await broker.put_resource(OPERATOR, replace(search(), settings={"bearer": True}))
        broker.policy.deciding = taken_back
        with pytest.raises(BearerError):
            await world.opened(broker, SEARCH, bearer="search")
        assert list(broker._tasks) == []
        assert (await world.events())[-1].decision == "deny"

    run(body())


def test_bearers_end_at_the_next_start_if_the_broker_died_as_it_took_them_back(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        taking = replace(await broker.resource("search"), settings={"bearer": True})
        await broker.put_resource(OPERATOR, taking)
        borne = await world.opened(broker, SEARCH, bearer="search")
        keyed = await world.opened(broker, SEARCH)
        await world.store.commit((PutResource(replace(taking, settings={})),), ())  # and nothing has ended yet
        broker = world.broker()
        await broker.start()
        with pytest.raises(RevokedError):
            await broker.grant(borne.id)
        await broker.put_resource(OPERATOR, taking)
        with pytest.raises(RevokedError):
            await broker.grant(borne.id)
        await broker.grant(keyed.id)

    run(body())
