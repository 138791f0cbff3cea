"""A gateway on loopback sockets, a real broker on a store in memory, and an upstream that gives everything back."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache, partial

import uvloop

from remit.broker import Broker
from remit.broker.connections import Providers
from remit.core import audit, scope
from remit.core.audit import Event
from remit.core.policy import Policy, within_bounds
from remit.core.principal import Claims, GrantView, Holder
from remit.core.request import Bounds, GrantRequest
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.core.task import Grant
from remit.gateway.authorize import Rules
from remit.gateway.dialling import Lookup, look_up, offers
from remit.gateway.fronts.discovery import Discovery
from remit.gateway.fronts.path import Verifier
from remit.gateway.server import Channel, Gateway
from remit.gateway.upstream import Pool
from remit.jose.token import LIFE
from remit.ports import Resource, Store
from remit.ports.credential import SourceOf
from tests.broker.world import OPERATOR, ClearSealer
from tests.grant_requests import changed
from tests.support.following import following
from tests.support.kinds import NOTHING_LENT, Make, Planner, serving, simulated
from tests.support.link import edge_of
from tests.support.memory_store import MemoryStore
from tests.support.upstream import Upstream

SECRET = "rmt-real-3f1c0a9be7d24856b0d1c2e3f4a59687-k"
OTHER_SECRET = "rmt-othr-77aa0a9be7d24856b0d1c2e3f4a5ffff-k"
PLACEHOLDER = "sk-place-0123456789abcdef0123456789abcdef"
ALL = {
    "type": "http",
    "resource": "api",
    "actions": ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
    "paths": ["/**"],
    "args": "any",
}


def http(**more: object) -> dict[str, object]:
    """Return an http detail on `api`."""
    return {"type": "http", "resource": "api", "actions": ["GET"], "paths": ["/v1/public/**"], **more}


def permitting(rules: Rules, access: Access) -> int | None:
    """Return the index of the first rule that permits a use, or None."""
    by = (rule for rule in rules if rule.covers(access.action, access.path) and rule.permits(access.args))
    return next((rule.index for rule in by), None)


@dataclass(frozen=True, slots=True)
class Reply:
    """A response as a raw client reads it."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    raw: bytes

    def json(self) -> dict[str, object]:
        """Return the body as a JSON object."""
        value = json.loads(self.body)
        assert isinstance(value, dict)
        return value


