"""The client on a real broker, gateway and PostgreSQL: outside a run, and inside one."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

import remit
from remit.sdk import Client, verbs
from tests.live.warehouse import Warehouse, warehouse

pytestmark = pytest.mark.live
REMIT = Path(sys.executable).with_name("remit")
KEY = "sk-live-canary-0123456789abcdef"


class Upstream(BaseHTTPRequestHandler):
    """Answers whoever has the key."""

    def do_GET(self) -> None:
        right = self.headers.get("authorization") == f"Bearer {KEY}"
        body = json.dumps({"path": self.path}).encode()
        self.send_response(200 if right else 401)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def upstream() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@dataclass
class Deployment:
    """A broker with a search API and a warehouse."""

    environ: dict[str, str]
    database: Warehouse
    folder: Path
    said: list[str] = field(default_factory=list)

    def remit(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run one command."""
        return subprocess.run(
            [REMIT, *words], env=self.environ, input=stdin, capture_output=True, text=True, cwd=self.folder, check=False
        )


def _free() -> int:
    with socket.create_server(("127.0.0.1", 0)) as held:
        port: int = held.getsockname()[1]
        return port


def _configured(folder: Path) -> dict[str, str]:
    config = folder / "config" / "remit"
    config.mkdir(parents=True, exist_ok=True)
    listen = f'[listen]\napi = "127.0.0.1:{_free()}"\ngateway = "127.0.0.1:{_free()}"\n'
    (config / "config.toml").write_text(listen, "utf-8")
    return {**os.environ, "XDG_CONFIG_HOME": str(config.parent), "REMIT_STATE_DIR": str(folder / "state")}


@contextmanager
def broker(environ: dict[str, str], **who: Any) -> Iterator[None]:
    process = subprocess.Popen([REMIT, "up", "--json"], env=environ, stdout=subprocess.PIPE, text=True, **who)
    assert process.stdout is not None
    try:
        assert json.loads(process.stdout.readline())["gateway"]
        yield
    finally:
        process.terminate()
        process.stdout.close()
        assert process.wait(30) == 0


@pytest.fixture
def deployment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Deployment]:
    """Start a broker with a search API and a database."""
    environ = _configured(tmp_path)
    monkeypatch.setenv("REMIT_STATE_DIR", environ["REMIT_STATE_DIR"])
    (tmp_path / "project").mkdir()
    with ExitStack() as stack:
        search = stack.enter_context(upstream())
        try:
            stack.enter_context(broker(environ))
        except (AssertionError, ValueError):  # a port that was free is somebody's by now
            environ = _configured(tmp_path)
            stack.enter_context(broker(environ))
        found = Deployment(environ, stack.enter_context(warehouse()), tmp_path / "project")
        bound = "actions=GET,paths=/v1/**,args=any"
        added = found.remit("resource", "add", "search", search, "-b", bound, "--secret", stdin=KEY)
        assert added.returncode == 0, added.stderr
        place = found.database.resource.destination
        settings = ["--setting", 'tls="loopback"', "-b", "actions=select,tables=sales.revenue"]
        settings += ["--accept", "public-connect", "--accept", "public-temp"]
        added = found.remit("resource", "add", "warehouse", place, *settings, "--secret", stdin=found.database.password)
        assert added.returncode == 0, added.stderr
        yield found


@pytest.mark.usefixtures("deployment")
def test_outside_a_run_the_gateway_takes_a_proven_request() -> None:
    with remit.task("draft", grants=["search"], depth=1, fan_out=1) as task, task.delegate(grants=["search"]) as sub:
        answer = httpx.get(sub.url("search") + "/v1/search", params={"q": "revenue"}, auth=sub.auth)
        assert (answer.status_code, answer.json()) == (200, {"path": "/v1/search?q=revenue"})
        sub.revoke()
        assert httpx.get(sub.url("search") + "/v1/search", auth=sub.auth).json()["code"] == "revoked"


@pytest.mark.usefixtures("deployment")
def test_the_gateway_gives_a_new_nonce_for_one_that_is_stale() -> None:
    with remit.task("draft", grants=["search"]) as task:
        task.signer._nonces.clear()
        assert httpx.get(task.url("search") + "/v1/search", auth=task.auth).status_code == 200


