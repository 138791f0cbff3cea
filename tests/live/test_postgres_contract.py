from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime

import psycopg
import pytest

from remit.core.scope import Detail
from remit.core.secret import Secret
from remit.kinds.postgres.engine import PostgresEngine
from remit.ports import Issued
from remit.testing.engine_contract import CASES, Case, engine_contract
from tests.live.warehouse import Warehouse, dsn, may, now, warehouse

pytestmark = pytest.mark.live

BEYOND = {
    "another column": "SELECT secret_note FROM sales.revenue",
    "another verb": "DELETE FROM sales.revenue",
    "another table": "SELECT * FROM sales.cost",
    "what the login may not grant": "SELECT * FROM sales.orders",
    "making objects": "CREATE TABLE sales.mine (a int)",
    "making roles": "CREATE ROLE mine",
    "becoming another": "SET ROLE postgres",
    "passwords": "SELECT * FROM pg_authid",
    "files": "SELECT pg_read_file('/etc/passwd')",
    "programs": "COPY (SELECT 1) TO PROGRAM 'true'",
}


@dataclass
class Psycopg:
    """A session of a lease."""

    connection: psycopg.Connection[tuple[object, ...]]

    async def works(self) -> bool:
        try:
            self.connection.execute("SELECT quarter FROM sales.revenue")
        except psycopg.Error:
            return False
        return True


@dataclass
class Real:
    """The warehouse, as the contract wants to see a target."""

    shop: Warehouse
    made: list[PostgresEngine] = field(default_factory=list)
    sessions: list[Psycopg] = field(default_factory=list)

    @property
    def engine(self) -> PostgresEngine:
        return self.made[0] if self.made else self.again()

    def again(self) -> PostgresEngine:
        engine = PostgresEngine(self.shop.resource, Secret(self.shop.password), clock=now, random=secrets.token_bytes)
        self.made.append(engine)
        return engine

    def detail(self) -> Detail:
        return self.shop.detail(columns={"sales.revenue": ["quarter", "amount"]})

    def now(self) -> datetime:
        return now()

    async def permits(self, issued: Issued) -> bool:
        return may(issued, "SELECT quarter, amount FROM sales.revenue")

    async def exceeds(self, issued: Issued) -> list[str]:
        return [what for what, statement in BEYOND.items() if may(issued, statement)]

    async def exists(self, name: str) -> bool:
        return name in self.shop.roles()

    async def session(self, issued: Issued) -> Psycopg:
        session = Psycopg(psycopg.connect(dsn(issued), autocommit=True))
        self.sessions.append(session)
        return session

    @asynccontextmanager
    async def outage(self) -> AsyncIterator[None]:
        self.shop.server.kill()
        try:
            yield
        finally:
            self.shop.server.launch()


@asynccontextmanager
async def real() -> AsyncIterator[Real]:
    with warehouse() as shop:
        target = Real(shop)
        try:
            yield target
        finally:
            for session in target.sessions:
                session.connection.close()
            for engine in target.made:
                await engine.close()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_postgresql_engine_keeps_the_contract(case: Case) -> None:
    assert engine_contract(case, real)
