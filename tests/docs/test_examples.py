"""The examples run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from examples.demo import house as houses
from remit.sdk import verbs
from tests.support.postgres_server import free_port

EXAMPLES = Path(__file__).parents[2] / "examples"
KEY = "s3cret-s3cret-s3cret"

pytestmark = [pytest.mark.live]


def test_three_agents_in_one_process_each_get_what_they_were_granted(tmp_path: Path) -> None:
    port, work = free_port(), tmp_path / "work"
    work.mkdir()
    bound = [{"type": "http", "resource": "notes", "actions": ["GET"], "paths": ["/v1/**"]}]
    body = {"kind": "http", "destination": f"http://127.0.0.1:{port}", "bound": bound, "secret": KEY, "settings": {}}
    upstream = subprocess.Popen(
        [sys.executable, str(EXAMPLES / "upstream.py"), str(port), KEY], stderr=subprocess.DEVNULL
    )
    try:
        with houses.broker(tmp_path / "h") as house:
            with house.client() as client:
                client.run(verbs.put_resource("notes", body))
            (work / "agents.py").write_bytes((EXAMPLES / "three_agents.py").read_bytes())
            options = ("--purpose", "try", "-r", "notes", "--depth", "1", "--fan-out", "3")
            command = house.command("run", *options, "--", sys.executable, "agents.py")
            done = subprocess.run(
                command, cwd=work, env=house.environment, capture_output=True, text=True, check=False, timeout=60
            )
    finally:
        upstream.terminate()
        upstream.wait(10)
    assert done.returncode == 0, done.stderr
    said = [line.split(maxsplit=3)[:3] for line in done.stdout.splitlines()]
    assert said == [
        ["reader", "/v1/today", "200"],
        ["reader", "/v1/secret-plans", "403"],
        ["planner", "/v1/today", "403"],
        ["planner", "/v1/secret-plans", "200"],
        ["nosy", "/v1/today", "200"],
        ["nosy", "/v1/secret-plans", "403"],
    ]
