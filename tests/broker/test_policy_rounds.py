"""A round of deciding anew: nobody waits for it longer than for a few details, however many an agent has made."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from remit.broker import Broker
from remit.core.policy import Decision, Question
from remit.core.task import Grant
from remit.errors import PolicyError, RevokedError, UnavailableError
from tests.broker.policies import GET, Brittle, Rule, child, ended, forbids
from tests.broker.samples import DETAIL
from tests.broker.world import OPERATOR, SEARCH, TABLE, World, details, on_end, run, search, warehouse
from tests.uses import permitted_use

BUSY = [{**SEARCH, "paths": [f"/v1/{n}"]} for n in range(16)]


@dataclass
class Paced(Rule):
    """A rule that counts the details it is asked about between two turns of the loop."""

    turn: int = 0
    counts: dict[int, int] = field(default_factory=dict)

    def __call__(self, question: Question) -> Decision:
        self.counts[self.turn] = self.counts.get(self.turn, 0) + len(question.scope)
        return super().__call__(question)

    async def turning(self) -> None:
        """Count the turns that others get."""
        while True:
            await asyncio.sleep(0)
            self.turn += 1


async def crowded(world: World, grants: int, tasks: int = 1) -> tuple[Broker, list[Grant]]:
    """Return a broker with tasks whose grants hold as many details as a scope can; the roots."""
    broker = await world.ready()
    roots = [await world.opened(broker, TABLE, *BUSY, fan_out=grants) for _ in range(tasks)]
    for root in roots:
        for _ in range(grants - 1):
            await child(broker, root, *BUSY)
    return broker, roots


def details_of(rule: Rule) -> int:
    """Return how many details a rule was asked about."""
    return sum(len(question.scope) for question in rule.questions)


async def paced(rule: Paced, round_: Any) -> int:
    """Return what a round answers, with others' turns counted meanwhile."""
    turning = asyncio.create_task(rule.turning())
    try:
        answer: int = await round_
    finally:
        turning.cancel()
    return answer


@pytest.mark.attack("DOS-10")
def test_a_round_lets_others_go_on_after_a_few_details_each(world: World) -> None:
    async def body() -> None:
        broker, _ = await crowded(world, 50, tasks=4)
        rule = Paced("v2")
        assert await paced(rule, broker.policy.reload(OPERATOR, rule, rule.version)) == 0
        assert details_of(rule) == 4 * (17 + 49 * 16)
        assert max(rule.counts.values()) <= 8

    run(body())


@pytest.mark.attack("DOS-10")
def test_the_operator_ends_a_task_while_its_grants_are_decided_on(world: World) -> None:
    async def body() -> None:
        broker, [root] = await crowded(world, 100)
        rule = Rule("v2")
        reloading = asyncio.create_task(broker.policy.reload(OPERATOR, rule, rule.version))
        at_end: list[bool] = []
        on_end(broker, lambda _: at_end.append(reloading.done()))
        await rule.first.wait()
        await broker.revoke(OPERATOR, root.id)
        assert at_end == [False]
        assert ended(broker, root)
        assert await reloading == 0
        assert details_of(rule) < 50  # what was ended meanwhile is asked about no more

    run(body())


@pytest.mark.attack("DOS-10")
def test_a_change_of_one_resource_asks_about_nothing_else(world: World) -> None:
    async def body() -> None:
        broker, [root] = await crowded(world, 50)
        world_rule = Rule("v2")
        await broker.policy.reload(OPERATOR, world_rule, "v2")
        world_rule.questions.clear()
        await broker.put_resource(OPERATOR, warehouse())
        assert [[d.resource for d in q.scope] for q in world_rule.questions] == [["warehouse"]]
        assert world_rule.questions[0].whole == root.scope
        world_rule.questions.clear()
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        world_rule.questions.clear()
        await broker.put_resource(OPERATOR, search())
        assert {d.resource for q in world_rule.questions for d in q.scope} == {"search"}
        assert issued.lease.plan.name in world.target.accounts

    run(body())


def test_a_narrower_bound_ends_all_that_names_the_resource_and_exceeds_it(world: World) -> None:
    async def body() -> None:
        broker, [root] = await crowded(world, 5)
        other = await world.opened(broker, TABLE)
        bound = details({**SEARCH, "paths": ["/v1/0"], "uses": 3})
        await broker.put_resource(OPERATOR, replace(search(), bound=bound))
        assert ended(broker, root)
        assert not ended(broker, other)

    run(body())


def test_what_is_denied_by_a_detail_far_down_ends(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker, *BUSY, TABLE)
        rule = forbids("warehouse")
        assert await broker.policy.reload(OPERATOR, rule, rule.version) == 1
        assert ended(broker, root)

    run(body())


