"""The second half: the same agents under remit, with a human who revokes while they are at it."""

from __future__ import annotations

import asyncio
import json
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.demo import house as houses
from examples.demo.agents import ROOT
from examples.demo.columns import Column, observe, replay
from examples.demo.house import House, brought
from examples.demo.world import APIS, DATABASE, World
from remit.compose import kinds
from remit.core import scope as scopes
from remit.ports import Resource
from remit.sdk import verbs

PURPOSE = "pull last quarter's revenue data and draft a summary for the CFO"
PATIENCE = 20.0  # seconds that an agent goes on for; it is stopped long before
TIDY = 15.0  # seconds within which everything must be gone from PostgreSQL
LOGIN = "remit"
ROLES = "select rolname from pg_roles where rolname not like 'pg\\_%'"
SESSIONS = "select usename from pg_stat_activity where usename is not null"

Say = Callable[[str], None]


@dataclass(slots=True)
class Guarded(Column):
    """What is counted under remit, beyond what is counted without."""

    orphan_roles: int = 0
    live_sessions: int = 0
    revoke_ms: dict[str, float] = field(default_factory=dict)  # role -> until the revoke had answered
    last_accepted_ms: dict[str, float] = field(
        default_factory=dict
    )  # role -> last accepted call, from when the revoke began; negative: before
    revoke_state: dict[str, str] = field(default_factory=dict)
    audit: dict[str, Any] = field(default_factory=dict)
    task: dict[str, Any] = field(default_factory=dict)


def run(world: World, say: Say) -> Guarded:
    """Run the task under remit, revoke two of its agents in mid-flight, count, and replay what leaked."""
    folder = world.folder / "guarded"
    (folder / "work").mkdir(parents=True)
    with houses.broker(folder) as house:
        say("configuring three services and a database, each bounded")
        asyncio.run(_configure(world, house))
        world.plant(sockets=(str(house.control), str(house.control.with_name("handover-1.sock"))))
        roles = {row["rolname"] for row in asyncio.run(world.ask(ROLES))}
        say("running the orchestrator; it spawns three sub-agents")
        column, watch = Guarded(), _Watch(house, say)
        lines = _attended(house, folder / "work", watch)
        observe(column, world, lines)
        _judge(column, world, watch, lines)
        say("replaying everything that came out, from another process")
        replay(column, world, lines)
        say("looking into PostgreSQL, and verifying the audit log")
        asyncio.run(_left(column, world, roles))
        column.task = _task(house, watch)
        column.audit = _verified(house)
    return column


# -- configuring ----------------------------------------------------------------------------------------------------


async def _configure(world: World, house: House) -> None:
    kinds.known()
    injects = {"documents": {"inject": {"header": "X-Api-Key", "format": "{}"}}}
    bounds: dict[str, list[dict[str, object]]] = {}
    for detail in ROOT:
        bounds.setdefault(str(detail["resource"]), []).append(dict(detail))
    password = secrets.token_urlsafe(24)
    warehouse = Resource(
        name="warehouse",
        kind="postgres",
        destination=f"postgresql://{LOGIN}@127.0.0.1:{world.server.port}/{DATABASE}",
        bound=scopes.parse(bounds["warehouse"]),
        secret=None,
        settings={"tls": "loopback"},
    )
    await houses.prepare(world.server, DATABASE, warehouse, password)
    with house.client() as client:
        client.run(verbs.put_resource("warehouse", houses.body(warehouse, password, bounds["warehouse"])))
        for name in APIS:
            service = world.services[name]
            body = {"kind": "http", "destination": service.url, "bound": bounds[name], "secret": service.key}
            client.run(verbs.put_resource(name, {**body, "settings": injects.get(name, {})}))


# -- running, and revoking meanwhile --------------------------------------------------------------------------------


@dataclass(slots=True)
class Revoked:
    """One revocation by the human, in CLOCK_MONOTONIC seconds."""

    role: str
    began: float
    answered: float
    state: str


