"""PostgreSQL credentials: issued by one and by sixteen clients, and a thousand revoked, against OpenBao on raft."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from benchmarks import openbao, ours
from benchmarks.client import Address, Client, Load, Step, closed_loop, rates, with_cpu
from benchmarks.figure import Figure, figure
from benchmarks.openbao import OpenBao
from examples.demo.house import House
from tests.support.postgres_server import PostgresServer

PEER = "OpenBao 2.7 on raft with file audit"
DATABASE = "bench"
ROUNDS = 3
PATIENCE = 60.0  # seconds until a thousand leases are closed
REVOKED = 2  # rounds
SECONDS = 3.0
THOUSAND = 1_000
SOME = 200  # that the peer revokes, one after the other: a thousand keep it at work for half a minute and more
TASKS = 4  # at least: a task has at most 2,000 leases


@contextmanager
def both() -> Iterator[tuple[House, OpenBao, PostgresServer]]:
    """Run remit and OpenBao over one durable PostgreSQL."""
    settings = {"max_connections": "300"}
    with PostgresServer(durable=True, settings=settings) as server, openbao.process() as (port, pid):
        asyncio.run(ours.table(server, DATABASE))
        with ours.running() as house:
            asyncio.run(ours.with_database(house, server, DATABASE))
            bao = asyncio.run(openbao.unsealed(port, pid))
            asyncio.run(openbao.with_database(bao, server, DATABASE))
            yield house, bao, server


def issue_postgres_1() -> Figure:
    """Credentials a second, one client; verifiers have one iteration."""
    return _issue("issue_postgres_1", 1, ours.DETAIL)


def issue_postgres_16() -> Figure:
    """Credentials a second, sixteen clients, one table; verifiers have one iteration."""
    return _issue("issue_postgres_16", 16, ours.DETAIL)


def issue_postgres_1_4096() -> Figure:
    """The same with verifiers of 4,096 iterations, as they are by default; the peer leaves that to PostgreSQL."""
    return _issue("issue_postgres_1_4096", 1, ours.SLOW)


def issue_postgres_16_4096() -> Figure:
    """The same with sixteen clients."""
    return _issue("issue_postgres_16_4096", 16, ours.SLOW)


def _issue(name: str, clients: int, detail: Mapping[str, Any]) -> Figure:
    with both() as (house, bao, server):

        def mine() -> Load:
            tasks = ours.opened(house, max(clients, TASKS), detail)
            issue = ours.issuing(tasks, detail)
            load = with_cpu(house.process.pid, closed_loop(house.control, clients, SECONDS, issue))
            ours.closed(house, tasks)
            asyncio.run(ours.until_no_logins(server))
            return load

        def theirs() -> Load:
            load = with_cpu(bao.pid, closed_loop(bao.port, clients, SECONDS, _creds(bao)))
            asyncio.run(bao.call("PUT", "/v1/sys/leases/revoke-force/database/creds/reader", {}))
            return load

        return rates(name, "credentials/s", f"{PEER}; without PostgreSQL's own CPU", (mine, theirs), ROUNDS)


def _creds(bao: OpenBao) -> Step:
    async def step(client: Client, _number: int) -> bool:
        status, _ = await client.request("GET", "/v1/database/creds/reader", headers=bao.headers)
        return status == 200

    return step


def revoke_1000() -> Figure:
    """Seconds until a subtree of a thousand leases is closed, and no role can log in.

    The peer revokes fewer, and what it takes is multiplied.
    """
    mine, theirs = [], []
    with both() as (house, bao, server):
        for _ in range(REVOKED):
            mine.append(asyncio.run(_revoke_ours(house, server)))
            theirs.append(asyncio.run(_revoke_bao(bao, server)) * THOUSAND / SOME)
    return figure("revoke_1000", "s", mine, f"{PEER}; from {SOME}", theirs, THOUSAND * REVOKED)


async def _revoke_ours(house: House, server: PostgresServer) -> float:
    [task] = ours.opened(house)
    issue = ours.issuing([task])
    await _times(house.control, THOUSAND, issue)
    if await ours.logins(server) != THOUSAND:
        raise RuntimeError("not all credentials exist")
    client = await Client.connect(house.control)
    path = f"/v1/tasks/{task.task}/grants/{task.grant}/revoke"
    started = time.perf_counter()
    state = ""
    while state != "closed":  # on a busy machine the first answer may be that some are outstanding
        _, answer = await client.request("POST", path, b"{}", {"Content-Type": "application/json"})
        state = json.loads(answer)["state"]
        if time.perf_counter() - started > PATIENCE:
            raise RuntimeError(f"it is not closed: {answer.decode()[:200]}")
    took = time.perf_counter() - started
    await client.close()
    if left := await ours.logins(server):
        raise RuntimeError(f"{left} roles can still log in after `closed`")
    return took


async def _revoke_bao(bao: OpenBao, server: PostgresServer) -> float:
    made = await bao.call("POST", "/v1/auth/token/create", {"policies": ["root"], "no_parent": True})
    token = made["auth"]["client_token"]  # type: ignore[index]  # JSON as OpenBao answers
    holder = OpenBao(bao.port, str(token), bao.pid)
    await _times(bao.port, SOME, _creds(holder))
    if await ours.logins(server) != SOME:
        raise RuntimeError("not all of the peer's credentials exist")
    started = time.perf_counter()
    await bao.call("PUT", "/v1/auth/token/revoke", {"token": token})
    await ours.until_no_logins(server)
    return time.perf_counter() - started


async def _times(address: Address, count: int, step: Step, clients: int = 16) -> None:
    """Do a step exactly ``count`` times."""
    left = iter(range(count))

    async def some(number: int) -> None:
        client = await Client.connect(address)
        for _ in left:
            if not await step(client, number):
                raise RuntimeError("an operation failed")
        await client.close()

    await asyncio.gather(*(some(number) for number in range(clients)))
