"""The control plane: delegation with both proofs, checking deep grants, memory at rest."""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from benchmarks import openbao, ours
from benchmarks.client import FORM, Client, Load, Step, closed_loop, rates, with_cpu
from benchmarks.figure import Figure, figure
from benchmarks.openbao import OpenBao
from examples.demo.house import House
from remit.sdk import Bounds, verbs
from remit.sdk.dpop import DPoPKey
from tests.support.kinds import NOTHING_LENT, simulated
from tests.support.postgres_server import PostgresServer, free_port

if TYPE_CHECKING:  # imported late, so that --help stays quick
    from remit.broker import Broker
    from remit.core.principal import Operator
    from remit.core.scope import Scope

ROUNDS = 3
CLIENTS = 16
SECONDS = 3.0
PROOFS = 150  # delegations that each client has proofs for in one round
IDLE = 5.0  # seconds


# -- delegate -------------------------------------------------------------------------------------------------------


def delegate_16() -> Figure:
    """Delegations a second over HTTP, each with the parent's and the child's proof, sixteen clients."""
    port = free_port()
    with ours.running(api=f"127.0.0.1:{port}") as house, openbao.process() as (peer_port, pid):
        ours.with_upstream(house, 9, ours.SECRET)
        bao = asyncio.run(openbao.unsealed(peer_port, pid))
        sides = (
            lambda: with_cpu(house.process.pid, spent(port, [_prepared(house, port) for _ in range(CLIENTS)])),
            lambda: with_cpu(pid, closed_loop(bao.port, CLIENTS, SECONDS, _child_token(bao))),
        )
        peer = "OpenBao 2.7 child token on raft with file audit"
        return rates("delegate_16", "delegations/s", peer, sides, ROUNDS)


Prepared = Sequence[tuple[bytes, str]]  # bodies and proofs for the token endpoint, of one client


