"""The gateway: CPU of an injected request under load, and the time it adds to one."""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import nginx, ours
from benchmarks.figure import Figure, figure
from benchmarks.nginx import Nginx
from examples.demo.house import House

KEY = "upstream-key-of-the-benchmark-0123456789"
ROUNDS = 5
SECONDS = 4
PATH = "/v1/x"


@dataclass(frozen=True, slots=True)
class Stand:
    """What is measured against what."""

    house: House
    upstream: Nginx
    swap: Nginx

    def through(self, connections: int) -> nginx.Wrk:
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

    def past(self, connections: int) -> nginx.Wrk:
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
    """CPU microseconds an injected request, 32 connections in a run, each use durable in the audit log.

    The answer is 1 KB of JSON, as APIs give it. Up to November 2026 it was one letter 1,024 times, which costs the
    search for the credential more than any text does: older results are not comparable.
    """
    return _cpu("gateway_cpu_32", 32)


def gateway_cpu_256() -> Figure:
    """CPU microseconds an injected request, as ``gateway_cpu_32``, with as many connections as a run may have."""
    return _cpu("gateway_cpu_256", 256)


def _cpu(name: str, connections: int) -> Figure:
    mine, theirs, count = [], [], 0
    with stand() as it:
        for _ in range(ROUNDS):
            load, peer = it.through(connections), it.past(connections)
            if load.errors or peer.errors:
                raise RuntimeError(f"{load.errors} requests failed through remit, {peer.errors} through nginx")
            print(
                f"  {load.cpu_us:.1f} us, {load.rate:.0f}/s; nginx {peer.cpu_us:.1f} us, {peer.rate:.0f}/s",
                file=sys.stderr,
            )
            mine.append(load.cpu_us)
            theirs.append(peer.cpu_us)
            count += load.n
    return figure(name, "us CPU/request", mine, "nginx swapping one header, no check", theirs, count)


def gateway_added_1() -> Figure:
    """Milliseconds added to the median of one connection, against max(1 ms, fsync p50 + 0.5 ms)."""
    mine, allowed, count = [], [], 0
    with stand() as it:
        for _ in range(ROUNDS):
            direct = it.past(1)
            load = it.through(1)
            mine.append(load.p50_ms - direct.p50_ms)
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
