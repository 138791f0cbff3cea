"""What a run does that wants no harm, with nothing but the standard library.

``honest.py one URL`` asks for one thing after the other, and prints a line for each: when it began and ended (seconds
of the monotonic clock, which a run shares with its machine), and the status; 0: no answer came.
``honest.py crowd URL COUNT`` posts bodies that are judged, over so many connections. ``honest.py upstream PORT`` is
what they ask: 1 KiB for everybody, on a port of loopback.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import sys
import time
from contextlib import suppress
from urllib.parse import urlsplit

PAUSE = 0.002  # seconds
WAIT = 10.0  # seconds for an answer
BODY = json.dumps({"t": "x" * 700, "n": list(range(50)), "o": [{"a": "b"}] * 10}).encode()
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1024\r\n\r\n" + b"x" * 1_024


def one(url: str) -> None:
    """Ask for one thing after the other."""
    to, connection = urlsplit(url), None
    while True:
        begun, status = time.monotonic(), 0
        try:
            connection = connection or http.client.HTTPConnection(to.hostname or "", to.port, timeout=WAIT)
            connection.request("GET", to.path)
            answer = connection.getresponse()
            answer.read()
            status = answer.status
        except (OSError, http.client.HTTPException):
            if connection is not None:
                connection.close()
            connection = None
        print(begun, time.monotonic(), status, flush=True)
        time.sleep(PAUSE)


async def crowd(url: str, count: int) -> None:
    """Post what is judged, over many connections."""
    to = urlsplit(url)
    head = f"POST {to.path} HTTP/1.1\r\nHost: {to.netloc}\r\nContent-Type: application/json\r\n"
    asked = f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY

    async def post() -> None:
        reader, writer = await asyncio.open_connection(to.hostname, to.port)
        while True:
            writer.write(asked)
            await _answer(reader)

    async def again() -> None:
        while True:
            with suppress(OSError, EOFError):
                await post()
            await asyncio.sleep(PAUSE)

    await asyncio.gather(*(again() for _ in range(count)))


async def _answer(reader: asyncio.StreamReader) -> None:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    at = head.index(b"content-length:")
    await reader.readexactly(int(head[at + 15 : head.index(b"\r\n", at)]))


class _Answers(asyncio.Protocol):
    """Answers each request, whatever it is; none is sent before the one before it is answered."""

    def __init__(self) -> None:
        self._transport: asyncio.WriteTransport | None = None
        self._had = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a stream socket

    def data_received(self, data: bytes) -> None:
        self._had += data
        head, end, body = self._had.partition(b"\r\n\r\n")
        at = head.lower().find(b"content-length:")
        if end and self._transport and (at < 0 or len(body) >= int(head[at + 15 :].partition(b"\r\n")[0])):
            self._had = b""
            self._transport.write(ANSWER)


async def upstream(port: int) -> None:
    """Answer everybody."""
    server = await asyncio.get_running_loop().create_server(_Answers, "127.0.0.1", port, backlog=1_024)
    await server.serve_forever()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["one", url]:
            one(url)
        case ["crowd", url, count]:
            asyncio.run(crowd(url, int(count)))
        case ["upstream", port]:
            asyncio.run(upstream(int(port)))
