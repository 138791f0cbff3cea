"""What the processes of a broker are for: ends that reach an edge at work, its death, and tasks without number."""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks import honest, ours, runs
from benchmarks.attack import ends
from benchmarks.client import Client, cpu_seconds, machine
from benchmarks.figure import Figure, figure
from benchmarks.runs import Asker
from examples.demo.house import House
from remit.sdk import Bounds, verbs
from remit.sdk.dpop import DPoPKey
from tests.support.postgres_server import free_port

DETAIL = {"type": "http", "resource": "judged", "actions": ["GET", "POST"], "paths": ["/**"], "args": {"body.t": "any"}}
GOAL = "the goal"


@contextmanager
def _serving(gateway: str = "off") -> Iterator[House]:
    """Run a broker with an upstream that answers at once, as ``web`` and, with bodies judged, as ``judged``."""
    with runs.honest_upstream() as port, ours.running(gateway=gateway) as house:
        ours.with_upstream(house, port, ours.SECRET)
        body = {"kind": "http", "destination": f"http://127.0.0.1:{port}", "bound": [DETAIL], "settings": {}}
        with house.client() as client:
            client.run(verbs.put_resource("judged", {**body, "secret": ours.SECRET}))
        yield house


# -- a tree ---------------------------------------------------------------------------------------------------------

TREES = 2
WIDE, WIDER = 100, 99  # children of the root, and of each of them: 10,000 with the root's own


def revoke_tree_10000() -> Figure:
    """Seconds until a tree of 10,000 grants is closed."""
    with _serving() as house:
        took = [_tree_closed(house, WIDE, WIDER) for _ in range(TREES)]
    return figure("revoke_tree_10000", "s", took, GOAL, [0.5] * TREES, TREES)


def _tree_closed(house: House, wide: int, wider: int) -> float:
    with house.client() as client:
        root = client.run(verbs.open_task("measure", [dict(ours.HTTP)], Bounds("2h", depth=2, fan_out=1_000)))
    asyncio.run(_grown(house, root, wide, wider))
    with house.client() as client:
        started = time.perf_counter()
        report = client.run(verbs.close(root.task))
        took = time.perf_counter() - started
    if report.state != "closed" or report.revoked < wide * (1 + wider):
        raise RuntimeError(f"{report}")
    return took


async def _grown(house: House, root: verbs.TokenResponse, wide: int, wider: int) -> None:
    below = verbs.delegate(root.grant, root.details, [dict(ours.HTTP)], Bounds(depth=1, fan_out=1_000))
    for child in await ours.posted(house, below, wide):
        await ours.posted(house, verbs.delegate(child, root.details, [dict(ours.HTTP)], Bounds()), wider)


# -- an end ---------------------------------------------------------------------------------------------------------

CONNECTIONS = 256
USED = 60  # tasks that are closed in a round
ROUNDS = 2


def end_acknowledged_256() -> Figure:
    """Milliseconds (p99) until a task that an edge serves is ``closed``: recorded, pushed, acknowledged.

    Meanwhile the edge has 256 connections at work whose bodies it judges; against the same calm.
    """
    mine, theirs = [], []
    port = free_port()
    with _serving(gateway=f"127.0.0.1:{port}") as house:
        for _ in range(ROUNDS):
            calm = asyncio.run(ends(house, asyncio.run(_used(house, port))))
            tasks = asyncio.run(_used(house, port))
            with _crowded(house):
                load = asyncio.run(ends(house, tasks))
            print(
                f"  p50 {load.p50:.1f} ms, p99 {load.p99:.1f} ms; calm {calm.p50:.1f}, {calm.p99:.1f}; {machine()}",
                file=sys.stderr,
            )
            mine.append(load.p99)
            theirs.append(calm.p99)
    return figure("end_acknowledged_256", "ms", mine, "the same calm", theirs, USED * ROUNDS)


@contextmanager
def _crowded(house: House) -> Iterator[None]:
    url = "http://127.0.0.1:8471/judged/x"
    grants = ("--resource", "judged")
    with (
        runs.run(house, honest.__file__, grants, "crowd", url, str(CONNECTIONS)) as crowd,
        runs.asker(house),
    ):
        yield
        if crowd.process.poll() is not None:
            raise RuntimeError("the crowd ended before what it is to be beside")