async def spent(port: int, prepared: Sequence[Prepared]) -> Load:
    """Let each client send what it has prepared: what is measured is the broker, not the clients' signatures."""
    clients = [await Client.connect(port) for _ in prepared]
    times: list[float] = []
    host = {"Host": f"127.0.0.1:{port}", **FORM}
    started = time.perf_counter()

    async def spend(client: Client, number: int) -> int:
        errors = 0
        for body, proof in prepared[number]:
            begun = time.perf_counter()
            status, _ = await client.request("POST", "/oauth/token", body, {**host, "DPoP": proof})
            errors += status != 200
            times.append(time.perf_counter() - begun)
        return errors

    errors = sum(await asyncio.gather(*(spend(client, number) for number, client in enumerate(clients))))
    took = time.perf_counter() - started
    for client in clients:
        await client.close()
    times.sort()
    n = len(times)
    return Load((n - errors) / took, times[n // 2] * 1e3, times[n * 99 // 100] * 1e3, errors, n)


def _prepared(house: House, port: int) -> Prepared:
    endpoint, key = f"http://127.0.0.1:{port}/oauth/token", DPoPKey()
    detail = [dict(ours.HTTP)]
    with house.client() as client:
        task = client.run(verbs.open_task("measure", detail, Bounds("2h", depth=1, fan_out=1_000), key))
    fresh = nonce(port)
    child = DPoPKey()
    fields = {
        "grant_type": verbs.EXCHANGE,
        "subject_token": task.token or "",
        "subject_token_type": verbs.ACCESS_TOKEN,
        "authorization_details": json.dumps(detail),
        "req_cnf": json.dumps({"jwk": child.jwk()}),
    }
    made = []
    for _ in range(PROOFS):
        proof = child.proof("POST", endpoint, token=task.token, nonce=fresh)
        body = urlencode({**fields, "req_cnf_proof": proof}).encode()
        made.append((body, key.proof("POST", endpoint, nonce=fresh)))
    return made


def nonce(port: int) -> str:
    """Return the nonce for the next proofs."""
    import httpx

    answer = httpx.post(f"http://127.0.0.1:{port}/oauth/token", data={"grant_type": verbs.EXCHANGE}, trust_env=False)
    return str(answer.headers["dpop-nonce"])


def _child_token(bao: OpenBao) -> Step:
    async def step(client: Client, _number: int) -> bool:
        body = b'{"policies": ["default"], "ttl": "1h"}'
        status, _ = await client.request("POST", "/v1/auth/token/create", body, bao.headers)
        return status == 200

    return step


# -- check ----------------------------------------------------------------------------------------------------------


def grant_check_depth() -> Figure:
    """Microseconds (CPU) to check a grant at depth 64, against the same at depth 1, in the broker's own process."""
    return asyncio.run(_checked())


async def _checked() -> Figure:
    from datetime import timedelta

    from remit.core.request import Bounds as GrantBounds
    from remit.core.request import GrantRequest

    broker, owner, detail = await _in_memory()
    line = [
        (
            await broker.open(
                owner, GrantRequest(detail, GrantBounds(timedelta(hours=1), depth=64, fan_out=1), purpose="measure")
            )
        ).grant
    ]
    for left in reversed(range(64)):
        line.append(
            (await broker.delegate(owner, line[-1].id, GrantRequest(detail, GrantBounds(depth=left, fan_out=1)))).grant
        )
    deep, shallow = [], []
    for _ in range(9):
        deep.append(_per_call(broker, line[64].id))
        shallow.append(_per_call(broker, line[1].id))
    return figure("grant_check_depth", "us", deep, "the same at depth 1", shallow, 9 * CALLS)


async def _in_memory() -> tuple[Broker, Operator, Scope]:
    """Return a broker in this process that keeps nothing, its operator, and a scope that it covers."""
    from remit.broker import Broker
    from remit.compose.wiring import local_subject, new_id, steady
    from remit.core import scope as scopes
    from remit.core.principal import Operator
    from remit.keys.file import FileSealer
    from remit.ports import Resource
    from tests.support.memory_store import MemoryStore

    detail = scopes.parse([dict(ours.HTTP)])
    broker = Broker(
        store=MemoryStore(),
        kinds=simulated(),
        context=NOTHING_LENT,
        sealer=FileSealer(bytes(32)),
        clock=steady(),
        new_id=new_id,
    )
    await broker.start()
    owner = Operator(local_subject())
    await broker.put_resource(owner, Resource("web", "http", "http://127.0.0.1:9", detail, None, {}))
    return broker, owner, detail


CALLS = 100_000


def _per_call(broker: Broker, grant: str) -> float:
    check = broker._tasks.check  # noqa: SLF001 - the look-up itself, without what edges are told
    started = time.process_time()
    for _ in itertools.repeat(None, CALLS):
        check(grant)
    return (time.process_time() - started) / CALLS * 1e6


# -- sweep ----------------------------------------------------------------------------------------------------------

SWEEPS = 50
MANY, FEW = 10_000, 10  # open tasks, none of which is over


def sweep_10000() -> Figure:
    """Milliseconds (CPU) that a sweep takes while 10,000 tasks are open, against the same with 10."""
    return asyncio.run(_swept())


async def _swept() -> Figure:
    many, few = await _with_tasks(MANY), await _with_tasks(FEW)
    mine, theirs = [], []
    for _ in range(SWEEPS):
        mine.append(await _sweep_ms(many))
        theirs.append(await _sweep_ms(few))
    return figure("sweep_10000", "ms", mine, "the same with 10 open tasks", theirs, SWEEPS)


async def _with_tasks(count: int) -> Broker:
    from datetime import timedelta

    from remit.core.request import Bounds as GrantBounds
    from remit.core.request import GrantRequest

    broker, owner, detail = await _in_memory()
    for _ in range(count):
        await broker.open(owner, GrantRequest(detail, GrantBounds(timedelta(hours=1)), purpose="measure"))
    return broker


async def _sweep_ms(broker: Broker) -> float:
    started = time.process_time()
    await broker.sweep()
    return (time.process_time() - started) * 1e3


# -- memory ---------------------------------------------------------------------------------------------------------


def idle_memory() -> Figure:
    """Megabytes (PSS) of an embedded broker, five seconds after its start: supervisor, authority, edge."""
    with ours.running() as house:
        return _at_rest("idle_memory", house, {"authority", "edge"})


def idle_memory_full() -> Figure:
    """Megabytes (PSS) with web and targets as well, which have been reached."""
    with PostgresServer() as server, ours.running(api=f"127.0.0.1:{free_port()}") as house:
        asyncio.run(ours.table(server, "bench"))
        asyncio.run(ours.with_database(house, server, "bench"))
        return _at_rest("idle_memory_full", house, {"authority", "edge", "web", "targets"})


def _at_rest(name: str, house: House, processes: set[str]) -> Figure:
    with _dev() as peer:
        time.sleep(IDLE)
        if ours.processes(house).keys() != processes:
            raise RuntimeError(f"other processes run: {', '.join(ours.processes(house))}")
        mine, theirs = [_pss(house.process.pid)], [_pss(peer)]
    return figure(name, "MB", mine, "OpenBao 2.7 dev server", theirs, 1)


@contextmanager
def _dev() -> Iterator[int]:
    program = str(Path(sys.executable).with_name("bao"))
    command = [program, "server", "-dev", f"-dev-listen-address=127.0.0.1:{free_port()}", "-dev-no-store-token"]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield server.pid
    finally:
        server.terminate()
        server.wait(20)


def _pss(pid: int) -> float:
    """Return the proportional set size of a process and its descendants, in MB."""
    import psutil

    process = psutil.Process(pid)
    texts = [Path(f"/proc/{p.pid}/smaps_rollup").read_text() for p in (process, *process.children(recursive=True))]
    return sum(int(line.split()[1]) for text in texts for line in text.splitlines() if line.startswith("Pss:")) / 1024
