"""The gateway as a conversation without sockets: bytes in at both ends, bytes out at both ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from remit.gateway.connection import ClientConnection
from remit.gateway.downstream import GatewayListener
from remit.gateway.fronts.path import PathFront
from remit.gateway.upstream import Pool, UpstreamConnection
from tests.gateway.rig import PLACEHOLDER, Rig, rig


class Line(asyncio.Transport):
    """A transport that keeps what is written and what is done to it."""

    def __init__(self) -> None:
        super().__init__()
        self.out = bytearray()
        self.log: list[str] = []
        self.protocol: asyncio.Protocol | None = None

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.out += data

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return "close" in self.log or "abort" in self.log

    def close(self) -> None:
        self._end("close")

    def abort(self) -> None:
        self._end("abort")

    def _end(self, how: str) -> None:
        if not self.is_closing():
            self.log.append(how)
            if self.protocol is not None:
                asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    def pause_reading(self) -> None:
        self.log.append("pause")

    def resume_reading(self) -> None:
        self.log.append("resume")

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.log.append("eof")

    def take(self) -> bytes:
        """Return what was written since the last look."""
        data, self.out = bytes(self.out), bytearray()
        return data


class SecureLine(Line):
    """A line in TLS which has agreed on HTTP/2."""

    def get_extra_info(self, name: str, default: object = None) -> object:
        return self if name == "ssl_object" else default

    def selected_alpn_protocol(self) -> str:
        return "h2"


class PlayedPool(Pool):
    """A pool whose connections are lines."""

    __slots__ = ("lines",)

    def __init__(self, real: Pool) -> None:
        super().__init__(real.credential, real._offers, real._quota, real._now, real._spare, real._turns)
        self.lines: list[tuple[UpstreamConnection, Line]] = []

    async def connect(self) -> UpstreamConnection:
        upstream = UpstreamConnection(self)
        line = Line()
        line.protocol = upstream
        upstream.connection_made(line)
        self.lines.append((upstream, line))
        return upstream


@dataclass
class Play:
    """A client, the gateway, and its upstream."""

    rig: Rig
    client: ClientConnection
    line: Line
    lines: list[tuple[UpstreamConnection, Line]] = field(default_factory=list)

    async def client_says(self, data: bytes) -> None:
        """>> bytes from the client, and time for what follows from them."""
        self.client.data_received(data)
        await self.pause()

    async def upstream_says(self, data: bytes, which: int = -1) -> None:
        """>> bytes from the upstream."""
        self.lines[which][0].data_received(data)
        await self.pause()

    def client_hears(self) -> bytes:
        """<< bytes to the client."""
        return self.line.take()

    def upstream_hears(self, which: int = -1) -> bytes:
        """<< bytes to the upstream."""
        return self.lines[which][1].take()

    async def pause(self) -> None:
        """Let everything happen that needs no more bytes."""
        for _ in range(40):
            await asyncio.sleep(0)


@asynccontextmanager
async def play(*raw: Mapping[str, object]) -> AsyncIterator[Play]:
    """Set the scene: a channel with a placeholder, one client connected."""
    async with rig(*raw) as r:
        # one real request compiles the route and opens the secret
        assert (await r.get("/api/v1/public/warm")).status == 200
        pool = PlayedPool(r.pool)
        r.pool = pool
        front = PathFront(r.grant.id, frozenset({b"gw"}))
        listener = GatewayListener(r.gateway.plane, front, {"api": PLACEHOLDER}, r.gateway.quota.of("task"))
        client = ClientConnection(listener, r.gateway.connections)
        line = Line()
        line.protocol = client
        client.connection_made(line)
        yield Play(r, client, line, pool.lines)
