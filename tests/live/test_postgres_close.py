"""A revoke ends every session of a lease on a real server, whatever the session is doing."""

from __future__ import annotations

import asyncio
import functools
import multiprocessing
import socket
import struct
from collections.abc import Callable
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event

import psycopg
import pytest
from psycopg import sql

from remit.errors import EngineError
from remit.kinds.postgres import close as postgres_close
from remit.ports import Issued
from tests.live import warehouse as warehouses
from tests.live.warehouse import Warehouse, dsn, issue, may, until, warehouse
from tests.support.postgres_server import PostgresServer

pytestmark = pytest.mark.live

Connection = psycopg.Connection[tuple[object, ...]]

# -- sessions -------------------------------------------------------------------------------------------------------


def _idle(_: Connection) -> None:
    """A session that waits."""


def _in_transaction(connection: Connection) -> None:
    connection.execute("BEGIN; SELECT * FROM sales.revenue")


def _failed_transaction(connection: Connection) -> None:
    with pytest.raises(psycopg.Error):
        connection.execute("BEGIN; SELECT * FROM nothing")


def _cursor(connection: Connection) -> None:
    connection.execute("BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT * FROM sales.revenue; COMMIT; FETCH 1 FROM c")


def _listening(connection: Connection) -> None:
    connection.execute("LISTEN news")


def _prepared_statement(connection: Connection) -> None:
    connection.execute("PREPARE s AS SELECT * FROM sales.revenue")


def _advisory_lock(connection: Connection) -> None:
    connection.execute("SELECT pg_advisory_lock(7)")


OPENINGS: list[Callable[[Connection], None]] = [
    _idle,
    _in_transaction,
    _failed_transaction,
    _cursor,
    _listening,
    _prepared_statement,
    _advisory_lock,
]


@pytest.mark.parametrize("opening", OPENINGS, ids=lambda opening: opening.__name__)
def test_no_session_survives_revoke_whatever_it_is_doing(opening: Callable[[Connection], None]) -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            with psycopg.connect(dsn(issued), autocommit=True) as connection:
                opening(connection)
                await engine.revoke(plan, None)
                assert shop.sessions(plan.name) == 0
                with pytest.raises(psycopg.OperationalError):
                    connection.execute("SELECT * FROM sales.revenue")
            assert not may(issued, "SELECT 1")

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_a_running_query_is_cut() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            async with await psycopg.AsyncConnection.connect(dsn(issued)) as connection:
                query = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
                await until(lambda: shop.sessions(plan.name) > 0)
                await engine.revoke(plan, None)
                with pytest.raises(psycopg.OperationalError):
                    await query

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_all_sessions_of_a_lease_are_cut_and_nobody_elses() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            _, other = await issue(engine, shop.detail())
            mine = [psycopg.connect(dsn(issued)) for _ in range(10)]
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(dsn(issued))  # the connection limit
            with psycopg.connect(dsn(other)) as theirs:
                await engine.revoke(plan, None)
                theirs.execute("SELECT * FROM sales.revenue")
            assert shop.sessions(plan.name) == 0
            for connection in mine:
                connection.close()

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_a_prepared_transaction_is_rolled_back() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail(actions=["select", "insert"]))
            gid = 'it\'s "mine"; DROP TABLE sales.cost'
            with psycopg.connect(dsn(issued), autocommit=True) as connection:
                connection.execute("BEGIN; INSERT INTO sales.revenue VALUES ('late')")
                connection.execute(sql.SQL("PREPARE TRANSACTION {}").format(sql.Literal(gid)))
            await engine.revoke(plan, None)
            with shop.admin() as admin:
                assert admin.execute("SELECT * FROM pg_prepared_xacts").fetchall() == []
                assert admin.execute("SELECT * FROM sales.revenue WHERE quarter = 'late'").fetchall() == []
                assert admin.execute("SELECT * FROM sales.cost").fetchall() == []
            assert await engine.clean([plan]) == {plan.name}

    with warehouse() as shop:
        asyncio.run(run(shop))


