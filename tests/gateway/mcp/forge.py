"""An MCP server as a test writes it: raw answers over HTTP, and every message that it got."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from remit.core import scope
from remit.core.secret import Secret
from remit.gateway.server import Channel
from remit.ports import Resource
from tests.broker.world import OPERATOR
from tests.gateway.rig import SECRET, Reply, Rig, Wire, rig
from tests.support.upstream import Seen, Upstream, chunked, whole

JSON = "Content-Type: application/json"
EVENTS = "Content-Type: text/event-stream"
CALLS = {"type": "mcp", "resource": "forge", "actions": ["tools/call"], "tools": {"open": {"repo": "acme"}}}
ASKED = {"type": "mcp", "resource": "forge", "actions": ["tools/call", "elicitation/create"], "tools": "any"}
BOUND = {
    "type": "mcp",
    "resource": "forge",
    "actions": ["tools/call", "resources/read", "prompts/get", "elicitation/create"],
    "tools": "any",
    "resources": ["**"],
    "prompts": "any",
}
OTHER = {"type": "http", "resource": "api", "actions": ["GET"], "paths": ["/**"]}


def message(method: str, params: Mapping[str, Any] | None = None, id_: int | None = 1) -> bytes:
    members: dict[str, object] = {"jsonrpc": "2.0", "method": method}
    members |= {} if id_ is None else {"id": id_}
    return json.dumps(members if params is None else {**members, "params": params}).encode()


def call(name: str, **arguments: object) -> bytes:
    return message("tools/call", {"name": name, "arguments": arguments})


def answer(body: object, *headers: str, status: str = "200 OK") -> bytes:
    return whole(status, json.dumps(body).encode(), JSON, *headers)


def result(**members: object) -> bytes:
    return answer({"jsonrpc": "2.0", "id": 1, "result": members})


def event(said: Mapping[str, object]) -> bytes:
    return f"data: {json.dumps(said)}\n\n".encode()


class Server(Upstream):
    """Such a server. ``pieces`` are sent as a stream instead, each when the one before has arrived; without its end.

    Where it takes some ``tokens`` alone, it answers 401 to others.
    """

    pieces: Sequence[bytes] = ()
    tokens: frozenset[str] | None = None
    ends = True

    async def _answer(self, writer: asyncio.StreamWriter, seen: Seen, path: str) -> bool:
        if self.tokens is not None and seen.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            writer.write(answer({"error": "invalid_token"}, status="401 Unauthorized"))
            await writer.drain()
            return True
        if not self.pieces:
            return await super()._answer(writer, seen, path)
        pieces, self.pieces = self.pieces, ()
        writer.write(f"HTTP/1.1 200 OK\r\n{EVENTS}\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
        for piece in pieces:
            await asyncio.sleep(0.02)  # they are to arrive one by one
            writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            await writer.drain()
        while not (self.ends or writer.is_closing()):
            writer.write(b"3\r\n:\n\n\r\n")
            await writer.drain()
            await asyncio.sleep(0.005)
        if not self.ends:
            self.cut.set()
            return False
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def events(*said: str | Mapping[str, object]) -> bytes:
    """Write a stream of events, each in a chunk of its own."""
    lines = [one if isinstance(one, str) else f"data: {json.dumps(one)}\n\n" for one in said]
    return chunked([line.encode() for line in lines], EVENTS)


@dataclass
class Forge:
    """A gateway in front of such a server."""

    rig: Rig
    server: Server

    def answers(self, raw: bytes) -> None:
        self.server._routes["/mcp"] = raw

    @property
    def seen(self) -> list[Seen]:
        return self.server.seen

    async def post(self, body: bytes, *lines: str, target: str = "/forge", port: int | None = None) -> Reply:
        return await self.rig.get(target, JSON, *lines, method="POST", body=body, port=port)

    async def opened(self, *lines: str) -> Wire:
        """Open a stream of what the server says by itself."""
        wire = await self.rig.wire()
        await wire.send(self.rig.request("/forge", "Accept: text/event-stream", *lines))
        return wire


@asynccontextmanager
async def forge(
    *details: Mapping[str, object], oauth: Mapping[str, object] | None = None, **more: Any
) -> AsyncIterator[Forge]:
    """Start both, with a grant of details; the server answers with an empty result until it is told otherwise."""
    async with Server(routes={"/mcp": result()}) as server, rig(OTHER, **more) as gate:
        bound = scope.parse([BOUND, {**BOUND, "actions": ["resources/subscribe", "completion/complete"]}])
        there = Resource("forge", "mcp", f"mcp+{server.url}/mcp", bound, None, {"oauth": oauth} if oauth else {})
        await gate.broker.put_resource(OPERATOR, there, None if oauth else Secret(SECRET))
        gate.grant = await gate.opened(*(details or (CALLS,)))
        gate.port = await gate.listen(Channel(gate.grant.id, {"forge": "sk-place-0123456789abcdef0123456789abcdef"}))
        yield Forge(gate, server)
