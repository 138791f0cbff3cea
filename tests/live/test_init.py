"""`remit init` as people use it: a project with keys, then an agent and its MCP server that have none, then back."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live.terminal import Terminal, configure
from tests.live.test_proxy import provider

OPENAI = "sk-proj-" + "aB3d_eF6-gH9" * 12
BRAVE = "BSA" + "kL2mN5pQ8rS1-tU4" * 2
BOUND = "actions=GET,paths=/v1/**,args=any"
SERVER = """
import os, urllib.request
key = {"X-Subscription-Token": os.environ["BRAVE_API_KEY"]}
asked = urllib.request.Request(os.environ["REMIT_URL_BRAVE"] + "/v1/search", headers=key)
print(urllib.request.urlopen(asked, timeout=20).status, sorted(n for n in os.environ if n.startswith("OPENAI")))
"""
AGENT = r"""
import json, os, pathlib, subprocess, urllib.request
key = {"Authorization": "Bearer " + os.environ["MY_LLM"]}
asked = urllib.request.Request(os.environ["OPENAI_BASE_URL"] + "/models", headers=key)
told = {"status": urllib.request.urlopen(asked, timeout=20).status}
server = json.loads(pathlib.Path(".mcp.json").read_text())["mcpServers"]["search"]
words, env = [server["command"], *server["args"]], {**os.environ, **server["env"]}
done = subprocess.run(words, env=env, capture_output=True, text=True)
told["server"], told["errors"] = done.stdout.strip(), done.stderr
seen = [pathlib.Path(f"/proc/{pid}/environ") for pid in os.listdir("/proc") if pid.isdigit()]
seen += [path for path in pathlib.Path(".").rglob("*") if path.is_file()]
told["keys"] = [str(path) for path in seen if os.access(path, os.R_OK) and any(k in path.read_bytes() for k in KEYS)]
print(json.dumps(told))
"""

pytestmark = pytest.mark.live


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Terminal]:
    """Return a terminal in a project with a key in `.env`, and another in the configuration of an MCP server."""
    configure(tmp_path, ["[listen]", 'api = "off"', 'gateway = "off"'])
    work = tmp_path / "project"
    work.mkdir()
    (work / ".env").write_text(f"# mine\nOPENAI_API_KEY='{OPENAI}'\nMY_LLM={OPENAI}\nLOG_LEVEL=debug\n")
    server = {"command": sys.executable, "args": ["-c", SERVER], "env": {"BRAVE_API_KEY": BRAVE}}
    (work / ".mcp.json").write_text(json.dumps({"mcpServers": {"search": server}}, indent=2))
    found = Terminal(tmp_path, "", work=work)
    try:
        yield found
    finally:
        found.run("down")


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), path.stat().st_mode) for path in folder.iterdir()}


@pytest.mark.attack("LAU-17")
def test_after_init_an_agent_and_its_server_work_and_have_no_key(here: Terminal) -> None:
    project = here.home / "project"
    before = contents(project)
    with provider() as (url, seen), provider() as (search, searched):
        host, other = url.removeprefix("http://"), search.removeprefix("http://")
        for name, at in (("openai", url), ("brave", search)):
            code, _, err = here.run("resource", "add", name, at, "--provider", name, "--bound", BOUND)
            assert code == 0, err
        found = here.told("init", "--dry-run")
        assert sorted({key["host"] for key in found["keys"]}) == sorted([host, other])
        assert here.told("init", "--confirm", host, "--confirm", other)["changed"] is True
        assert here.run("allow", "--yes")[0] == 0
        agent = f"KEYS = [text.encode() for text in ({OPENAI[::-1]!r}[::-1], {BRAVE[::-1]!r}[::-1])]\n{AGENT}"
        path = f"PATH={Path(sys.executable).parent}:{os.environ['PATH']}"
        code, out, err = here.run("run", "--", "env", path, sys.executable, "-c", agent)
        assert code == 0, err
        told = json.loads(out.splitlines()[-1])
        assert told == {"status": 200, "server": "200 []", "errors": told["errors"], "keys": []}, told
        assert seen == [("/v1/models", f"Bearer {OPENAI}")]
        assert [path for path, _ in searched] == ["/v1/search"]
    kept = [path for path in here.state.rglob("*") if path.is_file()]
    assert not [path for path in kept if any(key.encode() in path.read_bytes() for key in (OPENAI, BRAVE))]
    assert here.run("init", "--undo")[0] == 0
    assert contents(project) == before