def _storm(dsns: list[str], round_: Synchronized[int], ready: Event, stop: Event) -> None:
    """Connect as fast as possible, and hold on to what came in."""
    held: list[psycopg.Connection[tuple[object, ...]]] = []
    ready.set()
    while not stop.is_set():
        try:
            held.append(psycopg.connect(dsns[round_.value], connect_timeout=5))
        except psycopg.Error:
            for connection in held:
                connection.close()
            held.clear()


@pytest.mark.slow
def test_no_session_survives_a_reconnect_storm_during_revoke_in_250_rounds() -> None:
    rounds = 250
    spawn = multiprocessing.get_context("spawn")

    async def run(shop: Warehouse) -> tuple[int, int]:
        async with shop.engine() as engine:
            made = await asyncio.gather(*(issue(engine, shop.detail()) for _ in range(rounds)))
            at, stop = spawn.Value("i", 0), spawn.Event()
            readies = [spawn.Event() for _ in range(3)]
            dsns = [dsn(issued) for _, issued in made]
            storms = [spawn.Process(target=_storm, args=(dsns, at, ready, stop), daemon=True) for ready in readies]
            for storm in storms:
                storm.start()
            for ready in readies:
                assert ready.wait(30)
            oids = _oids(shop)
            survivors = stormed = 0
            with shop.admin() as admin:
                for number, (plan, _) in enumerate(made):
                    at.value = number
                    await until(functools.partial(_inside, admin, oids[plan.name]))
                    stormed += 1
                    await engine.revoke(plan, None)
                    survivors += _inside(admin, oids[plan.name])
            stop.set()
            for storm in storms:
                storm.join(10)
            with shop.admin() as admin:
                survivors += sum(_inside(admin, oid) for oid in oids.values())
            return stormed, survivors

    with warehouse() as shop:
        assert asyncio.run(run(shop)) == (rounds, 0)


def _oids(shop: Warehouse) -> dict[str, int]:
    with shop.admin() as admin:
        rows = admin.execute(r"SELECT rolname, oid FROM pg_roles WHERE rolname LIKE 'remit\_lse\_%'")
        return {str(name): int(str(oid)) for name, oid in rows}


def _inside(admin: Connection, oid: int) -> int:
    """Count the sessions of a role, starting ones of nobody yet not included."""
    row = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE usesysid = %s", (oid,)).fetchone()
    return int(str(row[0])) if row else 0


def test_a_client_that_stalls_in_the_handshake_is_not_waited_for_when_the_login_may_see_it() -> None:
    async def run(shop: Warehouse) -> None:
        with shop.admin() as admin:
            admin.execute(sql.SQL("GRANT pg_read_all_stats TO {}").format(sql.Identifier(shop.login)))
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            with _stalled(shop, plan.name):
                started = warehouses.now()
                await engine.revoke(plan, None)
                assert (warehouses.now() - started).total_seconds() < 2
            assert not may(issued, "SELECT 1")

    with warehouse() as shop:
        asyncio.run(run(shop))


def test_a_client_that_stalls_unseen_delays_the_answer_and_never_the_end_of_authority(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres_close, "WAIT_SECONDS", 0.3)

    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            with _stalled(shop, plan.name):
                with pytest.raises(EngineError):
                    await engine.revoke(plan, None)
                assert not may(issued, "SELECT 1")
                assert await engine.revoke_many([plan]) == frozenset()
            await engine.revoke(plan, None)

    with warehouse() as shop:
        asyncio.run(run(shop))


