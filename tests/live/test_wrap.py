"""MCP servers that a client starts by `remit mcp wrap`: what they have, what they can be told, and when they end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest

from tests.live.terminal import COMMAND, PATIENCE, Terminal, configure
from tests.servers.conversation import Conversation, GoneError, Json
from tests.servers.double import Asked, providers
from tests.support.process_memory import copies

pytestmark = pytest.mark.live
SERVER = Path(__file__).with_name("mcp_server.py")
BOUND = "actions=GET,paths=/v1/**,args=any"
KEYS = {f"api{n}": f"real-{n}-7fd1b2c3a4958677685746352413fedc" for n in range(5)}


@dataclass
class Scene:
    """A broker, and the doubles of providers."""

    here: Terminal
    seen: list[Asked]

    @contextmanager
    def wrapped(self, name: str, *words: str, tools: Sequence[str] = ("fetch",)) -> Iterator[Client]:
        """Start a server as a client does; it uses the API of its number."""
        granted = [f"--tool={tool}" for tool in tools]
        command = ["mcp", "wrap", "-s", name, *granted, "-r", name.replace("server", "api")]
        with self.started([*COMMAND, *command, "--", sys.executable, str(SERVER.name), *words]) as client:
            client.begin()
            yield client

    @contextmanager
    def started(self, command: Sequence[str]) -> Iterator[Client]:
        with (
            (self.here.home / "client.log").open("a") as log,
            subprocess.Popen(
                command,
                cwd=self.here.work,
                env=self.here.environ(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as process,
        ):
            try:
                yield Client(process)
            finally:
                process.terminate()
                process.communicate(timeout=PATIENCE)


class Client(Conversation):
    """A client, and the server's processes."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        super().__init__(process)
        self.process = process
        self.heard: list[Json] = []  # all of it

    def _heard(self) -> Json:
        self.heard.append(super()._heard())
        return self.heard[-1]

    def leave(self, tool: str) -> None:
        """Call a tool, and wait for nothing."""
        self._say({"id": "left", "method": "tools/call", "params": {"name": tool}})

    def call(self, tool: str, **arguments: object) -> Json:
        answer: Json = self.ask("tools/call", {"name": tool, "arguments": arguments})["result"]
        return answer

    @property
    def family(self) -> list[psutil.Process]:
        first = psutil.Process(self.process.pid)
        return [first, *first.children(recursive=True)]


def said(answer: Json) -> str:
    return str(answer["content"][0]["text"])


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    configure(tmp_path, ["[listen]", 'api = "off"', 'gateway = "off"'])
    (tmp_path / "work").mkdir()
    shutil.copy(SERVER, tmp_path / "work")
    here = Terminal(tmp_path, "https://idp.test", work=tmp_path / "work")
    with providers({"/v1/x": {}}) as (address, seen), here.start("up", "--json") as broker:
        try:
            assert broker.stdout is not None
            assert broker.stdout.readline()
            for n, key in enumerate(KEYS.values()):
                add(here, f"server{n}", f"mcp+stdio:server{n}")
                add(here, f"api{n}", address, "--bound", BOUND, "--secret", key=key)
            yield Scene(here, seen)
        finally:
            broker.terminate()
            broker.communicate(timeout=PATIENCE)


