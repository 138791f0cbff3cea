"""The authority's part of runs: tickets, which edge, what is inside what, and that all that was made ends."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from remit.broker import Broker
from remit.core.principal import GrantView, Holder
from remit.core.request import Bounds, GrantRequest
from remit.core.secret import Secret
from remit.errors import GrantTokenError, InvalidRequestError, LimitError, NotFoundError, RemitError, UnavailableError
from remit.ports import Resource
from remit.ports.runs import (
    TICKET_LIFE,
    DelegatedToRun,
    HeldByRun,
    LaunchRequest,
    OpenedForRun,
    RedeemedRun,
    RunOffer,
    RunPort,
)
from remit.run import registry, room
from remit.run.posture import MAX_FOLDER
from remit.run.registry import EdgeRuns, RunRegistry
from tests.broker.world import OPERATOR, World, details, run
from tests.run.rig import KINDS, READ
from tests.support.link import edge_of

LIFE = TICKET_LIFE.total_seconds()


def wish(depth: int = 3, purpose: str = "") -> GrantRequest:
    return GrantRequest(details(READ), Bounds(timedelta(minutes=5), depth=depth, fan_out=9), purpose=purpose)


OPEN = LaunchRequest(OpenedForRun(wish(purpose="try")), "namespace", "/run/remit")
CHILD = replace(OPEN, authority=DelegatedToRun(wish(2)))
LAST = replace(OPEN, authority=DelegatedToRun(wish(1)))


@dataclass
class Scene:
    """An authority with one edge that takes runs."""

    world: World
    broker: Broker
    runs: RunRegistry
    own: EdgeRuns
    edge: RunPort  # the same, as it is behind a link

    async def served(self, launch: LaunchRequest = OPEN) -> RedeemedRun:
        """Return a run that the edge serves."""
        return await self.edge.redeem_run((await self.runs.begin_run(OPERATOR, launch)).ticket)

    async def inside(self, outer: RedeemedRun, launch: LaunchRequest = CHILD) -> RunOffer:
        return await self.edge.begin_run(outer.holder, launch, outer.run)

    def ended(self, grant: str) -> bool:
        return self.broker._tasks.task_of(grant).grant(grant).revoked

    async def settled(self) -> None:
        """Wait until whatever is ending has ended."""
        for each in list(self.runs._runs.values()):
            if each.ending is not None:
                await each.ending


def bound(run_: RedeemedRun) -> dict[str, int | str]:
    """Return where the listeners of a run are."""
    return {each.name: 7 if each.path is None else each.path for each in run_.listeners}


def scene(what: Callable[[Scene], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Return a test that plays a scene."""

    async def main() -> None:
        world, ids = World(), itertools.count()
        broker, drawn = await world.ready(), itertools.count()
        runs = RunRegistry(
            broker,
            broker.runs,
            OPERATOR,
            KINDS,
            lambda: world.now,
            lambda size: next(drawn).to_bytes(size, "big"),
            lambda prefix: f"{prefix}_{next(ids)}",
        )
        own = runs.edge("/run/1.sock")
        await own.take_runs([])
        await what(Scene(world, broker, runs, own, edge_of(own)))

    return lambda: run(main())


def test_a_server_that_is_a_command_is_started_by_one_run_of_a_task() -> None:
    details_ = [{"type": "mcp", "actions": ["tools/call"], "tools": "any", "resource": name} for name in ("gh", "db")]

    async def play(it: Scene) -> None:
        for name in ("gh", "db"):
            bound = details({"actions": ["tools/call"], "tools": "any", "type": "mcp", "resource": name})
            there = Resource(name, "mcp", f"mcp+stdio:{name}", bound, None, {"command": ["server"]})
            await it.broker.put_resource(OPERATOR, there)
        both = await it.world.opened(it.broker, *details_, depth=3, fan_out=9)
        one = (await it.broker.delegate(OPERATOR, both.id, GrantRequest(details(details_[0])))).grant
        launch = replace(OPEN, servers=True)
        first = await it.served(replace(launch, authority=HeldByRun(one.id)))
        assert _started(first) == ("gh",)
        second = await it.served(replace(launch, authority=HeldByRun(both.id)))
        assert _started(second) == ("db",)
        assert _started(await it.served(replace(launch, authority=HeldByRun(both.id)))) == ()
        other = await it.world.opened(it.broker, *details_)
        assert _started(await it.served(replace(launch, authority=HeldByRun(other.id)))) == ("gh", "db")
        it.runs.edge_gone(it.own)  # the first is handed over anew
        await it.own.take_runs([])
        assert _started(await it.served(replace(launch, authority=HeldByRun(one.id)))) == ()
        await it.runs.end(it.runs._runs[first.run])
        assert _started(await it.served(replace(launch, authority=HeldByRun(one.id)))) == ("gh",)

    scene(play)()


