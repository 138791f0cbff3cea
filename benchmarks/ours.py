"""remit, measured as it is run: a broker process of its own, spoken to over its sockets."""

from __future__ import annotations

import asyncio
import json
import secrets
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from http import HTTPStatus
from itertools import cycle
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import asyncpg
import psutil

from benchmarks import runs
from benchmarks.client import FORM, Client, Step
from examples.demo import house as houses
from examples.demo.house import House
from remit.core import scope as scopes
from remit.ports import Resource
from remit.sdk import Bounds, verbs
from remit.sdk._wire import Flow
from tests.support.postgres_server import PostgresServer

SECRET = "upstream-key-of-the-benchmark-0123456789"  # noqa: S105 - of no use to anybody
TABLE = "public.bench"
DETAIL: Mapping[str, Any] = {"type": "postgres", "resource": "bench", "actions": ["select"], "tables": [TABLE]}
SAID = 4_000  # characters of a broker's log that are shown when something has failed
SLOW: Mapping[str, Any] = {**DETAIL, "resource": "bench4096"}  # the same, with verifiers of 4,096 iterations
HTTP: Mapping[str, Any] = {"type": "http", "resource": "web", "actions": ["GET"], "paths": ["/v1/**"]}


@contextmanager
def running(
    api: str = "off", gateway: str = "off", more: str = "", before: Callable[[Path], None] = lambda _: None
) -> Iterator[House]:
    """Run a broker with state in a folder of its own.

    ``more`` is configuration, in which {folder} is that folder; ``before`` puts there what it names.
    """
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        before(Path(folder))
        with houses.broker(Path(folder), api=api, gateway=gateway, more=more.replace("{folder}", folder)) as house:
            runs.until(lambda: "edge" in processes(house), house.process)
            try:
                yield house
            except Exception:
                print(Path(folder, "broker.log").read_text(errors="replace")[-SAID:], file=sys.stderr)
                raise


def processes(house: House) -> dict[str, int]:
    """Return the pids of a broker's processes by their names: authority, edge, web, targets."""
    found = dict[str, int]()
    for each in psutil.Process(house.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):  # one that is starting forks others, for a moment
            program, _, name = each.name().partition(" ")
            found |= {name: each.pid} if program == "remit" else {}
    return found


async def with_database(house: House, server: PostgresServer, database: str) -> None:
    """Add the database as two resources, its login made as the documentation says.

    Verifiers of ``bench`` have one iteration, which costs as much as the peer's; those of ``bench4096`` as many as they
    have by default.
    """
    password, settings = secrets.token_urlsafe(24), {"tls": "loopback"}
    resource = Resource(
        name="bench",
        kind="postgres",
        destination=f"postgresql://remit@127.0.0.1:{server.port}/{database}",
        bound=scopes.parse([DETAIL]),
        secret=None,
        settings={**settings, "scram_iterations": 1},
    )
    await houses.prepare(server, database, resource, password)
    with house.client() as client:
        client.run(verbs.put_resource("bench", houses.body(resource, password, [DETAIL])))
        slow = replace(resource, settings=settings)
        client.run(verbs.put_resource("bench4096", houses.body(slow, password, [SLOW])))


def with_upstream(house: House, port: int, key: str) -> None:
    """Add an upstream as a resource."""
    body = {"kind": "http", "destination": f"http://127.0.0.1:{port}", "bound": [HTTP], "secret": key, "settings": {}}
    with house.client() as client:
        client.run(verbs.put_resource("web", body))


def opened(house: House, count: int = 1, detail: Mapping[str, Any] = DETAIL) -> list[verbs.TokenResponse]:
    """Open tasks."""
    with house.client() as client:
        bounds = Bounds("2h", depth=1, fan_out=1_000)
        return [client.run(verbs.open_task("measure", [dict(detail)], bounds)) for _ in range(count)]


async def posted(house: House, flow: Flow[verbs.TokenResponse], count: int, clients: int = 16) -> list[str]:
    """Open tasks, or delegate, so many times as a flow does it once; return the new grants."""
    call, left, made = next(flow), iter(range(count)), list[str]()
    body = urlencode(call.form or {}).encode()

    async def some() -> None:
        client = await Client.connect(house.control)
        for _ in left:
            status, answer = await client.request("POST", call.path, body, FORM)
            if status != HTTPStatus.OK:
                raise RuntimeError(f"{status}: {answer.decode()[:200]}")
            made.append(str(json.loads(answer)["grant"]))
        await client.close()

    await asyncio.gather(*(some() for _ in range(clients)))
    return made


def closed(house: House, tasks: list[verbs.TokenResponse]) -> None:
    """Close tasks."""
    with house.client() as client:
        for task in tasks:
            client.run(verbs.close(task.task))


def issuing(tasks: list[verbs.TokenResponse], detail: Mapping[str, Any] = DETAIL) -> Step:
    """Return a step that issues one credential, in the tasks by turns."""
    bodies = [json.dumps({"grant": task.grant, "detail": detail}).encode() for task in tasks]
    turns = cycle(zip(tasks, bodies, strict=True))
    headers = {"Content-Type": "application/json"}

    async def step(client: Client, _: int) -> bool:
        task, body = next(turns)
        status, _body = await client.request("POST", f"/v1/tasks/{task.task}/leases", body, headers)
        return status // 100 == 2

    return step


async def table(server: PostgresServer, database: str) -> None:
    """Make the one table, and the role through which the peer grants it."""
    connection = await asyncpg.connect(server.dsn(), ssl=False)
    await connection.execute(f"create database {database}")
    await connection.close()
    connection = await asyncpg.connect(server.dsn(database), ssl=False)
    await connection.execute("create table public.bench (a int); create role bench_readers")
    await connection.execute("grant select on public.bench to bench_readers")
    await connection.close()


async def logins(server: PostgresServer) -> int:
    """Count the roles that can log in, the two that always can left out."""
    connection = await asyncpg.connect(server.dsn(), ssl=False)
    try:
        sql = "select count(*) from pg_roles where rolcanlogin and rolname not in ('postgres', 'remit')"
        found: int = await connection.fetchval(sql)
        return found
    finally:
        await connection.close()


async def until_no_logins(server: PostgresServer) -> None:
    """Wait until every issued role is gone, or can no longer log in."""
    while await logins(server):
        await asyncio.sleep(0.01)
