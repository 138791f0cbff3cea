"""A lease that has filled a real server, of locks or of connections, is revoked all the same."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
from collections.abc import Iterator
from multiprocessing.synchronize import Event

import psycopg
import pytest

from remit.errors import EngineError, EngineRefusedError
from tests.live import warehouse as warehouses
from tests.live.warehouse import Warehouse, dsn, issue, may, warehouse
from tests.support.postgres_server import PostgresServer

pytestmark = pytest.mark.live

Connection = psycopg.Connection[tuple[object, ...]]

# -- a server that a lease has filled -------------------------------------------------------------------------------


def _fill(connection: Connection) -> None:
    """Take locks until the server has no memory for one more; they last as long as the session."""
    with pytest.raises(psycopg.errors.OutOfMemory):
        connection.execute("SELECT pg_advisory_lock(n) FROM generate_series(1, 1000000) n")


def _refill(dsn: str, ready: Event, stop: Event) -> None:
    """Fill the server's lock table, take what becomes free at once, and come again when put out."""
    again = """DO $$ BEGIN LOOP BEGIN PERFORM pg_advisory_lock(n) FROM generate_series(1, 1000000) n;
      EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$"""
    while not stop.is_set():
        with contextlib.suppress(psycopg.Error), psycopg.connect(dsn, autocommit=True, connect_timeout=5) as connection:
            with contextlib.suppress(psycopg.errors.OutOfMemory):
                connection.execute("SELECT pg_advisory_lock(n) FROM generate_series(1, 1000000) n")
            ready.set()
            connection.execute(again)


def _can_log_in(shop: Warehouse) -> int:
    with shop.admin() as admin:
        row = admin.execute(r"SELECT count(*) FROM pg_roles WHERE rolcanlogin AND rolname LIKE 'remit\_lse\_%'")
        return int(str((row.fetchone() or (-1,))[0]))


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Use a server with few connections and little room for locks."""
    with PostgresServer(settings={"max_connections": "20", "superuser_reserved_connections": "3"}) as server:
        monkeypatch.setattr(warehouses, "server", lambda: server)
        yield


@pytest.mark.usefixtures("small")
def test_a_lease_that_fills_the_lock_table_is_revoked_in_two_seconds_and_issuing_goes_on() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            with psycopg.connect(dsn(issued), autocommit=True) as connection:
                _fill(connection)
                started = warehouses.now()
                await engine.revoke(plan, None)
                assert (warehouses.now() - started).total_seconds() < 2
                assert shop.sessions(plan.name) == 0
                assert _can_log_in(shop) == 0
                with pytest.raises(psycopg.OperationalError):
                    connection.execute("SELECT 1")
            _, after = await issue(engine, shop.detail())
            assert may(after, "SELECT * FROM sales.revenue")

    with warehouse() as shop:
        asyncio.run(run(shop))


@pytest.mark.usefixtures("small")
def test_a_lease_that_refills_the_lock_table_and_comes_again_is_revoked_in_two_seconds() -> None:
    spawn = multiprocessing.get_context("spawn")

    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            ready, stop = spawn.Event(), spawn.Event()
            hostile = [spawn.Process(target=_refill, args=(dsn(issued), ready, stop), daemon=True) for _ in range(2)]
            for process in hostile:
                process.start()
            assert ready.wait(30)
            started = warehouses.now()
            await engine.revoke(plan, None)
            took = (warehouses.now() - started).total_seconds()
            assert shop.sessions(plan.name) == 0
            assert _can_log_in(shop) == 0
            stop.set()
            for process in hostile:
                process.join(10)
            assert took < 2

    with warehouse() as shop:
        asyncio.run(run(shop))


@pytest.mark.usefixtures("small")
def test_a_lease_that_fills_the_lock_table_keeps_no_other_from_being_revoked_before_it() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            other, _ = await issue(engine, shop.detail())
            with psycopg.connect(dsn(issued), autocommit=True) as connection:
                _fill(connection)
                await engine.revoke(other, None)
                connection.execute("SELECT 1")
                await engine.revoke(plan, None)
                assert shop.sessions(plan.name) == 0
            assert _can_log_in(shop) == 0

    with warehouse() as shop:
        asyncio.run(run(shop))


@pytest.mark.usefixtures("small")
def test_issuing_into_a_full_lock_table_fails_so_that_asking_again_helps() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            with psycopg.connect(dsn(issued), autocommit=True) as connection:
                _fill(connection)
                with pytest.raises(EngineError, match="53200") as failed:
                    await issue(engine, shop.detail())
                assert not isinstance(failed.value, EngineRefusedError)
                await engine.revoke(plan, None)
            _, after = await issue(engine, shop.detail())
            assert may(after, "SELECT * FROM sales.revenue")

    with warehouse() as shop:
        asyncio.run(run(shop))


@pytest.mark.usefixtures("small")
def test_leases_that_hold_every_connection_are_revoked() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            made = [await issue(engine, shop.detail()) for _ in range(3)]
            held: list[Connection] = []
            for _, issued in made:
                with contextlib.suppress(psycopg.OperationalError):
                    held.extend(psycopg.connect(dsn(issued)) for _ in range(10))
            with pytest.raises(psycopg.OperationalError, match="remaining connection slots"):
                psycopg.connect(dsn(made[-1][1]))
            started = warehouses.now()
            await asyncio.gather(*(engine.revoke(plan, None) for plan, _ in made))  # each wants a connection
            assert (warehouses.now() - started).total_seconds() < 2
            assert [shop.sessions(plan.name) for plan, _ in made] == [0, 0, 0]
            assert _can_log_in(shop) == 0
            for connection in held:
                connection.close()

    with warehouse() as shop:
        asyncio.run(run(shop))
