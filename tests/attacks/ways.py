"""The ways into a run's proxy: absolute form, a `CONNECT`, the server name of TLS; the last two in HTTP/2, too."""

from __future__ import annotations

import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from h2.errors import ErrorCodes

from remit.core.secret import Secret
from remit.gateway.downstream import LINGER
from remit.gateway.server import Channel
from remit.ports import Resource
from remit.ports.runs import ReachedHost, RunReach
from remit.run.certificate import reach
from tests.broker.world import OPERATOR, details
from tests.gateway.rig import ALL, OTHER_SECRET, PLACEHOLDER, Reply, Rig, Wire, rig
from tests.support.http2_client import Answer, Http2Client, Pairs
from tests.support.upstream import Upstream

WAYS = ("absolute", "connect", "name")  # of HTTP/1.1, where a test writes bytes
HTTP2 = ("http2", "http2 by name")
ASKED = (*WAYS, *HTTP2)  # where a request is all that a test needs
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
        wire = await self.r.wire(self.ports[way.endswith("name")])
        if way in {"connect", "http2"}:
            await wire.send(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
            if (await wire.reply("HEAD")).status != 200:
                raise ConnectionRefusedError
        if way != "absolute":
            context = self.trust()
            if way in HTTP2:
                context.set_alpn_protocols(["h2"])
            await wire.writer.start_tls(context, server_hostname=host)
        return wire

    async def speak(self, way: str, host: str) -> Http2Client:
        """Connect by one of the ways of HTTP/2."""
        wire = await self.open(way, host)
        assert wire.writer.get_extra_info("ssl_object").selected_alpn_protocol() == "h2"
        return Http2Client(wire.reader, wire.writer)

    async def ask(self, way: str, host: str, target: str, *lines: str, body: bytes = b"", method: str = "GET") -> Reply:
        """Make one request on a connection of its own. What HTTP/2 refuses by an error of its own counts as 400."""
        if way in HTTP2:
            client = await self.speak(way, host)
            reply = told(client, await client.answer(begun(client, host, target, *lines, body=body, method=method)))
            client.writer.close()
            return reply
        wire = await self.open(way, host)
        await wire.send(self.request(way, host, target, *lines, body=body, method=method))
        reply = await wire.reply(method)
        wire.close()
        return reply

    async def rest(self, wire: Wire) -> bytes:
        """Return what comes after a refusal until its connection ends.

        In TLS that is once the gateway listens no longer, and that is at once here: no other connection ends by it.
        """
        self.r.gateway.connections.sweep(self.r.gateway.plane.now + 2 * LINGER)
        return await wire.rest()

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


def begun(client: Http2Client, host: str, target: str, *lines: str, body: bytes = b"", method: str = "GET") -> int:
    """Begin a request in HTTP/2 with the header lines of one in HTTP/1.1."""
    named = (line.encode("utf-8", "surrogateescape").partition(b":") for line in lines)
    pairs = [(name.lower(), value.strip(b" ")) for name, _, value in named]
    length = [(b"content-length", b"%d" % len(body))] if body else []
    pseudo: Pairs = [(":method", method), (":scheme", "https"), (":authority", host), (":path", target.encode("utf-8"))]
    number = client.ask_raw([*pseudo, *pairs, *length], ended=not body)
    if body:
        client.http.send_data(number, body, end_stream=True)
    return number


def told(client: Http2Client, answer: Answer) -> Reply:
    """Return an answer in HTTP/2 as one in HTTP/1.1; ``raw`` has all of its headers as they read."""
    broken = ErrorCodes.PROTOCOL_ERROR in {answer.reset, client.gone}
    status = 400 if broken and not answer.status else answer.status
    return Reply(status, answer.headers, answer.body, answer.decoded + b"\r\n" + answer.body)


@asynccontextmanager
async def proxies(
    *raw: Mapping[str, object], upstream: Upstream | None = None, settings: Mapping[str, object] | None = None
) -> AsyncIterator[Proxies]:
    """Start a run's proxy, in both its forms; ``raw`` is its grant, all of both resources if not said."""
    resolved: Resolved = []

    async def lookup(host: str, port: int) -> list[str]:
        resolved.append((host, port))
        return ["127.0.0.1"]

    async with Upstream() as other, rig(upstream=upstream, settings=settings, lookup=lookup) as r:
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