def test_what_was_decided_by_a_policy_that_holds_no_more_is_not_applied(world: World) -> None:
    """Details of one grant are decided over several turns; another policy may come to hold in between."""

    async def body() -> None:
        broker, [root] = await crowded(world, 3)
        lax = Rule("lax")

        def replaced(question: Question) -> bool:
            if question.verb == "delegate":
                broker.policy.deciding = lax
            return question.verb == "delegate"

        assert await broker.policy.reload(OPERATOR, Rule("strict", replaced), "strict") == 0
        assert not any(grant.revoked for grant in broker._tasks.task_of(root.id).grants.values())
        assert lax.questions

    run(body())


def test_a_round_that_failed_is_made_up_for_by_the_next_whatever_that_is_about() -> None:
    async def body() -> None:
        store = Brittle()
        world = World(store=store)
        broker = await world.ready()
        root = await world.opened(broker, TABLE)
        rule = forbids("warehouse")
        store.fail, store.unreadable = [UnavailableError()], True
        with pytest.raises(UnavailableError):  # and the task is out of memory
            await child(broker, root, TABLE)
        with pytest.raises(UnavailableError):
            await broker.policy.reload(OPERATOR, rule, rule.version)
        store.unreadable = False
        await broker._tasks.find("task_0")
        await broker.put_resource(OPERATOR, search())
        assert ended(broker, root)
        assert (await store.load("task_0")).head.closed

    run(body())


def test_a_sweep_does_not_begin_a_round_that_is_under_way(world: World) -> None:
    async def body() -> None:
        broker, _ = await crowded(world, 20)
        rule = Rule("v2")
        reloading = asyncio.create_task(broker.policy.reload(OPERATOR, rule, rule.version))
        await rule.first.wait()
        await broker.sweep()
        assert not reloading.done()
        await reloading
        assert details_of(rule) == 17 + 19 * 16

    run(body())


def refused(broker: Broker, grant: Grant) -> bool:
    """Whether a grant is yet to be decided on."""
    try:
        broker._tasks.check(grant.id)
    except UnavailableError:
        return True
    return False


# -- starting ---------------------------------------------------------------------------------------------------------


@pytest.mark.attack("DOS-10")
def test_after_a_start_what_is_undecided_is_refused_and_can_be_looked_at_and_ended(world: World) -> None:
    async def body() -> None:
        broker, [big, small] = await crowded(world, 30, tasks=2)
        del broker
        rule = Paced("v2")
        world.decide = rule
        again = world.broker()
        await again.load()
        assert rule.questions == []
        for attempt in (
            lambda: permitted_use(again, big.id, GET, "req_1"),
            lambda: again.issue(OPERATOR, big.id, DETAIL),
            lambda: child(again, big),
            lambda: again.attach(OPERATOR, big.id, big.posture),
        ):
            with pytest.raises(UnavailableError, match="started anew"):
                await attempt()
        with pytest.raises(UnavailableError):
            again._tasks.check(small.id)
        assert [len(task.grants) for task in list(again._tasks)] == [30, 30]
        fresh = await world.opened(again)
        assert (await permitted_use(again, fresh.id, GET, "req_1")).grant == fresh.id
        await again.revoke(OPERATOR, big.id)
        await paced(rule, again.settle())
        assert max(rule.counts.values()) <= 17  # with what was opened meanwhile
        with pytest.raises(RevokedError):
            again._tasks.check(big.id)
        assert (await permitted_use(again, small.id, replace(GET, path="/v1/0"), "req_2")).grant == small.id

    run(body())


@pytest.mark.attack("DOS-10")
def test_after_a_start_a_large_task_holds_up_no_small_one(world: World) -> None:
    async def body() -> None:
        broker, _ = await crowded(world, 60, tasks=20)
        small = await world.opened(broker, TABLE)
        rule = Rule("v2")
        world.decide = rule
        again = world.broker()
        await again.load()
        settling = asyncio.create_task(again.settle())
        for _ in range(1_000):
            await asyncio.sleep(0)
            if not refused(again, small):
                break
        assert not refused(again, small)
        assert details_of(rule) < 200
        assert not settling.done()
        await settling

    run(body())


def test_after_a_start_what_the_store_failed_to_end_has_ended_and_a_sweep_records_it() -> None:
    async def body() -> None:
        store = Brittle()
        world = World(store=store)
        root = await world.opened(await world.ready())
        world.decide = forbids("warehouse")
        again = world.broker()
        await again.load()
        store.fail = [UnavailableError()]
        await again.settle()
        task_id = again._tasks.task_of(root.id).id
        with pytest.raises(RevokedError):
            again._tasks.check(root.id)
        assert not (await store.load(task_id)).head.closed
        await again.sweep()
        assert (await store.load(task_id)).head.closed
        with pytest.raises(PolicyError):
            await world.opened(again)

    run(body())