async def _used(house: House, port: int) -> list[verbs.TokenResponse]:
    """Open tasks and let the edge serve each, so that their ends have to reach it."""
    url, tasks = f"http://127.0.0.1:{port}/web/v1/x", list[verbs.TokenResponse]()
    client = await Client.connect(port)
    for _ in range(USED):
        key = DPoPKey()
        with house.client() as operator:
            task = operator.run(verbs.open_task("measure", [dict(ours.HTTP)], Bounds("2h"), key))
        proof = key.proof("GET", url, token=task.token, nonce=task.nonce)
        headers = {"Host": f"127.0.0.1:{port}", "Authorization": f"DPoP {task.token}", "DPoP": proof}
        status, answer = await client.request("GET", "/web/v1/x", headers=headers)
        if status != 200:
            raise RuntimeError(f"{status}: {answer.decode()[:200]}")
        tasks.append(task)
    await client.close()
    return tasks


# -- a death --------------------------------------------------------------------------------------------------------

DEATHS = 4  # each in a broker of its own: the second of one is followed by a pause


def edge_killed() -> Figure:
    """Milliseconds from an edge's SIGKILL until the next one has answered a request of a run."""
    mine = []
    for _ in range(DEATHS):
        with _serving() as house, runs.asker(house) as asker:
            mine.append(_back(house, asker))
        print(f"  {mine[-1]:.0f} ms; {machine()}", file=sys.stderr)
    return figure("edge_killed", "ms", mine, GOAL, [100.0] * DEATHS, DEATHS)


def _back(house: House, asker: Asker) -> float:
    edge = ours.processes(house)["edge"]
    killed = time.monotonic()
    os.kill(edge, signal.SIGKILL)
    runs.until(lambda: bool(asker.good(killed)), asker.process)
    first = min(each.ended for each in asker.good(killed))
    return (first - killed) * 1e3


# -- a run ----------------------------------------------------------------------------------------------------------

RUNS = 8


def run_true() -> Figure:
    """Milliseconds that ``remit run -- true`` takes, and its CPU with the broker's, against what both may be."""
    wall, cpu = list[float](), list[float]()
    with _serving() as house, tempfile.TemporaryDirectory(prefix="remit-bench-") as home:
        command = house.command("run", "--purpose", "measure", "--resource", "web", "--quiet", "--", "/bin/true")
        for _ in range(RUNS):
            before, used, started = cpu_seconds(house.process.pid), os.times(), time.perf_counter()
            subprocess.run(command, cwd=home, env=dict(house.environment), check=True, stdin=subprocess.DEVNULL)
            wall.append((time.perf_counter() - started) * 1e3)
            after = os.times()
            own = after.children_user + after.children_system - used.children_user - used.children_system
            cpu.append((own + cpu_seconds(house.process.pid) - before) * 1e6)
    goals = [500.0] * RUNS, [250_000.0] * RUNS
    return figure("run_true", "ms", wall, GOAL, goals[0], RUNS, (cpu, goals[1]))


# -- many tasks -----------------------------------------------------------------------------------------------------

MANY, FEW = 10_000, 10
SECONDS = 2.0
LOOKS = 4


def gateway_tasks_10000() -> Figure:
    """Milliseconds (p99) of a run's requests while 10,000 tasks are open, against the same with ten."""
    mine, theirs, count = list[float](), list[float](), 0
    with _serving() as many, _serving() as few:
        for house, tasks in ((many, MANY), (few, FEW)):
            flow = verbs.open_task("measure", [dict(ours.HTTP)], Bounds("2h"))
            asyncio.run(ours.posted(house, flow, tasks))
        with runs.asker(many) as at_many, runs.asker(few) as at_few:
            since = time.monotonic()
            for _ in range(LOOKS):
                time.sleep(SECONDS)
                until = time.monotonic()
                for asker, found in ((at_many, mine), (at_few, theirs)):
                    took = [each.ended - each.begun for each in asker.good(since) if each.ended < until]
                    found.append(statistics.quantiles(took, n=100)[98] * 1e3)
                    count += len(took)
                since = until
    return figure("gateway_tasks_10000", "ms", mine, "the same with 10 open tasks", theirs, count)
