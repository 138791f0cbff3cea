"""Leases that a project names: issued on the run's own channel, in its environment, renewed while it lasts."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from remit.core.secret import Secret
from remit.core.task import Plan
from remit.ports import Issued
from tests.broker.world import OPERATOR, FullEngine, PlainEngine, warehouse
from tests.run.rig import PATIENCE, TABLE, House, house, opening

pytestmark = pytest.mark.live
NAMED = {"DATABASE_URL": "lease:warehouse"}


class DsnEngine(FullEngine):
    """Gives what databases give."""

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        return with_dsn(await super().issue(plan, expires_at), plan)


class PlainDsnEngine(PlainEngine):
    """The same, and nothing can be renewed."""

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        return with_dsn(await super().issue(plan, expires_at), plan)


def with_dsn(issued: Issued, plan: Plan) -> Issued:
    dsn = f"postgresql://{plan.name}:p4ss@db.example:5433/sales?sslmode=require"
    return replace(issued, credential={"dsn": Secret(dsn)})


@pytest.fixture
def runs() -> Iterator[House]:
    with house() as built:
        serve(built, DsnEngine)
        yield built


def serve(runs: House, engine: type[PlainEngine]) -> None:
    runs.world.engine = engine
    runs.call(runs.broker.put_resource(OPERATOR, warehouse(), Secret("another-pw")))


def wanting(ttl: int) -> Mapping[str, object]:
    return opening({**TABLE, "ttl": ttl})


@pytest.mark.parametrize("more", [{}, {"unsandboxed": True}], ids=["namespaces", "unsandboxed"])
def test_the_dsn_of_a_lease_at_the_runs_own_port_is_in_the_variable(runs: House, more: dict[str, object]) -> None:
    done = runs.run(["sh", "-c", "echo $DATABASE_URL $REMIT_PORT_WAREHOUSE"], wanting(600), named=NAMED, **more)
    assert done.returncode == 0, done.stderr
    dsn, port = done.stdout.split()
    assert dsn.partition("@")[2] == f"127.0.0.1:{port}/sales?sslmode=disable"
    assert "note: DATABASE_URL is a credential for warehouse" in done.stderr
    assert runs.world.target.accounts == {}  # it ended with the run


@pytest.mark.parametrize("edges", [1, 2])
def test_a_lease_that_ends_before_the_run_is_renewed_in_place_also_by_the_next_edge(runs: House, edges: int) -> None:
    ttl = 2 if edges == 1 else 12  # it outlives a renewal that no edge is there for, after which the next is tried
    with runs.start_run(["sh", "-c", "echo ready; cat"], wanting(ttl), named=NAMED, stdin=subprocess.PIPE) as process:
        accounts = runs.world.target.accounts
        runs.until(lambda: len(accounts) == 1)
        [(name, first)] = accounts.items()

        def renewed() -> bool:
            runs.world.now = datetime.now(UTC)
            return accounts[name] > first and (accounts[name] - first).total_seconds() > 2

        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        for _ in range(edges - 1):
            runs.call(runs.next_edge())
        runs.until(renewed)
        process.communicate(b"", PATIENCE)
    assert process.returncode == 0


def test_a_lease_that_ends_before_the_run_and_cannot_be_renewed_is_refused(runs: House) -> None:
    serve(runs, PlainDsnEngine)
    done = runs.run(["touch", "ran"], wanting(60), named=NAMED)
    assert done.returncode == 3
    assert "`DATABASE_URL` cannot be set: its credential ends before the run does" in done.stderr
    assert not (runs.project / "ran").exists()
    runs.until(lambda: runs.world.target.accounts == {})
    assert runs.run(["true"], wanting(600), named=NAMED).returncode == 0  # it lasts as long as the run
