"""A run's proxy, which ends TLS and puts the key in, beside mitmproxy and Envoy that do the same and check nothing."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from benchmarks import nginx, ours
from benchmarks.client import Load, cpu_seconds, rates
from benchmarks.figure import Figure
from benchmarks.runs import ended, listens, until
from examples.demo.house import House
from remit.sdk import verbs
from tests.support.postgres_server import free_port

KEY = "upstream-key-of-the-benchmark-0123456789"
HOST = "api.openai.com"  # by the catalog's entry; it leads to the upstream here
ROUNDS, SECONDS, CONNECTIONS = 3, 3, 32
STREAMS = 4  # of each connection, over HTTP/2
URL = f"https://{HOST}/v1/models"
MITMDUMP = Path(__file__).parents[1] / ".venv-mitmproxy" / "bin" / "mitmdump"
ENVOY = """
static_resources:
  listeners:
  - address: {{socket_address: {{address: 127.0.0.1, port_value: {port}}}}}
    filter_chains:
    - transport_socket:
        name: tls
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
          common_tls_context:
            alpn_protocols: [h2, http/1.1]
            tls_certificates:
            - certificate_chain: {{filename: {folder}/pem}}
              private_key: {{filename: {folder}/pem}}
      filters:
      - name: http
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: bench
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: upstream}}}}]
              request_headers_to_add:
              - header: {{key: authorization, value: "Bearer {key}"}}
                append_action: OVERWRITE_IF_EXISTS_OR_ADD
          http_filters:
          - name: router
            typed_config: {{"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}
  clusters:
  - name: upstream
    load_assignment:
      cluster_name: upstream
      endpoints:
      - lb_endpoints:
        - endpoint: {{address: {{socket_address: {{address: 127.0.0.1, port_value: {upstream}}}}}}}
"""


def absent() -> list[str]:
    """Return the Debian packages that are missing."""
    return [*nginx.absent(), *([] if shutil.which("h2load") else ["nghttp2-client"])]


def proxied_mitmproxy() -> Figure:
    """Requests a second over TLS that a run's proxy ends and puts a key into, 32 connections; beside mitmproxy."""
    return _beside("proxied_mitmproxy", "mitmproxy that sets one header", _mitmproxy, h2=False)


def proxied_mitmproxy_h2() -> Figure:
    """The same over HTTP/2, four streams to a connection."""
    return _beside("proxied_mitmproxy_h2", "mitmproxy that sets one header", _mitmproxy, h2=True)


def proxied_envoy() -> Figure:
    """The same over HTTP/1.1, beside Envoy."""
    return _beside("proxied_envoy", "Envoy that sets one header, no check", _envoy, h2=False)


def proxied_envoy_h2() -> Figure:
    """The same over HTTP/2, beside Envoy."""
    return _beside("proxied_envoy_h2", "Envoy that sets one header, no check", _envoy, h2=True)


@dataclass(frozen=True, slots=True)
class _Peer:
    port: int
    pid: int


def _beside(name: str, peer: str, serving: Callable[[int], AbstractContextManager[_Peer]], *, h2: bool) -> Figure:
    with nginx.upstream(KEY) as upstream, serving(upstream.port) as other, ours.running() as house:
        _reached(house, upstream.port)
        sides = partial(_through, house, h2=h2), partial(_past, other, h2=h2)
        return rates(name, "requests/s", peer, sides, ROUNDS)


def _reached(house: House, port: int) -> None:
    detail = {**ours.HTTP, "resource": "openai"}
    body = {"kind": "http", "destination": f"http://127.0.0.1:{port}", "bound": [detail], "secret": KEY}
    with house.client() as client:
        client.run(verbs.put_resource("openai", {**body, "settings": {"provider": "openai"}}))


def _through(house: House, *, h2: bool) -> Load:
    command = house.command("run", "--purpose", "measure", "--resource", "openai", "--quiet", "--")
    return _load(URL, house.process.pid, h2=h2, prefix=tuple(command), environment=house.environment)


def _past(other: _Peer, *, h2: bool) -> Load:
    return _load(f"https://127.0.0.1:{other.port}/v1/models", other.pid, h2=h2)


def _load(
    url: str, pid: int, *, h2: bool, prefix: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
) -> Load:
    """Load with h2load, and look at what the process ``pid`` and its children used meanwhile."""
    form = [f"-m{STREAMS}", "--alpn-list=h2"] if h2 else ["--h1"]
    before = cpu_seconds(pid)
    command = [*prefix, shutil.which("h2load") or "h2load", *form, "-t1", f"-c{CONNECTIONS}", f"-D{SECONDS}", url]
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        done = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=60, cwd=folder, env=environment
        )
    return _read(done.stdout + done.stderr, cpu_seconds(pid) - before)


def _read(out: str, used: float) -> Load:
    rate = re.search(r"finished in [\d.]+m?s, ([\d.]+) req/s", out)
    told = re.search(r"(\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", out)
    codes = re.search(r"status codes: (\d+) 2xx", out)
    mean = re.search(r"time for request: +\S+ +\S+ +([\d.]+)(us|ms|s) ", out)
    if rate is None or told is None or codes is None or mean is None or int(codes[1]) == 0:
        raise RuntimeError(f"h2load said: {out[-800:]}")
    count = int(codes[1])
    bad = int(told[1]) + int(told[2]) + int(told[3]) - count
    took = float(mean[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[mean[2]]
    return Load(float(rate[1]), took, took, max(0, bad), count, used / count * 1e6)


@contextmanager
def _mitmproxy(upstream: int) -> Iterator[_Peer]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        told = [f"--mode=reverse:http://127.0.0.1:{upstream}", f"--listen-port={port}", "--listen-host=127.0.0.1", "-q"]
        sets = [f"confdir={folder}", f"modify_headers=/~q/authorization/Bearer {KEY}", "flow_detail=0"]
        command = [str(MITMDUMP), *told, *(f"--set={each}" for each in sets)]
        with _running(command, port) as found:
            yield found


@contextmanager
def _envoy(upstream: int) -> Iterator[_Peer]:
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="remit-bench-") as folder:
        Path(folder, "pem").write_bytes(_certificate())
        config = Path(folder, "envoy.yaml")
        config.write_text(ENVOY.format(port=port, folder=folder, key=KEY, upstream=upstream))
        program = shutil.which("envoy", path=str(Path(sys.executable).parent)) or "envoy"
        command = [program, "-c", str(config), "--concurrency", "1", "-l", "off", "--disable-hot-restart"]
        with _running(command, port) as found:
            yield found


@contextmanager
def _running(command: list[str], port: int) -> Iterator[_Peer]:
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ}
    )
    try:
        until(partial(listens, port), process)
        yield _Peer(port, process.pid)
    finally:
        ended(process)


def _certificate() -> bytes:
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(1).not_valid_before(now - timedelta(hours=1)).not_valid_after(now + timedelta(days=1))
    written = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    signed = made.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    return signed + key.private_bytes(*written)
