"""Clients as they are installed read what `remit mcp install` wrote, and connect to remit's server."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.agents import CLAUDE, CODEX, GEMINI
from tests.clients.scene import NODE, installed
from tests.sdk.test_live import REMIT, _configured, broker

pytestmark = [pytest.mark.live, pytest.mark.slow]
CLIENTS = {
    "claude-code": (CLAUDE, ".claude.json", "{}\n"),
    "codex": (CODEX, ".codex/config.toml", 'model = "x" # mine\n'),
    "gemini-cli": (GEMINI, ".gemini/settings.json", '{\n  // mine\n  "theme": "x"\n}\n'),
}


@pytest.fixture
def environ(tmp_path: Path) -> Iterator[dict[str, str]]:
    """Be a user with these clients, and a broker."""
    installed()
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
