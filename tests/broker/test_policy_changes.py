"""What policy allows at most: asked anew of all that is live when it changes."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest

from remit.core.task import Grant, LeaseState
from remit.errors import ConflictError, PolicyError, RevokedError, UnavailableError
from tests.broker.policies import GET, Brittle, Rule, child, ended, forbids
from tests.broker.samples import DETAIL
from tests.broker.world import OPERATOR, SEARCH, TABLE, World, holder, run
from tests.uses import permitted_use


def test_a_reload_ends_what_is_no_longer_allowed_with_all_below_it_and_leaves_the_rest() -> None:
    async def body() -> None:
        world = World()
        broker = await world.ready()
        both, search = await world.opened(broker), await world.opened(broker, SEARCH)
        below, kept = await child(broker, both), await child(broker, search)
        rule = forbids("warehouse")
        assert await broker.policy.reload(OPERATOR, rule, rule.version) == 1
        assert [ended(broker, grant) for grant in (both, below, search, kept)] == [True, True, False, False]
        assert (await permitted_use(broker, kept.id, GET, "req_1")).grant == kept.id
        told = [e for e in await world.events() if e.event in {"policy.reload", "task.close"}]
        assert [(e.event, e.decision, e.policy) for e in told] == [
            ("policy.reload", "done", "no-warehouse"),
            ("task.close", "done", "no-warehouse"),
        ]
        assert told[1].cause == "the policy changed: `no` forbids it"

    run(body())


def test_a_child_can_end_alone() -> None:
    async def body() -> None:
        world = World()
        broker = await world.ready()
        root = await world.opened(broker)
        first, second = await child(broker, root, TABLE), await child(broker, root)
        rule = forbids("warehouse", "delegate")
        await broker.policy.reload(OPERATOR, rule, rule.version)
        assert [ended(broker, grant) for grant in (root, first, second)] == [False, True, False]
        [event] = [e for e in await world.events() if e.event == "grant.revoke"]
        assert event.lineage == (root.id, first.id)

    run(body())


def test_a_lease_that_could_not_be_issued_any_more_ends_and_its_grant_lives() -> None:
    async def body() -> None:
        world = World()
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        rule = forbids("warehouse", "issue")
        assert await broker.policy.reload(OPERATOR, rule, rule.version) == 1
        assert issued.lease.plan.name not in world.target.accounts
        broker._tasks.check(root.id)
        [event] = [e for e in await world.events() if e.event == "lease.revoke"]
        assert (event.policy, event.cause) == ("no-warehouse", "the policy changed: `no` forbids it")

    run(body())


def test_a_target_that_is_down_does_not_hold_up_the_end_of_authority() -> None:
    async def body() -> None:
        world = World()
        broker = await world.ready()
        root = await world.opened(broker)
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        world.target.fail = {"revoke"}
        rule = forbids("warehouse")
        assert await broker.policy.reload(OPERATOR, rule, rule.version) == 1
        assert ended(broker, root)
        assert broker._tasks.task_of(root.id).lease(issued.lease.id).state is LeaseState.REVOKING
        world.target.fail.clear()
        world.later(3_600)
        await broker.sweep()
        assert world.target.accounts == {}

    run(body())


def test_what_was_ended_or_has_expired_is_not_asked_about_again() -> None:
    async def body() -> None:
        world = World()
        broker = await world.ready()
        closed, short = await world.opened(broker), await world.opened(broker, ttl=timedelta(seconds=10))
        await broker.close(OPERATOR, broker._tasks.task_of(closed.id).id)
        world.later(11)
        rule = Rule("v2", lambda _: True)
        assert await broker.policy.reload(OPERATOR, rule, rule.version) == 0
        assert rule.questions == []
        assert ended(broker, short)

    run(body())


def test_a_policy_that_was_no_good_is_on_record() -> None:
    async def body() -> None:
        world = World()
        broker = await world.ready()
        await broker.policy.note(OPERATOR, "v1", "a.cedar:3: unexpected token")
        [event] = [e for e in await world.events() if e.event == "policy.reload"]
        assert (event.decision, event.code, event.policy) == ("failed", "policy", "v1")
        assert event.cause == "a.cedar:3: unexpected token"

    run(body())


# -- races and failures -----------------------------------------------------------------------------------------------


def test_a_grant_opened_while_policies_are_reloaded_is_decided_by_one_of_both_and_never_escapes_the_new_one() -> None:
    """Interleave an open, and a delegate, with a reload at every await of theirs."""

    async def body(turns: int, kind: str) -> tuple[str, bool]:
        world = World(decide=Rule("old"))
        broker = await world.ready()
        root = await world.opened(broker, SEARCH)
        others = [await world.opened(broker) for _ in range(3)]
        fresh = forbids("search") if kind == "open" else forbids("search", "delegate")

        async def make() -> Grant:
            return await world.opened(broker) if kind == "open" else await child(broker, root)

        making = asyncio.create_task(make())
        for _ in range(turns):
            await asyncio.sleep(0)
        reloading = asyncio.create_task(broker.policy.reload(OPERATOR, fresh, fresh.version))
        made = await asyncio.gather(making, return_exceptions=True)
        await reloading
        assert all(ended(broker, grant) for grant in others) is (kind == "open")
        [grant] = made
        if isinstance(grant, BaseException):
            assert isinstance(grant, PolicyError | RevokedError)
            return "refused", True
        assert grant.policy == "old"
        return "ended", ended(broker, grant)

    for kind in ("open", "delegate"):
        seen = {asyncio.run(body(turns, kind)) for turns in range(12)}
        assert seen <= {("refused", True), ("ended", True)}
        assert ("ended", True) in seen


def test_a_grant_made_after_the_new_policy_holds_is_refused_before_the_reload_is_acknowledged() -> None:
    async def body() -> None:
        world = World(store=Brittle(), decide=Rule("old"))
        broker = await world.ready()
        for _ in range(70):
            await world.opened(broker)
        fresh = forbids("search")
        reloading = asyncio.create_task(broker.policy.reload(OPERATOR, fresh, fresh.version))
        await fresh.first.wait()
        with pytest.raises(PolicyError):
            await world.opened(broker)
        assert not reloading.done()
        assert await reloading == 70

    run(body())


@pytest.mark.parametrize("unreadable", [False, True])
def test_a_task_that_is_being_read_again_meanwhile_does_not_escape(unreadable: bool) -> None:  # noqa: FBT001 - a parameter
    """A commit fails, so its task is forgotten and read again; the reload waits for it.

    While it cannot be read its grants are not live, and the reload is not acknowledged.
    """

    async def body() -> None:
        store = Brittle(unreadable=unreadable)
        world = World(store=store)
        broker = await world.ready()
        root = await world.opened(broker)
        store.hold, store.fail = asyncio.Event(), [UnavailableError()]
        delegating = asyncio.create_task(child(broker, root))
        await store.waiting.wait()
        fresh = forbids("warehouse")
        reloading = asyncio.create_task(broker.policy.reload(OPERATOR, fresh, fresh.version))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not reloading.done()
        store.hold.set()
        with pytest.raises(UnavailableError):
            await delegating
        if unreadable:
            with pytest.raises(UnavailableError):
                await reloading
            with pytest.raises(UnavailableError):
                broker._tasks.check(root.id)
            store.unreadable = False
            world.later(1)
            await broker.sweep()
        else:
            assert await reloading == 1
        with pytest.raises(RevokedError):
            broker._tasks.check(root.id)

    run(body())


@pytest.mark.parametrize("turns", range(8))
def test_a_commit_that_fails_under_a_reload_is_overtaken_at_no_point(turns: int) -> None:
    async def body() -> None:
        store = Brittle()
        world = World(store=store)
        broker = await world.ready()
        root = await world.opened(broker)
        fresh = forbids("warehouse")
        store.fail = [ConflictError()]
        delegating = asyncio.create_task(child(broker, root))
        for _ in range(turns):
            await asyncio.sleep(0)
        assert await broker.policy.reload(OPERATOR, fresh, fresh.version) == 1
        assert ended(broker, root)
        await asyncio.gather(delegating, return_exceptions=True)
        assert ended(broker, root)

    run(body())


def test_a_store_that_fails_leaves_the_reload_unacknowledged_and_the_sweep_finishes_it() -> None:
    async def body() -> None:
        store = Brittle()
        world = World(store=store)
        broker = await world.ready()
        first, second = await world.opened(broker), await world.opened(broker)
        fresh = forbids("warehouse")
        store.fail = [UnavailableError()]
        with pytest.raises(UnavailableError):
            await broker.policy.reload(OPERATOR, fresh, fresh.version)
        assert [ended(broker, first), ended(broker, second)] == [True, True]
        with pytest.raises(PolicyError):
            await world.opened(broker)
        stored = [(await store.load(broker._tasks.task_of(root.id).id)).head.closed for root in (first, second)]
        assert stored == [False, True]
        world.later(1)
        await broker.sweep()
        assert (await store.load(broker._tasks.task_of(first.id).id)).head.closed

    run(body())


def test_commits_that_keep_failing_are_given_up_on_and_said_so() -> None:
    async def body() -> None:
        store = Brittle()
        world = World(store=store)
        broker = await world.ready()
        await world.opened(broker)
        store.fail = [ConflictError() for _ in range(99)]
        fresh = forbids("warehouse")
        with pytest.raises(UnavailableError, match="could not be ended yet"):
            await broker.policy.reload(OPERATOR, fresh, fresh.version)

    run(body())


def test_reloads_take_turns() -> None:
    async def body() -> None:
        world = World()
        broker = await world.ready()
        root = await world.opened(broker)
        strict, lax = forbids("warehouse"), Rule("lax")
        counts = await asyncio.gather(
            broker.policy.reload(OPERATOR, strict, strict.version), broker.policy.reload(OPERATOR, lax, lax.version)
        )
        assert sum(counts) == int(ended(broker, root))
        assert (await world.opened(broker)).policy == "lax"

    run(body())


# -- starting ---------------------------------------------------------------------------------------------------------


def test_a_policy_that_was_tightened_while_the_broker_was_down_holds_before_anything_is_served() -> None:
    async def body() -> None:
        world = World()
        broker = await world.ready()
        both, search = await world.opened(broker), await world.opened(broker, SEARCH)
        issued = await broker.issue(OPERATOR, both.id, DETAIL)
        world.decide = forbids("warehouse")
        again = world.broker()
        await again.start()
        assert [ended(again, grant) for grant in (both, search)] == [True, False]
        assert issued.lease.plan.name in world.target.accounts  # starting waits for no target
        await again.sweep()
        assert issued.lease.plan.name not in world.target.accounts

    run(body())


# -- in numbers -------------------------------------------------------------------------------------------------------


def test_a_policy_tightened_under_ten_thousand_live_grants_holds_when_the_reload_is_acknowledged() -> None:
    """A hundred tasks with a hundred grants each; half of the children hold what is then forbidden."""

    async def body() -> None:
        world = World()
        broker = await world.ready()
        roots = [await world.opened(broker, fan_out=200) for _ in range(100)]
        kept, lost = list[Grant](), list[Grant]()
        for root in roots:
            kept += [await child(broker, root) for _ in range(49)]
            lost += [await child(broker, root, TABLE) for _ in range(50)]
        rule = forbids("warehouse", "delegate")
        assert await broker.policy.reload(OPERATOR, rule, rule.version) == 5_000
        assert len(rule.questions) == 10_000
        assert all(ended(broker, grant) for grant in lost)
        assert not any(ended(broker, grant) for grant in (*kept, *roots))
        with pytest.raises(RevokedError):
            await broker.issue(holder(broker, lost[0]), lost[0].id, DETAIL)
        assert (await permitted_use(broker, kept[-1].id, GET, "req_1")).grant == kept[-1].id
        assert replace(lost[-1], revoked=True) == broker._tasks.task_of(lost[-1].id).grant(lost[-1].id)

    run(body())
