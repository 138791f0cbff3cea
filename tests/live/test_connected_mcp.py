"""An MCP server that wants OAuth, behind the gateway: an agent's client asks its human to connect it, and goes on.

The authorization server of the MCP server is also the issuer at which the human logs in. It rotates refresh tokens, and
ends all of a grant when one comes again.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest
import uvicorn
from mcp.server.mcpserver import MCPServer
from starlette.responses import JSONResponse

from tests.live import idp
from tests.live.idp import Provider
from tests.live.terminal import PATIENCE, Terminal, configure
from tests.support.postgres_server import free_port

pytestmark = pytest.mark.live
AGENT = Path(__file__).with_name("connecting_agent.py")
TOOLS = {"type": "mcp", "resource": "tracker", "actions": ["tools/call"], "tools": "any"}


@dataclass
class Tracker:
    """An MCP server that believes one authorization server."""

    sock: socket.socket
    provider: Provider | None = None
    tokens: list[str] = field(default_factory=list)  # of each request
    refused: set[str] = field(default_factory=set)
    refuses: bool = False  # the next token that comes, from then on

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.sock.getsockname()[1]}/mcp"

    def login(self, token: str) -> str | None:
        """Return whose a token is, if it is one for here."""
        assert self.provider is not None
        found: Mapping[str, Any] = self.provider.token_info(token)
        self.refused |= {token} if self.refuses else set()
        self.refuses = False
        good = found["active"] and found["aud"] == self.url and token not in self.refused
        return str(found["login"]) if good else None


@contextmanager
def tracking() -> Iterator[Tracker]:
    made = Tracker(socket.create_server(("127.0.0.1", 0)))
    server, known = MCPServer("tracker"), list[str]()

    def whose() -> str:
        return known[-1]

    server.tool()(whose)
    app = server.streamable_http_app()

    async def guarded(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            given = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
            made.tokens.append(given)
            who = await asyncio.to_thread(made.login, given)
            if who is None:
                await JSONResponse({"error": "invalid_token"}, 401)(scope, receive, send)
                return
            known.append(who)
        await app(scope, receive, send)

    served = uvicorn.Server(uvicorn.Config(guarded, log_level="error", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=served.run, kwargs={"sockets": [made.sock]})
    thread.start()
    try:
        yield made
    finally:
        served.should_exit = True
        thread.join()


@dataclass
class Scene:
    here: Terminal
    tracker: Tracker
    provider: Provider
    api: int

    @property
    def page(self) -> str:
        return f"http://127.0.0.1:{self.api}/connections/tracker"

    @contextmanager
    def agent(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        run = ("run", "-p", "look", "-d", json.dumps(TOOLS), "--", sys.executable, AGENT.name, *words)
        with self.here.start(*run, stdin=subprocess.PIPE) as process:
            try:
                yield process
            finally:
                process.terminate()
                process.communicate(timeout=PATIENCE)

    def connect(self, url: str, login: str = "alice") -> str:
        """Go to a page as a human does: log in, go on to the provider, come back, and say yes; return the last page."""
        browser = self.provider.browser(login)
        with httpx.Client() as client:

            def press(page: httpx.Response) -> httpx.Response:
                fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', page.text))
                return client.post(urljoin(url, "/oauth/consent"), data={**fields, "decision": "approve"})

            def away(page: httpx.Response) -> httpx.Response:
                found = re.search(r'(?:0;url=|class="go" rel="noreferrer" href=")([^"]+)"', page.text)
                assert found is not None, page.text
                return client.get(browser.visit(unescape(found[1]), leave=True).headers["location"])

            logged_in = away(press(client.get(url)))
            return press(away(press(logged_in))).text


def heard(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.communicate(timeout=PATIENCE)
    return dict(json.loads(line))


def go_on(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Serve a broker, an MCP server, its authorization server; Alice is logged in."""
    home = tmp_path_factory.mktemp("home")
    (home / "policies").mkdir(mode=0o700)
    (home / "policies" / "all.cedar").write_text('@id("all")\npermit (principal, action, resource);\n')
    (home / "work").mkdir()
    shutil.copy(AGENT, home / "work")
    with tracking() as tracker:
        provider = Provider(idp.clients(), idp.GROUPS, {tracker.url: "issues:read"})
        provider.start()
        tracker.provider = provider
        (secret := home / "secret").touch(0o600)
        secret.write_text(idp.SECRET)
        known = ["[[humans]]", f'issuer = "{provider.issuer}"']
        humans = [*known, 'client_id = "remit"']
        humans += [*known, 'client_id = "remit-web"', f'client_secret_file = "{secret}"']
        listen = ["[listen]", f'api = "127.0.0.1:{(api := free_port())}"', 'gateway = "off"']
        configure(home, [*listen, "[policy]", f'directory = "{home / "policies"}"', *humans])
        here = Terminal(home, provider.issuer, work=home / "work")
        broker = here.start("up", "--json")
        try:
            assert broker.stdout is not None
            assert broker.stdout.readline(), broker.communicate()
            oauth = json.dumps({"issuer": provider.issuer, "scopes": ["issues:read"]})
            code, _, err = here.run("resource", "add", "tracker", f"mcp+{tracker.url}", "--setting", f"oauth={oauth}")
            assert code == 0, err
            here.told("login")
            yield Scene(here, tracker, provider, api)
        finally:
            broker.terminate()
            broker.communicate(timeout=PATIENCE)
            provider.stop()


@pytest.mark.parametrize("mode", ["legacy", "2026-07-28"])
def test_a_client_asks_its_human_to_connect_and_its_call_then_works(scene: Scene, mode: str) -> None:
    scene.here.run("disconnect", "tracker")
    before = len(scene.tracker.tokens)
    with scene.agent(mode) as agent:
        asked = heard(agent)
        assert asked["page"] == scene.page
        assert asked["message"].startswith("remit: `tracker` ")
        assert asked.get("code") == (-32_042 if mode == "legacy" else None)
        assert len(scene.tracker.tokens) == before
        assert "Connected" in scene.connect(asked["page"])
        go_on(agent)
        assert heard(agent) == {"said": "alice"}
    used = scene.tracker.tokens[before:]
    assert len(set(used)) == 1
    assert scene.tracker.login(used[0]) == "alice"


def test_a_token_that_is_withdrawn_is_renewed_and_the_call_made_once_more(scene: Scene) -> None:
    scene.here.run("disconnect", "tracker")
    assert "Connected" in scene.connect(scene.page)
    before = len(scene.tracker.tokens)
    scene.tracker.refuses = True
    with scene.agent("2026-07-28") as agent:
        assert heard(agent) == {"said": "alice"}
    used = scene.tracker.tokens[before:]
    assert (used[0] in scene.tracker.refused, used[0] in used[1:]) == (True, False)
    assert scene.tracker.login(used[1]) == "alice"


def test_who_was_sent_there_by_somebody_else_connects_nothing_for_them(scene: Scene) -> None:
    scene.here.run("disconnect", "tracker")
    with scene.agent("2026-07-28") as agent:
        assert "Connected" in scene.connect(heard(agent)["page"], "bob")
        go_on(agent)
        assert "the task's human connects at" in heard(agent)["said"]
    found = scene.here.told("connection", "list")["connections"]
    assert [each["human"] for each in found if each["state"] == "live"] == [f"{scene.provider.issuer}#bob"]
    assert scene.here.run("disconnect", "tracker", "--human", f"{scene.provider.issuer}#bob")[0] == 0
