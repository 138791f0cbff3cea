"""What a copy of a broker's state tells: a word that stands wherever an operator or an agent may write one.

But for names of humans, agents and resources, and where secrets may go: those it tells (docs/explanation/limits.md).
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import httpx
import psutil
import pytest

from tests.live.terminal import PATIENCE, Terminal, configure

pytestmark = [pytest.mark.live, pytest.mark.timeout(120)]
WORD = "canary7f3a91"
DETAIL = {"type": "http", "resource": "search", "actions": ["GET"], "paths": [f"/{WORD}/**"], "args": {"query.q": WORD}}
POLICY = f'// {WORD}\n@id("all")\npermit (principal, action, resource);\n'


def found(state: Path) -> dict[str, int]:
    """Return in which files of a state the word stands, and how often."""
    content = {path.name: path.read_bytes() for path in state.rglob("*") if path.is_file()}
    return {name: count for name, raw in content.items() if (count := raw.lower().count(WORD.encode()))}


@pytest.mark.attack("STO-01")
def test_no_word_of_an_operator_or_an_agent_is_in_clear_in_any_file_of_the_state(tmp_path: Path) -> None:
    (tmp_path / "policies").mkdir(mode=0o700)
    (tmp_path / "policies" / "all.cedar").write_text(POLICY)
    lines = ["[listen]", 'api = "off"', 'gateway = "off"', "[policy]", f'directory = "{tmp_path / "policies"}"']
    configure(tmp_path, lines)
    here = Terminal(tmp_path, "https://idp.test")
    broker = here.start("up", "--json")
    assert broker.stdout is not None
    assert broker.stdout.readline()
    transport = httpx.HTTPTransport(uds=str(here.state / "run" / "control.sock"))
    with httpx.Client(transport=transport, base_url="http://control", timeout=PATIENCE) as control:
        body = {
            "kind": "http",
            "destination": "https://search.test",
            "bound": [DETAIL],
        }
        put = control.put("/v1/resources/search", json={**body, "settings": {}, "secret": f"{WORD}-and-the-rest-of-it"})
        assert put.is_success, put.text
    root = here.told("open", WORD, "-d", json.dumps(DETAIL), "--depth", "1", "--fan-out", "2", "--as-owner")
    child = here.told("delegate", WORD, "-g", root["grant"], "-d", json.dumps(DETAIL))
    here.told("revoke", child["grant"])
    assert WORD in here.run("tree", root["task"])[1]
    while_served = found(here.state)
    children = psutil.Process(broker.pid).children()
    broker.send_signal(signal.SIGKILL)
    broker.communicate(timeout=PATIENCE)
    psutil.wait_procs(children, PATIENCE)
    assert (while_served, found(here.state)) == ({}, {})
