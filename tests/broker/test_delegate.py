"""Open and delegate, looked at where they have their effect; and who may act under a grant."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from remit.core.policy import Decision
from remit.core.principal import Holder, Human
from remit.core.request import Binding, Bounds, GrantRequest
from remit.core.task import Closure, Posture, Subject
from remit.errors import (
    AttenuationError,
    DeniedError,
    DepthError,
    NotFoundError,
    PolicyError,
    RevokedError,
)
from tests.broker.samples import DETAIL
from tests.broker.world import (
    OPERATOR,
    SEARCH,
    STRANGER,
    TABLE,
    World,
    child,
    details,
    holder,
    run,
)


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