@pytest.mark.attack("SQL-07")
def test_logins_that_somebody_keeps_half_done_hold_up_no_revoke_longer_than_those_of_its_beginning(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres_close, "WAIT_SECONDS", 0.3)

    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plans = [plan for plan, _ in await asyncio.gather(*(issue(engine, shop.detail()) for _ in range(20)))]
            names = frozenset(plan.name for plan in plans[:15])
            first = _stalled(shop, "stranger")
            assert await engine.revoke_many(plans[:15]) == frozenset()
            with _stalled(shop, plans[0].name), _stalled(shop, "stranger") as second:
                first.close()
                await until(lambda: _unnamed(shop) == 2)
                assert await engine.revoke_many(plans[:15]) == names
                assert await engine.revoke_many(plans[15:]) == frozenset()  # these wait for the second
                with _stalled(shop, "stranger"):
                    second.close()
                    await until(lambda: _unnamed(shop) == 2)
                    assert await engine.revoke_many(plans[15:]) == frozenset()  # and for the first of this block
            assert len(await engine.revoke_many(plans[15:])) == 5

    with warehouse() as shop:
        asyncio.run(run(shop))


@pytest.mark.attack("SQL-07")
def test_a_role_that_was_opened_again_waits_for_those_who_may_have_passed_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgres_close, "WAIT_SECONDS", 0.3)

    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, _ = await issue(engine, shop.detail())
            first = _stalled(shop, "stranger")
            assert await engine.revoke_many([plan]) == frozenset()
            with shop.admin() as admin:
                admin.execute(sql.SQL("ALTER ROLE {} LOGIN").format(sql.Identifier(plan.name)))
            with _stalled(shop, plan.name):
                first.close()
                await until(lambda: _unnamed(shop) == 1)
                assert await engine.revoke_many([plan]) == frozenset()
            assert await engine.revoke_many([plan]) == {plan.name}

    with warehouse() as shop:
        asyncio.run(run(shop))


def _unnamed(shop: Warehouse) -> int:
    """Count the logins that are half done."""
    query = "SELECT FROM pg_stat_activity WHERE usesysid IS NULL AND wait_event = 'ClientRead'"
    with shop.admin() as admin:
        return len(admin.execute(query).fetchall())


def _stalled(shop: Warehouse, role: str) -> socket.socket:
    """Start a session as ``role`` and go silent when the server asks for the proof."""
    client = socket.create_connection(("127.0.0.1", shop.server.port))
    body = struct.pack("!I", 196608) + f"user\0{role}\0database\0{shop.name}\0\0".encode()
    client.sendall(struct.pack("!I", len(body) + 4) + body)
    assert client.recv(1) == b"R"  # authentication is asked for: the backend is in its first transaction
    return client


# -- durability -----------------------------------------------------------------------------------------------------


def test_an_answered_revoke_is_there_after_a_crash_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(shop: Warehouse) -> list[tuple[str, Issued]]:
        async with shop.engine() as engine:
            made = [await issue(engine, shop.detail()) for _ in range(20)]
            for plan, _ in made:
                await engine.revoke(plan, None)
            server.kill()
            server.launch()
            return [(plan.name, issued) for plan, issued in made]

    with PostgresServer(durable=True) as server:
        monkeypatch.setattr(warehouses, "server", lambda: server)
        with warehouse() as shop:
            made = asyncio.run(run(shop))
            with shop.admin() as admin:
                can = admin.execute(r"SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname LIKE 'remit\_%'")
                assert can.fetchall() == []
            assert not any(may(issued, "SELECT 1") for _, issued in made)


def test_a_session_that_makes_itself_slow_to_start_is_put_out_too() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            options = (
                "-c post_auth_delay=1 -c search_path=pg_catalog"  # everybody may set it for a session of one's own
            )
            slow = asyncio.create_task(psycopg.AsyncConnection.connect(dsn(issued), options=options))
            await until(lambda: shop.sessions(plan.name) > 0)
            await engine.revoke(plan, None)
            assert shop.sessions(plan.name) == 0
            with pytest.raises(psycopg.OperationalError):
                async with await slow as connection:
                    await connection.execute("SELECT 1")

    with warehouse() as shop:
        asyncio.run(run(shop))
