"""Revocation while a hostile run, strangers and a hostile upstream do their worst."""

from __future__ import annotations

import asyncio
import functools
import http.server
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass

import psutil

from benchmarks import hostile, ours, runs
from benchmarks.client import JSON, Client, Load, machine, summary
from benchmarks.figure import Figure, figure
from benchmarks.runs import Asker
from examples.demo.house import House
from remit.sdk import verbs
from tests.support.postgres_server import PostgresServer, free_port

ROUNDS = 2
ENDS = 100  # in a round
HOSTILE_RUNS = 8
HANGING = 8  # who wait for a database that hangs
DATABASE = "bench"
ATTACK = 300.0  # seconds at most; it begins before what is measured, and is ended after it
CALM = "the same without an attack"
KILLED = "did not act on an end in time, and is killed"  # so says the log
DETAIL = {"type": "http", "resource": "bomb", "actions": ["GET", "POST"], "paths": ["/**"], "args": {"body.t": "any"}}


@dataclass(frozen=True, slots=True)
class _Round:
    """One round: ends and requests calm, and the same under attack."""

    calm: Load
    attacked: Load
    calm_ms: float  # median of a healthy run's requests
    attacked_ms: float


@dataclass(frozen=True, slots=True)
class _Rounds:
    rounds: list[_Round]
    killed: int  # edges, of which none was at fault


def revoke_under_attack(*, busy: bool = False) -> Figure:
    """Milliseconds (p99) until an operator's close of a task of their own answers ``closed``, against the same calm."""
    rounds = _measured(busy=busy).rounds
    mine, theirs = [each.attacked.p99 for each in rounds], [each.calm.p99 for each in rounds]
    return figure(_named("revoke_under_attack", busy=busy), "ms", mine, CALM, theirs, ENDS * len(rounds))


def request_under_attack(*, busy: bool = False) -> Figure:
    """Milliseconds (p50) that a request of a healthy run takes meanwhile, against the same calm."""
    rounds = _measured(busy=busy).rounds
    mine, theirs = [each.attacked_ms for each in rounds], [each.calm_ms for each in rounds]
    return figure(_named("request_under_attack", busy=busy), "ms", mine, CALM, theirs, len(rounds))


def edges_killed_under_attack(*, busy: bool = False) -> Figure:
    """Edges that were killed meanwhile as if they had not acted on an end; none may be."""
    made = _measured(busy=busy)
    return figure(
        _named("edges_killed_under_attack", busy=busy), "edges", [made.killed], "the goal", [0], len(made.rounds)
    )


def _named(name: str, *, busy: bool) -> str:
    return f"{name}_busy" if busy else name


@functools.cache
def _measured(*, busy: bool) -> _Rounds:
    """Measure all three at once; ``busy``: beside four programs that want every core."""
    with _stand() as (house, port):
        edge, rounds = ours.processes(house)["edge"], list[_Round]()
        for _ in range(1 if busy else ROUNDS):  # a round lasts long beside them
            with runs.busy() if busy else nullcontext():
                rounds.append(_round(house, port))
            print(f"  {_line(rounds[-1])}; {machine()}", file=sys.stderr)
        log = (house.folder / "state" / "log").read_text()
        killed = max(log.count(KILLED), int(ours.processes(house).get("edge") != edge))
        print(f"  edges killed: {killed}", file=sys.stderr)
        if killed:
            print("".join(f"  {line}\n" for line in log.splitlines()[-20:]), file=sys.stderr)
    return _Rounds(rounds, killed)


@contextmanager
def _stand() -> Iterator[tuple[House, int]]:
    port, target, key = free_port(), free_port(), ours.SECRET
    with (
        runs.elsewhere(hostile.__file__, "upstream", str(ATTACK), str(target)) as bombs,
        runs.honest_upstream() as honest,
        PostgresServer() as server,
        ours.running(api=f"127.0.0.1:{port}") as house,
    ):
        runs.until(lambda: runs.listens(target), bombs)
        asyncio.run(ours.table(server, DATABASE))
        asyncio.run(ours.with_database(house, server, DATABASE))
        ours.with_upstream(house, honest, key)
        body = {"kind": "http", "destination": f"http://127.0.0.1:{target}", "bound": [DETAIL], "settings": {}}
        with house.client() as client:
            client.run(verbs.put_resource("bomb", {**body, "secret": key}))
        yield house, port


