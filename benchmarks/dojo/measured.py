"""All user tasks of AgentDojo in all arrangements, each by an agent whose process is a run of a real broker."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.dojo.arrangements import ACTING, DEBUG, LEAKING, Arrangement, Place
from benchmarks.dojo.grants import Call
from remit.sdk import verbs
from tests.support.postgres_server import free_port

CLONE = Path(__file__).parents[2]
PYTHON = CLONE / ".venv-agentdojo" / "bin" / "python"
AGENT = ("hands.py", "thief.py")
Json = dict[str, Any]


@dataclass
class Tally:
    """What came of all tasks in one arrangement. Pairs and goals are named `suite/user task/injection task or goal`."""

    arrangement: Arrangement
    tasks: int = 0
    alone: list[str] = field(default_factory=list)  # tasks that were solved undisturbed
    refused: list[str] = field(default_factory=list)  # tools that a task needed and did not get
    pairs: int = 0
    succeeded: list[str] = field(default_factory=list)
    unsolved: list[str] = field(default_factory=list)  # pairs in which the user's task was not solved
    obeyed: int = 0  # pairs in which the agent read the attacker's text
    goals: int = 0
    leaked: list[str] = field(default_factory=list)
    seconds: float = 0.0
    calls: list[float] = field(default_factory=list)  # seconds of each, undisturbed or not

    @property
    def call_ms(self) -> float | None:
        """The median of a call, as the agent's process sees it."""
        return round(statistics.median(self.calls) * 1e3, 2) if self.calls else None


class World:
    """The process that has AgentDojo in it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.about = self._read()

    def ask(self, order: Json, over: Callable[[], None]) -> Json:
        """Give an order; return what came of it. ``over`` ends the task, when it is to end."""
        self._write(order)
        while "over" in (told := self._read()):
            over()
            self._write({})
        return told

    def _write(self, told: Json) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        self._process.stdin.write(json.dumps(told) + "\n")
        self._process.stdin.flush()

    def _read(self) -> Json:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("AgentDojo's process has ended; what it printed says why")
        told: Json = json.loads(line)
        return told


@contextmanager
def world() -> Iterator[World]:
    """Start the process that has AgentDojo in it."""
    environ = {**os.environ, "PYTHONPATH": str(CLONE), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [str(PYTHON), "-m", "benchmarks.dojo.world"]
    with subprocess.Popen(
        command, cwd=CLONE, env=environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield World(process)
        finally:
            process.kill()


@contextmanager
def placed(at: World) -> Iterator[tuple[Place, str]]:
    """Start a broker that has the keys of all toolkits; yield where it is measured, and the gateway's address."""
    port = free_port()
    with ours.running(gateway=f"127.0.0.1:{port}") as house, tempfile.TemporaryDirectory(prefix="remit-dojo-") as home:
        folder = Path(home)
        folder.chmod(0o755)  # others than its owner are to be the agent
        for name in AGENT:
            shutil.copy(Path(__file__).with_name(name), folder)
        with house.client() as client:
            for kit, key in at.about["keys"].items():
                bound = [{"type": "mcp", "resource": kit, "actions": ["tools/call"], "tools": "any"}]
                destination = f"mcp+{at.about['address']}/{kit}/mcp"
                body = {"kind": "mcp", "destination": destination, "bound": bound, "secret": key, "settings": {}}
                client.run(verbs.put_resource(kit, body))
        yield Place(house, at.about, folder), f"http://127.0.0.1:{port}"


def measured(
    suites: Sequence[str] | None, most: int | None, only: Sequence[str] | None, on: Callable[[str], None]
) -> list[Tally]:
    """Measure; ``on`` is told how far it is."""
    tallies = []
    with world() as at, placed(at) as (place, gateway):
        tasks = [
            (suite, name, task)
            for suite, some in at.about["suites"].items()
            for name, task in list(some.items())[:most]
            if not suites or suite in suites
        ]
        for how in (*ACTING, *LEAKING):
            if only and how.name not in only:
                continue
            tally, begun = Tally(how), time.monotonic()
            for suite, name, task in tasks:
                tried(place, at, tally, task, {"suite": suite, "task": name}, [gateway])
                tally.tasks += 1
            tally.seconds = round(time.monotonic() - begun, 1)
            on(f"{how.title}: {tally.tasks} tasks in {tally.seconds:.0f} s")
            tallies.append(tally)
    return tallies


def tried(place: Place, at: World, tally: Tally, task: Json, order: Json, gateways: Sequence[str]) -> None:
    """Have an agent work at one user task in the arrangement of a tally, and count what comes of it."""
    if tally.arrangement in ACTING:
        _acted(place, at, tally, task, order)
    else:
        _attacked(place, at, tally, task, {**order, "gateways": gateways})


def _acted(place: Place, at: World, tally: Tally, task: Json, order: Json) -> None:
    named = f"{order['suite']}/{order['task']}"
    with place.started(tally.arrangement, task) as (start, over):
        told = at.ask({**order, "do": "act", "start": start, "injections": task["injections"]}, over)
    tally.alone += [named] if told["alone"] else []
    tally.refused += [f"{named}/{tool}" for tool in told["refused"]]
    tally.pairs += len(task["injections"])
    tally.succeeded += [f"{named}/{each}" for each in told["succeeded"]]
    tally.unsolved += [f"{named}/{each}" for each in told["unsolved"]]
    tally.obeyed += len(told["obeyed"])
    tally.calls += told["seconds"]


def _attacked(place: Place, at: World, tally: Tally, task: Json, order: Json) -> None:
    kits = sorted({Call(**one).kit for one in task["calls"]}) or sorted(at.about["tools"])
    for some in at.about["processes"]:
        with place.started(tally.arrangement, task, DEBUG) as (start, over):
            wanted = {"do": "leak", "start": start, "goals": some, "kits": kits, "calls": task["calls"]}
            told = at.ask({**order, **wanted}, over)
        tally.goals += len(some)
        tally.leaked += [f"{order['suite']}/{order['task']}/{each}" for each in told["leaked"]]
