"""Hosts that a run reaches itself: TLS of the client's own, passed on unread, for the host that was asked for."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest

from remit.core import scope
from remit.core.audit import Event
from remit.gateway import tunnel_pipe
from remit.gateway.dialling import Lookup, look_up
from remit.gateway.quota import MAX_PIPES
from remit.gateway.server import Channel
from remit.ports import Resource
from remit.ports.runs import ReachedHost, RunReach
from remit.run.certificate import reach
from tests.broker.world import OPERATOR
from tests.gateway.rig import PLACEHOLDER, Rig, Wire, http, play, rig
from tests.gateway.test_client_hello import extension, hello, named, of_openssl
from tests.support.tls_hosts import authority, noting

NPM = {"type": "egress", "resource": "npm", "hosts": ["registry.test.example", "*.files.example"]}
HOST = "registry.test.example"
REACHED = {"api.test": ReachedHost("api"), "both.files.example": ReachedHost("api")}
PASSED = {"registry.test.example": "npm", "*.files.example": "npm", "wide.example": "npm"}
CONNECT = f"CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}:443\r\n\r\n".encode()
ALERT = b"\x15\x03\x03\x00\x02\x02"


def reached() -> RunReach:
    now = datetime.now(UTC)
    return reach("run_1", REACHED, now, now + timedelta(hours=1), PASSED)


@dataclass
class Registry:
    """A server of TLS with an authority of its own, which answers what it is told in upper case."""

    port: int = 0
    connections: int = 0
    seen: list[bytes] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    certificate: str = ""  # of its authority

    def trusting(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=self.certificate)

    def context(self) -> ssl.SSLContext:
        made, context = authority([HOST, "x.files.example"])
        self.certificate = made.certificate
        noting(context, self.names)
        return context

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while data := await reader.read(65_536):
                self.seen.append(data)
                writer.write(data.upper())
                await writer.drain()
        except (ConnectionError, ssl.SSLError):
            pass
        writer.close()


@asynccontextmanager
async def registry(*, tls: bool = True) -> AsyncIterator[Registry]:
    made = Registry()
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=made.context() if tls else None)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
        for writer in made.writers:
            writer.transport.abort()


@dataclass
class Town:
    """A gateway with a run's proxy, and a registry."""

    rig: Rig
    registry: Registry
    grant: str
    proxy: int
    https: int

    async def connect(self, host: str = HOST) -> Wire:
        wire = await self.rig.wire(self.proxy)
        await wire.send(CONNECT.replace(HOST.encode(), host.encode()))
        return wire

    async def established(self, host: str = HOST) -> Wire:
        wire = await self.connect(host)
        assert (await wire.reply("HEAD")).status == 200
        return wire

    async def secured(self, host: str = HOST) -> Wire:
        wire = await self.established(host)
        await wire.writer.start_tls(self.registry.trusting(), server_hostname=host)
        return wire

    async def uses(self) -> list[tuple[str, str | None, str | None]]:
        """Return what is on record of uses and their ends."""
        await self.rig.settled(lambda: not self.rig.gateway.plane.tasks and not self.rig.gateway.plane.in_flight)
        self.rig.gateway.plane.recorder.close()
        await self.rig.settled(lambda: not self.rig.gateway.plane.tasks)
        found: Sequence[Event] = [e for e in await self.rig.events("resource.") if e.event != "resource.put"]
        return [(event.decision, event.action, event.code) for event in found]


@asynccontextmanager
async def town(
    *raw: Mapping[str, object],
    lookup: Lookup = look_up,
    settings: Mapping[str, object] | None = None,
    tls: bool = True,
) -> AsyncIterator[Town]:
    async with registry(tls=tls) as there, rig(http(), lookup=lookup) as r:
        bound = scope.parse([{**NPM, "hosts": ["registry.test.example", "*.files.example", "wide.example"]}])
        at = {"at": f"127.0.0.1:{there.port}"} if settings is None else settings
        at = {name: str(value).format(there.port) if isinstance(value, str) else value for name, value in at.items()}
        place = "egress:registry.test.example,*.files.example,wide.example"
        await r.broker.put_resource(OPERATOR, Resource("npm", "egress", place, bound, None, at))
        grant = (await r.opened(*(raw or (NPM, http())))).id
        ports = []
        for by_name in (False, True):
            sock = socket.create_server(("127.0.0.1", 0))
            sock.setblocking(False)
            await r.gateway.proxy(sock, Channel(grant, {"api": PLACEHOLDER}), reached(), by_name=by_name)
            ports.append(int(sock.getsockname()[1]))
        yield Town(r, there, grant, *ports)


