"""One real PostgreSQL for all tests of a session, and a fresh database with a fresh broker login for each test."""

from __future__ import annotations

import asyncio
import atexit
import functools
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg import sql

from remit.core.scope import Detail, parse_detail
from remit.core.secret import Secret
from remit.core.task import Plan
from remit.kinds.postgres.engine import PostgresEngine
from remit.kinds.postgres.plan import plan
from remit.ports import Issued, Resource
from remit.ports.kind import LeaseRequest
from tests.support.kinds import NOTHING_LENT
from tests.support.postgres_server import PostgresServer

WINDOW = timedelta(seconds=20)
LIFE = timedelta(minutes=10)
TABLES = """
CREATE SCHEMA sales;
CREATE TABLE sales.revenue (quarter text, amount int, secret_note text);
INSERT INTO sales.revenue VALUES ('2026Q3', 700, 'n'), ('2026Q4', 900, 'n');
CREATE TABLE sales.cost (quarter text, amount int);
CREATE TABLE sales.orders (id int, item text);
"""


_DESCENDANTS = """
WITH RECURSIVE made (oid, level) AS (
  SELECT oid, 0 FROM pg_roles WHERE rolname = %s
  UNION SELECT m.roleid, made.level + 1 FROM made JOIN pg_auth_members m ON m.member = made.oid AND m.admin_option
) SELECT rolname FROM made JOIN pg_roles USING (oid) GROUP BY rolname ORDER BY max(level) DESC
"""


def now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def lease_id() -> str:
    """Return an id such as the broker makes."""
    return f"lse_{secrets.token_urlsafe(16)}"


@functools.cache
def server() -> PostgresServer:
    """Return the session's server: it logs and counts every statement, and allows two-phase commit."""
    watching = {"log_statement": "all", "shared_preload_libraries": "pg_stat_statements"}
    made = PostgresServer(settings={**watching, "max_prepared_transactions": "20"})
    made.start()
    atexit.register(made.close)
    return made


@dataclass(frozen=True)
class Warehouse:
    """A database ``name`` with three tables in schema ``sales``, and the login that may grant on two of them."""

    server: PostgresServer
    name: str
    login: str
    password: str

    @property
    def resource(self) -> Resource:
        """The resource as an operator would add it."""
        bound = (self.detail(actions=["select", "insert", "update", "delete"], tables=["sales.revenue", "sales.cost"]),)
        address = f"postgresql://{self.login}@127.0.0.1:{self.server.port}/{self.name}"
        return Resource("warehouse", "postgres", address, bound, "warehouse", {"tls": "loopback"})

    def detail(self, **fields: object) -> Detail:
        """Return a detail: reading ``sales.revenue``, unless ``fields`` say otherwise."""
        chosen = {"actions": ["select"], "tables": ["sales.revenue"], **fields}
        return parse_detail({"type": "postgres", "resource": "warehouse", **chosen})

    @contextmanager
    def admin(self, database: str | None = None) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
        """Connect as the superuser, committing by itself."""
        with psycopg.connect(self.server.dsn(database or self.name), autocommit=True) as connection:
            yield connection

    @asynccontextmanager
    async def engine(self, **settings: object) -> AsyncIterator[PostgresEngine]:
        """Make an engine, and close it. The server needs 5 ms for a lease unless ``scram_iterations`` are few."""
        resource = replace(self.resource, settings={**self.resource.settings, **settings})
        made = PostgresEngine(resource, Secret(self.password), clock=now, random=secrets.token_bytes)
        try:
            yield made
        finally:
            await made.close()

    def roles(self) -> set[str]:
        """Return every role of remit's in the cluster: leases, bundles, creators."""
        with self.admin() as admin:
            return {str(row[0]) for row in admin.execute(r"SELECT rolname FROM pg_roles WHERE rolname LIKE 'remit\_%'")}

    def sessions(self, role: str) -> int:
        """Return how many sessions a role has."""
        with self.admin() as admin:
            row = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE usename = %s", (role,)).fetchone()
            return int(str(row[0])) if row else 0


def planned(engine: PostgresEngine, detail: Detail, lease: str | None = None, window: timedelta = WINDOW) -> Plan:
    """Return the plan of a lease on ``detail`` at the resource of an engine."""
    wanted = LeaseRequest(lease_id() if lease is None else lease, detail, now() + window, "spiffe://remit.test/agent")
    return plan(engine._resource, NOTHING_LENT, wanted)


async def issue(engine: PostgresEngine, detail: Detail, life: timedelta = LIFE) -> tuple[Plan, Issued]:
    """Issue a lease on ``detail``."""
    made = planned(engine, detail)
    return made, await engine.issue(made, now() + life)


def dsn(issued: Issued) -> str:
    """Return the connection string of a credential."""
    value = issued.credential["dsn"]
    assert isinstance(value, Secret)
    return value.reveal()


def may(issued: Issued, statement: str) -> bool:
    """Whether a credential can run a statement, in a session of its own."""
    try:
        with psycopg.connect(dsn(issued)) as connection:
            connection.execute(statement.encode())
    except psycopg.Error:
        return False
    return True


async def until(condition: Callable[[], object]) -> None:
    """Ask the server until ``condition`` holds, letting other tasks on."""
    while not condition():  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(0)


@contextmanager
def warehouse() -> Iterator[Warehouse]:
    """Make a warehouse; afterwards drop it, its login and every role of remit's."""
    suffix = secrets.token_hex(4)
    made = Warehouse(server(), f"shop_{suffix}", f"broker_{suffix}", secrets.token_urlsafe(16))
    login, name = sql.Identifier(made.login), sql.Identifier(made.name)
    with made.admin("postgres") as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(name))
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN CREATEROLE PASSWORD {}").format(login, sql.Literal(made.password)))
        admin.execute(sql.SQL("ALTER ROLE {} SET createrole_self_grant = 'set, inherit'").format(login))
        admin.execute(sql.SQL("GRANT pg_signal_backend TO {}").format(login))
    with made.admin() as admin:
        admin.execute(TABLES.encode())
        for table in ("sales.revenue", "sales.cost"):
            what = sql.SQL("GRANT ALL ON {} TO {} WITH GRANT OPTION").format(sql.Identifier(*table.split(".")), login)
            admin.execute(what)
        admin.execute(sql.SQL("GRANT USAGE ON SCHEMA sales TO {} WITH GRANT OPTION").format(login))
    try:
        yield made
    finally:
        _demolish(made)


def _demolish(made: Warehouse) -> None:
    with made.admin("postgres") as admin:
        mine = admin.execute(_DESCENDANTS, (made.login,)).fetchall()
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(made.name)))
        for (role,) in mine:
            named = sql.Identifier(str(role))
            with suppress(psycopg.errors.UndefinedObject):  # a broker that still runs was first
                admin.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(named))
                admin.execute(sql.SQL("DROP ROLE {}").format(named))
