"""The tutorial works as it is written: its blocks are run, one after the other, in one shell."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.postgres_server import free_port

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(sh|python)\n(.*?)^```", re.MULTILINE | re.DOTALL)

pytestmark = [pytest.mark.live]


def _script(port: int) -> str:
    text = (ROOT / "docs" / "tutorial" / "first-task.md").read_text(encoding="utf-8").replace("8900", str(port))
    blocks = FENCE.findall(text)
    shell = [body for kind, body in blocks if kind == "sh"][1:]  # the first one makes the environment
    return f"set -eu\nremit up &\nbroker=$!\ntrap 'kill $broker $upstream' EXIT\n{_waiting(shell)}"


def _waiting(blocks: list[str]) -> str:
    wait = 'until [ -S "$REMIT_STATE_DIR/run/control.sock" ]; do sleep 0.05; done\nupstream=$!\n'
    return blocks[0] + wait + "".join(blocks[1:])


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> str:
    work = tmp_path_factory.mktemp("tutorial")
    config = work / "config" / "remit" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[listen]\napi = "off"\ngateway = "off"\n')
    text = (ROOT / "docs" / "tutorial" / "first-task.md").read_text(encoding="utf-8")
    folder = work / "project"
    folder.mkdir()
    (folder / "examples").symlink_to(ROOT / "examples")
    (folder / "agent.py").write_text(next(body for kind, body in FENCE.findall(text) if kind == "python"))
    env = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(work / "home"),
        "REMIT_STATE_DIR": str(work / "state"),
        "XDG_CONFIG_HOME": str(work / "config"),
    }
    done = subprocess.run(
        ["bash", "-c", _script(free_port())],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_agent_is_answered_by_a_service_that_insists_on_a_key(said: str) -> None:
    assert said.count('{"note": "water the plants"}') == 3


def test_the_key_is_nowhere_in_what_was_said(said: str) -> None:
    assert "s3cret" not in said


def test_the_sub_agent_is_refused_what_it_was_not_granted(said: str) -> None:
    assert '"code":"scope"' in said
    assert "garden" not in said


def test_both_tasks_are_shown_closed_at_the_end(said: str) -> None:
    assert re.findall(r"read my notes +task_\S+ +(\w+)", said) == ["closed"] * 2


def test_init_takes_a_key_out_of_a_file_and_puts_it_back(said: str) -> None:
    assert "OPENAI_API_KEY=${OPENAI_API_KEY}" in said
    assert ".env: is as it was" in said


def test_the_log_verifies_at_the_end(said: str) -> None:
    assert re.search(r"^root\s+[0-9a-f]{64}$", said, re.MULTILINE)