def _started(run_: RedeemedRun) -> tuple[str, ...]:
    """Return the servers that the launcher of a run starts."""
    return tuple(name for each in run_.listeners for name in each.serves)


@pytest.mark.attack("LAU-14")
def test_a_ticket_is_redeemed_once() -> None:
    async def play(it: Scene) -> None:
        offer = await it.runs.begin_run(OPERATOR, OPEN)
        redeemed = await it.edge.redeem_run(offer.ticket)
        assert (redeemed.run, redeemed.holder) == (offer.run, Holder(offer.task, offer.grant))
        assert list(redeemed.listeners) == list(offer.listeners)
        with pytest.raises(GrantTokenError):
            await it.edge.redeem_run(offer.ticket)
        assert not it.ended(offer.grant)

    scene(play)()


@pytest.mark.attack("LAU-14")
def test_whatever_is_wrong_with_a_ticket_the_answer_is_the_same() -> None:
    async def play(it: Scene) -> None:
        other = it.runs.edge("/run/2.sock")
        used, foreign, late = [(await it.runs.begin_run(OPERATOR, OPEN)).ticket for _ in range(3)]
        await it.edge.redeem_run(used)
        refused = [
            await _refusal(it.edge, used),
            await _refusal(it.edge, Secret("unknown")),
            await _refusal(it.edge, Secret("")),
            await _refusal(it.edge, Secret({"named": "part"})),
            await _refusal(it.edge, Secret("\ud800")),
            await _refusal(other, foreign),
        ]
        it.world.later(LIFE)
        refused.append(await _refusal(it.edge, late))
        assert {(type(error), error.detail, error.help) for error in refused} == {
            (GrantTokenError, refused[0].detail, None)
        }

    scene(play)()


async def _refusal(edge: RunPort, ticket: Secret) -> RemitError:
    with pytest.raises(RemitError) as raised:
        await edge.redeem_run(ticket)
    return raised.value


def test_an_edge_that_is_just_starting_is_waited_for() -> None:
    async def play(it: Scene) -> None:
        it.runs.edge_gone(it.own)
        beginning = asyncio.create_task(it.runs.begin_run(OPERATOR, OPEN))
        await asyncio.sleep(0)
        await it.runs.edge("/run/1.sock").take_runs([])
        assert (await beginning).handover == "/run/1.sock"

    scene(play)()


def test_what_was_made_for_a_run_that_nobody_comes_for_ends_in_time() -> None:
    async def play(it: Scene) -> None:
        held = await it.world.opened(it.broker, READ, depth=3, fan_out=9)
        child = replace(CHILD, authority=DelegatedToRun(wish(1), held.id))
        opened, made, kept = [
            await it.runs.begin_run(OPERATOR, launch)
            for launch in (OPEN, child, replace(OPEN, authority=HeldByRun(held.id)))
        ]
        it.world.later(LIFE - 1)
        await it.runs.sweep()
        assert not any(map(it.ended, (opened.grant, made.grant, kept.grant)))
        it.world.later(1)
        await it.runs.sweep()
        await it.settled()
        assert [it.ended(grant) for grant in (opened.grant, made.grant, held.id)] == [True, True, False]
        assert not it.runs.count

    scene(play)()


def test_a_run_that_is_served_goes_on() -> None:
    async def play(it: Scene) -> None:
        served = await it.served()
        it.world.later(LIFE * 2)
        await it.runs.sweep()
        assert not it.ended(served.holder.grant)
        assert (await it.edge.end_run(served.run)).state == "closed"
        assert it.ended(served.holder.grant)

    scene(play)()


