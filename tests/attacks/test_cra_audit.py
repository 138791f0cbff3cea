"""Class CRA, the part that needs nothing but the state: no audit, no effect."""

from __future__ import annotations

import asyncio
import itertools
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from remit.broker import Broker
from remit.core import audit
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.errors import UnavailableError
from remit.keys.file import FileSealer
from remit.stores.sqlite import SqliteStore
from tests.broker.world import OPERATOR, START, FullEngine, Target, details, search, warehouse
from tests.support.kinds import serving
from tests.uses import permitted_use

TABLE = {"type": "postgres", "resource": "warehouse", "actions": ["select"], "tables": ["sales.revenue"], "ttl": 600}
HTTP = {"type": "http", "resource": "search", "actions": ["GET"], "paths": ["/v1/**"], "args": "any", "uses": 10_000}
SEARCH = Access("search", "GET", "/v1/search")


def red(store: SqliteStore) -> bool:
    """Whether the state says that it cannot be written."""
    return isinstance(store._writer.failure, UnavailableError)


@contextmanager
def full_disk(_path: Path) -> Iterator[None]:
    """Let no file of this process grow."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the database as another program would."""
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        other.execute("ROLLBACK")
        other.close()


@pytest.mark.attack("CRA-03")
@pytest.mark.parametrize("trouble", [full_disk, locked], ids=["full", "locked"])
def test_without_a_durable_entry_nothing_is_done_and_it_recovers(
    tmp_path: Path, trouble: Callable[[Path], AbstractContextManager[None]]
) -> None:
    target, ids = Target(), itertools.count()

    async def run() -> None:
        sealer = FileSealer(b"k" * 32)
        store = SqliteStore(tmp_path / "state", sealer, busy=0.05)
        broker = Broker(
            store=store,
            **serving(lambda _resource, _secret: FullEngine(target)),
            sealer=sealer,
            clock=lambda: START,
            new_id=lambda prefix: f"{prefix}_{next(ids)}",
        )
        await broker.start()
        await broker.put_resource(OPERATOR, warehouse(), Secret("one"))
        await broker.put_resource(OPERATOR, search(), Secret("two-0123456789ab"))
        wanted = GrantRequest(details(TABLE, HTTP), Bounds(timedelta(minutes=15), depth=1, fan_out=1))
        grant = (await broker.open(OPERATOR, replace(wanted, purpose="draft the CFO summary"))).grant
        size = await store.size()
        with trouble(tmp_path / "state" / "remit.db"):
            for attempt in (
                permitted_use(broker, grant.id, SEARCH, "req"),
                broker.issue(OPERATOR, grant.id, grant.scope[0]),
                broker.delegate(OPERATOR, grant.id, GrantRequest(grant.scope[:1])),
                broker.open(OPERATOR, replace(wanted, purpose="another")),
            ):
                with pytest.raises(UnavailableError):
                    await attempt
            assert red(store)
        assert (await store.size(), target.accounts) == (size, {})
        await permitted_use(broker, grant.id, SEARCH, "req")
        await broker.issue(OPERATOR, grant.id, grant.scope[0])
        assert not red(store)
        assert len(target.accounts) == 1
        audit.verify(await store.entries(0, 1_000))
        await broker.stop()

    asyncio.run(run())
