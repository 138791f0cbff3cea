"""Class SQL, the broker's own look-ups: every string a caller can send, against the store on SQLite."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote, urlencode

import httpx
import pytest

from remit.core import audit
from remit.core.audit import Entry
from remit.errors import RemitError
from remit.keys.file import FileSealer
from remit.stores.sqlite import SqliteStore
from tests.broker.world import TABLE, World, holder
from tests.oauth.plane import EXCHANGE, Plane, opening, plane

CANARY = "canary-of-another-holder"

OPENERS = ["", "'", '"', "`", "')", "'))", '")', "%", "_", "\\'", "%27", "%2527", "\uff07", "0", "-1", "1e999"]
TAILS = [
    " OR 1=1",
    " OR '1'='1",
    " OR 1=1--",
    " OR ''='",
    " UNION SELECT body FROM tasks--",
    " UNION ALL SELECT NULL,NULL,NULL--",
    "; DROP TABLE tasks;--",
    "; UPDATE tasks SET closed = 0;--",
    "; ATTACH DATABASE '/nowhere/x' AS x;--",
    " AND randomblob(1000000000)",
    " AND 1=(SELECT count(*) FROM tasks, grants, entries, tasks, grants)",
    "; SELECT pg_sleep(9);--",
    " ORDER BY 999--",
    "%00",
    "\u2028--",
    " LIKE '%'",
]
CORPUS = [opener + tail for opener in OPENERS for tail in TAILS][: 16 * 16 : 2]


@dataclass
class SqlWorld(World):
    """The world of the broker's tests, on the store that ships."""

    directory: Path = Path()

    def __post_init__(self) -> None:
        self.store = SqliteStore(self.directory, FileSealer(b"k" * 32))


@asynccontextmanager
async def sql_plane(place: Path) -> AsyncIterator[Plane]:
    world = SqlWorld(now=datetime(2026, 11, 25, 12, tzinfo=UTC), directory=place / "state")
    async with plane(place, world) as made:
        yield made


Send = Callable[[httpx.AsyncClient, str], Awaitable[httpx.Response]]

PATHS = [
    ("GET", "/v1/tasks/{}"),
    ("POST", "/v1/tasks/{}/close"),
    ("POST", "/v1/tasks/{}/leases"),
    ("POST", "/v1/tasks/{}/grants/{}/revoke"),
    ("POST", "/v1/leases/{}/renew"),
    ("POST", "/v1/leases/{}/revoke"),
    ("GET", "/v1/resources/{}"),
    ("PUT", "/v1/resources/{}"),
    ("DELETE", "/v1/resources/{}"),
    ("PUT", "/v1/secrets/{}"),
    ("GET", "/problems/{}"),
]
QUERIES = [
    ("/v1/audit", "start"),
    ("/v1/audit", "limit"),
    ("/v1/audit", "order"),
    ("/v1/tasks", "sort"),
    ("/v1/audit/proof/inclusion", "seq"),
    ("/v1/audit/proof/inclusion", "size"),
    ("/v1/audit/proof/consistency", "from"),
    ("/v1/audit/proof/consistency", "to"),
]
FORMS = [
    ("/oauth/token", name)
    for name in (
        "grant_type",
        "subject_token",
        "subject_token_type",
        "purpose",
        "ttl",
        "depth",
        "fan_out",
        "exercise",
        "authorization_details",
        "label",
        "req_cnf",
        "req_cnf_proof",
    )
] + [("/oauth/revoke", "token"), ("/oauth/introspect", "token")]
HEADERS = ["authorization", "dpop", "cookie", "x-forwarded-for", "x-remit-grant", "idempotency-key", "remit-grant"]
BODIES: list[Callable[[str], object]] = [
    lambda text: {"grant": text, "detail": TABLE},
    lambda text: {"grant": "grt", "detail": {**TABLE, "resource": text}},
    lambda text: {"grant": "grt", "detail": {**TABLE, "tables": [text]}},
    lambda text: {"grant": "grt", "detail": {text: text}},
    lambda text: {text: text},
    lambda text: text,
]


def ways(text: str) -> list[tuple[str, str, dict[str, object]]]:
    """Return every call with ``text`` in one of its parameters: method, URL, and what goes with it."""
    whole = quote(text, safe="")
    printable = text.encode("ascii", "replace").decode().strip()
    found: list[tuple[str, str, dict[str, object]]] = []
    found += [
        (method, path.replace("{}", whole), {"json": {"resource": text, "value": text}}) for method, path in PATHS
    ]
    found += [("GET", f"{path}?{urlencode({name: text})}", {}) for path, name in QUERIES]
    found += [("POST", path, {"data": {**opening(), name: text}}) for path, name in FORMS]
    found += [("GET", "/v1/tasks", {"headers": {name: printable}}) for name in HEADERS]
    found += [("POST", "/v1/tasks/task_0/leases", {"json": body(text)}) for body in BODIES]
    delegation = {"grant_type": EXCHANGE, "subject_token_type": "urn:remit:grant", "subject_token": text}
    return [*found, ("POST", "/oauth/token", {"data": delegation})]


def test_the_corpus_is_as_large_as_the_case_asks() -> None:
    assert len(set(CORPUS)) >= 120
    assert len(ways("x")) >= 40


@pytest.mark.slow
@pytest.mark.attack("SQL-06")
def test_no_string_of_a_caller_reaches_the_database_as_sql(tmp_path: Path) -> None:
    async def walk() -> None:
        async with sql_plane(tmp_path) as made:
            foreign = await made.world.opened(made.broker, label=CANARY)
            mine = await made.world.opened(made.broker)
            agent = await made.channel(holder(made.broker, mine))
            before = await state_of(made)
            calls = [*itertools.product(CORPUS, (agent, made.control)), *itertools.product(CORPUS[::8], (made.web,))]
            for text, client in calls:
                for method, url, more in ways(text):
                    answer = await client.request(method, url, **more)  # type: ignore[arg-type]  # as ways() made it
                    assert answer.status_code < 500, (method, url, answer.text)
                    assert answer.elapsed.total_seconds() < 2, (method, url)
                    if client is not made.control:
                        assert CANARY not in answer.text
                        assert foreign.id not in answer.text
            assert await state_of(made) == before
            assert made.broker._tasks.check(foreign.id).grant == foreign
            audit.verify(await all_entries(made.world.store))

    asyncio.run(walk())


async def state_of(made: Plane) -> tuple[object, ...]:
    """Return what must still be there: the first tasks and all resources."""
    tasks = (await made.world.store.tasks(100_000))[-2:]
    return (*[await made.world.store.load(task) for task in tasks], *await made.world.store.resources())


async def all_entries(store: object) -> list[Entry]:
    assert isinstance(store, SqliteStore)
    return list(await store.entries(0, 1_000_000))


@pytest.mark.attack("SQL-06")
def test_a_store_takes_every_name_for_a_name(tmp_path: Path) -> None:
    async def walk() -> None:
        store = SqliteStore(tmp_path / "state", FileSealer(b"k" * 32))
        world = World()
        world.store = store
        broker = await world.ready()
        await world.opened(broker)
        for text in CORPUS:
            assert list(await store.spent(text)) == []
            for call in (store.load, store.secret):
                with pytest.raises(RemitError, match="no such object"):
                    await call(text)
        assert len(await store.tasks(9)) == 1
        assert json.dumps([resource.name for resource in await store.resources()]) == '["search", "warehouse"]'
        await broker.stop()

    asyncio.run(walk())
