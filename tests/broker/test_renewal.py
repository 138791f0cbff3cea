"""A task is renewed by whom it was opened for: policy is asked, a token counts once, and what has ended stays so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from remit.broker import Broker
from remit.core.audit import Event
from remit.core.grant import Posture
from remit.core.principal import Signal, Workload
from remit.core.request import Binding, GrantRequest
from remit.core.scope import Access
from remit.core.task import Grant, Report
from remit.errors import (
    DeniedError,
    ExpiredError,
    GrantTokenError,
    InvalidRequestError,
    NotFoundError,
    PolicyError,
    RevokedError,
    UnavailableError,
    UsedError,
)
from remit.ports import Write
from remit.ports.broker import Presented
from tests.broker.asking import ANN, BOB, House
from tests.broker.policies import Rule
from tests.broker.world import OPERATOR, SEARCH, START, STRANGER, TABLE, World, child, details, holder, on_end, run
from tests.support.memory_store import MemoryStore
from tests.uses import permitted_use

GET = Access("search", "GET", "/v1/1")
REFUSED: dict[str, type[Exception]] = {
    "close": RevokedError,
    "time": ExpiredError,
    "signal": GrantTokenError,
    "policy": PolicyError,
}
QUARTER, HOUR, EIGHT = timedelta(minutes=15), timedelta(hours=1), timedelta(hours=8)


def ends(broker: Broker, grant: Grant) -> tuple[datetime, datetime, datetime]:
    """Return when a task, its root and what looks at them for each use say that it ends."""
    task = broker._tasks.task_of(grant.id)
    return task.head.expires_at, task.grant(grant.id).expires_at, broker._tasks.live(grant.id).expires_at


async def renewed(world: World) -> list[Event]:
    return [event for event in await world.events() if event.event == "task.renew"]


def test_the_owner_renews_a_task_of_their_own_and_it_is_used_after_its_first_end(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        task = broker._tasks.task_of(root.id).id
        world.later(600)
        view = await broker.renew_task(OPERATOR, task, HOUR)
        assert (view.id, view.grant.expires_at) == (root.id, world.now + HOUR)
        assert ends(broker, root) == (world.now + HOUR,) * 3
        world.later(1_200)
        await broker.sweep()
        await permitted_use(broker, root.id, GET, "req_1")
        assert (await broker.find(root.id)).grant.expires_at == START + timedelta(minutes=70)
        [event] = await renewed(world)
        assert (event.decision, event.grant, event.task, event.lineage) == ("allow", root.id, task, (root.id,))
        assert (event.subject, event.policy) == (OPERATOR.name, "local-1")
        assert event.cause is not None
        assert event.cause.startswith("until 2026-01-01T01:10:00+00:00: ")
        world.later(3_000)
        await broker.sweep()
        with pytest.raises(ExpiredError):
            await broker.grant(root.id)
        assert (await world.events())[-1].event == "task.close"

    run(body())


def test_of_two_ends_the_later_one_counts_and_nothing_is_made_to_end_sooner(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        task = broker._tasks.task_of(root.id).id
        for _ in range(2):
            assert (await broker.renew_task(OPERATOR, task, HOUR)).grant.expires_at == START + HOUR
        assert (await broker.renew_task(OPERATOR, task, timedelta(seconds=1))).grant.expires_at == START + HOUR
        both = await asyncio.gather(*(broker.renew_task(OPERATOR, task, ttl) for ttl in (EIGHT, 2 * HOUR)))
        assert [view.grant.expires_at for view in both] == [START + EIGHT] * 2

    run(body())


@pytest.mark.parametrize("ttl", [timedelta(0), timedelta(seconds=-1), EIGHT + timedelta(seconds=1), timedelta(days=7)])
def test_it_is_renewed_for_eight_hours_at_most(world: World, ttl: timedelta) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        with pytest.raises(InvalidRequestError, match="28800 seconds"):
            await broker.renew_task(OPERATOR, broker._tasks.task_of(root.id).id, ttl)
        assert ends(broker, root) == (START + QUARTER,) * 3

    run(body())


@pytest.mark.attack("REN-01")
def test_a_child_and_a_lease_end_when_they_were_made_to(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        task = broker._tasks.task_of(root.id).id
        below = (await broker.delegate(holder(broker, root), root.id, child(SEARCH))).grant
        lease = (await broker.issue(holder(broker, root), root.id, details({**TABLE, "ttl": 600})[0])).lease
        await broker.renew_task(OPERATOR, task, HOUR)
        assert broker._tasks.task(task).lease(lease.id).expires_at == lease.expires_at
        world.later(QUARTER.total_seconds())
        with pytest.raises(ExpiredError):
            await permitted_use(broker, below.id, GET, "req_1")
        with pytest.raises(ExpiredError):
            await broker.delegate(holder(broker, below), below.id, child(SEARCH, depth=0))
        await broker.sweep()
        assert lease.plan.name not in world.target.accounts
        again = (await broker.delegate(holder(broker, root), root.id, child(SEARCH))).grant
        assert again.expires_at == START + HOUR

    run(body())


def test_a_human_renews_their_task_by_a_new_token_and_it_rests_on_that_login(house: House) -> None:
    async def body() -> None:
        rule = Rule("v1")
        house.world.decide = rule
        broker = await house.world.ready()
        root = await house.root(broker)
        task = broker._tasks.task_of(root.id).id
        narrow = child({**SEARCH, "paths": ["/v1/search"]}, depth=0, fan_out=0)
        below = (await broker.delegate(holder(broker, root), root.id, narrow)).grant
        assert (await broker.find(below.id)).subject.sid == "s-1"
        house.world.later(600)
        ann = house.human(acr="urn:otp", sid="s-2", groups=("staff",))
        await broker.renew_task(ann, task, HOUR)
        asked = rule.questions[-1]
        assert (asked.verb, asked.subject, asked.scope) == ("open", ann.subject, root.scope)
        assert asked.bounds == replace(root.bounds, ttl=timedelta(minutes=70))  # from its opening to its new end
        for name in (root.id, below.id):
            assert (await broker.find(name)).subject == ann.subject
        assert await broker.signal([Signal(house.world.now, "logout", "one", sid="s-2")]) == 1
        with pytest.raises(RevokedError):
            await broker.grant(root.id)

    run(body())


def test_what_a_policy_is_asked_when_it_is_asked_anew_is_what_it_was_asked_to_renew(house: House) -> None:
    async def body() -> None:
        rule = Rule("v1", lambda question: "staff" not in question.subject.groups)
        broker = await house.world.ready()
        root = await house.root(broker)
        house.world.decide = rule
        await broker.policy.reload(OPERATOR, Rule("v0"), "v0")
        house.world.later(600)
        await broker.renew_task(house.human(groups=("staff",)), broker._tasks.task_of(root.id).id, HOUR)
        assert await broker.policy.reload(OPERATOR, rule, "v1") == 0
        again = house.world.broker()
        await again.start()
        assert (await again.grant(root.id)).grant.expires_at == house.world.now + HOUR
        asked = rule.questions[-1]
        assert (asked.bounds.ttl, asked.subject.groups) == (timedelta(minutes=70), ("staff",))

    run(body())


def test_a_policy_bounds_how_long_a_task_lasts_in_all(house: House) -> None:
    async def body() -> None:
        day = timedelta(days=1)
        house.world.decide = Rule("v1", lambda question: (question.bounds.ttl or day) > day)
        broker = await house.world.ready()
        root = await house.root(broker)
        task, last = broker._tasks.task_of(root.id).id, START
        for _ in range(3):
            last = (await broker.renew_task(house.human(), task, EIGHT)).grant.expires_at
            house.world.later((last - house.world.now).total_seconds() - 1)
        before = broker._tasks.task(task)
        with pytest.raises(PolicyError):
            await broker.renew_task(house.human(), task, EIGHT)
        assert broker._tasks.task(task) == before
        event = (await house.world.events())[-1]
        assert (event.event, event.decision, event.code, event.policy) == ("task.renew", "deny", "policy", "v1")
        assert (event.grant, event.subject) == (root.id, ANN)
        house.world.later(1)
        with pytest.raises(ExpiredError):
            await broker.grant(root.id)

    run(body())


@pytest.mark.attack("REN-02")
def test_nobody_renews_what_was_opened_for_another(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        anns, own = await house.root(broker), await house.world.opened(broker)
        ann, owner = (broker._tasks.task_of(each.id).id for each in (anns, own))
        for by, task in ((house.human(sub=BOB), ann), (OPERATOR, ann), (house.human(), owner), (STRANGER, owner)):
            with pytest.raises(DeniedError, match="by whom it was opened for"):
                await broker.renew_task(by, task, HOUR)
            event = (await renewed(house.world))[-1]
            assert (event.decision, event.code, event.subject) == ("deny", "denied", by.name)
        assert ends(broker, anns) == ends(broker, own) == (START + QUARTER,) * 3
        with pytest.raises(NotFoundError):
            await broker.renew_task(OPERATOR, "task_unknown", HOUR)

    run(body())


@pytest.mark.attack("REN-03")
def test_a_token_renews_once_and_what_opened_a_task_renews_none(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        ann = house.human()
        wanted = GrantRequest(details(SEARCH), purpose="draft")
        root = (await broker.open(ann, replace(wanted, bounds=replace(wanted.bounds, ttl=QUARTER)))).grant
        task = broker._tasks.task_of(root.id).id
        with pytest.raises(UsedError):
            await broker.renew_task(ann, task, HOUR)
        assert ends(broker, root) == (START + QUARTER,) * 3
        fresh = house.human()
        await broker.renew_task(fresh, task, HOUR)
        house.world.later(60)
        with pytest.raises(UsedError):
            await broker.renew_task(fresh, task, HOUR)
        assert ends(broker, root) == (START + HOUR,) * 3
        with pytest.raises(UsedError):
            await broker.open(fresh, replace(wanted, bounds=replace(wanted.bounds, ttl=QUARTER)))
        assert [event.code for event in await renewed(house.world)] == ["used", None, "used"]
        await permitted_use(broker, root.id, GET, "req_1")

    run(body())


def test_a_denial_leaves_the_token_to_be_used(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        task, ann = broker._tasks.task_of(root.id).id, house.human()
        broker.policy.deciding = Rule("v1", lambda _: True)
        with pytest.raises(PolicyError):
            await broker.renew_task(ann, task, HOUR)
        broker.policy.deciding = Rule("v2")
        await broker.renew_task(ann, task, HOUR)
        assert broker._tasks.task(task).grant(root.id).policy == "v2"

    run(body())


@pytest.mark.attack("REN-04")
def test_a_login_that_its_issuer_has_ended_renews_nothing(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        other = house.human(sid="s-2")
        await broker.signal([Signal(house.world.now, "logout", "one", sid="s-2")])
        with pytest.raises(GrantTokenError):
            await broker.renew_task(other, broker._tasks.task_of(root.id).id, HOUR)
        assert ends(broker, root) == (START + QUARTER,) * 3

    run(body())


@pytest.mark.attack("REN-05")
def test_what_has_ended_is_renewed_by_nobody(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root, closed = await world.opened(broker), await world.opened(broker)
        task, over = (broker._tasks.task_of(each.id).id for each in (root, closed))
        await broker.close(OPERATOR, over)
        with pytest.raises(RevokedError):
            await broker.renew_task(OPERATOR, over, HOUR)
        world.later(QUARTER.total_seconds())
        for sweeps in range(2):
            with pytest.raises(ExpiredError if sweeps == 0 else NotFoundError):
                await broker.renew_task(OPERATOR, task, HOUR)
            await broker.sweep()
        with pytest.raises(ExpiredError):
            await broker.grant(root.id)
        assert [event.code for event in await renewed(world)] == ["revoked", "expired"]

    run(body())


@pytest.mark.attack("REN-05")
@pytest.mark.parametrize("what", ["close", "time", "signal", "policy"])
def test_what_ends_while_the_policy_is_asked_stays_ended(what: str) -> None:
    house = House()

    async def body() -> None:
        broker = await house.world.ready()
        many = ({**SEARCH, "paths": [f"/v1/{number}"]} for number in range(16))  # decided on some at a time
        root = await house.root(broker, *many)
        task, going = broker._tasks.task_of(root.id).id, list[asyncio.Task[object]]()

        def meanwhile(_: object) -> bool:
            if not going:
                match what:
                    case "close":
                        going.append(asyncio.ensure_future(broker.close(OPERATOR, task)))
                    case "time":
                        house.world.later(QUARTER.total_seconds())
                        going.append(asyncio.ensure_future(broker.sweep()))
                    case "signal":
                        said = Signal(house.world.now, "logout", "one", sid="s-1")
                        going.append(asyncio.ensure_future(broker.signal([said])))
                    case _:
                        no = Rule("v2", lambda question: question.verb == "open")
                        going.append(asyncio.ensure_future(broker.policy.reload(OPERATOR, no, "v2")))
            return False

        broker.policy.deciding = Rule("v1", meanwhile)
        with pytest.raises(REFUSED[what]):
            await broker.renew_task(house.human(), task, HOUR)
        await asyncio.gather(*going)
        await broker.sweep()
        with pytest.raises((RevokedError, ExpiredError)):
            await permitted_use(broker, root.id, GET, "req_1")
        again = house.world.broker()
        again.policy.deciding = Rule("v1")
        await again.start()
        await again.sweep()
        with pytest.raises((RevokedError, ExpiredError, NotFoundError)):
            await permitted_use(again, root.id, GET, "req_2")

    run(body())


def test_a_policy_that_changed_while_it_was_asked_decides(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)

        def replaced(_: object) -> bool:
            broker.policy.deciding = Rule("v2", lambda _: True)
            return False

        broker.policy.deciding = Rule("v1", replaced)
        with pytest.raises(PolicyError):
            await broker.renew_task(house.human(), broker._tasks.task_of(root.id).id, HOUR)
        assert ends(broker, root) == (START + QUARTER,) * 3

    run(body())


def test_what_could_not_be_recorded_has_not_happened_and_can_be_asked_again(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.root(broker)
        task = broker._tasks.task_of(root.id).id
        house.store.fail.append(UnavailableError())
        with pytest.raises(UnavailableError):
            await broker.renew_task(house.human(), task, HOUR)
        assert ends(broker, root) == (START + QUARTER,) * 3
        await broker.renew_task(house.human(), task, HOUR)
        assert ends(broker, root) == (START + HOUR,) * 3

    run(body())


def test_a_renewal_outlasts_a_restart_and_the_sweep_at_the_first_end(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        await broker.renew_task(OPERATOR, broker._tasks.task_of(root.id).id, HOUR)
        again = world.broker()
        await again.start()
        world.later(QUARTER.total_seconds())
        await again.sweep()
        assert ends(again, root) == (START + HOUR,) * 3
        assert again._tasks.task_of(root.id).grant(root.id).bounds.ttl == HOUR
        await permitted_use(again, root.id, GET, "req_1")
        world.later(HOUR.total_seconds())
        await again.sweep()
        with pytest.raises(ExpiredError):
            await permitted_use(again, root.id, GET, "req_2")

    run(body())


def test_nothing_is_renewed_while_a_new_broker_has_not_decided_on_it(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        task = broker._tasks.task_of(root.id).id
        again = world.broker()
        await again.load()
        with pytest.raises(UnavailableError):
            await again.renew_task(OPERATOR, task, HOUR)
        await again.settle()
        await again.renew_task(OPERATOR, task, HOUR)

    run(body())


def test_nothing_is_renewed_while_the_clock_is_behind(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        world.later(60)
        broker._tasks.now()
        world.later(-50)
        with pytest.raises(UnavailableError, match="the clock is behind"):
            await broker.renew_task(OPERATOR, broker._tasks.task_of(root.id).id, HOUR)
        assert ends(broker, root) == (START + QUARTER,) * 3

    run(body())


@pytest.mark.attack("REN-02")
def test_neither_a_workloads_task_nor_one_that_was_approved_is_renewed(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        same = Workload(ANN, "oidc", START + HOUR, digest="once")
        wanted = GrantRequest(details(SEARCH), purpose="nightly", binding=Binding(identity=ANN))
        wanted = replace(wanted, bounds=replace(wanted.bounds, ttl=QUARTER))
        works = await broker.open(same, wanted)
        asked = await broker.ask_to_open("https://client.test", replace(wanted, binding=Binding(jkt="k" * 43)), ANN)
        approved = await broker.approve(asked.id, asked.digest, house.human(asked.digest), page=True)
        for view in (works, await broker.open(approved, replace(wanted, binding=Binding(jkt="k" * 43)))):
            assert view.subject.sub == ANN
            with pytest.raises(DeniedError, match="lasts as long as it was opened for"):
                await broker.renew_task(house.human(), view.task, HOUR)

    run(body())


def test_a_refresh_token_of_a_renewed_task_is_kept_as_long(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        bound = await world.opened(broker, jkt="k" * 43)
        await broker.issue_refresh_token(bound.id, "client", "first")
        task, digest = broker._tasks.task_of(bound.id).id, "first"
        for step in range(12):  # two days
            await broker.renew_task(OPERATOR, task, EIGHT)
            world.later(4 * 3_600)
            await broker.rotate_refresh_token(Presented(digest, "client", "k" * 43), f"t{step}")
            digest = f"t{step}"
            await broker.issue_refresh_token(bound.id, "other", f"o{step}")  # others that are over are forgotten
        assert await broker.refresh_token(digest) is not None

    run(body())


def test_a_run_that_nobody_serves_is_not_renewed(world: World) -> None:
    async def body() -> None:
        broker = await world.ready()
        view = await broker.open(
            OPERATOR, replace(child(SEARCH, ttl=QUARTER), purpose="run"), Posture("namespace", "channel")
        )
        broker.runs.wait(view.id)
        with pytest.raises(UnavailableError, match="has lost the process"):
            await broker.renew_task(OPERATOR, view.task, HOUR)
        broker.runs.served(view.id)
        assert (await broker.renew_task(OPERATOR, view.task, HOUR)).grant.posture.custody == "channel"

    run(body())


def test_edges_are_told_of_the_new_end_though_nothing_can_be_recorded_then(house: House) -> None:
    async def body() -> None:
        broker = await house.world.ready()
        root = await house.world.opened(broker)
        below = (await broker.delegate(holder(broker, root), root.id, child(SEARCH))).grant
        await broker.renew_task(OPERATOR, broker._tasks.task_of(root.id).id, HOUR)
        told = set[str]()
        on_end(broker, told.update)
        house.store.fail = [UnavailableError() for _ in range(50)]
        assert not (await broker.revoke(OPERATOR, below.id)).recorded
        house.world.later(QUARTER.total_seconds())
        await broker.sweep()
        assert told == {below.id}
        house.world.later(HOUR.total_seconds())
        await broker.sweep()
        assert told == {below.id, root.id}

    run(body())


class Held(MemoryStore):
    """A store whose commits wait until they are let go."""

    def __init__(self) -> None:
        super().__init__()
        self.go = asyncio.Event()
        self.go.set()

    async def commit(self, writes: Sequence[Write], events: Sequence[Event]) -> None:
        await self.go.wait()
        await super().commit(writes, events)


def test_a_task_that_ends_while_its_renewal_is_being_recorded_is_not_said_to_go_on() -> None:
    store = Held()
    world = World(store=store)

    async def body() -> None:
        broker = await world.ready()
        root = await world.opened(broker)
        task = broker._tasks.task_of(root.id).id
        store.go.clear()
        renewing = asyncio.ensure_future(broker.renew_task(OPERATOR, task, HOUR))
        await until(lambda: ends(broker, root)[0] == START + HOUR)
        closing = asyncio.ensure_future(broker.close(OPERATOR, task))
        await until(lambda: broker._tasks.live(root.id).ended)
        store.go.set()
        results = await asyncio.gather(renewing, closing, return_exceptions=True)
        assert isinstance(results[0], RevokedError)
        assert isinstance(results[1], Report)
        assert results[1].state == "closed"

    run(body())


async def until(done: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not done():  # noqa: ASYNC110 - the condition is the test's own
            await asyncio.sleep(0)
