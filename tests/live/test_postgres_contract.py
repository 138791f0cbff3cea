from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial

import psycopg
import pytest

from remit.broker.engines import ResourceEngine
from remit.core.scope import Detail
from remit.core.secret import Secret
from remit.core.task import Plan, Revocation
from remit.kinds.engines import HeldEngines
from remit.kinds.postgres import KIND
from remit.kinds.postgres.engine import PostgresEngine
from remit.kinds.postgres.plan import plan as planned
from remit.link.loopback import loopback
from remit.ports import Issued
from remit.ports.kind import EngineContext, LeaseRequest
from remit.ports.targets import EngineKey
from remit.testing.engine_contract import CASES, Case, engine_contract
from tests.live.warehouse import Warehouse, dsn, may, now, warehouse
from tests.support.kinds import NOTHING_LENT

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


class Behind(ResourceEngine):
    """An engine as the broker has it, at the other end of a link."""

    revocation = Revocation.BY_NAME


def here(shop: Warehouse) -> PostgresEngine:
    return PostgresEngine(shop.resource, Secret(shop.password), clock=now, random=secrets.token_bytes)


def behind(shop: Warehouse) -> Behind:
    """Return an engine of another process, as far as values go: nothing of it is here but its key."""
    lent = EngineContext(now, secrets.token_bytes, "https://remit.test", None)
    there, key = loopback(HeldEngines({"postgres": KIND}, lent)), EngineKey("warehouse", 0)
    plan = partial(planned, shop.resource, lent)
    return Behind(there, key, shop.resource, Secret(shop.password), plan, asyncio.wait_for)


Made = PostgresEngine | Behind


@dataclass
class Real:
    """The warehouse, as the contract wants to see a target."""

    shop: Warehouse
    make: Callable[[Warehouse], Made]
    made: list[Made] = field(default_factory=list)
    sessions: list[Psycopg] = field(default_factory=list)

    @property
    def engine(self) -> Made:
        return self.made[0] if self.made else self.again()

    def again(self) -> Made:
        engine = self.make(self.shop)
        self.made.append(engine)
        return engine

    def plan(self, wanted: LeaseRequest) -> Plan:
        return planned(self.shop.resource, NOTHING_LENT, wanted)

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
async def real(make: Callable[[Warehouse], Made]) -> AsyncIterator[Real]:
    with warehouse() as shop:
        target = Real(shop, make)
        try:
            yield target
        finally:
            for session in target.sessions:
                session.connection.close()
            for engine in target.made:
                await engine.close()


@pytest.mark.parametrize("make", [here, behind])
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_the_postgresql_engine_keeps_the_contract(case: Case, make: Callable[[Warehouse], Made]) -> None:
    assert engine_contract(case, partial(real, make))