def test_tls_goes_through_as_it_is_and_is_on_record_with_its_bytes() -> None:
    async def scene() -> None:
        async with town() as t:
            wire = await t.secured()
            await wire.send(b"hello")
            assert await wire.reader.readexactly(5) == b"HELLO"
            assert t.registry.seen == [b"hello"]
            assert t.registry.names == [HOST]
            wire.close()
            [allowed, ended] = await t.uses()
            assert allowed == ("allow", f"connect {HOST}", None)
            assert (ended[0], ended[2]) == ("done", None)
            out, received = (int(part.split()[0]) for part in str(ended[1]).split(","))
            assert 200 < out < 5_000
            assert 500 < received < 10_000

    play(scene)


def test_the_server_name_of_tls_asks_as_well_whenever_it_arrives() -> None:
    async def scene() -> None:
        async with town() as t:
            for name in (HOST, "x.files.example"):
                both = await asyncio.open_connection(
                    "127.0.0.1", t.https, ssl=t.registry.trusting(), server_hostname=name
                )
                wire = Wire(*both)
                await wire.send(b"hello")
                assert await wire.reader.readexactly(5) == b"HELLO"
                wire.close()
            slow = await t.rig.wire(t.https)
            for octet in of_openssl(HOST):
                await slow.send(bytes([octet]))
                await asyncio.sleep(0)
            assert (await slow.reader.readexactly(1)) == b"\x16"  # the server's answer
            assert t.registry.names == [HOST, "x.files.example", HOST]

    play(scene)


def test_a_hello_in_pieces_after_a_connect_goes_through() -> None:
    async def scene() -> None:
        async with town() as t:
            wire = await t.established()
            whole = of_openssl(HOST)
            for at in range(0, len(whole), 7):
                await wire.send(whole[at : at + 7])
                await asyncio.sleep(0)
            assert (await wire.reader.readexactly(1)) == b"\x16"
            assert t.registry.names == [HOST]

    play(scene)


WRONG = {
    "another host": of_openssl("evil.example"),
    "another host of the grant": of_openssl("x.files.example"),
    "no name": of_openssl(None),
    "a name with a dot at its end": hello(named(HOST.encode() + b".")),
    "two names": hello(named(HOST.encode(), b"evil.example")),
    "a sealed name": hello(named(HOST.encode()), extension(0xFE0D, bytes(64))),
    "too much": b"\x16\x03\x01\xff\xff" + bytes(70_000),
    "http": b"GET / HTTP/1.1\r\nHost: registry.test.example\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
}


@pytest.mark.attack("DST-01")
@pytest.mark.parametrize("data", WRONG.values(), ids=WRONG)
def test_after_a_connect_nothing_but_tls_for_that_host_goes_on(data: bytes) -> None:
    async def scene() -> None:
        async with town(tls=False) as t:
            wire = await t.established()
            await wire.send(data)
            answer = await wire.rest()
            assert answer in {ALERT + b"\x31", b""}  # nothing: reset, as more was sent than was read
            assert t.registry.seen == []
            [allowed, ended] = await t.uses()
            assert allowed[0] == "allow"
            assert (ended[0], ended[1]) == ("failed", "0 bytes out, 0 in")
            assert ended[2] in {"denied", "invalid-request"}

    play(scene)


def test_a_client_that_begins_no_tls_is_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tunnel_pipe, "OPENING", 0.02)

    async def scene() -> None:
        async with town(tls=False) as t:
            wire = await t.established()
            await wire.send(of_openssl(HOST)[:100])
            assert await wire.rest() == ALERT + b"\x31"
            assert t.registry.seen == []
            await t.rig.settled(lambda: not t.rig.gateway.quota.held)

    play(scene)


@pytest.mark.parametrize("name", ["evil.example", "files.example", "registry.test.example.evil.example"])
def test_what_the_grant_does_not_name_is_refused_by_both_ways(name: str) -> None:
    async def scene() -> None:
        async with town() as t:
            refused = await (await t.connect(name)).reply()
            assert refused.status == 403
            assert name in str(refused.json()["detail"])
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("127.0.0.1", t.https, ssl=t.registry.trusting(), server_hostname=name)
            assert t.registry.names == []

    play(scene)


@pytest.mark.parametrize("port", ["80", "22", "8443"])
def test_another_port_than_that_of_https_is_refused(port: str) -> None:
    async def scene() -> None:
        async with town() as t:
            wire = await t.rig.wire(t.proxy)
            await wire.send(CONNECT.replace(b":443", f":{port}".encode()))
            assert (await wire.reply()).status == 403

    play(scene)


def test_a_host_of_a_resource_is_served_by_it_even_where_egress_names_it_too() -> None:
    async def scene() -> None:
        async with town() as t:
            for name in ("both.files.example", "api.test"):
                wire = await t.established(name)
                with pytest.raises(ssl.SSLCertVerificationError):  # the run's own authority, and not the registry's
                    await wire.writer.start_tls(t.registry.trusting(), server_hostname=name)
            assert t.registry.names == []

    play(scene)


