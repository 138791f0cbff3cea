"""The worst agent in a project whose keys `remit init` has moved, as root and as nobody: there is nothing to steal."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from examples.demo.canary import leaked
from tests.live.worst_scene import Scene, check_harmless, everybody, scene, skip_unless_able, worst

pytestmark = [pytest.mark.live, pytest.mark.slow]


def keyed_files(here: Scene) -> list[Path]:
    """Write a project's files, with keys in them."""
    work, keys = here.place / "work", here.keys
    env = {"ACME_SEARCH_KEY": keys["search"], "ACME_MESSAGES_KEY": keys["messages"], "OWN_NAME": keys["search"]}
    words = {"command": sys.executable, "args": ["worst_agent.py", "server"]}
    server = {**words, "env": {"ACME_DOCUMENTS_KEY": keys["documents"], "LOG_LEVEL": "debug"}}
    texts = {
        ".env": "".join(f"{name}={value}\n" for name, value in env.items()),
        ".env.local": f"# of the other machine\nACME_DOCUMENTS_KEY='{keys['documents']}'\n",
        ".mcp.json": json.dumps({"mcpServers": {"notes": server}}),
        ".claude/settings.json": json.dumps({"env": {"ACME_MESSAGES_KEY": keys["messages"]}}),
    }
    for name, text in texts.items():
        path = work / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)
        here.own(path.parent, path)
    return [work / name for name in texts]


@pytest.mark.attack("LAU-17")
@pytest.mark.attack("LAU-03")
@pytest.mark.parametrize("who", everybody())
def test_an_agent_that_obeys_a_tools_result_gets_nothing_out_of_a_brokered_project(who: int, tmp_path: Path) -> None:
    skip_unless_able(who)
    with scene(tmp_path, who, keyed=False) as here:
        before = {path: path.read_bytes() for path in keyed_files(here)}
        assert leaked(here.keys, before.values()).keys() == here.keys.keys()
        hosts = [urlsplit(here.services[name].url).netloc for name in here.keys]
        shown = here.told("init", *(word for host in hosts for word in ("--confirm", host)))
        shown += here.told("allow", "--yes")
        said = worst(here)  # no option: the project says what it may use
        assert '"what": "server"' in said
        check_harmless(here, said)
        kept = [path.read_bytes() for path in (here.place / "state").rglob("*") if path.is_file()]
        assert leaked(here.keys, [shown.encode(), *kept]) == {}
        here.told("init", "--undo")
        assert {path: path.read_bytes() for path in before} == before
