"""What policy allows at most: asked before authority is made."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest

from remit.broker.policy import BREATH, TRIES, _slices, compared
from remit.core import scope
from remit.core.policy import VERSION, Question
from remit.core.principal import Human, Signal, Workload
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Subject
from remit.errors import GrantTokenError, NotFoundError, PolicyError, RevokedError, UnavailableError
from tests.broker.asking import House
from tests.broker.policies import Rule, child, forbids
from tests.broker.samples import DETAIL
from tests.broker.world import OPERATOR, SEARCH, TABLE, World, details, holder, run
from tests.core.test_scope_cost import WORST


def test_every_verb_is_asked_with_all_that_is_known_of_the_grant() -> None:
    async def body() -> None:
        rule = Rule("v1")
        world = World(decide=rule)
        broker = await world.ready()
        root = await world.opened(broker, label="root")
        under = await child(broker, root, TABLE, depth=1, fan_out=2, exercise=True)
        issued = await broker.issue(holder(broker, under), under.id, DETAIL)
        await broker.renew(holder(broker, under), issued.lease.id, timedelta(seconds=60))
        asked = {question.verb: question for question in rule.questions}
        assert set(asked) == {"open", "delegate", "issue", "renew"}
        assert {q.purpose for q in rule.questions} == {"draft the CFO summary"}
        assert {q.subject for q in rule.questions} == {OPERATOR.subject}
        below = asked["delegate"]
        assert (below.level, below.bounds.depth, below.bounds.fan_out, below.scope) == (1, 1, 2, under.scope)
        assert asked["issue"].scope == (DETAIL,) == asked["renew"].scope
        assert set(asked["open"].limits) == {"search", "warehouse"}
        assert asked["open"].posture.at_rest == "kek-file"

    run(body())


def test_a_child_that_names_no_time_is_asked_about_with_what_is_left_of_its_parent() -> None:
    async def body() -> None:
        rule = Rule("v1")
        world = World(decide=rule)
        broker = await world.ready()
        root = await world.opened(broker)
        world.later(100)
        await child(broker, root)
        assert rule.questions[-1].bounds.ttl == timedelta(minutes=15) - timedelta(seconds=100)

    run(body())


def test_bounds_hold_whatever_a_policy_says() -> None:
    async def body() -> None:
        rule = Rule("v1")
        world = World(decide=rule)
        broker = await world.ready()
        with pytest.raises(PolicyError) as refused:
            await world.opened(broker, {**SEARCH, "paths": ["/v2/**"]})
        assert rule.questions == []
        assert refused.value.version == VERSION
        assert refused.value.help is not None
        assert refused.value.help.startswith("the bound is [")
        assert '"paths":["/v1/**"]' in refused.value.help

    run(body())


def test_an_unknown_resource_says_where_to_look() -> None:
    async def body() -> None:
        world = World()
        broker = await world.ready()
        with pytest.raises(PolicyError) as refused:
            await world.opened(broker, {**SEARCH, "resource": "other"})
        assert refused.value.help == "whoever runs this broker sees what there is by `remit resource list`"

    run(body())


@pytest.mark.parametrize("wanted", [{**SEARCH, "resource": "other"}, {**SEARCH, "paths": ["/v2/**"]}])
def test_others_are_told_neither_bounds_nor_which_resources_there_are(wanted: dict[str, object]) -> None:
    async def body() -> None:
        rule = Rule("v1")
        world = World(decide=rule)
        broker = await world.ready()
        until = world.now + timedelta(minutes=5)
        human = Human(Subject("https://id.test#alice", "urn:test:password"), "token", world.now, until, "remit")
        workload = Workload("spiffe://id.test/agent", "jwt-svid", until)
        openers: tuple[Human | Workload, ...] = (human, workload)
        for opener in openers:
            with pytest.raises(PolicyError) as refused:
                await broker.open(opener, GrantRequest(details(wanted), Bounds(timedelta(minutes=15)), purpose="draft"))
            name = wanted["resource"]
            assert refused.value.detail == f"there is no `{name}` here, or not as much of it as this asks for"
            assert refused.value.help == "whoever runs this broker sees what there is by `remit resource list`"
            assert refused.value.version == VERSION
            assert refused.value.inside is not None
            assert (await world.events())[-1].cause == refused.value.inside.detail != refused.value.detail
        assert rule.questions == []

    run(body())


def test_an_agent_that_asks_for_more_than_a_bound_is_not_told_the_bound() -> None:
    async def body() -> None:
        world = World(decide=Rule("v1"))
        broker = await world.ready()
        root = await world.opened(broker, depth=1, fan_out=1)
        beyond = GrantRequest(details({**SEARCH, "paths": ["/v2/**"]}), Bounds(timedelta(minutes=5)))
        with pytest.raises(PolicyError, match="not as much of it as this asks for"):
            await broker.ask(holder(broker, root), root.id, beyond)
        with pytest.raises(PolicyError, match="wider than the bound of `search`"):
            await broker.ask(OPERATOR, root.id, beyond)

    run(body())


def test_a_refusal_by_policy_names_what_decided_and_how_to_learn_more() -> None:
    async def body() -> None:
        world = World(decide=forbids("warehouse"))
        broker = await world.ready()
        with pytest.raises(PolicyError) as refused:
            await world.opened(broker)
        assert refused.value.detail == "`no` forbids it"
        assert refused.value.version == "no-warehouse"
        assert "`remit policy explain --entry SEQ`" in (refused.value.help or "")

    run(body())


def test_where_no_policies_are_written_a_refusal_says_how_others_are_let_in() -> None:
    async def body() -> None:
        world = World()
        broker = await world.ready()
        until = world.now + timedelta(minutes=5)
        opener = Human(Subject("https://id.test#alice", "urn:test:password"), "token", world.now, until, "remit")
        with pytest.raises(PolicyError) as refused:
            await broker.open(opener, GrantRequest(details(TABLE), Bounds(timedelta(minutes=15)), purpose="draft"))
        assert "`remit policy --help`" in (refused.value.help or "")

    run(body())


@pytest.mark.parametrize("verb", ["open", "delegate", "issue", "renew"])
def test_a_denial_is_on_record_with_its_reasons_and_the_version_that_decided(verb: str) -> None:
    async def body() -> None:
        world = World()
        broker = await world.ready()
        rule = forbids("warehouse", verb)
        if verb == "open":
            await broker.policy.reload(OPERATOR, rule, rule.version)
            with pytest.raises(PolicyError):
                await world.opened(broker)
        else:
            root = await world.opened(broker)
            issued = await broker.issue(OPERATOR, root.id, DETAIL)
            await broker.policy.reload(OPERATOR, rule, rule.version)
            again: dict[str, Callable[[], Awaitable[object]]] = {
                "delegate": lambda: child(broker, root, TABLE),
                "issue": lambda: broker.issue(OPERATOR, root.id, DETAIL),
                "renew": lambda: broker.renew(OPERATOR, issued.lease.id, timedelta(seconds=60)),
            }
            with pytest.raises(PolicyError):
                await again[verb]()
        noun = {"open": "task", "delegate": "grant"}.get(verb, "lease")
        [denied] = [event for event in await world.events() if event.decision == "deny"]
        assert denied.event == f"{noun}.{verb}"
        assert (denied.code, denied.cause, denied.policy) == ("policy", "`no` forbids it", "no-warehouse")

    run(body())


def test_what_was_allowed_is_on_record_with_its_reasons_and_the_version() -> None:
    async def body() -> None:
        world = World(decide=Rule("v7"))
        broker = await world.ready()
        root = await world.opened(broker)
        await child(broker, root)
        issued = await broker.issue(OPERATOR, root.id, DETAIL)
        await broker.renew(OPERATOR, issued.lease.id, timedelta(seconds=60))
        told = {event.event: event for event in await world.events() if event.decision == "allow"}
        assert {event.policy for event in told.values()} == {"v7"}
        assert set(told) == {"task.open", "grant.delegate", "lease.issue", "lease.renew"}
        assert {event.cause for event in told.values()} == {"`yes` permits it"}
        assert root.policy == "v7"

    run(body())


def test_the_question_about_a_grant_can_be_looked_at() -> None:
    async def body() -> None:
        world = World()
        broker = await world.ready()
        root = await world.opened(broker)
        question = await broker.question(root.id)
        assert (question.verb, question.scope, question.level) == ("open", root.scope, 0)
        assert set(question.limits) == {"search", "warehouse"}
        with pytest.raises(NotFoundError):
            await broker.question("grt_none")

    run(body())


MANY = [{**SEARCH, "paths": [f"/v1/{number}"]} for number in range(BREATH + 1)]  # asked about in two parts


def test_a_policy_that_is_replaced_while_it_is_asked_allows_nothing_any_more(world: World) -> None:
    async def body() -> None:
        second = forbids("search")

        def replaced(_: Question) -> bool:
            broker.policy.deciding = second
            return False

        world.decide = first = Rule("v1", replaced)
        broker = await world.ready()
        with pytest.raises(PolicyError) as refused:
            await world.opened(broker, *MANY)
        assert (refused.value.version, first.questions[0].scope) == (second.version, details(*MANY[:BREATH]))
        assert await broker.tasks(OPERATOR) == []

    run(body())


def test_policies_that_change_whenever_they_are_asked_allow_nothing_and_end_the_asking(world: World) -> None:
    async def body() -> None:
        asked = list[Question]()

        def changing(question: Question) -> bool:
            asked.append(question)
            broker.policy.deciding = Rule(f"v{len(asked)}", changing)
            return False

        world.decide = Rule("v0", changing)
        broker = await world.ready()
        with pytest.raises(UnavailableError, match="changed while it was asked"):
            await world.opened(broker)
        assert len(asked) == TRIES
        assert await broker.tasks(OPERATOR) == []

    run(body())


def test_others_get_their_turn_while_scopes_are_compared_and_the_answer_is_known_then() -> None:
    async def body() -> None:
        child, parent = (scope.parse(raw) for raw in WORST["arguments"])
        scope.COMPARED.clear()
        comparing, turns = asyncio.ensure_future(compared(child, parent)), 0
        while not comparing.done():
            turns += 1
            await asyncio.sleep(0)
        assert turns > 4
        assert scope.COMPARED[child, parent] == (None,) * 16

    run(body())


LONG = {**SEARCH, "paths": [f"/v1/{'a' * 100}{n}" for n in range(30)]}


def test_a_parent_that_ends_while_the_policy_is_asked_gets_no_child(world: World) -> None:
    async def body() -> None:
        ending = list[asyncio.Task[object]]()

        def ends(question: Question) -> bool:
            if question.verb == "delegate" and not ending:
                ending.append(asyncio.ensure_future(broker.revoke(OPERATOR, root.id)))
            return False

        world.decide = Rule("v1", ends)
        broker = await world.ready()
        root = await world.opened(broker, *MANY, depth=1, fan_out=1)
        with pytest.raises(RevokedError):
            await broker.delegate(holder(broker, root), root.id, GrantRequest(details(*MANY)))
        await asyncio.gather(*ending)
        assert [grant.id for grant in broker._tasks.task_of(root.id).grants.values()] == [root.id]

    run(body())


def test_a_login_that_ends_while_the_policy_is_asked_opens_nothing() -> None:
    async def body() -> None:
        house, ending = House(), list[asyncio.Task[int]]()

        def ends(question: Question) -> bool:
            if question.verb == "open" and not ending:
                over = Signal(house.world.now, "session-revoked", "d1", sub=question.subject.sub)
                ending.append(asyncio.ensure_future(broker.signal([over])))
            return False

        house.world.decide = Rule("v1", ends)
        broker = await house.world.ready()
        with pytest.raises(GrantTokenError):
            await house.root(broker, *[LONG] * 8)  # asked about one by one
        assert await asyncio.gather(*ending) == [0]
        assert await broker.tasks(OPERATOR) == []

    run(body())


def test_long_details_are_decided_on_one_by_one() -> None:
    short, long = details(*MANY), details(LONG, SEARCH)
    assert [short[at] for at in _slices(short)] == [short[:BREATH], short[BREATH:]]
    asked = (*long, *long)
    assert [asked[at] for at in _slices(asked)] == [long[:1], long[1:], long[:1], long[1:]]
    assert not list(_slices(()))
