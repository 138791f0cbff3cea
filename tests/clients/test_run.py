"""Agents that people have, in a run: model and MCP server by the gateway, and a server that they start themselves."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator

import pytest

from tests.clients.agents import CLAUDE, CODEX, GEMINI
from tests.clients.scene import MODULES, NODE, Scene, standing
from tests.frameworks import model
from tests.live.terminal import COMMAND
from tests.live.test_mcp_oauth import KEY
from tests.live.test_wrap import SERVER

pytestmark = [pytest.mark.live, pytest.mark.slow]
GRANTED = '{"resource": "tools", "actions": ["tools/call"], "tools": {"add": "any"}}'
QUIET = ["CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC=1", "GEMINI_CLI_TRUST_WORKSPACE=true"]
PROVIDER = 'model_providers.x={name="x",env_key="OPENAI_API_KEY",wire_api="responses",base_url="\'$OPENAI_BASE_URL\'"}'
SET = ["mcp_servers.tools.default_tools_approval_mode=approve", "model_provider=x", "model=m"]
# what is typed in the run: the server is at `$REMIT_URL_TOOLS`
TYPED = {
    "openai": [*CODEX, "exec", "--skip-git-repo-check", *(word for each in SET for word in ("-c", each))],
    "gemini": [*GEMINI, "-m", "gemini-test", "--yolo", "-p"],
}
ASKED = {"openai": "mcp__tools__{}", "gemini": "mcp_tools_{}"}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    """Serve all of it; in the folder of the project stands what the agents' users wrote there."""
    with standing(tmp_path_factory.mktemp("r")) as found:
        work = found.here.work
        assert work is not None
        shutil.copy(SERVER, work)
        (work / ".gemini").mkdir()
        server = {"mcpServers": {"tools": {"httpUrl": "$REMIT_URL_TOOLS"}}}
        (work / ".gemini/settings.json").write_text(json.dumps(server))
        yield found


def ran(scene: Scene, *words: str, command: list[str]) -> str:
    """Run a command in a run of these words; return what it prints."""
    told = [f"--env={one}" for one in QUIET]
    return scene.run("run", "-q", *words, "--bind", str(MODULES), "--bind", str(NODE.parent), *told, "--", *command)


@pytest.mark.parametrize("name", TYPED)
def test_in_a_run_an_agent_calls_its_tools_without_a_token(name: str, scene: Scene) -> None:
    before = len(scene.called())
    call, wipe = (ASKED[name].format(tool) for tool in ("add", "wipe"))
    text = f'call {call} {{"a": 2, "b": 3}}\n\ncall {wipe} {{"what": "all"}}'
    command = [*TYPED[name], text]
    if name == "openai":
        url, base = ('-c "mcp_servers.tools.url=$REMIT_URL_TOOLS"', f"-c '{PROVIDER}'")
        command = ["sh", "-c", f'exec "$@" {url} {base} "$0"', text, *TYPED[name]]
    if name == "gemini":
        command = ["env", "-u", "GOOGLE_GEMINI_BASE_URL", *command]
    told = ran(scene, "-r", name, "-d", GRANTED, command=command).rpartition("told:")[2]
    assert "5" in told
    assert any(words in told for words in ("No such tool", "not found", "unsupported")), told
    assert scene.called()[before:] == [("tools/call add", "allow")]
    assert (set(scene.keys), scene.wiped) == ({f"Bearer {KEY}"}, [])


def test_claude_code_in_a_run_calls_its_tools_and_starts_a_server_that_has_no_key(scene: Scene) -> None:
    scene.run("resource", "add", "files", "mcp+stdio:files")
    bound = "actions=GET,paths=/v1/**,args=any"
    scene.run("resource", "add", "api", scene.model.address, "--bound", bound, "--secret", stdin=model.KEY)
    wrap = ["mcp", "wrap", "-q", "-s", "files", "-t", "fetch", "-t", "show", "-r", "api", "--"]
    command, *rest = [*COMMAND, *wrap, sys.executable, SERVER.name]
    servers = {"tools": {"type": "http", "url": "${REMIT_URL_TOOLS}"}, "files": {"command": command, "args": rest}}
    words = ["--strict-mcp-config", "--mcp-config", json.dumps({"mcpServers": servers}), "--model", "claude-test"]
    words += ["--allowedTools", "mcp__files,mcp__tools", "-p"]
    before, called = len(scene.called()), ["files__show", "files__fetch", "files__wipe", "tools__wipe"]
    texts = ['call mcp__tools__add {"a": 2, "b": 3}', *(f"call mcp__{tool} {{}}" for tool in called)]
    outer = ["--depth", "1", "--fan-out", "2", "-d", GRANTED, "-r", "anthropic", "-r", "files", "-r", "api"]
    told = ran(scene, *outer, command=[*CLAUDE, *words, "\n\n".join(texts)])
    added, shown, fetched, *refused = told.rpartition("told:")[2].split(" | ")
    assert ("5" in added, fetched) == (True, "200")
    assert all("No such tool" in each for each in refused)
    assert model.KEY not in shown
    assert "REMIT_KEY_API" in shown
    assert scene.called()[before:] == [(f"tools/call {tool}", "allow") for tool in ("add", "show", "fetch")]
    assert (set(scene.keys), scene.wiped) == ({f"Bearer {KEY}"}, [])
