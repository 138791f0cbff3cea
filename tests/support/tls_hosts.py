"""Hosts that speak TLS on one port of loopback, by server name, in threads: doubles of what a run reaches itself."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from remit.gateway.intercept import Interception
from remit.ports.runs import ReachedHost, RunReach
from remit.run.certificate import reach

NOBODY: Any = lambda _: None  # noqa: E731 - no run is served


@dataclass(frozen=True, slots=True)
class Arrived:
    """One request as it arrived. Header names are in lower case."""

    host: str
    method: str
    path: str
    headers: Mapping[str, str]


@dataclass
class TlsHosts:
    """What serves the hosts, and what they got. ``names`` are the server names of all handshakes."""

    port: int
    certificate: str  # of their authority
    seen: list[Arrived] = field(default_factory=list)
    names: list[str] = field(default_factory=list)

    def paths(self, host: str) -> list[str]:
        return [each.path for each in self.seen if each.host == host]


def authority(hosts: Sequence[str]) -> tuple[RunReach, ssl.SSLContext]:
    """Make an authority for hosts, and what serves TLS as them."""
    now = datetime.now(UTC)
    made = reach("double", dict.fromkeys(hosts, ReachedHost("")), now, now + timedelta(hours=1))
    return made, Interception(made, "", NOBODY).by_name


def noting(context: ssl.SSLContext, names: list[str]) -> None:
    """Have a context note the server name of each handshake."""
    known: Any = context.sni_callback

    def named(session: ssl.SSLObject, name: str | None, of: ssl.SSLContext) -> int | None:
        names.append(name or "")
        found: int | None = known(session, name, of)
        return found

    context.sni_callback = named


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answers: Mapping[str, Answer]) -> Iterator[TlsHosts]:
    """Serve hosts, each by what answers a request for it."""
    made, context = authority(list(answers))
    served: list[TlsHosts] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            host = self.headers["host"].partition(":")[0]
            headers = {name.lower(): value for name, value in self.headers.items()}
            served[0].seen.append(Arrived(host, self.command, self.path, headers))
            answers[host](self)

        do_GET = do_POST = do_HEAD = answer  # noqa: N815 - names that the class looks up

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def finish_request(self, request: Any, client_address: Any) -> None:  # in its thread: handshakes may take time
            with context.wrap_socket(request, server_side=True) as secured:
                super().finish_request(secured, client_address)

        def handle_error(self, *_: object) -> None:
            """Say nothing: clients are cut."""

    server = Server(("127.0.0.1", 0), Handler)
    served.append(TlsHosts(server.server_address[1], made.certificate))
    noting(context, served[0].names)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield served[0]
    finally:
        server.shutdown()
        server.server_close()


def say(
    handler: BaseHTTPRequestHandler, body: bytes, kind: str = "application/octet-stream", status: int = 200
) -> None:
    """Answer with a body."""
    handler.send_response(status)
    handler.send_header("content-type", kind)
    handler.send_header("content-length", str(len(body)))
    handler.end_headers()
    if handler.command != "HEAD":
        handler.wfile.write(body)
