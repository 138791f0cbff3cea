"""A loopback port that is open for one authorization response (RFC 8252 §7.3, §8.3)."""

from __future__ import annotations

import hmac
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Self
from urllib.parse import parse_qsl, urlsplit

from remit.errors import LapsedError

HOST = "127.0.0.1"  # a literal: `localhost` may be somebody else's, RFC 8252 §8.3
PATH = "/callback"
LOOK = 0.2  # seconds between looks whether nobody waits any more
SLOW = 5.0  # seconds for a request that was begun
DONE = b"<!doctype html><title>remit</title><p>The login is back at your terminal. You may close this page.\n"
STRANGE = b"<!doctype html><title>remit</title><p>This is not the answer that is waited for.\n"
HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'",
    "X-Content-Type-Options": "nosniff",
    "Connection": "close",
}


class Loopback(HTTPServer):
    """Listens on a port of its own, in a thread, until the answer to ``state`` came; all else is turned away."""

    timeout = LOOK

    def __init__(self, state: str) -> None:
        self.state = state
        self.answer: dict[str, str] | None = None
        self._came, self._closed = threading.Event(), False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        super().__init__((HOST, 0), _Handler)

    @property
    def redirect_uri(self) -> str:
        """Where the issuer sends the browser back to."""
        return f"http://{HOST}:{self.server_port}{PATH}"

    def wait(self, seconds: float) -> dict[str, str]:
        """Return the parameters of the answer, or raise LapsedError."""
        self._came.wait(seconds)
        if self.answer is None:
            raise LapsedError("nobody logged in in time", help="try again; without a browser here, with --device")
        return self.answer

    def _serve(self) -> None:
        while self.answer is None and not self._closed:
            self.handle_request()
        self._came.set()

    def offer(self, path: str) -> bool:
        """Take the path of a request if it is the answer."""
        parts = urlsplit(path)
        try:
            pairs = parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True, max_num_fields=32)
        except ValueError:
            return False
        fields = dict(pairs)
        fits = parts.path == PATH and len(fields) == len(pairs)
        if not fits or not hmac.compare_digest(fields.get("state", "").encode(), self.state.encode()):
            return False
        self.answer = fields
        return True

    def handle_error(self, request: object, client_address: object) -> None:
        """Let a connection that broke be the problem of whoever broke it."""

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        self._thread.join()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    timeout = SLOW
    server: Loopback

    def do_GET(self) -> None:
        """Answer a browser."""
        taken = self.server.offer(self.path)
        page = DONE if taken else STRANGE
        self.send_response(200 if taken else 400)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def version_string(self) -> str:
        """Say who answers, and nothing of how."""
        return "remit"

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
        """Log nothing: a path carries a code."""
