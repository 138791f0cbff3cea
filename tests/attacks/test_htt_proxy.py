"""Framing and smuggling at a run's proxy: before a `CONNECT`, in it, and in the TLS that follows."""

from __future__ import annotations

import pytest

from tests.attacks.ways import ASKED, WAYS, proxies
from tests.broker.world import OPERATOR
from tests.gateway.rig import ALL, PLACEHOLDER, SECRET, http, play

KEY = f"Authorization: Bearer {PLACEHOLDER}"
SMUGGLED = b"POST /admin HTTP/1.1\r\nHost: api.test\r\n\r\n"
TWO_READINGS = [
    b"Transfer-Encoding: chunked\r\nContent-Length: 4",
    b"Transfer-Encoding: xchunked",
    b"Transfer-Encoding : chunked",
    b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
    b"Content-Length: 5\r\nContent-Length: 6",
    b"Content-Length: 5, 5",
    b"Content-Length: +5",
    b"X: y\nTransfer-Encoding: chunked",
    b"X: a\x00b",
    b"X: y\r\n folded",
    b"X : y",
    b"Host: api.test",
    b"Host: else.test",
]


@pytest.mark.attack("HTT-01")
@pytest.mark.attack("HTT-02")
@pytest.mark.attack("HTT-03")
@pytest.mark.parametrize("lines", TWO_READINGS)
@pytest.mark.parametrize("way", WAYS)
def test_a_head_that_can_be_read_in_two_ways_is_refused_behind_a_host_too(way: str, lines: bytes) -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            wire = await proxy.open(way, "api.test")
            head = proxy.request(way, "api.test", "/x", KEY, method="POST").removesuffix(b"\r\n")
            await wire.send(head + lines + b"\r\n\r\n" + b"5\r\nhello\r\n0\r\n\r\n" + SMUGGLED)
            assert (await wire.reply("POST")).status == 400
            assert await proxy.rest(wire) == b""
            assert proxy.nothing_went_out()

    play(scene)


@pytest.mark.attack("HTT-01")
@pytest.mark.parametrize(
    "lines",
    [b"", b"Content-Length: %d\r\n" % len(SMUGGLED), b"Transfer-Encoding: chunked\r\n", b"Host: x\r\nHost: y\r\n"],
)
@pytest.mark.parametrize("cut", [0, 1, len(SMUGGLED)])
def test_what_follows_a_connect_in_the_clear_is_no_request(lines: bytes, cut: int) -> None:
    """It is TLS or it is nothing, whatever the `CONNECT` says of a body, and wherever the pieces end."""

    async def scene() -> None:
        async with proxies() as proxy:
            wire = await proxy.r.wire(proxy.ports[False])
            await wire.send(b"CONNECT api.test:443 HTTP/1.1\r\n" + lines + b"\r\n" + SMUGGLED[:cut])
            said = (await wire.reply("HEAD")).status
            assert said == (400 if cut else 200)
            await wire.send(SMUGGLED[cut:] or SMUGGLED)
            assert b"HTTP/1.1" not in await proxy.rest(wire)
            wire.close()
            await proxy.r.settled(lambda: not proxy.r.gateway.connections.all)
            assert proxy.nothing_went_out()

    play(scene)


@pytest.mark.attack("HTT-06")
@pytest.mark.parametrize("way", WAYS)
def test_each_of_the_requests_on_a_connection_for_a_host_is_judged(way: str) -> None:
    async def scene() -> None:
        async with proxies(ALL) as proxy:
            r = proxy.r
            child, narrow = await r.child(http(actions=["POST"])), await r.child(http())
            wire = await proxy.open(way, "api.test")
            asked = [
                proxy.request(way, "api.test", "/hold", KEY),
                proxy.request(way, "api.test", "/v1/admin", f"Remit-Grant: {narrow.id}"),
                proxy.request(way, "api.test", "/v1/public/x", f"Remit-Grant: {child.id}", method="POST"),
                proxy.request(way, "api.test", "/bytes/3", KEY),
            ]
            await wire.send(b"".join(asked))
            await r.upstream.arrived.wait()
            await r.broker.revoke(OPERATOR, child.id)
            r.upstream.held.set()
            replies = [await wire.reply() for _ in range(4)]
            assert [reply.status for reply in replies] == [200, 403, 403, 200]
            assert [reply.json()["code"] for reply in replies[1:3]] == ["scope", "revoked"]
            assert replies[3].body == b"xxx"
            assert [seen.target for seen in r.upstream.seen] == ["/hold", "/bytes/3"]

    play(scene)


@pytest.mark.attack("HTT-06")
def test_on_a_proxys_connection_each_request_says_its_host_and_is_judged_for_it() -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            wire = await proxy.open("absolute", "api.test")
            hosts = ("api.test", "evil.test", "else.test", "api.test")
            await wire.send(b"".join(proxy.request("absolute", host, "/bytes/3") for host in hosts))
            assert [(await wire.reply()).status for _ in hosts] == [200, 403, 200, 200]
            await wire.send(b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n")
            assert (await wire.reply()).status == 403
            assert await wire.rest() == b""
            assert (len(proxy.r.upstream.seen), len(proxy.other.seen)) == (2, 1)

    play(scene)


@pytest.mark.attack("HTT-04")
@pytest.mark.parametrize("way", WAYS)
def test_what_is_said_to_a_proxy_stays_there(way: str) -> None:
    lines = [
        "Connection: keep-alive, authorization, host, x-api-key, remit-grant",
        "Proxy-Connection: keep-alive",
        "Proxy-Authorization: Basic bWU6c2VjcmV0",
        "Proxy-Custom: x",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        KEY,
    ]

    async def scene() -> None:
        async with proxies() as proxy:
            assert (await proxy.ask(way, "api.test", "/bytes/3", *lines)).status == 200
            [seen] = proxy.r.upstream.seen
            assert seen.headers["authorization"] == f"Bearer {SECRET}"
            assert seen.headers["host"] == f"127.0.0.1:{proxy.r.upstream.port}"
            told = {"connection", "proxy-connection", "proxy-authorization", "proxy-custom", "keep-alive", "te"}
            assert told & seen.headers.keys() == set()

    play(scene)


@pytest.mark.attack("HTT-08")
@pytest.mark.parametrize("method", ["TRACE", "TRACK", "CONNECT", "get", "OPTIONS *", "PRI"])
@pytest.mark.parametrize("way", ASKED)
def test_a_method_that_gives_back_or_connects_is_refused_behind_a_host(way: str, method: str) -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            reply = await proxy.ask(way, "api.test", "/x", KEY, "Max-Forwards: 0", method=method)
            assert reply.status in {400, 403, 405}
            assert proxy.nothing_went_out()

    play(scene)


@pytest.mark.attack("HTT-05")
@pytest.mark.parametrize("way", ASKED)
def test_a_line_break_in_a_target_makes_no_line_of_a_request(way: str) -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            raw = ["/x\rX-Evil: y", "/x\nX-Evil: y", "/x HTTP/1.1\nX-Evil: y\nA: b"]
            for target in (*raw, "/x%0d%0aX-Evil:%20y", "/x%0D%0A%0D%0AGET%20/y", "/x?a=%0d%0aX-Evil:%20y", "/x\u010a"):
                reply = await proxy.ask(way, "api.test", target, KEY)
                assert reply.status in {200, 400, 403}, target
            for seen in (*proxy.r.upstream.seen, *proxy.other.seen):
                assert "x-evil" not in seen.headers
                assert seen.raw.count(b"HTTP/1.1\r\n") == 1

    play(scene)