class Wire:
    """A raw client connection: bytes out, bytes in; nothing is normalised."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def reply(self, method: str = "GET") -> Reply:
        async with asyncio.timeout(20):
            head = await self.reader.readuntil(b"\r\n\r\n")
            line, *lines = head[:-4].decode("latin-1").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (text.partition(":") for text in lines)}
            status = int(line.split(" ")[1])
            if status == 100:
                return Reply(status, headers, b"", head)
            body = await self._body(headers, method, status)
            return Reply(status, headers, body, head + body)

    async def _body(self, headers: Mapping[str, str], method: str, status: int) -> bytes:
        if method == "HEAD" or status in {204, 304}:
            return b""
        if headers.get("transfer-encoding") != "chunked":
            return await self.reader.readexactly(int(headers.get("content-length", "0")))
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        assert await self.reader.readuntil(b"\r\n") == b"\r\n"
        return body

    async def rest(self) -> bytes:
        """Return everything until the connection ends, however it ends."""
        data = b""
        async with asyncio.timeout(20):
            try:
                while piece := await self.reader.read(65_536):
                    data += piece
            except ConnectionError:
                pass
        return data

    def close(self) -> None:
        self.writer.close()


@dataclass
class Rig:
    """Everything around one gateway."""

    broker: Broker
    gateway: Gateway
    store: Store
    upstream: Upstream
    now: list[datetime]
    ticks: list[float]
    grant: Grant
    anew: Callable[[], Gateway]
    port: int = 0
    wires: list[Wire] = field(default_factory=list)

    @property
    def pool(self) -> Pool:
        """The pool of the channel's task."""
        return self.gateway.plane.pools._tasks[self.broker._tasks.task_of(self.grant.id).id]["api"]

    @pool.setter
    def pool(self, pool: Pool) -> None:
        self.gateway.plane.pools._tasks[self.broker._tasks.task_of(self.grant.id).id]["api"] = pool

    async def wire(self, port: int | None = None) -> Wire:
        """Open a raw connection to the gateway."""
        wire = Wire(*await asyncio.open_connection("127.0.0.1", port or self.port, limit=1 << 22))
        self.wires.append(wire)
        return wire

    async def get(
        self, target: str, *lines: str, method: str = "GET", body: bytes = b"", port: int | None = None
    ) -> Reply:
        """Make one request on a connection of its own; ``target`` goes out as it is."""
        wire = await self.wire(port)
        await wire.send(self.request(target, *lines, method=method, body=body, port=port))
        reply = await wire.reply(method)
        wire.close()
        return reply

    def request(
        self, target: str, *lines: str, method: str = "GET", body: bytes = b"", port: int | None = None
    ) -> bytes:
        """Write one request."""
        head = [f"{method} {target} HTTP/1.1", f"Host: 127.0.0.1:{port or self.port}", *lines]
        if body:
            head.append(f"Content-Length: {len(body)}")
        return "\r\n".join(head).encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body

    async def listen(self, channel: Channel | None) -> int:
        """Open one more listener and return its port."""
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        sock.listen(128)
        sock.setblocking(False)
        await self.gateway.listen(sock, channel)
        return int(sock.getsockname()[1])

    async def restart(self) -> None:
        """End the gateway, and go on with another one, which knows nothing of what this one did."""
        await self.gateway.close()
        self.gateway = self.anew()
        self.port = await self.listen(Channel(self.grant.id, {}))

    async def child(self, *raw: Mapping[str, object], **more: object) -> Grant:
        """Delegate from the channel's grant."""
        task = self.broker._tasks.task_of(self.grant.id)
        wanted = changed(GrantRequest(scope.parse([dict(item) for item in raw])), more)
        return (await self.broker.delegate(Holder(task.id, self.grant.id), self.grant.id, wanted)).grant

    async def opened(self, *raw: Mapping[str, object]) -> Grant:
        """Open another task."""
        wanted = GrantRequest(
            scope.parse([dict(item) for item in raw]), Bounds(timedelta(minutes=15), depth=3, fan_out=9)
        )
        return (await self.broker.open(OPERATOR, replace(wanted, purpose="another piece of work"))).grant

    async def events(self, name: str = "") -> list[Event]:
        """Return the audit log, one event for each request."""
        found = [audit.read(entry) for entry in await self.store.entries(0, 10_000)]
        return [
            replace(event, request=request)
            for event in found
            for request in ([None] if event.request is None else audit.ungrouped(event.request))
            if event.event.startswith(name)
        ]

    async def settled(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds."""
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - the condition is the test's own
                await asyncio.sleep(0.002)

    async def outcomes(self, count: int) -> list[Event]:
        """Wait for the outcome entries of ``count`` requests and return them."""
        async with asyncio.timeout(10):
            while len(found := await self.events("resource.outcome")) < count:  # noqa: ASYNC110 - it is in the store
                await asyncio.sleep(0.002)
        return found


@asynccontextmanager
async def rig(
    *raw: Mapping[str, object],
    tls: Callable[[], ssl.SSLContext] | None = None,
    upstream: Upstream | None = None,
    settings: Mapping[str, object] | None = None,
    destination: str | None = None,
    base: str = "",
    secret: str | None = SECRET,
    verify: Verifier | None = None,
    placeholders: Mapping[str, str] | None = None,
    store: Store | None = None,
    source_of: SourceOf = lambda _: None,
    make: Make | None = None,
    plan: Planner | None = None,
    lookup: Lookup = look_up,
    providers: Providers | None = None,
    discovery: Discovery | None = None,
    decide: Policy = within_bounds,
) -> AsyncIterator[Rig]:
    """Start everything: one resource `api` at the upstream, one task with ``raw``, one channel.

    ``make`` is the engine of databases, ``plan`` how their leases are named.
    """
    ids = itertools.count()
    now = [datetime(2026, 1, 1, tzinfo=UTC)]
    ticks = [0.0]
    store = store or MemoryStore()

    def new_id(prefix: str) -> str:
        return f"{prefix}_{next(ids)}"

    broker = Broker(
        store=store,
        **(serving(make, plan) if make else {"kinds": simulated(), "context": NOTHING_LENT}),
        sealer=ClearSealer(),
        clock=lambda: now[0],
        new_id=new_id,
        providers=providers,
        decide=decide,
    )
    await broker.start()
    async with upstream or Upstream() as up:
        bound = scope.parse([{**ALL, "actions": [*_METHODS, "QUERY"]}])
        resource = Resource("api", "http", destination or up.url + base, bound, None, dict(settings or {}))
        await broker.put_resource(OPERATOR, resource, Secret(secret) if secret is not None else None)
        wanted = GrantRequest(
            scope.parse([dict(i) for i in raw or (ALL,)]), Bounds(timedelta(minutes=15), depth=3, fan_out=99)
        )
        grant = (await broker.open(OPERATOR, replace(wanted, purpose="draft the CFO summary"))).grant
        there = edge_of(broker)
        anew = partial(
            Gateway,
            there,
            broker.kinds,
            new_id,
            seconds=lambda: time.monotonic() + ticks[0],
            clock=lambda: now[0],
            tls=_verifying() if tls is None else offers(tls),
            verify=verify,
            source_of=source_of,
            lookup=lookup,
            discovery=discovery,
        )
        made = Rig(broker, gateway := anew(), store, up, now, ticks, grant, anew)
        given = {"api": PLACEHOLDER} if placeholders is None else placeholders
        made.port = await made.listen(Channel(grant.id, given) if verify is None else None)
        with following(there.notices(), gateway.noticed):
            try:
                yield made
            finally:
                for wire in made.wires:
                    wire.close()
                await made.gateway.close()


def bearing(shown: list[Claims]) -> Verifier:
    """Return what lets everybody in as whoever was shown last."""

    async def verify(_headers: Mapping[str, str], _method: str, _url: str, _name: str) -> Holder:
        return Holder(shown[-1].task, shown[-1].grant, shown[-1])

    return verify


def borne(view: GrantView, now: datetime) -> Claims:
    """Return what a bearer's token says that was minted just now."""
    since, until = int(now.timestamp()), int((now + LIFE).timestamp())
    return Claims(view.task, view.id, None, "", "", None, "tok_1", since, until, "", None, {})


_verifying = cache(offers)  # which takes longer than most scenes
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]


def play(scene: Callable[[], Awaitable[None]]) -> None:
    """Run a test's scene on the loop that serves, or on the one that `REMIT_LOOP` names."""

    async def main() -> None:
        await scene()

    if os.environ.get("REMIT_LOOP") == "asyncio":
        asyncio.run(main())
    else:
        uvloop.run(main())
