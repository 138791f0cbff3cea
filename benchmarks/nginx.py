"""nginx, as upstream and as the peer for the gateway (it swaps one header and checks nothing); wrk as the load."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import Load, cpu_seconds
from tests.support.postgres_server import free_port

ROWS = [{"id": n, "name": f"part {n}", "state": "ready", "price": n * 125} for n in range(18)]
BODY = json.dumps({"items": ROWS}, separators=(",", ":"))  # 1 KB, as APIs answer
MAX_CONNECTIONS = 256  # of one load; the peer keeps as many to its upstream, or it would dial anew for the rest
UPSTREAM = """
server {{ listen 127.0.0.1:{port} reuseport; keepalive_requests 100000000;
  location / {{ if ($http_authorization != "Bearer {key}") {{ return 401; }}
    default_type application/json; return 200 '{body}'; }} }}
"""
SWAP = """
upstream target {{ server 127.0.0.1:{upstream}; keepalive {keepalive}; keepalive_requests 100000000; }}
server {{ listen 127.0.0.1:{port} reuseport; keepalive_requests 100000000;
  location / {{ proxy_pass http://target; proxy_http_version 1.1; proxy_set_header Connection "";
    proxy_set_header Authorization "Bearer {key}"; }} }}
"""
MAIN = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log crit; worker_processes 1;
events {{ worker_connections 2048; }}
http {{ access_log off; client_body_temp_path {folder}/a; proxy_temp_path {folder}/b; fastcgi_temp_path {folder}/c;
  uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e; {server} }}
"""


@dataclass(frozen=True, slots=True)
class Nginx:
    """One nginx process without a master."""

    port: int
    pid: int


def absent() -> list[str]:
    """Return the Debian packages that are missing."""
    found = {"nginx": shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin"), "wrk": shutil.which("wrk")}
    return [name for name, path in found.items() if path is None]


@contextmanager
def serving(server: str, port: int) -> Iterator[Nginx]:
    """Run nginx with one server block on ``port``."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin") or "nginx"
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        config = Path(folder, "nginx.conf")
        config.write_text(MAIN.format(folder=folder, server=server))
        command = [program, "-e", f"{folder}/error.log", "-c", str(config)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            yield Nginx(port, process.pid)
        finally:
            process.terminate()
            process.wait(10)


@contextmanager
def upstream(key: str) -> Iterator[Nginx]:
    """Run an upstream that answers 1 KB of JSON to those who show the key."""
    port = free_port()
    with serving(UPSTREAM.format(port=port, key=key, body=BODY), port) as running:
        yield running


@contextmanager
def swap(target: int, key: str) -> Iterator[Nginx]:
    """Run the peer: a reverse proxy that sets one header."""
    port = free_port()
    with serving(SWAP.format(port=port, upstream=target, key=key, keepalive=MAX_CONNECTIONS), port) as running:
        yield running


def load(
    url: str,
    pid: int,
    *,
    connections: int,
    seconds: int,
    prefix: tuple[str, ...] = (),
    environment: Mapping[str, str] | None = None,
) -> Load:
    """Load ``url`` with GETs, and look at what the process ``pid`` used meanwhile. ``prefix`` runs wrk elsewhere."""
    before = cpu_seconds(pid)
    command = [*prefix, shutil.which("wrk") or "wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency", url]
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:  # where a run may be at home
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=seconds + 30, cwd=folder, env=environment
        )
    if done.returncode:
        raise RuntimeError(f"wrk failed: {done.stderr[-500:]}")
    out = done.stdout
    return _read(out, cpu_seconds(pid) - before)


def _read(out: str, used: float) -> Load:
    n = int(_found(r"(\d+) requests in", out)[0])
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    p50, p99 = (_ms(*_found(rf"{part}%\s+([\d.]+)(us|ms|s)", out)) for part in (50, 99))
    rate = float(_found(r"Requests/sec:\s+([\d.]+)", out)[0])
    return Load(rate, p50, p99, int(bad.group(1)) if bad else 0, n, used / n * 1e6)


def _ms(value: str, unit: str) -> float:
    return float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def _found(pattern: str, out: str) -> Sequence[str]:
    found = re.search(pattern, out)
    if found is None:
        raise RuntimeError(f"wrk said: {out}")
    return found.groups()
