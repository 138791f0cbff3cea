"""Several MCP servers as a test writes them, behind one endpoint."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from remit.core import scope
from remit.core.secret import Secret
from remit.gateway.server import Channel
from remit.ports import Resource
from tests.broker.world import OPERATOR
from tests.gateway.mcp.forge import EVENTS, JSON, OTHER
from tests.gateway.rig import SECRET, Reply, Rig, rig
from tests.support.upstream import Seen, Upstream, whole

Json = dict[str, Any]
Says = Callable[[Seen, Json], bytes]  # what a server answers to a message

ACTIONS = ["tools/call", "resources/read", "resources/subscribe", "prompts/get", "completion/complete"]
ASKS = ["elicitation/create", "sampling/createMessage", "roots/list"]


def detail(name: str, **more: object) -> Json:
    """Return the widest detail of one server."""
    wide = {"actions": ACTIONS + ASKS, "tools": "any", "resources": ["**"], "prompts": "any"}
    return {"type": "mcp", "resource": name, **wide, **more}


def answers(*headers: str, **members: object) -> Says:
    """Return what answers by a result."""
    return lambda _, said: whole(
        "200 OK", json.dumps({"jsonrpc": "2.0", "id": said.get("id"), "result": members}).encode(), JSON, *headers
    )


def streams(*said: Callable[[Json], object], ends: bool = True) -> Says:
    """Return what answers by a stream of events; each is made of the message that is answered."""

    def says(_: Seen, asked: Json) -> bytes:
        pieces = [f"id: e-{at}\ndata: {json.dumps(one(asked))}\n\n".encode() for at, one in enumerate(said)]
        coded = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
        head = f"HTTP/1.1 200 OK\r\n{EVENTS}\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
        return head + coded + (b"0\r\n\r\n" if ends else b"")

    return says


def result(**members: object) -> Callable[[Json], object]:
    return lambda asked: {"jsonrpc": "2.0", "id": asked["id"], "result": members}


class Townsman(Upstream):
    """One server: what it says to each method, of the protocol or of HTTP; None: nothing, ever."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        begins = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "instructions": f"I am {name}."}
        tools = [{"name": "look", "inputSchema": {"type": "object"}}]
        self.says: dict[str, Says | None] = {
            "initialize": answers(f"Mcp-Session-Id: s-{name}", **begins, serverInfo={"name": name, "version": "1"}),
            "tools/list": answers(tools=tools),
            "tools/call": answers(content=[{"type": "text", "text": f"from {name}"}]),
            "GET": lambda _, __: whole("405 Method Not Allowed", b""),
            "DELETE": lambda _, __: whole("200 OK", b""),
        }

    @property
    def said(self) -> list[Json]:
        """The messages that it got."""
        return [json.loads(seen.body) for seen in self.seen if seen.body]

    def asked(self, method: str) -> list[Json]:
        return [said for said in self.said if said.get("method") == method]

    async def _answer(self, writer: asyncio.StreamWriter, seen: Seen, path: str) -> bool:  # noqa: ARG002
        said = json.loads(seen.body) if seen.body else {}
        what = said.get("method", "answer") if said else seen.method
        says = self.says.get(what, _unknown if said.get("id") is not None and "method" in said else _taken)
        if says is None:
            await self.held.wait()
            return False
        raw = says(seen, said)
        writer.write(raw)
        await writer.drain()
        if b"chunked" in raw and not raw.endswith(b"0\r\n\r\n"):
            await self.held.wait()
            writer.write(b"0\r\n\r\n")
            await writer.drain()
        return True


def _unknown(_: Seen, said: Json) -> bytes:
    error = {"code": -32_601, "message": "Method not found"}
    return whole("200 OK", json.dumps({"jsonrpc": "2.0", "id": said["id"], "error": error}).encode(), JSON)


def _taken(_: Seen, __: Json) -> bytes:
    return whole("202 Accepted", b"")


@dataclass
class Town:
    """A gateway in front of them."""

    rig: Rig
    servers: Mapping[str, Townsman]
    session: str | None = None

    def __getitem__(self, name: str) -> Townsman:
        return self.servers[name]

    def lines(self, *lines: str) -> tuple[str, ...]:
        return (JSON, *lines, *(() if self.session is None else (f"Mcp-Session-Id: {self.session}",)))

    async def post(self, body: bytes, *lines: str, target: str = "/mcp", port: int | None = None) -> Reply:
        return await self.rig.get(target, *self.lines(*lines), method="POST", body=body, port=port)

    async def says(self, method: str, params: Json | None = None, id_: int | None = 1, *lines: str) -> Json:
        """Say one message, and return what answers it."""
        body: Json = {"jsonrpc": "2.0", "method": method, **({} if params is None else {"params": params})}
        reply = await self.post(json.dumps(body if id_ is None else {**body, "id": id_}).encode(), *lines)
        return told(reply)[-1] if reply.body else {"status": reply.status}

    async def begins(self) -> Json:
        """Begin a session."""
        params = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        body = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        reply = await self.post(json.dumps(body).encode())
        self.session = reply.headers["mcp-session-id"]
        found: Json = reply.json()
        return found


def told(reply: Reply) -> list[Json]:
    """Return the messages of an answer."""
    if not reply.headers.get("content-type", "").startswith("text/event-stream"):
        return [json.loads(reply.body)]
    return [json.loads(line[6:]) for line in reply.body.decode().split("\n") if line.startswith("data: ")]


@asynccontextmanager
async def town(*names: str, details: tuple[Json, ...] = (), **more: Any) -> AsyncIterator[Town]:
    """Start servers, and a grant of details, which otherwise has all of each."""
    async with AsyncExitStack() as stack:
        servers = {name: await stack.enter_async_context(Townsman(name)) for name in names}
        gate = await stack.enter_async_context(rig(OTHER, **more))
        for name, server in servers.items():
            there = Resource(name, "mcp", f"mcp+{server.url}/rpc", scope.parse([detail(name)]), None, {})
            await gate.broker.put_resource(OPERATOR, there, Secret(f"{SECRET}-{name}"))
        gate.grant = await gate.opened(*(details or map(detail, names)))
        gate.port = await gate.listen(Channel(gate.grant.id, {}))
        yield Town(gate, servers)