def test_the_grant_decides_and_not_what_the_run_was_told() -> None:
    """The edge has `wide.example` among what is passed on, and the grant has not."""

    async def scene() -> None:
        async with town() as t:
            refused = await (await t.connect("wide.example")).reply()
            assert (refused.status, refused.json()["code"]) == (403, "scope")
            wire = await t.rig.wire(t.https)
            await wire.send(of_openssl("wide.example"))
            assert await wire.rest() == ALERT + b"\x31"
            assert [use[0] for use in await t.uses()] == ["deny", "deny"]
            assert t.registry.names == []

    play(scene)


def answering(*answers: Sequence[str]) -> tuple[Lookup, list[str]]:
    """Return what resolves names to one answer after the other, and what it was asked."""
    asked: list[str] = []

    async def lookup(host: str, port: int) -> Sequence[str]:
        asked.append(f"{host}:{port}")
        return answers[min(len(asked), len(answers)) - 1]

    return lookup, asked


@pytest.mark.attack("DST-03")
@pytest.mark.attack("DST-05")
@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["10.0.0.1"],
        ["100.100.100.200"],
        ["192.0.0.192"],
        ["fd00:ec2::254"],
        ["::1"],
        ["::ffff:127.0.0.1"],
        ["::ffff:169.254.169.254"],
        ["64:ff9b::7f00:1"],
        ["fe80::1%1"],
        ["0.0.0.0"],  # noqa: S104 - nothing is bound
        ["93.184.215.14", "127.0.0.1"],
        [],
    ],
)
def test_a_name_that_leads_elsewhere_than_to_the_internet_is_not_connected_to(addresses: Sequence[str]) -> None:
    lookup, asked = answering(addresses)

    async def scene() -> None:
        async with town(lookup=lookup, settings={}) as t:
            refused = await (await t.connect()).reply()
            assert (refused.status, refused.json()["code"]) == (502, "upstream")
            assert asked == [f"{HOST}:443"]
            assert t.registry.names == []
            assert [use[0] for use in await t.uses()] == ["allow", "failed"]

    play(scene)


def test_what_was_looked_at_is_what_is_connected_to() -> None:
    """A name that is resolved once more would lead elsewhere."""
    lookup, asked = answering(["127.0.0.1"], ["127.0.0.9"])

    async def scene() -> None:
        async with town(lookup=lookup, settings={"at": "router.example:{}", "private": True}) as t:
            wire = await t.secured()
            await wire.send(b"a")
            assert await wire.reader.readexactly(1) == b"A"
            assert len(asked) == 1

    play(scene)


def test_an_upstream_that_is_not_there_is_said_in_http_or_by_an_alert() -> None:
    async def scene() -> None:
        async with town(settings={"at": "127.0.0.1:1"}) as t:
            assert (await (await t.connect()).reply()).status == 502
            wire = await t.rig.wire(t.https)
            await wire.send(of_openssl(HOST))
            assert await wire.rest() == ALERT + b"\x50"
            await t.rig.settled(lambda: not t.rig.gateway.quota.held)

    play(scene)


def test_revoking_cuts_what_is_under_way_and_permits_nothing_more() -> None:
    async def scene() -> None:
        async with town() as t:
            wire = await t.secured()
            await wire.send(b"a")
            assert await wire.reader.readexactly(1) == b"A"
            waiting = await t.established()
            await t.rig.broker.revoke(OPERATOR, t.grant)
            assert await wire.rest() == b""
            assert await waiting.rest() == b""
            ended = [use for use in await t.uses() if use[0] == "failed"]
            assert [use[2] for use in ended] == ["revoked", "revoked"]
            await t.rig.settled(lambda: not t.rig.gateway.quota.held)
            assert not t.rig.gateway.quota.pipes

    play(scene)


def test_an_end_of_one_side_goes_to_the_other_and_the_other_way_still_works() -> None:
    async def scene() -> None:
        async with town(tls=False) as t:
            wire = await t.established()
            whole = of_openssl(HOST)
            await wire.send(whole)
            wire.writer.write_eof()
            assert await wire.rest() == whole.upper()
            await t.rig.settled(lambda: not t.rig.gateway.quota.held)

    play(scene)


def test_a_grant_has_so_many_pipes_and_the_next_one_is_told_to_wait() -> None:
    async def scene() -> None:
        async with town() as t:
            t.rig.gateway.quota.pipes[t.grant] = MAX_PIPES
            refused = await (await t.connect()).reply()
            assert refused.status == 429
            t.rig.gateway.quota.pipes[t.grant] = 0
            (await t.secured()).close()

    play(scene)


def test_what_does_not_begin_as_tls_is_answered_as_where_nothing_is_passed_on() -> None:
    async def scene() -> None:
        async with town() as t:
            for data in (b"GET / HTTP/1.1\r\n\r\n", hello(named(HOST.encode()), extension(0xFE0D, bytes(64)))):
                wire = await t.rig.wire(t.https)
                await wire.send(data)
                assert (await wire.rest())[:1] in {b"", b"\x15"}
            assert t.registry.names == []
            assert await t.uses() == []

    play(scene)
