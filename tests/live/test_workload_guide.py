"""What `docs/how-to/let-workloads-in.md` tells people to run, run: with its policies, on a real database."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from remit.core import scope
from tests.identity.spire import Domain
from tests.identity.workload_api import Agent
from tests.live.fleet import SEARCH, Fleet, fresh, run, running
from tests.live.warehouse import Warehouse, warehouse

pytestmark = pytest.mark.live

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "how-to" / "let-workloads-in.md").read_text("utf-8")
READING = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["sales.revenue"]}


def block(word: str, language: str = "sh") -> str:
    """Return the one block of the page in a language with a word in it."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    (found,) = (body for kind, body in blocks if kind == language and word in body)
    return str(found)


@asynccontextmanager
async def town(directory: Path, domain: Domain, store: Warehouse) -> AsyncIterator[Fleet]:
    """Run a broker with the policies of the page, and its database."""
    policies = directory / "page"
    policies.mkdir(mode=0o700)
    (policies / "page.cedar").write_text(block("@id", ""))
    database = store.resource
    body = {
        "kind": "postgres",
        "destination": database.destination,
        "bound": list(scope.dump(database.bound)),
        "settings": {**database.settings, "accept": ["public-connect", "public-temp"]},
        "secret": store.password,
    }
    async with running(directory, domain, policy={"directory": str(policies)}) as fleet:
        put = await fleet.control.put("/v1/resources/warehouse", json=body)
        assert put.is_success, put.text
        yield fleet


async def example(fleet: Fleet, agent: Agent, *details: object) -> tuple[int, list[dict[str, Any]], str]:
    """Run the example; return its exit code, what it prints, and its complaint."""
    environ = {**os.environ, "SPIFFE_ENDPOINT_SOCKET": agent.url, "SSL_CERT_FILE": str(fleet.directory / "web.pem")}
    command = [sys.executable, str(ROOT / "examples" / "workload.py"), fleet.issuer, json.dumps(details)]
    process = await asyncio.create_subprocess_exec(*command, env=environ, stdout=-1, stderr=-1)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


async def shell(fleet: Fleet, command: str, **environ: str) -> dict[str, Any]:
    """Run a command of the page against this broker."""
    command = command.replace("https://remit.prod.example:8443", fleet.issuer)
    command = command.replace("/run/svid", str(fleet.directory)).replace("curl ", "curl -sS ", 1)
    environ |= {"PATH": os.environ["PATH"], "CURL_CA_BUNDLE": str(fleet.directory / "web.pem")}
    done = await asyncio.to_thread(
        subprocess.run, ["sh", "-c", command], env=environ, capture_output=True, text=True, timeout=30, check=True
    )
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_the_example_opens_a_task_by_what_its_agent_gives_it_and_takes_a_lease(tmp_path: Path) -> None:
    domain = fresh()

    async def scene(agent: Agent, store: Warehouse) -> None:
        async with town(tmp_path, domain, store) as fleet:
            code, told, complaint = await example(fleet, agent, READING)
            assert (code, complaint) == (0, "")
            own, lease = told
            assert own["authorization_details"] == [READING]
            assert "dsn" in lease["credential"]
            entry = await fleet.event(own["grant"], "task.open")
            assert (entry["agent"], entry["subject"], entry["attested"]) == (domain.id(), domain.id(), True)

    with Agent(tmp_path / "agent.sock", (domain,)) as agent, warehouse() as store:
        run(scene(agent, store))


def test_the_example_says_why_it_is_refused_and_what_to_do(tmp_path: Path) -> None:
    domain = fresh()

    async def scene(agent: Agent, store: Warehouse) -> None:
        async with town(tmp_path, domain, store) as fleet:
            code, told, complaint = await example(fleet, agent, SEARCH)
            assert (code, told) == (1, [])
            assert complaint.startswith("error: no policy permits")
            assert "(400 policy)" in complaint
            assert "help: whoever runs this broker" in complaint

    with Agent(tmp_path / "agent.sock", (domain,)) as agent, warehouse() as store:
        run(scene(agent, store))


def test_the_commands_with_a_certificate_open_a_task_and_take_a_lease_that_reads(tmp_path: Path) -> None:
    domain = fresh()

    async def scene(store: Warehouse) -> None:
        async with town(tmp_path, domain, store) as fleet:
            svid = domain.svid()
            (tmp_path / "svid.0.pem").write_bytes(svid.pem)
            (tmp_path / "svid.0.key").write_bytes(svid.pem)
            opened = await shell(fleet, block("/oauth/token"))
            assert opened["token_type"] == "Bearer", opened
            held = {"TOKEN": opened["access_token"], "TASK": opened["task"], "GRANT": opened["grant"]}
            lease = await shell(fleet, block("/leases"), **held)
            with psycopg.connect(lease["credential"]["dsn"]) as connection:
                assert connection.execute("SELECT count(*) FROM sales.revenue").fetchone() == (2,)

    with warehouse() as store:
        run(scene(store))
