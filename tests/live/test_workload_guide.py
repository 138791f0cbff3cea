"""What `docs/how-to/let-workloads-in.md` tells people to run, run."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.identity.workload_api import Agent
from tests.live.fleet import SEARCH, Fleet, fresh, play, run, running

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "let-workloads-in.md").read_text("utf-8")


def block(word: str) -> str:
    """Return the one shell block of the page with a word in it."""
    (found,) = (body for body in re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL) if word in body)
    return str(found)


def test_the_example_opens_a_task_by_what_its_agent_gives_it(tmp_path: Path) -> None:
    domain = fresh()

    async def scene(agent: Agent) -> None:
        async with running(tmp_path, domain) as fleet:
            environ = {**os.environ, "SPIFFE_ENDPOINT_SOCKET": agent.url, "SSL_CERT_FILE": str(tmp_path / "web.pem")}
            command = [sys.executable, str(ROOT / "examples" / "workload.py"), fleet.issuer, json.dumps([SEARCH])]
            process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=asyncio.subprocess.PIPE)
            out, _ = await asyncio.wait_for(process.communicate(), 30)
            assert process.returncode == 0
            told = json.loads(out)
            assert told["authorization_details"] == [SEARCH]
            entry = await fleet.event(told["grant"], "task.open")
            assert (entry["agent"], entry["subject"], entry["attested"]) == (domain.id(), domain.id(), True)

    with Agent(tmp_path / "agent.sock", (domain,)) as agent:
        run(scene(agent))


def test_the_command_with_a_certificate_opens_a_task(tmp_path: Path) -> None:
    async def scene(fleet: Fleet) -> None:
        svid = fleet.domain.svid()
        (tmp_path / "svid.0.pem").write_bytes(svid.pem)
        (tmp_path / "svid.0.key").write_bytes(svid.pem)
        command = block("curl").replace("https://remit.prod.example:8443", fleet.issuer)
        command = command.replace("/run/svid", str(tmp_path)).replace("curl ", "curl -sS ", 1)
        environ = {"PATH": os.environ["PATH"], "CURL_CA_BUNDLE": str(tmp_path / "web.pem")}
        shell = ["sh", "-c", command]
        found = await asyncio.to_thread(
            subprocess.run, shell, env=environ, capture_output=True, text=True, timeout=30, check=True
        )
        told = json.loads(found.stdout)
        assert told["token_type"] == "Bearer", told

    play(tmp_path, scene)
