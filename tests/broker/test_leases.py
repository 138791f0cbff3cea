"""Issue and renew: what the target holds, and that nothing of a failed issue stays there."""

from __future__ import annotations

from datetime import timedelta

import pytest

from remit.core.scope import Access
from remit.core.task import LeaseState, Revocation
from remit.errors import (
    AttenuationError,
    ConflictError,
    DeniedError,
    EngineError,
    ExpiredError,
    InvalidRequestError,
    NotFoundError,
    ScopeError,
)
from tests.broker.samples import DETAIL
from tests.broker.world import (
    OPERATOR,
    SEARCH,
    TABLE,
    Handles,
    PlainEngine,
    World,
    child,
    details,
    holder,
    run,
)
from tests.uses import permitted_use


def test_issue_hands_out_what_the_target_holds(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(holder(broker, root), root.id, DETAIL)
        assert world.target.accounts == {issued.lease.plan.name: world.now + timedelta(seconds=600)}
        assert issued.lease.state is LeaseState.ACTIVE
        decisions = [(e.event, e.decision) for e in await world.events() if e.event == "lease.issue"]
        assert decisions == [("lease.issue", "allow"), ("lease.issue", "done")]

    run(body())


def test_a_lease_ends_with_its_grant_when_the_detail_sets_no_end(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        open_ended = {key: value for key, value in TABLE.items() if key != "ttl"}
        root = await world.opened(broker, open_ended)
        issued = await broker.issue(OPERATOR, root.id, details(open_ended)[0])
        assert issued.lease.expires_at == root.expires_at

    run(body())


def test_issue_beyond_the_grant_says_what_would_be_enough(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        with pytest.raises(ScopeError) as caught:
            await broker.issue(OPERATOR, root.id, details({**TABLE, "actions": ["insert"]})[0])
        assert caught.value.enough is not None
        assert caught.value.enough["actions"] == ["insert"]
        assert world.target.accounts == {}

    run(body())


def test_a_grant_that_may_only_delegate_issues_nothing(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, exercise=False)
        with pytest.raises(ScopeError, match="delegate but not be used"):
            await broker.issue(OPERATOR, root.id, DETAIL)
        with pytest.raises(ScopeError, match="delegate but not be used"):
            await permitted_use(broker, root.id, Access("search", "GET", "/v1/x"), "r")

    run(body())


def test_issue_on_a_kind_without_an_engine_points_to_the_gateway(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        with pytest.raises(InvalidRequestError) as caught:
            await broker.issue(OPERATOR, root.id, details(SEARCH)[0])
        assert "gateway" in str(caught.value.help)

    run(body())


@pytest.mark.parametrize("error", [EngineError("gone"), ValueError("driver text s3cret"), TimeoutError()])
def test_a_failed_issue_leaves_nothing_at_the_target(world: World, error: Exception) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        world.target.fail, world.target.error = {"issue"}, error
        with pytest.raises(EngineError) as caught:
            await broker.issue(OPERATOR, root.id, DETAIL)
        assert "s3cret" not in caught.value.detail
        [lease] = broker._tasks.task_of(root.id).leases.values()
        assert lease.state is LeaseState.REVOKING  # it may still land; it settles after its issue_by
        world.later(11)
        await broker.sweep()
        assert broker._tasks.task_of(root.id).leases == {}
        assert world.target.accounts == {}

    run(body())


def test_a_grant_revoked_during_an_issue_takes_the_credential_with_it(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)

        async def revoke() -> None:
            world.target.during_issue = None
            await broker.revoke(OPERATOR, root.id)

        world.target.during_issue = revoke
        with pytest.raises(ConflictError):
            await broker.issue(OPERATOR, root.id, DETAIL)
        assert world.target.accounts == {}

    run(body())


def test_an_idempotency_key_revokes_the_earlier_lease_first(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        first = await broker.issue(OPERATOR, root.id, DETAIL, "key-1")
        other = await broker.issue(OPERATOR, root.id, DETAIL, "key-2")
        again = await broker.issue(OPERATOR, root.id, DETAIL, "key-1")
        assert set(world.target.accounts) == {other.lease.plan.name, again.lease.plan.name}
        assert broker._tasks.task_of(root.id).lease(first.lease.id).state is LeaseState.REVOKED

    run(body())


def test_renew_extends_the_target_within_the_grant(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        world.later(500)
        longer = await broker.renew(holder(broker, root), issued.lease.id, timedelta(seconds=600))
        assert longer.expires_at == root.expires_at
        assert world.target.accounts[longer.plan.name] == root.expires_at

    run(body())


@pytest.mark.parametrize("ttl", [0, -1, 601])
def test_renew_longer_than_the_detail_allows_is_refused(world: World, ttl: int) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        with pytest.raises(AttenuationError):
            await broker.renew(OPERATOR, issued.lease.id, timedelta(seconds=ttl))

    run(body())


def test_what_cannot_be_renewed_says_so(world: World) -> None:
    async def body() -> None:
        world.engine = PlainEngine
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        with pytest.raises(ConflictError, match="cannot be renewed"):
            await broker.renew(OPERATOR, issued.lease.id, timedelta(seconds=60))
        with pytest.raises(NotFoundError):
            await broker.renew(OPERATOR, "lse_unknown", timedelta(seconds=60))

    run(body())


def test_an_ended_lease_is_not_renewed(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        world.later(600)
        with pytest.raises(ExpiredError):
            await broker.renew(OPERATOR, issued.lease.id, timedelta(seconds=60))

    run(body())


def test_a_credential_whose_lease_was_revoked_meanwhile_is_ended_by_the_receipt_that_only_we_have(world: World) -> None:
    async def body() -> None:
        world.engine, world.target.revocation = Handles, Revocation.BY_RECEIPT
        broker = await world.ready()
        root = await world.opened(broker)

        async def revoke() -> None:
            world.target.during_issue = None
            await broker.revoke(OPERATOR, root.id)

        world.target.during_issue = revoke
        with pytest.raises(ConflictError):
            await broker.issue(OPERATOR, root.id, DETAIL)
        assert world.target.accounts == {}

    run(body())


def test_a_login_is_admitted_to_its_resource_under_its_grant_and_those_above_while_its_lease_lasts(
    world: World,
) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        below, beside = [
            (await broker.delegate(holder(broker, root), root.id, child(TABLE, SEARCH))).grant for _ in range(2)
        ]
        stranger = await world.opened(broker)
        lease = (await broker.issue(holder(broker, below), below.id, DETAIL)).lease
        resource, login = DETAIL.resource, lease.plan.name
        for grant in (below, root):
            await broker.admit(grant.id, resource, login)
        refused = [(beside.id, resource, login), (stranger.id, resource, login), (root.id, "search", login)]
        refused += [(root.id, resource, other) for other in ("postgres", "", login.upper(), lease.id)]
        for asked in refused:
            with pytest.raises(DeniedError):
                await broker.admit(*asked)
        await broker.revoke_lease(OPERATOR, lease.id)
        with pytest.raises(DeniedError):
            await broker.admit(root.id, resource, login)

    run(body())


def test_a_login_is_admitted_no_longer_than_its_lease_and_its_grant(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        lease = (await broker.issue(holder(broker, root), root.id, DETAIL)).lease
        world.now = lease.expires_at
        with pytest.raises(DeniedError):
            await broker.admit(root.id, DETAIL.resource, lease.plan.name)
        world.now = root.expires_at
        with pytest.raises(ExpiredError):
            await broker.admit(root.id, DETAIL.resource, lease.plan.name)

    run(body())


def test_what_was_put_off_after_a_failure_is_revoked_at_once_when_it_is_asked_for(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        left, stays = [(await broker.issue(OPERATOR, root.id, DETAIL)).lease.plan.name for _ in range(2)]
        task = broker._tasks.task_of(root.id)
        [first, _] = task.leases
        world.target.fail = {"revoke"}
        await broker.revoke_lease(OPERATOR, first)
        world.target.fail.clear()
        await broker.sweep()
        assert set(world.target.accounts) == {left, stays}  # not due yet
        await broker.retry_leases(task.id)
        assert set(world.target.accounts) == {stays}
        assert broker._tasks.task_of(root.id).lease(first).state is LeaseState.REVOKED

    run(body())