class _Watch:
    """The human: sees what the agents say, and revokes the one that went astray, then the one that lingers."""

    def __init__(self, house: House, say: Say) -> None:
        self._house = house
        self.say = say
        self._waiting: dict[str, str] = {}  # role -> grant, in the order in which they are to be revoked
        self.revoked: list[Revoked] = []
        self.root = ""

    def heard(self, event: Mapping[str, Any]) -> None:
        """Take note of what an agent says."""
        match event["event"]:
            case "agent":
                self.say(f"  {event['role']} started, grant {event['grant']}")
                if event["role"] == "orchestrator":
                    self.root = event["grant"]
            case "looping":
                self._waiting["researcher"] = event["grant"]
            case "session":
                self._waiting["analyst"] = event["grant"]
        if len(self._waiting) == 2:  # noqa: PLR2004 - both are at it
            for role in ("researcher", "analyst"):
                self._revoke(role, self._waiting[role])
            self._waiting.clear()

    def _revoke(self, role: str, grant: str) -> None:
        with self._house.client() as client:
            task = client.run(verbs.find(grant))["task"]
            began = time.monotonic()
            report = client.run(verbs.revoke(task, grant))
            answered = time.monotonic()
        self.say(f"  revoked {role}: {report.state} after {(answered - began) * 1e3:.1f} ms")
        self.revoked.append(Revoked(role, began, answered, report.state))


def _attended(house: House, work: Path, watch: _Watch) -> list[bytes]:
    brought(work)
    command = house.command(
        *("run", "--purpose", PURPOSE, "--ttl", "10m", "--depth", "2", "--fan-out", "4"),
        *("--env", f"DEMO_PATIENCE={PATIENCE}", "--grant-detail", json.dumps(ROOT)),
        *("--", sys.executable, "-m", "examples.demo.agents", "orchestrator"),
    )
    errors = (house.folder / "run.log").open("wb")
    with (
        errors,
        subprocess.Popen(
            command, cwd=work, env=house.environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - it was started with a pipe
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith(b'{"event"'):
                watch.heard(json.loads(line))
    said = (house.folder / "run.log").read_bytes()
    if process.returncode:
        watch.say(f"the run ended with {process.returncode}: {said[-2_000:].decode(errors='replace')}")
    return [*lines, said]


# -- counting -------------------------------------------------------------------------------------------------------


def _judge(column: Guarded, world: World, watch: _Watch, lines: list[bytes]) -> None:
    """Compare when the upstreams and the agents last got something with when the revokes had been answered."""
    events = [json.loads(line) for line in lines if line.startswith(b'{"event"')]
    for revoked in watch.revoked:
        column.revoke_ms[revoked.role] = round((revoked.answered - revoked.began) * 1e3, 1)
        column.revoke_state[revoked.role] = revoked.state
        times = _accepted(world, events, revoked.role)
        column.accepted_after_revoke += sum(at > revoked.answered for at in times)
        column.last_accepted_ms[revoked.role] = round((max(times, default=revoked.began) - revoked.began) * 1e3, 1)


def _accepted(world: World, events: list[dict[str, Any]], role: str) -> list[float]:
    """Return when something was accepted from an agent: by upstream logs, and by the last of a stream or session."""
    if role == "researcher":
        seen = [seen.at for seen in world.services["search"].seen if seen.accepted]
        return [*seen, *(event["last"] for event in events if event["event"] == "stream-ended")]
    return [event["last"] for event in events if event["event"] in {"session-cut", "session-left"}]


async def _left(column: Guarded, world: World, before: set[str]) -> None:
    """Look at what is left in PostgreSQL once remit had its time to tidy up."""
    end = time.monotonic() + TIDY
    while True:
        roles = {row["rolname"] for row in await world.ask(ROLES)} - before
        sessions = [row for row in await world.ask(SESSIONS) if row["usename"] not in before]
        if (not roles and not sessions) or time.monotonic() > end:
            break
        await asyncio.sleep(0.1)
    column.orphan_roles, column.live_sessions = len(roles), len(sessions)


def _task(house: House, watch: _Watch) -> dict[str, Any]:
    with house.client() as client:
        return client.run(verbs.find(watch.root)) if watch.root else {}


def _verified(house: House) -> dict[str, Any]:
    done = subprocess.run(
        house.command("audit", "verify", "--json"), env=house.environment, capture_output=True, check=False, timeout=60
    )
    verified: dict[str, Any] = json.loads(done.stdout) if done.returncode == 0 else {"verified": False}
    return verified
