"""Both ends of a call of a tool by MCP over HTTP, with the standard library alone: what is between them is measured.

``mcp_ends.py server PORT`` has one tool, which answers at once. ``mcp_ends.py caller URL SECONDS`` begins a session and
calls it, one call after the other, and prints one line of JSON: how many, the median and the 99th percentile in ms.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import statistics
import sys
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

VERSION = "2025-11-25"
TOOL = {
    "name": "look",
    "description": "Look something up.",
    "inputSchema": {"type": "object", "properties": {"q": {"type": "string"}}},
}
RESULTS: Mapping[str, object] = {
    "initialize": {
        "protocolVersion": VERSION,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "bench", "version": "1"},
    },
    "tools/list": {"tools": [TOOL]},
    "tools/call": {"content": [{"type": "text", "text": "x" * 512}], "isError": False},
    "ping": {},
}
ARGUMENTS = {"q": "the weather in Berlin"}


class _Answers(asyncio.Protocol):
    """Answers each message; none is sent before the one before it is answered."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._had = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a stream socket

    def data_received(self, data: bytes) -> None:
        self._had += data
        head, end, body = self._had.partition(b"\r\n\r\n")
        at = head.lower().find(b"content-length:")
        if not end or (at >= 0 and len(body) < int(head[at + 15 :].partition(b"\r\n")[0])):
            return
        self._had = b""
        assert self._transport is not None  # noqa: S101 - it has been connected
        self._transport.write(_answer(head, body))


def _answer(head: bytes, body: bytes) -> bytes:
    if not head.startswith(b"POST"):
        return b"HTTP/1.1 405 Method Not Allowed\r\nContent-Length: 0\r\n\r\n"
    asked = json.loads(body)
    if "id" not in asked:
        return b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n"
    told = json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": RESULTS.get(asked["method"], {})}).encode()
    length = f"Content-Length: {len(told)}\r\n\r\n".encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n" + length + told


async def server(port: int) -> None:
    """Answer everybody."""
    made = await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", port, backlog=1_024)
    await made.serve_forever()


class Caller:
    """A client on one connection."""

    def __init__(self, url: str) -> None:
        """Connect to a URL, and begin a session."""
        self._at, self._id = urlsplit(url), 0
        self._connection = http.client.HTTPConnection(self._at.hostname or "", self._at.port, timeout=10)
        self._headers = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}
        about = {"protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}}
        self.ask("initialize", about)
        self._headers["MCP-Protocol-Version"] = VERSION
        self._post({"jsonrpc": "2.0", "method": "notifications/initialized"})

    def ask(self, method: str, params: Mapping[str, object]) -> Any:
        """Return a result."""
        self._id += 1
        text = self._post({"jsonrpc": "2.0", "id": self._id, "method": method, "params": params})
        lines = [line[5:] for line in text.splitlines() if line.startswith("data:") and "jsonrpc" in line]
        return json.loads(lines[-1] if lines else text)["result"]

    def _post(self, message: Mapping[str, object]) -> str:
        self._connection.request("POST", self._at.path, json.dumps(message), self._headers)
        answer = self._connection.getresponse()
        session = answer.headers.get("Mcp-Session-Id")
        if session is not None:
            self._headers["Mcp-Session-Id"] = session
        return answer.read().decode()


def caller(url: str, seconds: float) -> None:
    """Call the tool, and print what that took."""
    client = Caller(url)
    name = next(tool["name"] for tool in client.ask("tools/list", {})["tools"] if tool["name"].endswith(TOOL["name"]))
    call, times, errors = {"name": name, "arguments": ARGUMENTS}, list[float](), 0
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end:
        if client.ask("tools/call", call).get("isError"):
            errors += 1
        else:
            times.append(time.perf_counter() - begun)
    cuts = statistics.quantiles(times, n=100)
    told = {
        "n": len(times),
        "errors": errors,
        "p50": cuts[49] * 1e3,
        "p99": cuts[98] * 1e3,
        "rate": len(times) / seconds,
    }
    print(json.dumps(told), flush=True)


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["server", port]:
            asyncio.run(server(int(port)))
        case ["caller", url, seconds]:
            caller(url, float(seconds))
        case ["caller", seconds]:  # in a run
            caller(os.environ["REMIT_URL_BENCH"], float(seconds))