def add(here: Terminal, *words: str, key: str = "") -> None:
    done = subprocess.run(
        [*COMMAND, "resource", "add", *words],
        cwd=here.work,
        env=here.environ(),
        input=key,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.attack("MCP-03")
def test_a_server_whose_tool_turns_is_not_called_again_until_a_human_accepts_it(scene: Scene) -> None:
    with scene.wrapped("server1", "turning") as client:
        assert [tool["name"] for tool in client.ask("tools/list", {})["result"]["tools"]] == ["fetch"]
        assert said(client.call("fetch")) == "200"
        assert client.ask("tools/list", {})["result"]["tools"] == []
        refused = client.call("fetch")
        assert refused["isError"]
        assert refused["_meta"]["remit/problem"]["code"] == "description"
        assert len(scene.seen) == 1
        [held] = scene.here.told("resource", "show", "server1")["held"]
        scene.here.told("resource", "accept", "server1", "fetch", "--digest", held["pending"])
        assert said(client.call("fetch")) == "200"
        assert len(scene.seen) == 2


def test_a_server_has_no_key_and_does_what_its_grant_says_until_that_ends(scene: Scene) -> None:
    with scene.wrapped("server0") as client:
        assert [tool["name"] for tool in client.ask("tools/list", {})["result"]["tools"]] == ["fetch"]
        refused = client.call("wipe")
        assert refused["isError"]
        assert refused["_meta"]["remit/problem"]["enough"]["tools"] == {"wipe": {}}
        assert said(client.call("fetch")) == "200"
        assert [asked.headers["authorization"] for asked in scene.seen] == [f"Bearer {KEYS['api0']}"]
        server = client.family[-1]
        environment = server.environ()
        assert KEYS["api0"] not in str(environment)
        [row] = scene.here.told("tree")["tasks"]
        assert scene.here.run("close", row["task"])[0] == 0
        with pytest.raises(GoneError):
            client.call("fetch")
        client.process.wait(PATIENCE)
        assert not server.is_running()


def test_a_session_outlives_what_serves_it(scene: Scene) -> None:
    with scene.wrapped("server0") as client:
        assert said(client.call("fetch")) == "200"
        server = client.family[-1]
        for _ in range(2):
            pids = {each["name"]: each["pid"] for each in scene.here.told("status")["processes"]}
            os.kill(pids["edge"], signal.SIGKILL)
            log = scene.here.home / "client.log"
            before = log.read_text().count("this run goes on")
            while log.read_text().count("this run goes on") == before:
                client.process.poll()
            assert said(client.call("fetch")) == "200"
        assert client.family[-1] == server


def test_a_client_in_a_run_starts_a_server_that_may_do_less_than_it(scene: Scene) -> None:
    wrap = ["mcp", "wrap", "-s", "server0", "-r", "api0"]
    detail = json.dumps({"resource": "server0", "actions": ["tools/call"], "tools": {"fetch": "any"}})
    outer = ["run", "--depth", "1", "--fan-out", "2", "-r", "server0", "-r", "api0", "--"]
    inner = [*wrap, "-d", detail, "--", sys.executable, SERVER.name]
    with scene.started([*COMMAND, *outer, *COMMAND, *inner]) as client:
        client.begin()
        assert client.call("wipe")["isError"]
        assert said(client.call("fetch")) == "200"


@pytest.mark.attack("INJ-04", "MCP-03", "MCP-04")
def test_a_hostile_server_among_five_gets_no_secret_and_disturbs_no_other(scene: Scene) -> None:
    with ExitStack() as stack:
        honest = [stack.enter_context(scene.wrapped(f"server{n}")) for n in range(4)]
        hostile = stack.enter_context(scene.wrapped("server4", "hostile", tools=("look", "stall")))
        [tool] = hostile.ask("tools/list", {})["result"]["tools"]
        assert tool["name"] == "look"  # the tools that look like another's are not there
        looked = hostile.call("look")
        found = said(looked)
        assert not any(key in found for key in KEYS.values())
        assert "not asked" not in str(hostile.heard)
        assert [message for message in hostile.heard if "method" in message] == []  # nothing was asked of the client
        processes, sockets = json.loads(found)[1:]
        assert not any("client.log" in each or "REMIT_STATE_DIR" in each for each in processes)
        own = {str(Path("/run/remit", f"{name}.sock")) for name in ("channel", "launch")}
        assert {name for name in sockets if not name.startswith("@")} <= own
        for held in (hostile.family, *(each.family for each in honest)):
            for process in held:
                said_of = f"{process.environ()} {process.cmdline()}"
                assert not any(key in said_of or copies(process.pid, key) for key in KEYS.values())
        hostile.leave("stall")
        for n, each in enumerate(honest):
            scene.seen.clear()
            assert said(each.call("fetch")) == "200"
            assert [asked.headers["authorization"] for asked in scene.seen] == [f"Bearer {KEYS[f'api{n}']}"]
    code, out, err = scene.here.run("audit", "tail", "-n", "200", "--decision", "deny", "--json")
    assert code == 0, err
    refused = {(entry.get("action"), entry.get("code")) for entry in map(json.loads, out.splitlines())}
    assert {("sampling/createMessage", "scope"), ("elicitation/create", "scope"), ("roots/list", "scope")} <= refused