def test_a_run_is_ended_once_whoever_asks() -> None:
    async def play(it: Scene) -> None:
        served = await it.served()
        run_ = it.runs._runs[served.run]
        first, second = await it.runs.end(run_), await it.runs.end(run_)
        assert first is second
        assert it.runs._room.taken == 0
        with pytest.raises(NotFoundError):
            await it.edge.end_run(served.run)

    scene(play)()


def test_an_edge_knows_the_runs_that_it_redeemed_and_no_others() -> None:
    async def play(it: Scene) -> None:
        offered, served = await it.runs.begin_run(OPERATOR, OPEN), await it.served()
        other = it.runs.edge("/run/2.sock")
        await other.take_runs([])
        for edge, name in ((it.edge, offered.run), (other, served.run), (it.edge, "run_unknown")):
            for ask in (edge.end_run(name), edge.run_ready(name, {}), edge.begin_run(served.holder, CHILD, name)):
                with pytest.raises(NotFoundError):
                    await ask
        assert not it.ended(served.holder.grant)

    scene(play)()


def test_the_runs_of_an_edge_that_has_gone_end_in_time_and_those_of_others_stay() -> None:
    async def play(it: Scene) -> None:
        other = it.runs.edge("/run/2.sock")
        await other.take_runs([])
        served = await it.served()
        there = await it.runs.begin_run(OPERATOR, OPEN)
        assert there.handover == "/run/2.sock"
        await other.redeem_run(there.ticket)
        it.runs.edge_gone(it.own)
        it.world.later(LIFE - 1)
        await it.runs.sweep()
        assert not it.ended(served.holder.grant)
        assert (await it.runs.begin_run(OPERATOR, OPEN)).handover == "/run/2.sock"
        it.world.later(1)
        await it.runs.sweep()
        await it.settled()
        assert [it.ended(grant) for grant in (served.holder.grant, there.grant)] == [True, False]

    scene(play)()


def test_all_runs_of_a_task_are_at_one_edge_and_new_tasks_where_there_are_fewest() -> None:
    async def play(it: Scene) -> None:
        other = it.runs.edge("/run/2.sock")
        await other.take_runs([])
        first = await it.runs.begin_run(OPERATOR, OPEN)
        held = replace(OPEN, authority=HeldByRun(first.grant))
        same = [(await it.runs.begin_run(OPERATOR, held)).handover for _ in range(2)]
        rest = [(await it.runs.begin_run(OPERATOR, OPEN)).handover for _ in range(3)]
        assert (first.handover, same) == ("/run/1.sock", ["/run/1.sock"] * 2)
        assert rest == ["/run/2.sock"] * 3

    scene(play)()


def test_where_no_edge_takes_runs_nothing_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "PATIENCE", 0.0)

    async def play(it: Scene) -> None:
        it.runs.edge_gone(it.own)
        with pytest.raises(UnavailableError):
            await it.runs.begin_run(OPERATOR, OPEN)
        assert list(it.broker._tasks) == []

    scene(play)()


@pytest.mark.attack("LAU-14")
def test_a_holder_asks_only_on_the_channel_of_its_own_run_that_is_served() -> None:
    async def play(it: Scene) -> None:
        outer, other = await it.served(), await it.served()
        offered = await it.inside(outer)
        ended = await it.served()
        await it.edge.end_run(ended.run)
        inner = Holder(outer.holder.task, offered.grant)
        asked = [(outer, None), (outer, other.run), (outer, "run_unknown"), (ended, ended.run)]
        for holder, within in [*((each.holder, within) for each, within in asked), (inner, offered.run)]:
            with pytest.raises(NotFoundError):
                await it.runs.begin_run(holder, CHILD, within)
        assert len(it.broker._tasks.task_of(outer.holder.grant).grants) == 2

    scene(play)()


def test_a_run_inside_a_run_is_handed_over_at_the_outer_ones_socket() -> None:
    async def play(it: Scene) -> None:
        outer = await it.served(replace(OPEN, folder="/run/outer"))
        offer = await it.inside(outer)
        assert offer.handover == "/run/outer/launch.sock"
        assert (await it.edge.redeem_run(offer.ticket)).within == outer.run

    scene(play)()


