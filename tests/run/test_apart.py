"""A task beside which edges die gets one of its own, and its runs are handed over there."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from remit.errors import GrantTokenError, UnavailableError
from remit.ports.runs import HeldByRun, RedeemedRun
from remit.run import again, apart, handover
from tests.broker.world import OPERATOR
from tests.run.launchers import code, launcher
from tests.run.rig import House
from tests.run.test_registry import OPEN, Scene, bound, scene


@dataclass
class Starter:
    """Starts no process; ``room`` are the edges that may be started."""

    room: int = 9
    started: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    async def start_own(self) -> str:
        await asyncio.sleep(0)
        if len(self.started) == self.room:
            raise UnavailableError("there is no room")
        self.started.append(f"/run/own.{len(self.started)}.sock")
        return self.started[-1]

    async def end_own(self, handover: str) -> None:
        self.ended.append(handover)


def starting(it: Scene, room: int = 9) -> Starter:
    it.runs.own.starter = starter = Starter(room)
    return starter


async def die(it: Scene) -> None:
    """Have the edge die, and the next one take runs, until the authority has done what it does then."""
    it.runs.edge_gone(it.own)
    await it.own.take_runs([])
    while it.runs.own._doing:
        await asyncio.wait(it.runs.own._doing)


async def redeemed_again(it: Scene, one: RedeemedRun) -> RedeemedRun:
    """Hand a run over anew at the edge that all share, when that has died."""
    ticket = (await it.edge.run_ready(one.run, bound(one))).ticket
    await die(it)
    return await it.edge.redeem_run(ticket)


def test_a_task_whose_edge_died_twice_is_served_apart_from_then_on_and_no_other_is() -> None:
    async def play(it: Scene) -> None:
        starter = starting(it)
        one = await redeemed_again(it, await it.served())
        ticket, other = (await it.edge.run_ready(one.run, bound(one))).ticket, await it.served()
        there = (await it.edge.run_ready(other.run, bound(other))).ticket
        assert not starter.started
        await die(it)
        assert starter.started == ["/run/own.0.sock"]
        with pytest.raises(UnavailableError) as moved:
            await it.edge.redeem_run(ticket)
        assert moved.value.offending == ({"handover": "own.0.sock"},)
        own = it.runs.edge("/run/own.0.sock", own=True)
        await own.take_runs([])
        assert (await own.redeem_run(ticket)).run == one.run
        assert (await it.edge.redeem_run(there)).run == other.run
        same = await it.runs.begin_run(OPERATOR, replace(OPEN, authority=HeldByRun(one.holder.grant)))
        assert (same.handover, (await it.runs.begin_run(OPERATOR, OPEN)).handover) == (own.handover, "/run/1.sock")
        await own.redeem_run(same.ticket)
        await own.end_run(same.run)
        assert not starter.ended
        await own.end_run(one.run)
        await asyncio.sleep(0)
        assert starter.ended == [own.handover]

    scene(play)()


def test_while_its_edge_starts_a_run_is_told_to_come_again_and_what_ended_meanwhile_needs_none() -> None:
    async def play(it: Scene) -> None:
        starter = starting(it)
        one = await redeemed_again(it, await it.served())
        ticket = (await it.edge.run_ready(one.run, bound(one))).ticket
        it.runs.edge_gone(it.own)
        with pytest.raises(UnavailableError) as early:
            await it.edge.redeem_run(ticket)
        assert not early.value.offending
        await it.runs.end_all()
        while it.runs.own._doing:
            await asyncio.wait(it.runs.own._doing)
        assert starter.started == starter.ended == ["/run/own.0.sock"]

    scene(play)()


def test_a_task_that_comes_back_while_its_edge_starts_has_one_in_the_end() -> None:
    async def main() -> None:
        own, moved, starter = apart.OwnEdges(lambda *where: moved.append(where)), list[tuple[str, str]](), Starter()
        own.starter = starter
        own.need(["t"])
        own.ended("t", ())
        own.need(["t"])
        while own._doing:
            await asyncio.wait(own._doing)
        assert moved == [("t", "/run/own.0.sock")]
        assert starter.ended == ["/run/own.1.sock"]

    asyncio.run(main())


def test_no_more_than_some_tasks_have_an_edge_of_their_own_and_where_none_starts_the_shared_one_serves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(apart, "MOST", 3)

    async def play(it: Scene) -> None:
        starter = starting(it, room=2)
        runs = [await it.served() for _ in range(5)]
        tickets = [(await it.edge.run_ready(one.run, bound(one))).ticket for one in runs]
        await die(it)
        assert not starter.started
        runs = [await it.edge.redeem_run(ticket) for ticket in tickets]
        tickets = [(await it.edge.run_ready(one.run, bound(one))).ticket for one in runs]
        await die(it)
        assert len(starter.started) == 2
        apart_from_others = set(starter.started)
        for one, ticket in zip(runs, tickets, strict=True):
            if it.runs._runs[one.run].handover in apart_from_others:
                with pytest.raises(UnavailableError):
                    await it.edge.redeem_run(ticket)
            else:
                await it.edge.redeem_run(ticket)
        assert [it.runs._runs[one.run].handover in apart_from_others for one in runs].count(True) == 2

    scene(play)()


def test_a_run_whose_edge_there_is_no_more_after_a_start_gets_one() -> None:
    async def play(it: Scene) -> None:
        starter = starting(it)
        one = await it.served()
        it.runs.placed()
        assert not it.runs.own._doing
        it.runs._runs[one.run].handover = "/run/edge-own.sock"
        it.runs.placed()
        await asyncio.wait(it.runs.own._doing)
        assert it.runs._runs[one.run].handover == starter.started[0]

    scene(play)()


def test_a_ticket_that_is_none_says_nothing_of_edges() -> None:
    async def play(it: Scene) -> None:
        starting(it)
        one = await redeemed_again(it, await it.served())
        first = (await it.edge.run_ready(one.run, bound(one))).ticket
        second = (await it.edge.run_ready(one.run, bound(one))).ticket
        await die(it)
        with pytest.raises(GrantTokenError):
            await it.edge.redeem_run(first)
        with pytest.raises(UnavailableError):
            await it.edge.redeem_run(second)

    scene(play)()


def _answers(listening: socket.socket, *said: handover.Message) -> None:
    with listening, listening.accept()[0] as peer:
        for message in said:
            assert handover.receive(peer) is not None
            handover.send(peer, message)
        peer.recv(1)


def test_a_run_that_is_launched_while_its_task_moves_is_served_by_the_edge_of_its_own(runs: House) -> None:
    moved, begun = runs.handover.with_name("own.sock"), asyncio.Event()

    class Slow(Starter):
        async def start_own(self) -> str:
            await begun.wait()
            await runs.start_edge(moved)
            return str(moved)

    runs.runs.own.starter = Slow()
    grant = runs.call(runs.world.opened(runs.broker)).id
    with launcher(runs) as one:
        _, ready = one.launch({"grant": grant})
        runs.call(runs.next_edge())
        ready = one.again(ready, runs.handover)
        runs.call(runs.next_edge())  # it has died twice: the task is about to move
        shared = runs.server
        with runs.start_run(["true"], {"grant": grant}) as second:
            runs.until(lambda: runs.runs.count == 2)
            assert code(one.again(ready, runs.handover)) == "unavailable"
            runs.loop.call_soon_threadsafe(begun.set)
            _, err = second.communicate(timeout=60)
        runs.call(shared.close())
    assert (second.returncode, err) == (0, b"")
    assert {run.redeemed.holder.grant for run in runs.services.runs} == {grant}  # at the other edge


def test_a_launcher_whose_run_nobody_serves_does_not_ask_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(again, "FIRST", 0.2)
    with pytest.raises(UnavailableError, match="no broker listens"):
        again.begin(tmp_path / "edge.sock", "t")


def test_a_launcher_follows_its_run_to_another_edge_beside_the_first(tmp_path: Path) -> None:
    moved = UnavailableError("elsewhere", offending=[{"handover": "/etc/../own.sock"}])
    said: dict[str, list[handover.Message]] = {
        "edge.sock": [handover.problem(moved)],
        "own.sock": [{"redeemed": "run_1"}, {"ready": True}],
    }
    for name, messages in said.items():
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listening.bind(str(tmp_path / name))
        listening.listen()
        threading.Thread(target=_answers, args=(listening, *messages), daemon=True).start()
    resumption = again.Resumption(tmp_path / "edge.sock", "t", [], [])
    with resumption.over as over:
        over.settimeout(20)
        assert over.recv(1) == b""
    assert resumption.path == tmp_path / "own.sock"
    assert resumption.served is not None
    assert resumption.served[1] == {"ready": True}
    resumption.served[0].close()
