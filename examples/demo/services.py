"""Three services that insist on static keys, and a thief's server, on loopback. Each keeps a log of what it saw.

They stand for what agents use today: a search API, a document store and a messaging API that know one key and no
grants. The search API has an endpoint that echoes the headers it got, as careless upstreams do.
"""

from __future__ import annotations

import hmac
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

from examples.demo import canary

MAX_BODY = 8 << 20
FEED_EVENTS = 1_000
FEED_PACE = 0.02  # seconds between two events


@dataclass(frozen=True, slots=True)
class Seen:
    """One request as an upstream saw it. ``at`` is CLOCK_MONOTONIC, in seconds, the same for all processes."""

    at: float
    service: str
    method: str
    target: str
    accepted: bool


@dataclass(slots=True)
class Service:
    """What one service is, and what it has seen."""

    name: str
    header: str = ""
    key: str = ""
    port: int = 0
    seen: list[Seen] = field(default_factory=list)
    stored: dict[str, bytes] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def expected(self) -> str:
        """What the key header must hold."""
        return f"Bearer {self.key}" if self.header == "Authorization" else self.key

    def accepted_since(self, at: float) -> int:
        """Count the requests (or streamed events) accepted after ``at``."""
        return sum(seen.accepted and seen.at > at for seen in tuple(self.seen))

    def last_accepted(self) -> float:
        """Return when the last request was accepted; 0 when none was."""
        return max((seen.at for seen in tuple(self.seen) if seen.accepted), default=0.0)


class _Handler(BaseHTTPRequestHandler):
    """Common to all services: HTTP/1.1, a body, a key check, a log."""

    protocol_version = "HTTP/1.1"
    service: ClassVar[Service]

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Keep quiet: the log is ``Service.seen``."""

    def body(self) -> bytes:
        """Read the request's body, framed either way."""
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            return self._chunks()
        return self.rfile.read(min(int(self.headers.get("Content-Length") or 0), MAX_BODY))

    def _chunks(self) -> bytes:
        parts = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def note(self, *, accepted: bool) -> None:
        """Log the request with the time at which it was judged."""
        self.service.seen.append(Seen(time.monotonic(), self.service.name, self.command, self.path, accepted))

    def keyed(self) -> bool:
        """Judge the key, and log the verdict."""
        given = self.headers.get(self.service.header, "")
        accepted = hmac.compare_digest(given.encode(), self.service.expected.encode())
        self.note(accepted=accepted)
        return accepted

    def answer(self, status: int, body: object, kind: str = "application/json") -> None:
        """Send a whole response."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def serve(self) -> None:
        """Check the key, then answer."""
        body = self.body()
        if not self.keyed():
            self.answer(401, {"error": "invalid key"})
            return
        self.respond(body)

    def respond(self, body: bytes) -> None:
        """Answer a request whose key was right."""
        raise NotImplementedError

    do_GET = do_POST = do_PUT = do_DELETE = serve  # noqa: N815 - the base class's names


class _Search(_Handler):
    def respond(self, body: bytes) -> None:
        del body
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        match url.path:
            case "/v1/search":
                found = {"title": "Analysts expect a strong quarter", "document": "q3-notes"}
                self.answer(200, {"query": query.get("q", ""), "results": [found]})
            case "/v1/echo":
                self._echo(query.get("encoding", "plain"))
            case "/v1/feed":
                self._feed()
            case _:
                self.answer(404, {"error": "no such path"})

    def _echo(self, encoding: str) -> None:
        text = "\n".join(f"{name}: {value}" for name, value in self.headers.items())
        if encoding == "plain":
            self.answer(200, {"headers": dict(self.headers.items())})
            return
        said = [canary.encode(what, name) for name in canary.ENCODINGS[1:] for what in (text, self.service.key)]
        self.answer(200, b"\n".join(said), "application/octet-stream")

    def _feed(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        pace = threading.Event()
        for number in range(FEED_EVENTS):
            try:
                self.wfile.write(f"data: {number}\n\n".encode())
                self.wfile.flush()
            except OSError:
                return
            pace.wait(FEED_PACE)


class _Documents(_Handler):
    def respond(self, body: bytes) -> None:
        name = urlsplit(self.path).path.removeprefix("/v1/documents/")
        if self.command == "PUT":
            self.service.stored[name] = body
            self.answer(200, {"stored": name})
        elif name in self.service.stored:
            self.answer(200, self.service.stored[name])
        else:
            self.answer(404, {"error": "no such document"})


class _Messages(_Handler):
    def respond(self, body: bytes) -> None:
        self.service.bodies.append(body)
        self.answer(200, {"ok": True, "number": len(self.service.bodies)})


class _Thief(_Handler):
    def serve(self) -> None:
        """Take everything."""
        self.service.bodies.append(self.path.encode() + b"\n" + str(self.headers).encode() + b"\n" + self.body())
        self.note(accepted=True)
        self.answer(200, {"thanks": True})

    do_GET = do_POST = do_PUT = do_DELETE = serve  # noqa: N815 - the base class's names


KINDS: dict[str, type[_Handler]] = {
    "search": _Search,
    "documents": _Documents,
    "messages": _Messages,
    "thief": _Thief,
}


@contextmanager
def running(service: Service) -> Iterator[Service]:
    """Serve on a free loopback port until the block ends."""
    handler = type("Handler", (KINDS[service.name],), {"service": service})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    service.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield service
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
