"""A call of a tool by MCP, through the gateway and through a relay that checks nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import mcp_ends, ours
from benchmarks.client import Load, cpu_seconds, machine
from benchmarks.figure import Figure, figure
from benchmarks.runs import PROGRAM, ended, listens, until
from examples.demo.house import House
from remit.run.inside import NICE
from remit.sdk import verbs
from tests.support.postgres_server import free_port

FASTMCP = Path(__file__).parents[1] / ".venv-fastmcp" / "bin" / "python"
RELAY = """
import sys
from fastmcp.server import create_proxy
create_proxy(sys.argv[1]).run("http", host="127.0.0.1", port=int(sys.argv[2]), show_banner=False, log_level="error")
"""
DETAIL = {"type": "mcp", "resource": "bench", "actions": ["tools/call"], "tools": {"look": {"q": "any"}}}
BACK = ["nice", "-n", str(NICE), PROGRAM]
ROUNDS, SECONDS = 4, 3


@dataclass(frozen=True, slots=True)
class Sides:
    """The server, what is in front of it, and a folder with the caller in it."""

    server: int
    house: House
    relay: subprocess.Popen[bytes]
    relay_port: int
    folder: str

    def straight(self) -> Load:
        """Call the server itself, by a caller that stands back at cores as a run does."""
        return self._calls(BACK, f"http://127.0.0.1:{self.server}/mcp")

    def through(self) -> Load:
        """Call it through the gateway, from a run."""
        run = self.house.command("run", "-q", "-p", "measure", "-d", json.dumps(DETAIL), "--", PROGRAM)
        return self._calls(run, None, self.house.process.pid, self.house.environment)

    def relayed(self) -> Load:
        """Call it through the relay."""
        return self._calls(BACK, f"http://127.0.0.1:{self.relay_port}/mcp", self.relay.pid)

    def _calls(
        self, prefix: Sequence[str], url: str | None, pid: int | None = None, environ: Mapping[str, str] | None = None
    ) -> Load:
        words = ["mcp_ends.py", "caller", *([] if url is None else [url]), str(SECONDS)]
        before = cpu_seconds(pid) if pid else 0.0
        done = subprocess.run(
            [*prefix, *words], cwd=self.folder, env=environ, capture_output=True, text=True, check=False, timeout=60
        )
        if done.returncode:
            raise RuntimeError(done.stderr[-1_000:])
        told = json.loads(done.stdout)
        spent = (cpu_seconds(pid) - before) / told["n"] * 1e6 if pid else 0.0
        return Load(told["rate"], told["p50"], told["p99"], told["errors"], told["n"], spent)


@contextmanager
def sides() -> Iterator[Sides]:
    """Start all of it."""
    server, relay = free_port(), free_port()
    with ours.running() as house, tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        Path(folder, "mcp_ends.py").write_bytes(Path(mcp_ends.__file__).read_bytes())
        destination = f"mcp+http://127.0.0.1:{server}/mcp"
        body = {"kind": "mcp", "destination": destination, "bound": [DETAIL], "secret": ours.SECRET, "settings": {}}
        with _started([sys.executable, mcp_ends.__file__, "server", str(server)], server):
            command = [str(FASTMCP), "-c", RELAY, f"http://127.0.0.1:{server}/mcp", str(relay)]
            with _started(command, relay) as other, house.client() as client:
                client.run(verbs.put_resource("bench", body))
                yield Sides(server, house, other, relay, folder)


@contextmanager
def _started(command: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"})
    try:
        until(lambda: listens(port), process)
        yield process
    finally:
        ended(process)


def mcp_call() -> Figure:
    """Milliseconds that the gateway adds to the median of a ``tools/call``, each durable in the audit log.

    Beside it FastMCP's proxy, which checks and records nothing. CPU is a call's: of edge and authority, of the relay.
    """
    mine, theirs, cpu, count = list[float](), list[float](), (list[float](), list[float]()), 0
    with sides() as it:
        for _ in range(ROUNDS):
            straight, through, relayed = it.straight(), it.through(), it.relayed()
            if straight.errors or through.errors or relayed.errors:
                raise RuntimeError(f"calls failed: {straight.errors}, {through.errors}, {relayed.errors}")
            mine.append(through.p50 - straight.p50)
            theirs.append(relayed.p50 - straight.p50)
            cpu[0].append(through.cpu_us)
            cpu[1].append(relayed.cpu_us)
            count += through.n
            print(f"  {through}; straight {straight}; relay {relayed}; {machine()}", file=sys.stderr)
    return figure("mcp_call", "ms", mine, "FastMCP's proxy, no check", theirs, count, cpu)
