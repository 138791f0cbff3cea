"""Revocation while a hostile run, strangers and a hostile upstream do their worst."""

from __future__ import annotations

import asyncio
import gzip
import http.server
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks import hostile, ours
from benchmarks.client import Client, Load, summary
from benchmarks.figure import Figure, figure
from examples.demo.house import House
from remit.sdk import verbs
from tests.support.postgres_server import free_port

ROUNDS = 3
TASKS = 150  # closed in a round
ATTACK = 60.0  # seconds at most; it begins before what is measured, and is ended after it
BOMB = gzip.compress(bytes(300 * 1024 * 1024), 9)
DETAIL = {"type": "http", "resource": "bomb", "actions": ["GET", "POST"], "paths": ["/**"], "args": {"body.t": "any"}}
JSON = {"Content-Type": "application/json"}


def revoke_under_attack() -> Figure:
    """Milliseconds (p99) until an operator's close of a task of their own answers ``closed``, against the same calm."""
    mine, theirs, count = [], [], 0
    port = free_port()
    with upstream() as target, ours.running(api=f"127.0.0.1:{port}") as house:
        ours.with_upstream(house, target, "unused")
        body = {"kind": "http", "destination": f"http://127.0.0.1:{target}", "bound": [DETAIL], "settings": {}}
        with house.client() as client:
            client.run(verbs.put_resource("bomb", {**body, "secret": "key-of-the-benchmark-0123456789"}))
        for _ in range(ROUNDS):
            calm = asyncio.run(ends(house, ours.opened(house, TASKS, ours.HTTP)))
            tasks = ours.opened(house, TASKS, ours.HTTP)
            with attacked(house, port):
                load = asyncio.run(ends(house, tasks))
            print(
                f"  p50 {load.p50:.1f} ms, p99 {load.p99:.1f} ms; calm {calm.p50:.1f}, {calm.p99:.1f}", file=sys.stderr
            )
            mine.append(load.p99)
            theirs.append(calm.p99)
            count += load.n
    return figure("revoke_under_attack", "ms", mine, "the same without an attack", theirs, count)


@contextmanager
def upstream() -> Iterator[int]:
    """Serve what inflates a thousandfold; yield the port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(BOMB)

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", "0")))
            self._answer(gzip.compress(b"{}"))

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def handle(self) -> None:
            try:
                super().handle()
            except OSError:  # remit hangs up on it
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def attacked(house: House, port: int) -> Iterator[None]:
    """Let a run and strangers attack until the block ends."""
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as home:
        folder = Path(home)  # the run is at home there
        shutil.copy(hostile.__file__, folder / "hostile.py")
        grants = ("--resource", "bomb", "--depth", "2", "--fan-out", "8")
        run = house.command("run", "--purpose", "attack", *grants, "--quiet", "--", "/usr/bin/python3", "hostile.py")
        inside = [*run, "run", str(ATTACK), "http://127.0.0.1:8471/bomb"]
        outside = [sys.executable, "hostile.py", "strangers", str(ATTACK), str(port)]
        attackers = [
            subprocess.Popen(command, cwd=folder, env=dict(house.environment), stdin=subprocess.DEVNULL)
            for command in (inside, outside)
        ]
        try:
            time.sleep(2)  # for the run to be up
            if any(attacker.poll() is not None for attacker in attackers):
                raise RuntimeError("an attacker did not start")
            yield
        finally:
            for attacker in attackers:
                attacker.terminate()
                attacker.wait(30)


async def ends(house: House, tasks: list[verbs.TokenResponse]) -> Load:
    """Close tasks one after the other, each answered ``closed``."""
    client, times = await Client.connect(house.control), []
    started = time.perf_counter()
    for task in tasks:
        begun = time.perf_counter()
        status, answer = await client.request("POST", f"/v1/tasks/{task.task}/close", b"{}", JSON)
        if status != http.HTTPStatus.OK or json.loads(answer)["state"] != "closed":
            raise RuntimeError(f"{status}: {answer.decode()[:200]}")
        times.append(time.perf_counter() - begun)
    await client.close()
    return summary(times, 0, started)
