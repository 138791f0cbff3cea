"""The proxy of a run: the host that a client wants names the resource, in TLS of the run's own authority."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import pytest

from remit.gateway.server import Channel
from remit.ports.runs import ReachedHost, RunReach
from remit.run.certificate import reach
from tests.broker.world import OPERATOR
from tests.gateway.rig import PLACEHOLDER, SECRET, Reply, Rig, Wire, http, play, rig

HOSTS = {"api.test": ReachedHost("api"), "based.test": ReachedHost("api", "/v1"), "else.test": ReachedHost("else")}
KEY = f"Authorization: Bearer {PLACEHOLDER}"


def made() -> RunReach:
    now = datetime.now(UTC)
    return reach("run_1", HOSTS, now, now + timedelta(hours=1))


def trusting(reached: RunReach) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=reached.certificate)
    context.verify_flags |= ssl.VERIFY_X509_STRICT  # the default of Python 3.13
    return context


async def listening(r: Rig, reached: RunReach, *, by_name: bool = False) -> int:
    sock = socket.create_server(("127.0.0.1", 0))
    sock.setblocking(False)
    await r.gateway.proxy(sock, Channel(r.grant.id, {"api": PLACEHOLDER}), reached, by_name=by_name)
    return int(sock.getsockname()[1])


@asynccontextmanager
async def connected(r: Rig, port: int, reached: RunReach, host: str, name: str | None = None) -> AsyncIterator[Wire]:
    """Open a connection for a host, by `CONNECT`; ``name``: the server name of its TLS, if it is another."""
    wire = await r.wire(port)
    await wire.send(f"CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\n\r\n".encode())
    assert (await wire.reply("HEAD")).status == 200
    await wire.writer.start_tls(trusting(reached), server_hostname=name or host)
    yield wire


async def sent(wire: Wire, target: str, host: str, *lines: str) -> Reply:
    await wire.send("\r\n".join([f"GET {target} HTTP/1.1", f"Host: {host}", *lines, "", ""]).encode())
    return await wire.reply()


def test_a_connection_for_a_host_reaches_its_resource_with_the_credential() -> None:
    async def scene() -> None:
        async with rig(http(args="any")) as r:
            reached = made()
            async with connected(r, await listening(r, reached), reached, "api.test") as wire:
                for _ in range(2):
                    assert (await sent(wire, "/v1/public/a?q=1", "api.test", KEY)).status == 200
                assert (await sent(wire, "/v1/private", "api.test", KEY)).status == 403
                assert (await sent(wire, "/v1/public/a", "else.test", KEY)).status == 421
            assert [(one.target, one.headers["authorization"]) for one in r.upstream.seen] == [
                ("/v1/public/a?q=1", f"Bearer {SECRET}")
            ] * 2

    play(scene)


def test_a_placeholder_in_the_query_or_in_basic_becomes_the_key_behind_a_host_too() -> None:
    basic = f"Authorization: Basic {b64encode(f'me:{PLACEHOLDER}'.encode()).decode()}"
    whole = f"Basic {b64encode(f'me:{SECRET}'.encode()).decode()}"

    async def scene() -> None:
        reached = made()
        async with rig(http(paths=["/bytes/*"]), settings={"inject": {"query": "key"}}) as r:
            async with connected(r, await listening(r, reached), reached, "api.test") as wire:
                assert (await sent(wire, f"/bytes/3?key={PLACEHOLDER}", "api.test")).status == 200
                assert (await sent(wire, f"/bytes/3?Key={PLACEHOLDER}", "api.test")).status == 400
            assert [one.target for one in r.upstream.seen] == [f"/bytes/3?key={SECRET}"]
        async with rig(http(paths=["/bytes/*"]), settings={"inject": {"basic": "me:{}"}}) as r:
            async with connected(r, await listening(r, reached), reached, "api.test") as wire:
                assert (await sent(wire, "/bytes/3", "api.test", basic)).status == 200
                assert (await sent(wire, "/bytes/3", "api.test", KEY)).status == 403
            assert [one.headers["authorization"] for one in r.upstream.seen] == [whole]

    play(scene)


def test_a_connect_of_http_1_0_without_a_host_is_one_whenever_it_arrives() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            reached = made()
            wire = await r.wire(await listening(r, reached))
            for piece in (b"CONN", b"ECT api.test:443 HTTP/1.0\r\n", b"\r\n"):
                await wire.send(piece)
                await asyncio.sleep(0.01)
            assert (await wire.reply("HEAD")).status == 200
            await wire.writer.start_tls(trusting(reached), server_hostname="api.test")
            assert (await sent(wire, "/v1/public/a", "api.test", KEY)).status == 200

    play(scene)


def test_a_server_name_says_the_host_too() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            reached = made()
            port = await listening(r, reached, by_name=True)
            both = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(reached), server_hostname="api.test")
            wire = Wire(*both)
            assert (await sent(wire, "/v1/public/a", "api.test", KEY)).status == 200
            wire.close()
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await asyncio.open_connection("127.0.0.1", port, ssl=trusting(reached), server_hostname="evil.test")
            assert [one.headers["authorization"] for one in r.upstream.seen] == [f"Bearer {SECRET}"]

    play(scene)


@pytest.mark.parametrize(
    ("target", "host", "status", "arrived"),
    [
        ("http://api.test/v1/public/a", "api.test", 200, "/v1/public/a"),
        ("http://API.test:80/v1/public/a?x=1", "API.test:80", 200, "/v1/public/a?x=1"),
        ("http://based.test/v1/v1/public/a", "based.test", 200, "/v1/public/a"),
        ("http://based.test/v2/public/a", "based.test", 403, None),
        ("http://api.test/v1/public/a", "else.test", 400, None),
        ("http://api.test:8080/v1/public/a", "api.test:8080", 403, None),
        ("http://api.test@evil.test/v1/public/a", "api.test@evil.test", 400, None),
        ("http://evil.test/v1/public/a", "evil.test", 403, None),
        ("http://else.test/v1/public/a", "else.test", 403, None),
        ("https://api.test/v1/public/a", "api.test", 400, None),
        ("/api/v1/public/a", "api.test", 400, None),
        ("*", "api.test", 400, None),
    ],
)
def test_a_target_in_absolute_form_says_its_host(target: str, host: str, status: int, arrived: str | None) -> None:
    async def scene() -> None:
        async with rig(http(args="any")) as r:
            wire = await r.wire(await listening(r, made()))
            assert (await sent(wire, target, host, KEY)).status == status
            assert [one.target for one in r.upstream.seen] == ([] if arrived is None else [arrived])

    play(scene)


@pytest.mark.parametrize("authority", ["evil.test:443", "api.test:80", "127.0.0.1:443", "api.test.:443", "api.test"])
def test_a_connect_to_what_the_run_does_not_reach_is_refused_and_on_record(authority: str) -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            wire = await r.wire(await listening(r, made()))
            await wire.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            assert (await wire.reply()).status in {400, 403}
            assert await wire.rest() == b""
            await r.settled(lambda: not r.gateway.plane.tasks)
            [denied] = await r.events("resource.use")
            assert denied.decision == "deny"

    play(scene)


def test_another_server_name_than_that_of_the_connect_has_no_certificate() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            reached = made()
            port = await listening(r, reached)
            with pytest.raises((ssl.SSLError, ConnectionError)):
                async with connected(r, port, reached, "api.test", name="else.test"):
                    pass
            await r.settled(lambda: not r.gateway.connections.all)

    play(scene)


def test_what_follows_a_connect_before_its_answer_is_refused() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            wire = await r.wire(await listening(r, made()))
            await wire.send(b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\nGET / HTTP/1.1\r\n\r\n")
            assert (await wire.reply()).status == 400

    play(scene)


def test_a_host_longer_than_any_is_repeated_nowhere() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            wire = await r.wire(await listening(r, made()))
            long = ".".join(["a" * 60] * 500)
            await wire.send(f"CONNECT {long}:443 HTTP/1.1\r\n\r\n".encode())
            reply = await wire.reply()
            assert (reply.status, long.encode() in reply.body) == (400, False)

    play(scene)


def test_a_connection_for_a_host_is_no_proxy() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            reached = made()
            async with connected(r, await listening(r, reached), reached, "api.test") as wire:
                await wire.send(b"CONNECT else.test:443 HTTP/1.1\r\nHost: api.test\r\n\r\n")
                assert (await wire.reply()).status == 405

    play(scene)


def test_the_authority_of_a_run_speaks_for_its_hosts_alone() -> None:
    """Somebody who has its key makes nothing that a client in the run takes for another host."""

    async def scene() -> None:
        async with rig(http()) as r:
            reached = made()
            wide = RunReach({**HOSTS, "evil.test": ReachedHost("api")}, reached.certificate, reached.key)
            port = await listening(r, wide, by_name=True)
            with pytest.raises(ssl.SSLCertVerificationError, match="permitted subtree"):
                await asyncio.open_connection("127.0.0.1", port, ssl=trusting(reached), server_hostname="evil.test")

    play(scene)


def test_a_host_without_a_certificate_for_want_of_a_descriptor_gets_one_later(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            reached = made()
            port = await listening(r, reached, by_name=True)
            with monkeypatch.context() as at:
                at.setattr("os.memfd_create", lambda *_: os.open("/nowhere", os.O_RDONLY))
                at.setattr("sys.unraisablehook", lambda _: None)
                with pytest.raises(OSError):  # noqa: PT011 - an alert, or an end
                    await asyncio.open_connection("127.0.0.1", port, ssl=trusting(reached), server_hostname="api.test")
            _, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trusting(reached), server_hostname="api.test"
            )
            writer.close()

    play(scene)


def test_connections_end_with_the_grant_in_a_handshake_too() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            reached = made()
            port = await listening(r, reached)
            waiting = await r.wire(port)
            await waiting.send(b"CONNECT api.test:443 HTTP/1.1\r\nHost: api.test:443\r\n\r\n")
            assert (await waiting.reply("HEAD")).status == 200
            async with connected(r, port, reached, "api.test") as wire:
                assert (await sent(wire, "/v1/public/a", "api.test", KEY)).status == 200
                await r.broker.revoke(OPERATOR, r.grant.id)
                assert await wire.rest() == b""
                assert await waiting.rest() == b""
            await r.settled(lambda: not r.gateway.connections.all)
            assert not r.gateway.quota.held

    play(scene)
