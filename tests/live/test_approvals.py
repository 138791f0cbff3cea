"""Approvals in a real run: the run asks, its human decides outside, the run goes on; it cannot decide itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.sdk.test_live import REMIT, broker
from tests.sdk.test_live import _configured as configured

pytestmark = pytest.mark.live

AGENT = """
import json, os, subprocess, sys
import remit
from remit.errors import RemitError
from remit.sdk import Client, Place, asking

def told(**what):
    print(json.dumps(what), flush=True)

own = remit.current()
wide = [remit.detail("search", paths=["/v1/a", "/v1/b"])]
try:
    own.delegate("wide", grants=wide)
except RemitError as refused:
    told(denied=refused.code, help=refused.help)
asked = own.ask("wide", grants=wide, ttl="1m")
told(approval=asked.id, digest=asked.asked.document.get("digest"))
with Client() as channel:
    for verdict in ("approve", "deny"):
        for token in (None, "an.id.token"):
            try:
                channel.run(asking.decide(asked.id, verdict, "d" * 43, token))
                told(decided=verdict)
            except RemitError as refused:
                told(decided=None, code=refused.code)
command = subprocess.run(
    [os.environ["TEST_REMIT"], "approve", asked.id, "--digest", "d" * 43], capture_output=True, text=True
)
told(command=command.returncode, said=command.stderr)
told(control=os.path.exists(os.environ["TEST_CONTROL"]))
try:
    sub = asked.wait("60s")
    told(granted=sub.id, paths=sub.details[0]["paths"])
except RemitError as refused:
    told(granted=None, code=refused.code)
"""


@dataclass
class Office:
    """A broker with one resource, and whoever works at its terminal."""

    environ: dict[str, str]
    project: Path

    def remit(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one command outside of runs."""
        command = [str(REMIT), *words]
        return subprocess.run(command, env=self.environ, capture_output=True, text=True, cwd=self.project, check=False)

    def told(self, decide: str) -> list[dict[str, Any]]:
        """Start the agent in a run; decide on what it asks when it waits; return all that it says."""
        names = {"TEST_REMIT": str(REMIT), "TEST_CONTROL": f"{self.environ['REMIT_STATE_DIR']}/run/control.sock"}
        command = [
            str(REMIT),
            "run",
            "-r",
            "search:paths=/v1/a",
            "--ttl",
            "5m",
            "--depth",
            "1",
            "--fan-out",
            "2",
            "--quiet",
        ]
        command += [word for name in names for word in ("--env", name)]
        command += ["--", sys.executable, "agent.py"]
        said: list[dict[str, Any]] = []
        with subprocess.Popen(
            command, env={**self.environ, **names}, cwd=self.project, stdout=subprocess.PIPE, text=True
        ) as run:
            assert run.stdout is not None
            for line in run.stdout:
                said.append(json.loads(line))
                if "control" in said[-1]:
                    asked = next(item for item in said if "approval" in item)
                    assert asked["digest"] is None
                    shown = json.loads(self.remit("show", asked["approval"], "--json").stdout)
                    done = self.remit(decide, asked["approval"], "--digest", shown["digest"])
                    assert done.returncode == 0, done.stderr
        assert run.returncode == 0
        return said


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    """Open an office."""
    environ = configured(tmp_path)
    project = tmp_path / "project"
    project.mkdir()
    (project / "agent.py").write_text(AGENT, encoding="utf-8")
    with broker(environ):
        found = Office(environ, project)
        bound = "actions=GET,paths=/v1/**,args=any"
        added = found.remit("resource", "add", "search", "http://127.0.0.1:9", "-b", bound)
        assert added.returncode == 0, added.stderr
        yield found


def entries(office: Office) -> list[dict[str, Any]]:
    """Return what the audit log says of approvals."""
    tail = office.remit("audit", "tail", "--json", "-n", "100")
    assert tail.returncode == 0, tail.stderr
    found = [json.loads(line) for line in tail.stdout.splitlines()]
    return [entry for entry in found if entry.get("approval") or entry["event"].startswith("approval")]


def test_a_run_asks_and_only_outside_of_it_is_decided(office: Office) -> None:
    said = office.told("approve")
    assert said[0]["denied"] == "attenuation"
    assert "task.ask" in said[0]["help"]
    assert [item["code"] for item in said if "decided" in item] == ["denied"] * 4
    by_command = next(item for item in said if "command" in item)
    assert by_command["command"] == 1
    assert "no agent decides" in by_command["said"]
    assert next(item for item in said if "control" in item)["control"] is False
    assert said[-1]["paths"] == ["/v1/a", "/v1/b"]
    events = entries(office)
    told = [(entry["event"], entry["decision"]) for entry in events]
    assert told[0] == ("approval.ask", "done")
    assert told[1:-2] == [("approval.approve", "deny")] * 2 + [("approval.deny", "deny")] * 2 + [told[1]]
    assert told[-2:] == [("approval.approve", "allow"), ("grant.delegate", "allow")]
    hop = events[-1]
    assert (hop["grant"], hop["subject"]) == (said[-1]["granted"], f"unix://{_host(events)}#{os.getuid()}")


def _host(events: list[dict[str, Any]]) -> str:
    subject: str = events[0]["subject"]
    return subject.removeprefix("unix://").partition("#")[0]


def test_a_run_that_is_refused_does_without(office: Office) -> None:
    said = office.told("deny")
    assert said[-1] == {"granted": None, "code": "approval"}
    assert [entry["event"] for entry in entries(office)][-1] == "approval.deny"
