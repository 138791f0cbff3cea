"""MCP servers that are commands, used over HTTP from a run: the launcher starts each in a run of its own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.live.terminal import COMMAND, PATIENCE, Terminal, configure
from tests.live.test_mcp_oauth import upstream
from tests.live.test_wrap import SERVER, Scene, add
from tests.servers.double import providers

pytestmark = pytest.mark.live
AGENT = Path(__file__).with_name("command_agent.py")
KEY = "real-7fd1b2c3a4958677685746352413fedc"
REACHES = {"type": "http", "resource": "api", "actions": ["GET"], "paths": ["/v1/**"], "args": "any"}
MAY = {"type": "mcp", "resource": "forge", "actions": ["tools/call"], "tools": {"fetch": {}}}
BEGIN = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "agent", "version": "1"}}


@dataclass
class Agent:
    """A run with such an agent."""

    process: subprocess.Popen[str]
    log: Path
    _last: int = 0

    def send(self, **asked: Any) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        heard = self.process.stdout.readline()
        assert heard, self.log.read_text()
        return json.loads(heard)

    def ask(self, method: str, params: dict[str, Any], **more: Any) -> Any:
        self._last += 1
        say = {"jsonrpc": "2.0", "id": self._last, "method": method, "params": params}
        return self.send(say=say, **more)["heard"][-1]

    def begin(self, **more: Any) -> Any:
        answer = self.ask("initialize", BEGIN, **more)
        told = self.send(say={"jsonrpc": "2.0", "method": "notifications/initialized"}, **more)
        assert told["status"] == 202
        return answer

    def call(self, tool: str, **more: Any) -> Any:
        return self.ask("tools/call", {"name": tool, "arguments": {}}, **more)["result"]

    @property
    def servers(self) -> list[psutil.Process]:
        """The processes of servers that it has started."""
        found = psutil.Process(self.process.pid).children(recursive=True)
        return [each for each in found if SERVER.name in _words(each)]


def _words(process: psutil.Process) -> str:
    """Return how a process was started, and with what in its environment; nothing of one that has ended."""
    try:
        return " ".join([*process.cmdline(), *process.environ().values()])
    except psutil.NoSuchProcess:  # a zombie too
        return ""


@contextmanager
def running(scene: Scene, *words: str) -> Iterator[Agent]:
    command = [
        *COMMAND,
        "run",
        "-q",
        "-d",
        json.dumps(MAY),
        *words,
        "--",
        sys.executable,
        AGENT.name,
        "REMIT_URL_FORGE",
    ]
    log = scene.here.home / "agent.log"
    with (
        log.open("w") as said,
        subprocess.Popen(
            command,
            cwd=scene.here.work,
            env=scene.here.environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
        ) as process,
    ):
        try:
            yield Agent(process, log)
        finally:
            process.terminate()
            process.communicate(timeout=PATIENCE)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    configure(tmp_path, ["[listen]", 'api = "off"', 'gateway = "off"'])
    (tmp_path / "work").mkdir()
    for file in (SERVER, AGENT):
        shutil.copy(file, tmp_path / "work")
    here = Terminal(tmp_path, "https://idp.test", work=tmp_path / "work")
    with providers({"/v1/x": {}}) as (address, seen), here.start("up", "--json") as broker:
        try:
            assert broker.stdout is not None
            assert broker.stdout.readline()
            add(here, "api", address, "--bound", "actions=GET,paths=/v1/**,args=any", "--secret", key=KEY)
            command = f"command={json.dumps([sys.executable, SERVER.name])}"
            add(here, "forge", "mcp+stdio:forge", "--setting", command, "--setting", f"reaches={json.dumps([REACHES])}")
            broken = ["sh", "-c", "echo no such database >&2; exit 3"]
            add(here, "broken", "mcp+stdio:broken", "--setting", f"command={json.dumps(broken)}")
            yield Scene(here, seen)
        finally:
            broker.terminate()
            broker.communicate(timeout=PATIENCE)


def test_a_client_over_http_uses_a_server_that_is_a_command(scene: Scene) -> None:
    with running(scene) as agent:
        assert agent.begin()["result"]["serverInfo"]["name"] == "x"
        assert [tool["name"] for tool in agent.ask("tools/list", {})["result"]["tools"]] == ["fetch"]
        refused = agent.call("wipe")
        assert refused["isError"]
        assert refused["_meta"]["remit/problem"]["enough"]["tools"] == {"wipe": {}}
        assert agent.call("fetch")["content"][0]["text"] == "200"
        assert [asked.headers["authorization"] for asked in scene.seen] == [f"Bearer {KEY}"]
        first = agent.servers
        assert KEY not in str([_words(each) for each in first])
        assert agent.begin(**{"as": "another"})
        assert len(agent.servers) == 2 * len(first)  # each session has its own
        assert agent.send(method="DELETE")["status"] == 200
        psutil.wait_procs(first, timeout=PATIENCE)
        assert len(agent.servers) == len(first)
        assert agent.send(say={"jsonrpc": "2.0", "id": 9, "method": "ping"})["status"] == 404
        assert agent.call("fetch", **{"as": "another"})["content"][0]["text"] == "200"
        left = agent.servers
        assert left
    psutil.wait_procs(left, timeout=PATIENCE)
    assert not any(each.is_running() for each in left)


def test_a_session_ends_with_its_edge_and_its_grant_and_a_client_begins_another(scene: Scene) -> None:
    with running(scene) as agent:
        agent.begin()
        first = agent.servers
        pids = {each["name"]: each["pid"] for each in scene.here.told("status")["processes"]}
        os.kill(pids["edge"], signal.SIGKILL)
        while "this run goes on" not in agent.log.read_text():
            assert agent.process.poll() is None
        psutil.wait_procs(first, timeout=PATIENCE)
        assert not any(each.is_running() for each in first)
        assert agent.send(say={"jsonrpc": "2.0", "id": 9, "method": "ping"})["status"] == 404
        agent.begin(**{"as": "next"})
        assert agent.call("fetch", **{"as": "next"})["content"][0]["text"] == "200"
        second = agent.servers
        [row] = [row for row in scene.here.told("tree")["tasks"] if "serve" not in row["purpose"]]
        assert scene.here.run("close", row["task"])[0] == 0
        psutil.wait_procs(second, timeout=PATIENCE)
        assert not any(each.is_running() for each in second)


def test_why_a_server_does_not_start_is_told_to_whoever_started_the_run(scene: Scene) -> None:
    may = json.dumps({**MAY, "resource": "broken"})
    with running(scene, "-d", may, "--depth", "1", "--fan-out", "1") as agent:
        told = agent.ask("initialize", BEGIN, url="http://127.0.0.1:8471/broken", **{"as": "broken"})
        assert told["error"]["data"]["remit/problem"]["code"] == "upstream"
        assert "database" not in str(told)
        while "no such database" not in agent.log.read_text():
            assert agent.process.poll() is None
        assert "the server `broken` ended with 3" in agent.log.read_text()


def test_one_endpoint_has_servers_over_http_and_servers_that_are_commands(scene: Scene) -> None:
    with upstream() as (address, seen):
        add(scene.here, "bank", f"mcp+{address}/mcp", "--secret", key=KEY)
        more = [{**MAY, "resource": "broken"}, {**MAY, "resource": "bank", "tools": {"add": "any"}}]
        with running(scene, *(word for may in more for word in ("-d", json.dumps(may)))) as agent:
            all_of_them = {"url": "http://127.0.0.1:8471/mcp"}
            told = agent.begin(**all_of_them)["result"]["instructions"].splitlines()
            assert "- broken is left out: remit refused `initialize`: the server ended before it answered." in told
            assert {"- bank: `bank__`", "- forge: `forge__`"} <= set(told)
            listed = agent.ask("tools/list", {}, **all_of_them)["result"]
            assert sorted(tool["name"] for tool in listed["tools"]) == ["bank__add", "forge__fetch"]
            added = agent.ask("tools/call", {"name": "bank__add", "arguments": {"a": 1, "b": 2}}, **all_of_them)
            assert added["result"]["content"][0]["text"] == "3"
            assert agent.call("forge__fetch", **all_of_them)["content"][0]["text"] == "200"
            assert agent.call("forge__wipe", **all_of_them)["isError"]
            assert set(seen) == {f"Bearer {KEY}"}
            started = agent.servers
            assert started
            assert agent.send(method="DELETE", **all_of_them)["status"] == 204
            psutil.wait_procs(started, timeout=PATIENCE)
            assert not agent.servers
            assert agent.send(say={"jsonrpc": "2.0", "id": 9, "method": "tools/list"}, **all_of_them)["status"] == 404
