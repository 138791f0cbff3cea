"""kill -9 of the broker at every step of issue and revoke, looked up in PostgreSQL."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from remit.core.task import LeaseState
from tests.live import crash_driver
from tests.live.crash_driver import OPERATOR
from tests.live.warehouse import Warehouse, warehouse

pytestmark = [pytest.mark.live, pytest.mark.slow]

KILLED = -9
ISSUE_BY = timedelta(seconds=11)  # past the window in which an issue that died may still take effect


def run(folder: Path, house: Warehouse, die_at: int) -> subprocess.CompletedProcess[str]:
    """Run the story in a process of its own."""
    place = [str(folder / "state"), house.login, str(house.server.port), house.name, str(die_at)]
    command = [sys.executable, "-m", "tests.live.crash_driver", *place]
    return subprocess.run(command, input=house.password, capture_output=True, text=True, timeout=60, check=False)


def roles(house: Warehouse) -> set[str]:
    """Return the lease roles that may log in, and nothing else of remit's."""
    with house.admin() as admin:
        found = admin.execute(r"SELECT rolname FROM pg_roles WHERE rolname LIKE 'remit\_lse\_%' AND rolcanlogin")
        return {str(row[0]) for row in found}


async def recover(folder: Path, house: Warehouse) -> None:
    """Start again on the same state, and hold the target against it; then end everything."""
    made, _ = crash_driver.broker(folder / "state", lambda: datetime.now(UTC) + ISSUE_BY)
    await made.start()
    await made.sweep()
    leases = [lease for task in list(made._tasks) for lease in task.leases.values()]
    active = {lease.plan.name for lease in leases if lease.state is LeaseState.ACTIVE}
    assert roles(house) == active
    for task in list(made._tasks):
        assert (await made.close(OPERATOR, task.id)).state == "closed"
    await made.sweep()
    await made.stop()


def left_behind(house: Warehouse) -> set[str]:
    """Return what a cleaned-up target must not have: lease roles, their sessions."""
    with house.admin() as admin:
        left = admin.execute(r"SELECT rolname FROM pg_roles WHERE rolname LIKE 'remit\_lse\_%'").fetchall()
        on = admin.execute(r"SELECT usename FROM pg_stat_activity WHERE usename LIKE 'remit\_lse\_%'").fetchall()
    return {str(row[0]) for row in [*left, *on]}


@pytest.mark.attack("CRA-01")
@pytest.mark.attack("CRA-02")
@pytest.mark.timeout(600)
def test_no_step_at_which_the_broker_dies_leaves_an_orphan(tmp_path: Path) -> None:
    with warehouse() as house:
        (tmp_path / "0").mkdir()
        whole = run(tmp_path / "0", house, 0)
        assert whole.returncode == 0, whole.stderr
        steps = int(whole.stdout)
        assert steps > 20
        asyncio.run(recover(tmp_path / "0", house))
        assert left_behind(house) == set()
        for step in range(1, steps + 1):
            folder = tmp_path / str(step)
            folder.mkdir()
            died = run(folder, house, step)
            assert died.returncode == KILLED, died.stderr
            asyncio.run(recover(folder, house))
            assert left_behind(house) == set(), step


@pytest.mark.timeout(300)
def test_no_moment_at_which_the_broker_dies_leaves_an_orphan(tmp_path: Path) -> None:
    killed = 0
    with warehouse() as house:
        for moment in range(2, 600, 20):
            folder = tmp_path / str(moment)
            folder.mkdir()
            killed += run(folder, house, -moment).returncode == KILLED
            asyncio.run(recover(folder, house))
            assert left_behind(house) == set(), moment
    assert killed > 15


@pytest.mark.timeout(300)
def test_a_session_opened_before_the_crash_does_not_outlive_the_recovery(tmp_path: Path) -> None:
    with warehouse() as house:
        folder = tmp_path / "s"
        folder.mkdir()
        assert run(folder, house, 13).returncode == KILLED  # three leases stand, none is revoked yet
        standing = roles(house)
        assert standing
        with house.admin() as admin:
            name = min(standing)
            admin.execute(f"ALTER ROLE \"{name}\" PASSWORD 'x'".encode())
            password = "x"
        with psycopg.connect(house.server.dsn(house.name, name, password)) as session:
            asyncio.run(recover(folder, house))
            with pytest.raises(psycopg.Error):
                session.execute(b"SELECT 1")
        assert left_behind(house) == set()