def test_what_is_inside_a_run_ends_with_it_offered_or_served() -> None:
    async def play(it: Scene) -> None:
        held = await it.world.opened(it.broker, READ, depth=3, fan_out=9)
        outer = await it.served(replace(OPEN, authority=HeldByRun(held.id)))
        offered = await it.inside(outer)
        served = await it.edge.redeem_run((await it.inside(outer)).ticket)
        deepest = await it.inside(served, LAST)
        await it.edge.end_run(outer.run)
        await it.settled()
        await it.settled()  # of those that began to end meanwhile
        assert all(map(it.ended, (offered.grant, served.holder.grant, deepest.grant)))
        assert not it.ended(held.id)
        assert (it.runs.count, it.runs._room.taken) == (0, 0)
        await _refusal(it.edge, offered.ticket)

    scene(play)()


def test_a_run_that_begins_while_the_one_around_it_ends_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    async def play(it: Scene) -> None:
        held = await it.world.opened(it.broker, READ, depth=3, fan_out=9)
        outer = await it.served(replace(OPEN, authority=HeldByRun(held.id)))
        delegate = it.broker.delegate
        made: list[GrantView] = []

        async def delegating(*args: Any, **named: Any) -> GrantView:
            made.append(await delegate(*args, **named))
            await it.edge.end_run(outer.run)
            return made[0]

        monkeypatch.setattr(it.broker, "delegate", delegating)
        with pytest.raises(NotFoundError):
            await it.inside(outer)
        await it.settled()
        assert it.ended(made[0].id)
        assert not it.runs.count

    scene(play)()


def test_runs_are_counted_until_they_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(room, "RUNS_OF_A_TASK", 1)

    async def play(it: Scene) -> None:
        outer = await it.served()
        wide = replace(CHILD, authority=DelegatedToRun(GrantRequest(details({**READ, "actions": ["GET", "DELETE"]}))))
        for _ in range(2):  # what was refused takes no room
            with pytest.raises(RemitError, match="wider"):
                await it.inside(outer, wide)
        offer = await it.inside(outer)
        with pytest.raises(LimitError):
            await it.inside(outer)
        inner = await it.edge.redeem_run(offer.ticket)
        with pytest.raises(LimitError):
            await it.inside(outer)
        await it.edge.end_run(inner.run)
        await it.inside(outer)

    scene(play)()


def test_variables_are_those_of_where_exactly_its_listeners_are() -> None:
    async def play(it: Scene) -> None:
        served = await it.served()
        places = bound(served)
        for wrong in ({**places, "more": 1}, {"gateway": 7}):
            with pytest.raises(InvalidRequestError):
                await it.edge.run_ready(served.run, wrong)
        environment = (await it.edge.run_ready(served.run, places)).environment
        assert environment["REMIT_GATEWAY"] == "http://127.0.0.1:7"

    scene(play)()


def test_all_runs_can_be_ended_offered_and_served() -> None:
    async def play(it: Scene) -> None:
        offered, served = await it.runs.begin_run(OPERATOR, OPEN), await it.served()
        assert await it.runs.end_all() == 2
        assert all(map(it.ended, (offered.grant, served.holder.grant)))
        assert not it.runs.count

    scene(play)()


@pytest.mark.parametrize(
    "wrong",
    [{"isolation": "perfect"}, {"isolation": ""}, {"folder": "relative"}, {"folder": "/" + "x" * MAX_FOLDER}],
    ids=str,
)
def test_a_run_that_is_nowhere_opens_nothing(wrong: dict[str, str]) -> None:
    async def play(it: Scene) -> None:
        with pytest.raises(InvalidRequestError):
            await it.runs.begin_run(OPERATOR, replace(OPEN, **wrong))  # type: ignore[arg-type]  # texts
        assert list(it.broker._tasks) == []

    scene(play)()


def test_an_end_that_failed_is_told_to_the_log_and_takes_no_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def play(it: Scene) -> None:
        async def failing(*_: object) -> None:
            raise ValueError("a fault")

        monkeypatch.setattr(it.broker, "close", failing)
        served = await it.served()
        with caplog.at_level(logging.ERROR), pytest.raises(ValueError, match="a fault"):
            await it.edge.end_run(served.run)
        assert [record.message for record in caplog.records] == ["a run was not ended"]
        assert it.runs._room.taken == 0

    scene(play)()
