"""The ways into a run's proxy: a target in absolute form, a `CONNECT`, and the server name of TLS."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from remit.core.secret import Secret
from remit.gateway.server import Channel
from remit.ports import Resource
from remit.ports.runs import ReachedHost, RunReach
from remit.run.certificate import reach
from tests.broker.world import OPERATOR, details
from tests.gateway.rig import ALL, OTHER_SECRET, PLACEHOLDER, Reply, Rig, Wire, rig
from tests.support.upstream import Upstream

WAYS = ("absolute", "connect", "name")
OTHER_PLACEHOLDER = "sk-other-fedcba9876543210fedcba9876543210"
HOSTS = {"api.test": ReachedHost("api"), "else.test": ReachedHost("else")}
Resolved = list[tuple[str, int]]


@dataclass
class Proxies:
    """The listeners of a run that reaches `api.test` and `else.test`, each a resource with a key of its own."""

    r: Rig
    other: Upstream  # of `else`
    reached: RunReach
    resolved: Resolved  # names that were asked for
    ports: dict[bool, int] = field(default_factory=dict)  # by whether TLS begins at once

    async def open(self, way: str, host: str) -> Wire:
        """Connect by one of the ways; ssl.SSLError or OSError where the host is refused."""
        wire = await self.r.wire(self.ports[way == "name"])
        if way == "connect":
            await wire.send(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
            if (await wire.reply("HEAD")).status != 200:
                raise ConnectionRefusedError
        if way != "absolute":
            await wire.writer.start_tls(self.trust(), server_hostname=host)
        return wire

    async def ask(self, way: str, host: str, target: str, *lines: str, body: bytes = b"", method: str = "GET") -> Reply:
        """Make one request on a connection of its own."""
        wire = await self.open(way, host)
        await wire.send(self.request(way, host, target, *lines, body=body, method=method))
        reply = await wire.reply(method)
        wire.close()
        return reply

    def request(self, way: str, host: str, target: str, *lines: str, body: bytes = b"", method: str = "GET") -> bytes:
        """Write a request as it is for one of the ways."""
        whole = f"http://{host}{target}" if way == "absolute" else target
        length = (f"Content-Length: {len(body)}",) if body else ()
        head = "\r\n".join([f"{method} {whole} HTTP/1.1", f"Host: {host}", *lines, *length])
        return head.encode("utf-8", "surrogateescape") + b"\r\n\r\n" + body

    def trust(self) -> ssl.SSLContext:
        """Return what a client in the run trusts."""
        return ssl.create_default_context(cadata=self.reached.certificate)

    def nothing_went_out(self) -> bool:
        """Whether no upstream was asked anything, and no name was looked up."""
        return (self.r.upstream.seen, self.other.seen, self.resolved) == ([], [], [])


@asynccontextmanager
async def proxies(*raw: Mapping[str, object], upstream: Upstream | None = None) -> AsyncIterator[Proxies]:
    """Start a run's proxy, in both its forms; ``raw`` is its grant, all of both resources if not said."""
    resolved: Resolved = []

    async def lookup(host: str, port: int) -> list[str]:
        resolved.append((host, port))
        return ["127.0.0.1"]

    async with Upstream() as other, rig(upstream=upstream, lookup=lookup) as r:
        bound = details({**ALL, "resource": "else"})
        await r.broker.put_resource(
            OPERATOR, Resource("else", "http", other.url, bound, None, {}), Secret(OTHER_SECRET)
        )
        grant = await r.opened(*(raw or (ALL, {**ALL, "resource": "else"})))
        r.grant = grant
        now = datetime.now(UTC)
        made = Proxies(r, other, reach("run_1", HOSTS, now, now + timedelta(hours=1), {}), resolved)
        channel = Channel(grant.id, {"api": PLACEHOLDER, "else": OTHER_PLACEHOLDER})
        for by_name in (False, True):
            sock = socket.create_server(("127.0.0.1", 0))
            sock.setblocking(False)
            await r.gateway.proxy(sock, channel, made.reached, by_name=by_name)
            made.ports[by_name] = int(sock.getsockname()[1])
        resolved.clear()
        yield made
