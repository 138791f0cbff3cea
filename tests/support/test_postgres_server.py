from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import psycopg
import pytest

from remit.errors import UnavailableError
from tests.support import postgres_server
from tests.support.postgres_server import PostgresServer, bin_folder

pytestmark = pytest.mark.live


def _ask(server: PostgresServer, query: str) -> object:
    with psycopg.connect(server.dsn()) as connection:
        row = connection.execute(query.encode()).fetchone()
        return row[0] if row else None


def test_a_server_answers_and_leaves_nothing_when_it_stops() -> None:
    with PostgresServer() as server:
        assert _ask(server, "SELECT 1") == 1
        pid, folder = server.pid, server.folder
        assert Path(f"/proc/{pid}").exists()
    assert not Path(f"/proc/{pid}").exists()
    assert not folder.exists()


def test_nobody_is_trusted_and_the_password_is_in_no_file() -> None:
    with PostgresServer() as server:
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn(password="wrong"))
        assert _ask(server, "SELECT count(*) FROM pg_hba_file_rules WHERE auth_method <> 'scram-sha-256'") == 0
        secret = server.password.reveal().encode()
        files = [path for path in server.folder.rglob("*") if path.is_file()]
        assert len(files) > 100
        assert [path for path in files if secret in path.read_bytes()] == []


def test_it_listens_on_loopback_only() -> None:
    with PostgresServer() as server:
        assert _ask(server, "SHOW listen_addresses") == "127.0.0.1"
        assert _ask(server, "SHOW unix_socket_directories") == ""


@pytest.mark.parametrize("durable", [False, True])
def test_commits_wait_for_the_disk_where_that_is_asked(*, durable: bool) -> None:
    with PostgresServer(durable=durable) as server:
        assert _ask(server, "SHOW fsync") == ("on" if durable else "off")
        assert _ask(server, "SHOW synchronous_commit") == ("on" if durable else "off")


def test_settings_are_passed_on_and_wrong_ones_say_so() -> None:
    with PostgresServer(settings={"max_connections": "33"}) as server:
        assert _ask(server, "SHOW max_connections") == "33"
    broken = PostgresServer(settings={"max_connections": "none"})
    with pytest.raises(UnavailableError) as error:
        broken.start()
    assert "max_connections" in (error.value.help or "")


def test_a_killed_server_comes_back_on_its_port_with_its_data() -> None:
    with PostgresServer(durable=True) as server:
        with psycopg.connect(server.dsn(), autocommit=True) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 7 AS a")
        port = server.port
        server.kill()
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(server.dsn(), connect_timeout=2)
        server.launch()
        assert (server.port, _ask(server, "SELECT a FROM kept")) == (port, 7)


def test_the_server_ends_with_the_process_that_started_it(tmp_path: Path) -> None:
    script = (
        "import os, signal, pathlib\n"
        "from tests.support.postgres_server import PostgresServer\n"
        f"server = PostgresServer(folder=pathlib.Path({str(tmp_path)!r}))\n"
        "server.start()\n"
        "print(server.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    with suppress(psutil.NoSuchProcess):
        psutil.Process(int(done.stdout)).wait(20)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes somebody else")
def test_root_without_namespaces_runs_it_as_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres_server, "bwrap", lambda: None)
    with PostgresServer() as server:
        assert _ask(server, "SELECT 1") == 1
        assert Path(f"/proc/{server.pid}").stat().st_uid == postgres_server.NOBODY


def test_it_works_as_an_async_context_manager() -> None:
    async def run() -> object:
        async with PostgresServer() as server:
            return _ask(server, "SELECT 1")

    assert asyncio.run(run()) == 1


def test_the_binaries_are_where_the_package_has_them() -> None:
    assert {"postgres", "initdb", "psql"} <= {path.name for path in bin_folder().iterdir()}
