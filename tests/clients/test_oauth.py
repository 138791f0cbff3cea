"""Clients that people have, at an MCP server behind a deployed gateway: from its URL alone to a called tool, by OAuth.

What their users type is in `docs/how-to/mcp-clients.md`. Each is refused a tool that nobody granted, in its own words,
goes on when its token is old, and says why it gets none where the resource takes no bearers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.agents import AGENTS, agent
from tests.clients.scene import FASTMCP, HERE, MODULES, NODE, SHUT, Scene, said, standing
from tests.live.test_mcp_oauth import KEY
from tests.support.postgres_server import free_port

pytestmark = [pytest.mark.live, pytest.mark.slow]
WHY = "no DPoP proof"
CALLED = [("tools/call add", "allow")] * 2


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Serve all of it."""
    with standing(tmp_path_factory.mktemp("c")) as found:
        yield found
        assert (set(found.keys), found.wiped) == ({f"Bearer {KEY}"}, [])


@pytest.mark.parametrize("name", AGENTS)
def test_an_agent_logs_in_lists_calls_and_refreshes(name: str, scene: Scene, tmp_path: Path) -> None:
    it = agent(name, scene, tmp_path)
    before = len(scene.called())
    for resource in ("tools", SHUT):
        it.add(resource)
    told, why = it.log_in("tools", SHUT)
    assert re.search("uccessfully|Authenticated with", told)
    assert WHY in why
    assert it.lists.format(scene.url()) in " ".join(it.listed().split())
    assert "5" in it.ask(f'call {it.tool.format("add")} {{"a": 2, "b": 3}}').rpartition("told:")[2]
    refused = it.ask(f'call {it.tool.format("wipe")} {{"what": "all"}}').rpartition("told:")[2]
    assert re.search("No such tool|not found|unsupported", refused)
    it.age()
    refreshed = len(scene.recorded("token.refresh"))
    assert "7" in it.ask(f'call {it.tool.format("add")} {{"a": 3, "b": 4}}').rpartition("told:")[2]
    assert len(scene.recorded("token.refresh")) > refreshed
    assert scene.called()[before:] == CALLED


def test_fastmcp_does_by_its_own_help_for_oauth(scene: Scene, tmp_path: Path) -> None:
    before = len(scene.called())
    words = [str(FASTMCP), str(HERE / "with_fastmcp.py")]
    code, told = said([*words, scene.url()], scene.environ(tmp_path), tmp_path)
    assert code == 0, told
    found = json.loads(told.splitlines()[-1])
    assert (found["tools"], found["said"]) == (["add"], ["5", "7"])
    assert "wipe" in found["refused"]
    assert scene.called()[before:] == [*CALLED, ("tools/call", "deny")]
    code, told = said([*words, scene.url(SHUT)], scene.environ(tmp_path), tmp_path)
    assert (code, WHY in told) == (1, True)


def test_the_inspector_does_in_its_cli(scene: Scene, tmp_path: Path) -> None:
    environ = {**scene.environ(tmp_path), "MCP_AUTO_OPEN_ENABLED": "true"}
    own = ["--client-id", "app", "--callback-url", f"http://127.0.0.1:{free_port()}/oauth/callback"]

    def inspected(url: str, *words: str) -> str:
        launcher = str(MODULES / "@modelcontextprotocol/inspector/clients/launcher/build/index.js")
        words = (launcher, "--cli", url, "--transport", "http", "-q", "--format", "json", *own, *words)
        return said([str(NODE / "node"), *words], environ, tmp_path)[1]

    before = len(scene.called())
    listed = json.loads(inspected(scene.url(), "--method", "tools/list").splitlines()[-1])
    assert [tool["name"] for tool in listed["result"]["tools"]] == ["add"]
    call = ["--method", "tools/call", "--tool-name"]
    assert '"text":"5"' in inspected(scene.url(), *call, "add", "--tool-arg", "a=2", "b=3")
    assert "Tool 'wipe' not found" in inspected(scene.url(), *call, "wipe", "--tool-arg", "what=all")
    for path in (tmp_path / ".mcp-inspector").rglob("*.json"):
        path.write_text(re.sub(r'(access_token\\?"\s*:\s*\\?")[^"\\]+', r"\g<1>stale", path.read_text()))
    refreshed = len(scene.recorded("token.refresh"))
    assert '"text":"7"' in inspected(scene.url(), *call, "add", "--tool-arg", "a=3", "b=4")
    assert len(scene.recorded("token.refresh")) > refreshed
    assert scene.called()[before:] == CALLED
    assert WHY in inspected(scene.url(SHUT), "--method", "tools/list")