def _round(house: House, port: int) -> _Round:
    with runs.asker(house) as healthy:
        since = time.monotonic()
        calm = asyncio.run(ends(house, ours.opened(house, ENDS, ours.HTTP)))
        calm_ms = _median(healthy, since)
        tasks, leased = ours.opened(house, ENDS, ours.HTTP), ours.opened(house, HANGING)
        with attacked(house, port), hanging():
            since = time.monotonic()
            hurt = asyncio.run(_beside_a_hanging_database(house, tasks, leased))
            return _Round(calm, hurt, calm_ms, _median(healthy, since))


def _median(healthy: Asker, since: float) -> float:
    took = [each.ended - each.begun for each in healthy.good(since)]
    if not took:
        raise RuntimeError("no request of the healthy run was answered")
    return statistics.median(took) * 1e3


def _line(it: _Round) -> str:
    ends_ = (
        f"ends p50 {it.attacked.p50:.1f} ms, p99 {it.attacked.p99:.1f} ms; calm {it.calm.p50:.1f}, {it.calm.p99:.1f}"
    )
    return f"{ends_}; a healthy run's request p50 {it.attacked_ms:.1f} ms, calm {it.calm_ms:.1f}"


async def _beside_a_hanging_database(
    house: House, tasks: list[verbs.TokenResponse], leased: list[verbs.TokenResponse]
) -> Load:
    """Close tasks while others wait for a database that does not answer."""
    issue = ours.issuing(leased)

    async def wait_for_it() -> None:
        client = await Client.connect(house.control)
        try:
            while True:
                await issue(client, 0)
        finally:
            await client.close()

    waiting = [asyncio.create_task(wait_for_it()) for _ in leased]
    try:
        return await ends(house, tasks)
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


@contextmanager
def hanging() -> Iterator[None]:
    """Stop the database server in its tracks: its kernel still takes connections, and nobody answers."""
    below = psutil.Process().children(recursive=True)
    stopped = [each for each in below if each.name() == "postgres"]
    for each in stopped:
        each.suspend()
    try:
        yield
    finally:
        for each in stopped:
            each.resume()


@contextmanager
def attacked(house: House, port: int) -> Iterator[None]:
    """Let hostile runs and strangers attack until the block ends."""
    grants = ("--resource", "bomb", "--depth", "2", "--fan-out", "8")
    with ExitStack() as stack:
        url = "http://127.0.0.1:8471/bomb"
        hostiles = [
            stack.enter_context(runs.run(house, hostile.__file__, grants, "run", str(ATTACK), url))
            for _ in range(HOSTILE_RUNS)
        ]
        strangers = stack.enter_context(runs.elsewhere(hostile.__file__, "strangers", str(ATTACK), str(port)))
        for each in hostiles:
            runs.until(lambda each=each: each.lines.stat().st_size > 0, each.process)  # type: ignore[misc]
        yield
        lost = [each for each in (strangers, *(run.process for run in hostiles)) if each.poll() is not None]
        if lost:
            raise RuntimeError(f"{len(lost)} attackers ended before what they attack")


async def ends(house: House, tasks: list[verbs.TokenResponse]) -> Load:
    """Close tasks one after the other, each answered ``closed``."""
    client, times = await Client.connect(house.control), []
    started = time.perf_counter()
    for task in tasks:
        begun = time.perf_counter()
        status, answer = await client.request("POST", f"/v1/tasks/{task.task}/close", b"{}", JSON)
        if status != http.HTTPStatus.OK or json.loads(answer)["state"] != "closed":
            raise RuntimeError(f"{status}: {answer.decode()[:200]}")
        times.append(time.perf_counter() - begun)
    await client.close()
    return summary(times, 0, started)
