"""SQL and CRA-04: what a holder can do to the database and its roles, and what a crash of the server can."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psycopg
import pytest
from psycopg import sql

from remit.core.scope import Detail, parse_detail
from remit.core.secret import Secret
from remit.errors import EngineError, EngineRefusedError, InvalidRequestError, RemitError, UnknownDetailError
from remit.kinds.postgres.engine import PostgresEngine
from remit.ports import Issued
from tests.live import warehouse as warehouses
from tests.live.warehouse import LIFE, Warehouse, dsn, issue, may, now, planned, until, warehouse
from tests.support.postgres_server import PostgresServer

pytestmark = pytest.mark.live

HOSTILE = [
    'a"; DROP ROLE x;--',
    'a""b',
    "",
    "a" * 64,
    "public",
    "pg_authid",
    "rеvenue",  # noqa: RUF001 - a Cyrillic e
    "a\nb",
    "$$",
    "a\0b",
    "%s%n",
    "a'; SELECT pg_sleep(9); --",
]


def _raw(table: str, column: str | None = None) -> Detail:
    """Build a detail as if the scope had let the names through."""
    fields: list[tuple[str, object]] = [("actions", ("select",)), ("tables", (table,))]
    if column is not None:
        fields.append(("columns", ((table, (column,)),)))
    return Detail("postgres", "warehouse", tuple(sorted(fields)))


def _all_roles(shop: Warehouse) -> set[object]:
    with shop.admin() as admin:
        return {row[0] for row in admin.execute("SELECT rolname FROM pg_roles")}


WELL_FORMED = {"public", "pg_authid"}  # names like others, of nothing that the login may grant


@pytest.mark.attack("SQL-01")
@pytest.mark.parametrize("name", [name for name in HOSTILE if name not in WELL_FORMED], ids=repr)
@pytest.mark.parametrize("place", ["schema", "table", "column"])
def test_a_hostile_identifier_is_no_detail(name: str, place: str) -> None:
    raw: dict[str, object] = {"type": "postgres", "resource": "warehouse", "actions": ["select"]}
    table = {"schema": f"{name}.t", "table": f"s.{name}", "column": "s.t"}[place]
    with pytest.raises(UnknownDetailError):
        parse_detail({**raw, "tables": [table], "columns": {table: [name if place == "column" else "a"]}})


@pytest.mark.attack("SQL-01")
@pytest.mark.parametrize("name", HOSTILE, ids=repr)
def test_a_hostile_identifier_is_harmless_even_past_the_scope(name: str) -> None:
    async def run(shop: Warehouse) -> None:
        before = _all_roles(shop)
        async with shop.engine() as engine:
            for detail in (_raw(f"sales.{name}"), _raw(f"{name}.revenue"), _raw("sales.revenue", name)):
                with pytest.raises(RemitError):
                    await issue(engine, detail)
        assert _all_roles(shop) == before
        await until(lambda: shop.sessions(shop.login) == 0)  # a backend ends a moment after its client

    with warehouse() as shop:
        asyncio.run(run(shop))


@pytest.mark.attack("SQL-01")
@pytest.mark.parametrize("name", ['a"; DROP ROLE x;--', 'a""b', "a\nb", "$$", "%s%n", "a'; SELECT pg_sleep(9); --"])
def test_a_hostile_identifier_that_exists_is_one_identifier(name: str) -> None:
    async def run(shop: Warehouse) -> None:
        with shop.admin() as admin:
            table, login = sql.Identifier("sales", name), sql.Identifier(shop.login)
            admin.execute(sql.SQL("CREATE TABLE {} ({} int, other int)").format(table, sql.Identifier(name)))
            admin.execute(sql.SQL("GRANT SELECT ON {} TO {} WITH GRANT OPTION").format(table, login))
        before = _all_roles(shop)
        async with shop.engine() as engine:
            plan, issued = await issue(engine, _raw(f"sales.{name}", name))
            with psycopg.connect(dsn(issued)) as connection:
                connection.execute(sql.SQL("SELECT {} FROM {}").format(sql.Identifier(name), table))
            with psycopg.connect(dsn(issued)) as connection, pytest.raises(psycopg.Error):
                connection.execute(sql.SQL("SELECT other FROM {}").format(table))
            made = {str(role) for role in _all_roles(shop) - before}
            assert plan.name in made
            assert sorted(role[:8] for role in made) == ["remit_b_", "remit_ls", "remit_m_"]
            await engine.revoke(plan, None)
            await engine.clean([plan])
        assert _all_roles(shop) == before

    with warehouse() as shop:
        asyncio.run(run(shop))


@pytest.mark.attack("SQL-01")
@pytest.mark.parametrize("lease", [*HOSTILE[:3], "a" * 64, *HOSTILE[6:]], ids=repr)
def test_a_hostile_lease_id_names_no_role(lease: str) -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            with pytest.raises(InvalidRequestError):
                planned(engine, shop.detail(), lease)

    with warehouse() as shop:
        asyncio.run(run(shop))


@pytest.mark.attack("SQL-02")
@pytest.mark.parametrize(
    "fields",
    [
        {"actions": ["select on app.t; grant all"]},
        {"actions": ["select, update"]},
        {"actions": ["SELECT"]},
        {"actions": ["truncate"]},
        {"actions": ["select", "with grant option"]},
        {"actions": ["select"], "tables": ["sales.revenue, sales.cost"]},
        {"actions": ["select"], "tables": ["sales.revenue WITH GRANT OPTION"]},
        {"actions": ["select"], "tables": ["sales.*"]},
        {"actions": ["select"], "columns": {"sales.revenue": ["quarter) ON sales.revenue, SELECT (amount"]}},
        {"actions": ["select"], "roles": ["pg_read_all_data"]},
        {"actions": ["select"], "grants": "SELECT ON ALL TABLES"},
    ],
)
def test_a_detail_is_verbs_and_names_and_never_sql(fields: dict[str, object]) -> None:
    with pytest.raises(UnknownDetailError):
        parse_detail({"type": "postgres", "resource": "warehouse", "tables": ["sales.revenue"], **fields})


@pytest.mark.attack("SQL-02")
@pytest.mark.parametrize(
    "statement",
    [
        "GRANT DELETE ON sales.revenue TO postgres",
        "SET ROLE {bundle}",
        "SET SESSION AUTHORIZATION {bundle}",
        "GRANT {bundle} TO postgres",
        "ALTER ROLE {role} VALID UNTIL 'infinity'",
        "ALTER ROLE {role} SUPERUSER",
        "ALTER ROLE {role} CONNECTION LIMIT 1000",
        "CREATE ROLE other LOGIN",
        "ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT SELECT ON TABLES TO PUBLIC",
        "REASSIGN OWNED BY postgres TO {role}",
        "REASSIGN OWNED BY {role} TO {bundle}",
        "ALTER TABLE sales.revenue ADD COLUMN x int",
        "CREATE POLICY p ON sales.revenue",
    ],
)
def test_a_lease_cannot_pass_on_or_widen_what_it_has(statement: str) -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            [bundle] = [role for role in shop.roles() if role.startswith("remit_b_")]
            text = sql.SQL(statement).format(bundle=sql.Identifier(bundle), role=sql.Identifier(plan.name))
            before = _authority(shop)
            with suppress(psycopg.Error), psycopg.connect(dsn(issued)) as connection:
                connection.execute(text)  # an error, or a warning that nothing was granted
            assert _authority(shop) == before

    with warehouse() as shop:
        asyncio.run(run(shop))


def _authority(shop: Warehouse) -> list[object]:
    """Return all that says who may do what: roles, memberships, access lists, owners, policies."""
    queries = [
        "SELECT rolname, rolsuper, rolcreaterole, rolcanlogin, rolconnlimit, rolvaliduntil FROM pg_roles ORDER BY 1",
        "SELECT roleid, member, grantor, admin_option, set_option FROM pg_auth_members ORDER BY 1, 2, 3",
        "SELECT oid, relowner, relacl, relnatts FROM pg_class WHERE relnamespace = 'sales'::regnamespace ORDER BY 1",
        "SELECT * FROM pg_default_acl",
        "SELECT * FROM pg_policy",
    ]
    with shop.admin() as admin:
        return [admin.execute(query.encode()).fetchall() for query in queries]


@pytest.mark.attack("SQL-02")
def test_a_lease_may_change_its_password_and_still_ends() -> None:
    """PostgreSQL lets every role set its own password; the end of the lease does not depend on it."""

    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail())
            role = sql.Identifier(plan.name)
            with psycopg.connect(dsn(issued), autocommit=True) as connection:
                connection.execute(sql.SQL("ALTER ROLE {} PASSWORD 'mine'").format(role))
            mine = shop.server.dsn(shop.name, plan.name, "mine")
            psycopg.connect(mine).close()
            await engine.revoke(plan, None)
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(mine)

    with warehouse() as shop:
        asyncio.run(run(shop))


@pytest.mark.attack("SQL-03")
def test_nothing_that_a_session_left_open_outlives_the_lease() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            plan, issued = await issue(engine, shop.detail(actions=["select", "insert"]))
            openings = [
                "SELECT * FROM sales.revenue",
                "BEGIN; INSERT INTO sales.revenue VALUES ('late')",
                "LISTEN news",
                "BEGIN; DECLARE c CURSOR FOR SELECT * FROM sales.revenue",
                "PREPARE s AS SELECT * FROM sales.revenue",
            ]
            sessions = [psycopg.connect(dsn(issued), autocommit=True) for _ in openings]
            for session, text in zip(sessions, openings, strict=True):
                session.execute(text.encode())
            with psycopg.connect(dsn(issued), autocommit=True) as two_phase:
                two_phase.execute("BEGIN; INSERT INTO sales.revenue VALUES ('late')")
                two_phase.execute("PREPARE TRANSACTION 'mine'")
                with pytest.raises(psycopg.Error):
                    two_phase.execute("SELECT pg_create_physical_replication_slot('mine')")
            started = now()
            await engine.revoke(plan, None)
            assert (now() - started).total_seconds() <= 5
            assert shop.sessions(plan.name) == 0
            for session in sessions:
                with pytest.raises(psycopg.OperationalError):
                    session.execute("SELECT * FROM sales.revenue")
                session.close()
            with shop.admin() as admin:
                assert admin.execute("SELECT gid FROM pg_prepared_xacts").fetchall() == []
                assert admin.execute("SELECT FROM sales.revenue WHERE quarter = 'late'").fetchall() == []

    with warehouse() as shop:
        asyncio.run(run(shop))


@pytest.mark.attack("SQL-04")
def test_no_password_reaches_the_servers_log_or_views() -> None:
    async def run(shop: Warehouse) -> list[str]:
        with shop.admin() as admin:
            admin.execute("CREATE EXTENSION pg_stat_statements")
        async with shop.engine() as engine:
            leases = [await issue(engine, shop.detail()) for _ in range(100)]
            await engine.renew(leases[0][0], None, now() + LIFE)
            made = [issued for _, issued in leases]
            assert may(made[0], "SELECT * FROM sales.revenue")
            with shop.admin() as admin:
                running = str(admin.execute("SELECT query FROM pg_stat_activity").fetchall())
                counted = str(admin.execute("SELECT query FROM pg_stat_statements").fetchall())
                assert "CREATE ROLE" in counted
            log = shop.server.log()
            assert log.count("CREATE ROLE") >= 100  # statements are logged, so absence means something
            passwords = [value.reveal() for each in made if isinstance(value := each.credential["password"], Secret)]
            assert len(set(passwords)) == 100
            return [password for password in passwords if password in log + running + counted]

    with warehouse() as shop:
        assert asyncio.run(run(shop)) == []


@pytest.mark.attack("SQL-05")
def test_the_server_itself_refuses_the_lease_after_its_end() -> None:
    async def run(shop: Warehouse) -> tuple[Issued, float]:
        async with shop.engine() as engine:
            plan = planned(engine, shop.detail(), "lse_short")
            ends = now() + LIFE / 300
            return await engine.issue(plan, ends), ends.timestamp()

    with warehouse() as shop:
        issued, ends = asyncio.run(run(shop))  # and the broker is gone
        assert may(issued, "SELECT * FROM sales.revenue")
        while may(issued, "SELECT 1"):
            assert now().timestamp() < ends + 60
        assert now().timestamp() > ends - 1


@pytest.mark.attack("SQL-02")
def test_a_table_outside_what_the_login_may_grant_cannot_be_reached_by_asking() -> None:
    async def run(shop: Warehouse) -> None:
        async with shop.engine() as engine:
            for table in ("sales.orders", "pg_catalog.pg_authid", "information_schema.tables"):
                with pytest.raises(EngineRefusedError):
                    await issue(engine, shop.detail(tables=[table]))
        assert shop.roles() == set()

    with warehouse() as shop:
        asyncio.run(run(shop))


@pytest.mark.attack("CRA-04")
@pytest.mark.slow
def test_no_acknowledged_revoke_is_lost_when_the_server_is_killed_under_load(monkeypatch: pytest.MonkeyPatch) -> None:
    revoked: list[str] = []
    failed: list[BaseException] = []

    async def worker(engine: PostgresEngine, shop: Warehouse) -> None:
        for _ in range(32):  # 16 workers, more than 500 issues and as many revokes
            plan = planned(engine, shop.detail())
            try:
                await engine.issue(plan, now() + LIFE)
                await engine.revoke(plan, None)
            except EngineError as error:
                failed.append(error)
                return
            revoked.append(plan.name)

    async def killer(shop: Warehouse) -> None:
        await until(lambda: len(revoked) > 100)
        shop.server.kill()

    async def run(shop: Warehouse) -> None:
        async with shop.engine() as one, shop.engine() as two:  # two brokers, so that they get in each other's way
            await asyncio.gather(killer(shop), *(worker(one if i % 2 else two, shop) for i in range(16)))
        shop.server.launch()
        with shop.admin() as admin:
            found = admin.execute("SELECT rolname FROM pg_roles WHERE rolcanlogin AND rolname = ANY (%s)", (revoked,))
            assert found.fetchall() == []

    with PostgresServer(durable=True) as server:
        monkeypatch.setattr(warehouses, "server", lambda: server)
        with warehouse() as shop:
            asyncio.run(run(shop))
    assert len(revoked) > 100
    assert failed
    assert all(isinstance(error, EngineError) for error in failed)