def test_a_lease_logs_in_until_its_block_ends(deployment: Deployment) -> None:
    with remit.task("draft", grants=["warehouse"]) as task:
        with task.lease("warehouse", tables=["sales.revenue"]) as cred, psycopg.connect(cred.dsn) as session:
            assert session.execute("SELECT count(*) FROM sales.revenue").fetchone() == (2,)
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(cred.dsn)
    assert deployment.database.sessions(cred.user) == 0


AGENT = """
import httpx, json, os, psycopg, remit

with remit.task("draft the CFO summary", grants=["search", "warehouse"], depth=1, fan_out=3) as task:
    with task.delegate("research", grants=[remit.detail("search", paths=["/v1/search"])]) as sub:
        found = httpx.get(sub.url("search") + "/v1/search", params={"q": "x"}, auth=sub.auth).status_code
        refused = httpx.get(sub.url("search") + "/v1/other", auth=sub.auth).json()["code"]
    with task.lease("warehouse", tables=["sales.revenue"]) as cred, psycopg.connect(cred.dsn) as session:
        rows = session.execute("SELECT count(*) FROM sales.revenue").fetchone()[0]
        port = session.info.port
print(json.dumps({"found": found, "refused": refused, "rows": rows, "port": port, "task": task.task_id}))
"""


def test_in_a_run_the_same_code_works_without_a_token(deployment: Deployment) -> None:
    request = ["-p", "summary", "-r", "search", "-r", "warehouse", "--depth", "2", "--fan-out", "3"]
    done = deployment.remit("run", *request, "--", sys.executable, "-c", AGENT)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["found"], told["refused"], told["rows"]) == (200, "scope", 2)
    assert told["port"] != deployment.database.server.port
    with Client() as client:
        assert client.run(verbs.task(told["task"]))["closed"] is True


FORGETFUL = """
import asyncio, httpx, json, os, subprocess, sys, remit

READER = "import httpx, remit; own = remit.current(); url = own.url('search'); "
READER += "print(own.id, httpx.get(url + '/v1/other').json()['code'])"

async def later():
    own = await remit.acurrent()
    async with own.delegate("research", grants=[remit.detail("search", paths=["/v1/search"])]) as sub:
        return httpx.get(sub.url("search") + "/v1/other").json()["code"]

with remit.current().delegate("research", grants=[remit.detail("search", paths=["/v1/search"])]) as sub:
    allowed = httpx.get(sub.url("search") + "/v1/search").status_code
    refused = httpx.get(sub.url("search") + "/v1/other").json()["code"]
    variables = {**os.environ, **sub.environ()}
    by_variable = httpx.get(variables["REMIT_URL_SEARCH"] + "/v1/other").json()["code"]
    below = subprocess.run([sys.executable, "-c", READER], env=variables, capture_output=True, text=True).stdout.split()
    own = httpx.get(os.environ["REMIT_URL_SEARCH"] + "/v1/other").status_code
ended = httpx.get(sub.url("search") + "/v1/search").json()["code"]
print(json.dumps([allowed, refused, by_variable, below == [sub.id, "scope"], own, ended, asyncio.run(later())]))
"""


def test_what_forgets_to_name_a_sub_agents_grant_has_no_more_than_it_holds(deployment: Deployment) -> None:
    request = ["-p", "summary", "-r", "search", "--depth", "2", "--fan-out", "3"]
    done = deployment.remit("run", *request, "--", sys.executable, "-c", FORGETFUL)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [200, "scope", "scope", True, 200, "revoked", "scope"]


def test_a_run_starts_a_sub_agent_by_the_command_line(deployment: Deployment) -> None:
    inner = f"{REMIT} run -r search:paths=/v1/a --label reader -- {REMIT} tree --json"
    done = deployment.remit("run", "-r", "search", "--depth", "1", "--fan-out", "1", "--", "sh", "-c", inner)
    assert done.returncode == 0, done.stderr
    [seen] = json.loads(done.stdout)["tasks"]
    assert [grant["label"] for grant in seen["grants"]] == ["reader"]


def test_what_happened_is_verified_afterwards(deployment: Deployment) -> None:
    with remit.task("draft", grants=["warehouse"]) as task, task.lease("warehouse"):
        pass
    verified = deployment.remit("audit", "verify", "--json")
    assert verified.returncode == 0, verified.stderr
    told = json.loads(verified.stdout)
    assert (told["verified"], told["signed"]) == (True, True)
    assert KEY not in deployment.remit("audit", "tail", "--all", "--json").stdout
