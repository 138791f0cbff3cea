"""The six verbs, looked at where they have their effect."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from remit.broker import Broker
from remit.broker.checkpoints import Checkpoints
from remit.core.audit import Checkpoint, checkpoint
from remit.core.policy import Decision
from remit.core.principal import Holder, Human
from remit.core.request import Binding, Bounds, GrantRequest
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.core.task import Closure, LeaseState, Plan, Posture, Revocation, Subject
from remit.errors import (
    AttenuationError,
    BudgetError,
    ConflictError,
    DeniedError,
    DepthError,
    EngineError,
    ExpiredError,
    IntegrityError,
    InvalidRequestError,
    NotFoundError,
    PolicyError,
    RemitError,
    RevokedError,
    ScopeError,
    UnavailableError,
)
from remit.ports import Finding, Issued
from remit.ports.broker import Outcome
from tests.broker.world import (
    OPERATOR,
    SEARCH,
    STRANGER,
    TABLE,
    FullEngine,
    PlainEngine,
    World,
    details,
    holder,
    on_end,
    run,
    search,
    warehouse,
)
from tests.grant_requests import changed
from tests.support.kinds import NOTHING_LENT, simulated
from tests.uses import permitted_use

DETAIL = details(TABLE)[0]


def child(*raw: dict[str, object], **more: object) -> GrantRequest:
    """Return what a sub-agent asks for."""
    return changed(GrantRequest(details(*raw), Bounds(depth=1, fan_out=2)), more)


# -- open -----------------------------------------------------------------------------------------------------------


def test_open_makes_a_root_under_the_human(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        task = broker._tasks.task_of(root.id)
        assert task.head.subject == OPERATOR.subject
        assert root.agent == f"spiffe://remit.local/task/{task.id}/{root.id}"
        assert [e.event for e in await world.events()][-1] == "task.open"

    run(body())


def test_open_beyond_a_bound_is_refused_with_the_detail_and_recorded(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        wide = {**TABLE, "tables": ["hr.salaries"]}
        with pytest.raises(PolicyError) as caught:
            await world.opened(broker, wide)
        assert caught.value.offending[0]["tables"] == ["hr.salaries"]
        assert list(broker._tasks) == []
        last = (await world.events())[-1]
        assert (last.event, last.decision, last.code, last.subject) == (
            "task.open",
            "deny",
            "policy",
            "unix://host#1000",
        )

    run(body())


def test_open_of_an_unknown_resource_names_it(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        with pytest.raises(PolicyError, match="no resource `nowhere`"):
            await world.opened(broker, {**TABLE, "resource": "nowhere"})

    run(body())


# -- delegate -------------------------------------------------------------------------------------------------------


def test_a_child_nobody_registered_gets_part_of_its_parent(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        made = (await broker.delegate(holder(broker, root), root.id, child(TABLE))).grant
        assert (made.parent, made.level, made.attested) == (root.id, 1, False)
        last = (await world.events())[-1]
        assert (last.event, last.grant, last.lineage) == ("grant.delegate", made.id, (root.id, made.id))

    run(body())


def test_wider_than_the_parent_is_refused_with_the_offending_details_and_recorded(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        with pytest.raises(AttenuationError) as caught:
            await broker.delegate(OPERATOR, root.id, child({**TABLE, "actions": ["insert"]}, SEARCH))
        assert [d["actions"] for d in caught.value.offending] == [["insert"]]
        assert len(broker._tasks.task_of(root.id).grants) == 1
        assert (await world.events())[-1].code == "attenuation"

    run(body())


def test_an_agent_reaches_only_its_own_subtree(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        one = (await broker.delegate(OPERATOR, root.id, child(TABLE))).grant
        two = (await broker.delegate(OPERATOR, root.id, child(TABLE))).grant
        other = await world.opened(broker)
        me = holder(broker, one)
        for foreign in (root, two, other):
            with pytest.raises(NotFoundError):
                await broker.delegate(me, foreign.id, child(TABLE, depth=0))
            with pytest.raises(NotFoundError):
                await broker.revoke(me, foreign.id)
        with pytest.raises(NotFoundError):
            await broker.delegate(me, "grt_unknown", child(TABLE))
        assert await broker.tasks(me) == [broker._tasks.task_of(one.id).head]
        assert (await broker.task(me, me.task)).header.id == me.task
        with pytest.raises(NotFoundError):
            await broker.task(me, broker._tasks.task_of(other.id).id)

    run(body())


@pytest.mark.parametrize(
    "bound", [{"jkt": "k" * 43}, {"x5t": "c" * 43}, {"attested": True, "agent": "spiffe://prod/reader"}]
)
def test_a_parent_acts_under_no_grant_that_is_bound_to_its_child(world: World, bound: dict[str, object]) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        me = holder(broker, root)
        theirs = (await broker.delegate(me, root.id, child(TABLE, **bound))).grant
        below = (await broker.delegate(holder(broker, theirs), theirs.id, child(TABLE, depth=0))).grant
        lease = (await broker.issue(holder(broker, theirs), theirs.id, DETAIL)).lease
        before = broker._tasks.task_of(root.id), dict(world.target.accounts)
        attempts: dict[str, Callable[[str], Awaitable[object]]] = {
            "lease.issue": lambda grant: broker.issue(me, grant, DETAIL, "key"),
            "grant.delegate": lambda grant: broker.delegate(me, grant, child(TABLE, depth=0)),
            "approval.ask": lambda grant: broker.ask(me, grant, child(TABLE, depth=3)),
        }
        for event, attempt in attempts.items():
            for grant in (theirs, below):
                with pytest.raises(DeniedError, match="only its holder may use it"):
                    await attempt(grant.id)
                last = (await world.events())[-1]
                assert (last.event, last.decision, last.code) == (event, "deny", "denied")
                assert (last.grant, last.cause) == (root.id, f"under {grant.id}")  # who tried, and what
        with pytest.raises(DeniedError, match="only its holder may use it"):
            await broker.issue(OPERATOR, theirs.id, DETAIL)  # nor does whoever owns the state
        last = (await world.events())[-1]
        assert (last.event, last.code, last.subject) == ("lease.issue", "denied", OPERATOR.subject.sub)
        with pytest.raises(DeniedError, match="only its holder may use it"):
            await broker.renew(me, lease.id, timedelta(minutes=5))
        assert [(e.event, e.grant, e.resource) for e in (await world.events())[-1:]] == [
            ("lease.renew", root.id, "warehouse")
        ]
        assert (broker._tasks.task_of(root.id), dict(world.target.accounts)) == before
        assert (await broker.find(theirs.id, me)).grant == theirs  # it may look,
        assert (await broker.revoke_lease(me, lease.id)).state is Closure.CLOSED
        assert (await broker.revoke(me, theirs.id)).revoked == 2  # and end it

    run(body())


def test_a_run_holds_a_grant_that_was_there_if_nothing_is_against_it(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        assert (await broker.attach(OPERATOR, root.id, Posture("host-net"))).grant == root
        last = (await world.events())[-1]
        assert (last.event, last.decision, last.grant) == ("grant.attach", "allow", root.id)
        assert (last.posture, last.cause) == ("host-net/holder/none", f"by {OPERATOR.subject.sub}")
        await broker.revoke(OPERATOR, root.id)
        with pytest.raises(RevokedError):
            await broker.attach(holder(broker, root), root.id, Posture("host-net"))
        last = (await world.events())[-1]
        assert (last.event, last.decision, last.code, last.cause) == (
            "grant.attach",
            "deny",
            "revoked",
            f"by {root.id}",
        )
        with pytest.raises(DeniedError, match="belongs to somebody else"):
            await broker.attach(STRANGER, root.id, Posture())

    run(body())


def test_a_parent_acts_for_the_sub_agents_inside_its_own_process(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, jkt="k" * 43)
        me = holder(broker, root)
        inner = (await broker.delegate(me, root.id, child(TABLE))).grant
        lease = (await broker.issue(me, inner.id, DETAIL)).lease
        assert (await broker.renew(me, lease.id, timedelta(minutes=5))).grant == inner.id
        assert ((await broker.delegate(me, inner.id, child(TABLE, depth=0))).grant).parent == inner.id

    run(body())


def test_the_owner_ends_what_another_human_opened_but_does_not_act_in_it(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, depth=1, fan_out=1)
        task_id = broker._tasks.task_of(root.id).id
        assert [task.id for task in list(broker._tasks)] == [task_id]
        lease = (await broker.issue(OPERATOR, root.id, DETAIL)).lease
        attempts: dict[str, Awaitable[object]] = {
            "grant.delegate": broker.delegate(STRANGER, root.id, child(TABLE)),
            "approval.ask": broker.ask(STRANGER, root.id, child(TABLE, depth=3)),
            "lease.issue": broker.issue(STRANGER, root.id, DETAIL),
            "lease.renew": broker.renew(STRANGER, lease.id, timedelta(minutes=5)),
        }
        for event, attempt in attempts.items():
            with pytest.raises(DeniedError, match="belongs to somebody else"):
                await attempt
            last = (await world.events())[-1]
            assert (last.event, last.decision, last.code) == (event, "deny", "denied")
            assert (last.grant, last.subject) == (root.id, STRANGER.subject.sub)
        assert (await broker.close(STRANGER, task_id)).state is Closure.CLOSED

    run(body())


def test_the_owner_acts_in_a_task_that_a_humans_own_token_opened_here(world: World) -> None:
    async def body() -> None:
        world.decide = lambda question: Decision(allowed=True, reasons=("anybody may",), version=question.verb)
        broker = await world.ready()
        subject = Subject("https://idp.test#alice", "urn:test:password")
        for count, (jkt, acts) in enumerate(((None, True), ("a-key", False))):
            human = Human(subject, f"token-{count}", world.now, world.now + timedelta(minutes=5), "remit")
            wanted = GrantRequest(details(TABLE), Bounds(timedelta(minutes=5), depth=3, fan_out=3), Binding(jkt=jkt))
            root = (await broker.open(human, replace(wanted, purpose="draft"))).grant
            if acts:
                assert ((await broker.delegate(OPERATOR, root.id, child(TABLE))).grant).parent == root.id
                continue
            with pytest.raises(DeniedError, match="belongs to somebody else"):
                await broker.delegate(OPERATOR, root.id, child(TABLE))

    run(body())


def test_an_attested_child_keeps_its_own_name(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        wanted = child(TABLE, agent="spiffe://prod/agent/planner", attested=True)
        assert ((await broker.delegate(OPERATOR, root.id, wanted)).grant).agent == "spiffe://prod/agent/planner"

    run(body())


# -- issue ----------------------------------------------------------------------------------------------------------


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


def test_abandoning_reaches_the_target_when_the_store_fails_too(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        commit = world.store.commit

        async def refuse(*_: object) -> None:
            raise UnavailableError

        async def cut() -> None:
            world.store.commit = refuse  # type: ignore[method-assign,assignment]

        world.target.during_issue = cut
        with pytest.raises(UnavailableError):
            await broker.issue(OPERATOR, root.id, DETAIL)
        world.store.commit = commit  # type: ignore[method-assign]
        assert world.target.accounts == {}
        world.later(11)
        await broker.sweep()
        task = await world.store.load(broker._tasks.task_of(root.id).id)
        assert [lease.state for lease in task.leases.values()] in ([], [LeaseState.REVOKED])

    run(body())


# -- renew ----------------------------------------------------------------------------------------------------------


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


# -- revoke, close --------------------------------------------------------------------------------------------------


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


# -- use ------------------------------------------------------------------------------------------------------------


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
        assert broker._registry._opened["search"].reveal() == "api-key"
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


# -- start, sweep, clock ---------------------------------------------------------------------------------------------


def test_a_restart_finds_everything_again(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        await permitted_use(broker, root.id, Access("search", "GET", "/v1/search"), "r")
        again = world.broker()
        await again.start()
        assert again._tasks.task_of_lease(issued.lease.id).id == again._tasks.task_of(root.id).id
        assert again._tasks.spent[root.id, 1] == 1
        await permitted_use(again, root.id, Access("search", "GET", "/v1/search"), "r")
        assert (await again.revoke(OPERATOR, root.id)).state is Closure.CLOSED

    run(body())


def test_the_sweep_closes_what_is_over_and_forgets_it(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        ended: set[str] = set()
        on_end(broker, ended.update)
        world.later(601)
        await broker.sweep()
        assert world.target.accounts == {}
        world.later(300)
        await broker.sweep()
        assert root.id in ended
        assert list(broker._tasks) == []

    run(body())


def test_one_tasks_trouble_does_not_hold_up_the_others(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        first, second = await world.opened(broker), await world.opened(broker)
        for grant in (first, second):
            await broker.issue(OPERATOR, grant.id, DETAIL)
        world.later(601)
        commit = world.store.commit
        failed: list[int] = []

        async def once(writes: object, events: object) -> None:
            if not failed:
                failed.append(1)
                raise UnavailableError
            await commit(writes, events)  # type: ignore[arg-type]

        world.store.commit = once  # type: ignore[method-assign]
        await broker.sweep()
        assert failed
        assert world.target.accounts == {}

    run(body())


def test_a_clock_set_back_revives_nothing_and_extends_nothing(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        world.later(901)
        await broker.sweep()
        world.later(-3600)
        again = world.broker()
        await again.start()
        with pytest.raises(UnavailableError, match="clock"):
            await world.opened(again)
        with pytest.raises(ExpiredError):
            again._tasks.check(root.id)

    run(body())


class KeptCheckpoint:
    """A second place that remembers one checkpoint."""

    def __init__(self, size: int, root: bytes) -> None:
        self.size, self.root = size, root

    async def last(self) -> Checkpoint:
        return checkpoint("remit.test/log", self.size, self.root, NoSigner())

    async def keep(self, size: int, root: bytes, known: Checkpoint | None) -> Checkpoint:
        last = await self.last()
        return last if known != last else checkpoint("remit.test/log", size, root, NoSigner())


class NoSigner:
    """A signer whose signature nobody checks here."""

    def sign(self, _data: bytes) -> bytes:
        return b"\0" * 64

    def public_jwk(self) -> dict[str, str]:
        return {"kty": "OKP", "crv": "Ed25519", "x": "A" * 43}


@pytest.mark.parametrize("size", [2, 100])
def test_a_rolled_back_log_ends_every_task_and_serves_nothing(world: World, size: int) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.issue(OPERATOR, root.id, DETAIL)
        again = Broker(
            store=world.store,
            kinds=simulated(world._engine),
            context=NOTHING_LENT,
            sealer=broker._registry._sealer,
            clock=lambda: world.now,
            new_id=lambda prefix: prefix,
            witness=KeptCheckpoint(size, b"\1" * 32),
        )
        await again.start()
        assert world.target.accounts == {}
        with pytest.raises(IntegrityError):
            await world.opened(again)
        with pytest.raises(IntegrityError):
            await permitted_use(again, root.id, Access("search", "GET", "/v1/x"), "r")

    run(body())


def test_an_extended_log_serves(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        _, head = await broker.root(2)
        again = world.broker()
        again.checkpoints = Checkpoints(again._tasks, again._revoker, KeptCheckpoint(2, head))
        await again.start()
        await world.opened(again)
        assert await broker.nodes(((0, 1),)) == await world.store.nodes(((0, 1),))
        await again.stop()

    run(body())


# -- resources ------------------------------------------------------------------------------------------------------


def test_a_changed_destination_needs_its_secret_again(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        with pytest.raises(InvalidRequestError, match="destination"):
            await broker.put_resource(OPERATOR, search("https://evil.test"))
        await broker.put_resource(OPERATOR, search("https://other.test"), Secret("new-key"))
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
        await broker.put_secret(OPERATOR, "search", Secret("rotated"))
        await permitted_use(broker, root.id, Access("search", "GET", "/v1/x"), "r")
        assert broker._registry._opened["search"].reveal() == "rotated"

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


def test_depth_and_fan_out_bind(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, depth=1, fan_out=1)
        one = (await broker.delegate(OPERATOR, root.id, child(TABLE, depth=0, fan_out=0))).grant
        with pytest.raises(DepthError):
            await broker.delegate(OPERATOR, root.id, child(TABLE, depth=0, fan_out=0))
        with pytest.raises(DepthError):
            await broker.delegate(
                Holder(broker._tasks.task_of(one.id).id, one.id), one.id, child(TABLE, depth=0, fan_out=0)
            )

    run(body())


def test_every_refusal_is_a_remit_error(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        with pytest.raises(RemitError):
            broker._tasks.task_of_lease("lse_unknown")

    run(body())


def test_a_credential_whose_lease_was_revoked_meanwhile_is_ended_by_the_receipt_that_only_we_have(world: World) -> None:
    class ByReceipt(PlainEngine):
        """The target chooses the handle."""

        async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
            self.target.accounts["handle-7"] = expires_at
            if self.target.during_issue is not None:
                await self.target.during_issue()
            return Issued({"user": plan.name}, {"handle": "handle-7"})

        async def revoke(self, plan: Plan, receipt: Mapping[str, str] | None) -> None:
            await super().revoke(plan, receipt)
            self.target.accounts.pop(receipt["handle"] if receipt else "", None)

    async def body() -> None:
        world.engine, world.target.revocation = ByReceipt, Revocation.BY_RECEIPT
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


def test_what_cannot_be_tidied_up_now_is_left_for_later(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        first, second = await broker.issue(OPERATOR, root.id, DETAIL), await broker.issue(OPERATOR, root.id, DETAIL)
        await broker.revoke(OPERATOR, root.id)
        assert len(world.target.residue) == 2
        lost = broker._registry._resources.pop("warehouse")
        await broker._registry.close()
        await broker.sweep()
        assert set(broker._tasks.task_of(root.id).leases) == {first.lease.id, second.lease.id}
        broker._registry._resources["warehouse"] = lost
        world.engine = PlainEngine
        await broker.sweep()
        assert len(world.target.residue) == 2
        await broker._registry.close()
        world.engine = FullEngine
        await broker.sweep()
        assert world.target.residue == set()

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
        assert cause == "a bound was narrowed: wider than the bound of `search`"

    run(body())
