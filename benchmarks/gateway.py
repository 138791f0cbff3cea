"""The gateway: CPU of an injected request under load, and the time it adds to one."""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import nginx, ours
from benchmarks.client import Load, rates
from benchmarks.figure import Figure, figure
from benchmarks.nginx import Nginx
from examples.demo.house import House

KEY = "upstream-key-of-the-benchmark-0123456789"
ROUNDS = 4
SECONDS = 3
PATH = "/v1/x"


@dataclass(frozen=True, slots=True)
class Stand:
    """What is measured against what."""

    house: House
    upstream: Nginx
    swap: Nginx

    def through(self, connections: int) -> Load:
        """Load remit's gateway from inside a run."""
        command = self.house.command("run", "--purpose", "measure", "--resource", "web", "--quiet", "--")
        url = f"http://127.0.0.1:8471/web{PATH}"
        return nginx.load(
            url,
            self.house.process.pid,
            connections=connections,
            seconds=SECONDS,
            prefix=tuple(command),
            environment=self.house.environment,
        )

    def past(self, connections: int) -> Load:
        """Load the peer: nginx that swaps one header and checks nothing."""
        url = f"http://127.0.0.1:{self.swap.port}{PATH}"
        return nginx.load(url, self.swap.pid, connections=connections, seconds=SECONDS)


@contextmanager
def stand() -> Iterator[Stand]:
    """Run the upstream, the peer and remit."""
    with nginx.upstream(KEY) as upstream, nginx.swap(upstream.port, KEY) as swap, ours.running() as house:
        ours.with_upstream(house, upstream.port, KEY)
        yield Stand(house, upstream, swap)


def gateway_cpu_32() -> Figure:
    """Requests a second with an injected key, 32 connections in a run, each use durable in the audit log.

    The answer is 1 KB of JSON, as APIs give it. What counts is the CPU of a request, of edge and authority together.
    """
    return _loaded("gateway_cpu_32", 32)


def gateway_cpu_256() -> Figure:
    """Requests a second as ``gateway_cpu_32``, with as many connections as a run may have."""
    return _loaded("gateway_cpu_256", 256)


def _loaded(name: str, connections: int) -> Figure:
    with stand() as it:
        sides = (lambda: it.through(connections)), (lambda: it.past(connections))
        return rates(name, "requests/s", "nginx swapping one header, no check", sides, ROUNDS)


def gateway_added_1() -> Figure:
    """Milliseconds added to the median of one connection, against max(1 ms, fsync p50 + 0.5 ms)."""
    mine, allowed, count = [], [], 0
    with stand() as it:
        for _ in range(ROUNDS):
            direct = it.past(1)
            load = it.through(1)
            mine.append(load.p50 - direct.p50)
            allowed.append(max(1.0, _fsync_ms() + 0.5))
            count += load.n
    return figure("gateway_added_1", "ms", mine, "max(1 ms, fsync p50 + 0.5 ms)", allowed, count)


def _fsync_ms() -> float:
    """Return the median of a 4 KB append with fsync, where the broker's state is."""
    with tempfile.NamedTemporaryFile(prefix="remit-bench-", dir=Path(tempfile.gettempdir())) as file:
        times = []
        for _ in range(200):
            started = time.perf_counter()
            file.write(bytes(4_096))
            file.flush()
            os.fsync(file.fileno())
            times.append((time.perf_counter() - started) * 1e3)
    return statistics.median(times)
