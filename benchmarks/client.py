"""A small HTTP/1.1 client, the same for remit and its peers, and a closed loop of such clients."""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import psutil

from benchmarks.figure import Figure, figure

Address = Path | int  # a unix socket, or a port on 127.0.0.1
NOTHING: Mapping[str, str] = MappingProxyType({})
FORM: Mapping[str, str] = MappingProxyType({"Content-Type": "application/x-www-form-urlencoded"})
JSON: Mapping[str, str] = MappingProxyType({"Content-Type": "application/json"})


@dataclass(frozen=True, slots=True)
class Load:
    """What a closed loop measured. Times in milliseconds; ``cpu_us`` is the server's CPU an operation, once known."""

    rate: float
    p50: float
    p99: float
    errors: int
    n: int
    cpu_us: float = 0.0

    def __str__(self) -> str:
        """Return a line for people."""
        return f"p50 {self.p50:.1f} ms, {self.rate:.0f}/s, {self.cpu_us:.0f} us CPU"


def rates(
    name: str, unit: str, peer: str, measure: tuple[Callable[[], Load], Callable[[], Load]], rounds: int
) -> Figure:
    """Measure two sides in turn, ours first, and make a figure of their rates, with the CPU of an operation beside."""
    ours, theirs = list[Load](), list[Load]()
    for _ in range(rounds):
        for measured, side in zip(measure, (ours, theirs), strict=True):
            side.append(measured())
            if side[-1].errors:
                raise RuntimeError(f"{side[-1].errors} operations failed, {'here' if side is ours else 'at the peer'}")
        print(f"  {ours[-1]}; peer {theirs[-1]}; {machine()}", file=sys.stderr)
    cpu = [load.cpu_us for load in ours], [load.cpu_us for load in theirs]
    done = sum(load.n for load in ours)
    return figure(name, unit, [load.rate for load in ours], peer, [load.rate for load in theirs], done, cpu)


def machine() -> str:
    """Return what else the machine does, for the line beside a round."""
    return f"load {os.getloadavg()[0]:.1f}"


def cpu_seconds(pid: int) -> float:
    """Return the CPU time that a process and its children have used, all threads together.

    That of a child which died is in the times of whoever reaped it.
    """
    process = psutil.Process(pid)
    while True:
        try:
            times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
        except psutil.NoSuchProcess as gone:
            if gone.pid == pid:
                raise
        else:
            return sum(each.user + each.system + each.children_user + each.children_system for each in times)


def with_cpu(pid: int, load: Coroutine[None, None, Load]) -> Load:
    """Run a load, and look at what the server at ``pid`` used meanwhile."""
    before = cpu_seconds(pid)
    made = asyncio.run(load)
    return replace(made, cpu_us=(cpu_seconds(pid) - before) / (made.n + made.errors) * 1e6)


class Client:
    """One kept-alive connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Wrap an open connection; see ``connect``."""
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, address: Address) -> Client:
        """Open a connection."""
        if isinstance(address, Path):
            return cls(*await asyncio.open_unix_connection(str(address), limit=1 << 22))
        return cls(*await asyncio.open_connection("127.0.0.1", address, limit=1 << 22))

    async def request(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] = NOTHING
    ) -> tuple[int, bytes]:
        """Make one request, and return status and body."""
        fields = {"Host": "127.0.0.1", "Content-Length": str(len(body)), **headers}
        head = f"{method} {path} HTTP/1.1\r\n" + "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        self._writer.write(head.encode() + b"\r\n" + body)
        return await self._answer()

    async def _answer(self) -> tuple[int, bytes]:
        head = await self._reader.readuntil(b"\r\n\r\n")
        status, lower = int(head[9:12]), head.lower()
        if b"transfer-encoding: chunked" in lower:
            return status, await self._chunks()
        at = lower.find(b"content-length:")
        size = int(lower[at + 15 : lower.find(b"\r\n", at)]) if at >= 0 else 0
        return status, await self._reader.readexactly(size)

    async def _chunks(self) -> bytes:
        parts = []
        while size := int(await self._reader.readline(), 16):
            parts.append(await self._reader.readexactly(size))
            await self._reader.readline()
        await self._reader.readline()
        return b"".join(parts)

    async def close(self) -> None:
        """Close the connection."""
        self._writer.close()
        await self._writer.wait_closed()


Step = Callable[[Client, int], Awaitable[bool]]  # one operation of client ``int``; whether it went well


async def closed_loop(address: Address, clients: int, seconds: float, step: Step) -> Load:
    """Let ``clients`` repeat ``step``, each on its own connection, for ``seconds``."""
    connections = [await Client.connect(address) for _ in range(clients)]
    started = time.perf_counter()
    try:
        done = await asyncio.gather(
            *(_repeat(client, number, started + seconds, step) for number, client in enumerate(connections))
        )
    finally:
        for client in connections:
            await client.close()
    return summary([took for times, _ in done for took in times], sum(bad for _, bad in done), started)


async def _repeat(client: Client, number: int, end: float, step: Step) -> tuple[list[float], int]:
    times, errors = [], 0
    while (start := time.perf_counter()) < end:
        if await step(client, number):
            times.append(time.perf_counter() - start)
        else:
            errors += 1
    return times, errors


def summary(times: Sequence[float], errors: int, started: float) -> Load:
    """Sum up what operations took, in seconds; ``started`` is when the first began."""
    took = time.perf_counter() - started
    if len(times) < 2:
        raise RuntimeError(f"only {len(times)} operations went well, {errors} did not")
    cuts = statistics.quantiles(times, n=100)
    return Load(len(times) / took, cuts[49] * 1e3, cuts[98] * 1e3, errors, len(times))
