"""What the attackers of ``revoke_under_attack`` run, with nothing but the standard library.

``hostile.py run SECONDS URL`` is code inside a run: bodies of JSON, an upstream's bomb, connections without end,
sockets that linger passed over the run's own sockets, empty messages. ``hostile.py strangers SECONDS PORT`` are 128
callers of the control plane: half say nothing, half post the largest forms. ``hostile.py upstream SECONDS PORT``
answers with what inflates a thousandfold.
"""

from __future__ import annotations

import array
import gzip
import http.client
import http.server
import json
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlencode, urlsplit

LINGER = 5  # seconds that a passed socket holds up whoever closes it
STRANGERS = 128
JSON = b"[" + b'{"a":[1,2,3]},' * 70_000 + b'{"a":0}]'
PATHS = [f"/v1/{number}/*" for number in range(255)]
DETAILS = [{"type": "http", "resource": "bomb", "actions": ["GET"], "paths": PATHS}] * 10
BOMB = gzip.compress(bytes(300 * 1024 * 1024), 9) if "upstream" in sys.argv else b""
FORM = urlencode(
    {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "authorization_details": json.dumps(DETAILS, separators=(",", ":")),
    }
).encode()


def bodies(url: str) -> None:
    """Post JSON that is costly to judge."""
    _requested(url, "POST", "/json", JSON, {"Content-Type": "application/json"})


def bomb(url: str) -> None:
    """Ask the upstream for an answer that inflates a thousandfold."""
    _requested(url, "GET", "/bomb", None, {})


def _requested(url: str, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> None:
    to = urlsplit(url)
    connection = http.client.HTTPConnection(to.hostname or "", to.port, timeout=5)
    try:
        connection.request(method, to.path + path, body, headers)
        answer = connection.getresponse()
        while answer.read(65_536):
            pass
    finally:
        connection.close()


def crowd(url: str) -> None:
    """Hold many connections."""
    to = urlsplit(url)
    held: list[socket.socket] = []
    with suppress(OSError):
        held.extend(socket.create_connection((to.hostname, to.port), timeout=2) for _ in range(512))
    time.sleep(1)
    for each in held:
        each.close()


def lingering(path: str, kind: socket.SocketKind) -> None:
    """Pass a socket whose last close waits, and let go of it."""
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as far:
        near, _ = server.accept()
        near.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                near.send(bytes(65_536))
        with near, socket.socket(socket.AF_UNIX, kind) as passing, suppress(OSError):
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, LINGER))
            passing.connect(path)
            passing.sendmsg([b"{}"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [near.fileno()] * 8))])
        with suppress(OSError):
            far.recv(1)


def messages(path: str) -> None:
    """Send empty messages."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as passing:
        passing.settimeout(2)
        passing.connect(path)
        for _ in range(10_000):
            passing.send(b"{}")


def silent(port: int) -> None:
    """Connect, and say nothing."""
    with socket.create_connection(("127.0.0.1", port), timeout=5) as sock:
        sock.recv(1)


def forms(port: int) -> None:
    """Post the largest form that a stranger may."""
    _requested(
        f"http://127.0.0.1:{port}", "POST", "/oauth/token", FORM, {"Content-Type": "application/x-www-form-urlencoded"}
    )


class Upstream(http.server.BaseHTTPRequestHandler):
    """Answers with a bomb."""

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


def repeated(what: Callable[[], None], end: float) -> None:
    """Do something until the time is up, whatever comes of it."""
    while time.monotonic() < end:
        with suppress(OSError, http.client.HTTPException):
            what()
        time.sleep(0.001)  # a refusal at once must not become a loop that measures this machine


def main(role: str, seconds: float, where: str) -> None:
    """Attack for ``seconds``."""
    if role == "upstream":
        http.server.ThreadingHTTPServer(("127.0.0.1", int(where)), Upstream).serve_forever()
    end = time.monotonic() + seconds
    if role == "strangers":
        whats = [lambda: silent(int(where)), lambda: forms(int(where))] * (STRANGERS // 2)
    else:
        channel = os.environ["REMIT_SOCKET"]
        launch = str(Path(channel).with_name("launch.sock"))
        whats = [lambda: bodies(where)] * 8 + [lambda: bomb(where)] * 3 + [lambda: crowd(where)]
        whats += [lambda: lingering(channel, socket.SOCK_STREAM), lambda: lingering(launch, socket.SOCK_SEQPACKET)] * 3
        whats += [lambda: messages(launch)] * 8
    threads = [threading.Thread(target=repeated, args=(what, end), daemon=True) for what in whats]
    for thread in threads:
        thread.start()
    print("up", flush=True)
    for thread in threads:
        thread.join(max(0.0, end + 2 - time.monotonic()))


if __name__ == "__main__":
    main(sys.argv[1], float(sys.argv[2]), sys.argv[3])
