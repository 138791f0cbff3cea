"""Framing, smuggling and protocol switches, on a raw socket."""

from __future__ import annotations

import asyncio

import pytest

from remit.core.secret import Secret
from remit.errors import InvalidRequestError
from remit.gateway.server import Channel
from tests.broker.world import OPERATOR
from tests.gateway.rig import ALL, PLACEHOLDER, SECRET, Rig, http, play, rig

CHUNKS = b"5\r\nhello\r\n0\r\n\r\n"
SMUGGLED = b"GET /api/admin HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"


async def closed_with(r: Rig, raw: bytes, status: int = 400) -> None:
    """Assert that raw bytes are answered with one refusal and the end of the connection, and reach no upstream."""
    wire = await r.wire()
    await wire.send(raw)
    reply = await wire.reply()
    assert reply.status == status, raw
    assert await wire.rest() == b"", raw
    assert r.upstream.seen == []


@pytest.mark.attack("HTT-01")
@pytest.mark.parametrize(
    "lines",
    [
        b"Transfer-Encoding: chunked\r\nContent-Length: 4",
        b"Content-Length: 4\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding:\tchunked",
        b"Transfer-Encoding : chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: Chunked",
        b"Transfer-Encoding: \x0bchunked",
        b'Transfer-Encoding: "chunked"',
        b"X: y\nTransfer-Encoding: chunked",
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: +5",
        b"Content-Length: 0x5",
        b"Content-Length: 5, 5",
        b"Content-Length: -5",
        b"Content-Length: 5 5",
        b"Content-Length: \xb2",
        b"Content-Length: 99999999999999999999",
        b"Content-Length:",
    ],
)
def test_a_message_whose_end_can_be_read_in_two_ways_is_refused(lines: bytes) -> None:
    async def scene() -> None:
        async with rig() as r:
            host = f"127.0.0.1:{r.port}".encode()
            await closed_with(
                r, b"POST /api/x HTTP/1.1\r\nHost: " + host + b"\r\n" + lines + b"\r\n\r\n" + CHUNKS + SMUGGLED
            )

    play(scene)


@pytest.mark.attack("HTT-01")
@pytest.mark.parametrize(
    "body",
    [
        b"5;a=b\r\nhello\r\n0\r\n\r\n",
        b"5\nhello\r\n0\r\n\r\n",
        b"5\r\nhelloX\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b" 5\r\nhello\r\n0\r\n\r\n",
        b"5 \r\nhello\r\n0\r\n\r\n",
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX-Trailer: y\r\n\r\n",
        b"FFFFFFFFFFFFFFFFF\r\nhello",
    ],
)
def test_a_chunked_body_that_can_be_read_in_two_ways_is_cut(body: bytes) -> None:
    async def scene() -> None:
        async with rig() as r:
            wire = await r.wire()
            await wire.send(r.request("/api/x", "Transfer-Encoding: chunked", method="POST") + body + SMUGGLED)
            assert (await wire.reply("POST")).status == 400
            assert await wire.rest() == b""
            assert r.upstream.seen == []

    play(scene)


@pytest.mark.attack("HTT-02")
@pytest.mark.parametrize(
    "raw",
    [
        b"GET /api/x HTTP/1.1\nHost: %h\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\nHost: %h\nX: y\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\nHost: %h\r\nX: y\rZ: w\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\nHost: %h\r\nX: y\r\n folded\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\nHost: %h\r\nX: y\r\n\tfolded\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\n folded: x\r\nHost: %h\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\nHost : %h\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\nHost: %h\r\nAuthorization\x00: x\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\nHost: %h\r\nX: a\x00b\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\nHost: %h\r\nX(y): z\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\nHost: %h\r\n: z\r\n\r\n",
        b"GET /api/x HTTP/1.1\r\nHost: %h\r\nnocolon\r\n\r\n",
        b"GET  /api/x HTTP/1.1\r\nHost: %h\r\n\r\n",
        b"GET /api/x  HTTP/1.1\r\nHost: %h\r\n\r\n",
        b"GET\t/api/x\tHTTP/1.1\r\nHost: %h\r\n\r\n",
        b"GET /api/x HTTP/1.0\r\nHost: %h\r\n\r\n",
        b"GET /api/x HTTP/2.0\r\nHost: %h\r\n\r\n",
        b"GET /api/x HTTP/1.1 \r\nHost: %h\r\n\r\n",
        b"GET /api/x\r\n\r\n",
        b"\r\nGET /api/x HTTP/1.1\r\nHost: %h\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_a_malformed_head_is_refused(raw: bytes) -> None:
    async def scene() -> None:
        async with rig() as r:
            await closed_with(r, raw.replace(b"%h", f"127.0.0.1:{r.port}".encode()))

    play(scene)


@pytest.mark.attack("HTT-03")
def test_there_is_exactly_one_host_and_it_is_this_one() -> None:
    async def scene() -> None:
        async with rig() as r:
            host = f"127.0.0.1:{r.port}"
            for lines in (
                (),
                (f"Host: {host}",) * 2,
                (f"Host: {host}", "Host: evil.test"),
                (f"Host: {host}, evil.test",),
            ):
                await closed_with(r, "\r\n".join(["GET /api/x HTTP/1.1", *lines, "", ""]).encode())
            assert (await r.get("http://evil.test/api/x")).status == 400
            for name in ("evil.test", f"{host}0", "", "evil.test@" + host):
                status = 421 if name and "@" not in name else 400
                await closed_with(r, f"GET /api/x HTTP/1.1\r\nHost: {name}\r\n\r\n".encode(), status)

    play(scene)


@pytest.mark.attack("HTT-04")
@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key"])
def test_a_client_cannot_nominate_the_credential_away(header: str) -> None:
    async def scene() -> None:
        async with rig(settings={"inject": {"header": header, "format": "Bearer {}"}}) as r:
            lines = [
                "Connection: authorization, x-api-key, host, accept-encoding, x-remit-grant",
                "Keep-Alive: timeout=5",
                "Proxy-Connection: keep-alive",
                "TE: trailers",
                f"{header}: Bearer {PLACEHOLDER}",
                "Upgrade: h2c",
            ]
            assert (await r.get("/api/x", *lines)).status == 200
            seen = r.upstream.seen[0]
            assert seen.headers[header.lower()] == f"Bearer {SECRET}"
            assert seen.raw.count(SECRET.encode()) == 1
            assert not {"connection", "keep-alive", "proxy-connection", "te", "upgrade"} & seen.headers.keys()

    play(scene)


@pytest.mark.attack("HTT-04")
def test_a_clients_own_copies_of_the_credentials_header_are_dropped() -> None:
    async def scene() -> None:
        async with rig(settings={"inject": {"header": "X-Api-Key", "format": "{}"}}) as r:
            reply = await r.get("/api/x", "X-Api-Key: mine", "x-api-key: other", "Authorization: Bearer mine")
            assert reply.status == 200
            assert r.upstream.seen[0].headers["x-api-key"] == SECRET
            assert "authorization" not in r.upstream.seen[0].headers

    play(scene)


@pytest.mark.attack("HTT-05")
@pytest.mark.parametrize("text", ["a\r\nX-Evil: 1", "a\nb", "a\0b", "caf\u00e9", "\u20ac", "a\x7fb", "a\x1b[0m"])
def test_a_secret_that_cannot_stand_in_a_header_is_refused_when_it_is_stored(text: str) -> None:
    async def scene() -> None:
        async with rig() as r:
            with pytest.raises(InvalidRequestError):
                await r.broker.put_secret(OPERATOR, "api", Secret(text))
            await r.get("/api/x")
            assert r.upstream.seen[0].headers["authorization"] == f"Bearer {SECRET}"
            assert b"X-Evil" not in r.upstream.seen[0].raw

    play(scene)


@pytest.mark.attack("HTT-06")
def test_pipelined_requests_get_three_verdicts_and_revocation_comes_between() -> None:
    async def scene() -> None:
        async with rig(ALL) as r:
            child = await r.child(http(actions=["POST"]))
            narrow = await r.child(http())
            wire = await r.wire()
            await wire.send(
                r.request("/api/hold")
                + r.request("/api/v1/admin", f"Remit-Grant: {narrow.id}")
                + r.request("/api/v1/public/x", f"Remit-Grant: {child.id}", method="POST")
                + r.request("/api/bytes/3")
            )
            await r.upstream.arrived.wait()
            await r.broker.revoke(OPERATOR, child.id)
            r.upstream.held.set()
            replies = [await wire.reply() for _ in range(4)]
            assert [reply.status for reply in replies] == [200, 403, 403, 200]
            assert [reply.json()["code"] for reply in replies[1:3]] == ["scope", "revoked"]
            assert replies[0].json()["target"] == "/hold"
            assert replies[3].body == b"xxx"
            assert [seen.method for seen in r.upstream.seen] == ["GET", "GET"]

    play(scene)


@pytest.mark.attack("HTT-07")
def test_leftovers_of_an_early_answer_reach_nobody_else() -> None:
    async def scene() -> None:
        async with rig() as r:
            other = await r.opened(ALL)
            port = await r.listen(Channel(other.id, {}))
            size = 10_000_000
            wire = await r.wire()
            head = r.request("/api/early", "Expect: 100-continue", f"Content-Length: {size}", method="POST")
            await wire.send(head)
            assert (await wire.reply()).status == 100
            sending = asyncio.create_task(_send_all(wire.writer, size))
            early = await wire.reply("POST")
            assert (early.status, early.headers["connection"]) == (401, "close")
            theirs = await r.get("/api/bytes/5", port=port)
            assert (theirs.status, theirs.body) == (200, b"xxxxx")
            assert [seen.connection for seen in r.upstream.seen] == [1, 2]
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)

    play(scene)


async def _send_all(writer: asyncio.StreamWriter, size: int) -> None:
    for _ in range(size // 50_000):
        writer.write(b"x" * 50_000)
        await writer.drain()


@pytest.mark.attack("HTT-07")
def test_bytes_out_of_turn_make_a_connection_worthless() -> None:
    async def scene() -> None:
        async with rig() as r:
            r.upstream._routes["/twice"] = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na" * 2
            assert (await r.get("/api/twice")).body == b"a"
            assert (await r.get("/api/bytes/2")).body == b"xx"
            assert r.upstream.connections == 2

    play(scene)


@pytest.mark.attack("HTT-08")
def test_trace_is_never_forwarded_and_max_forwards_means_nothing() -> None:
    async def scene() -> None:
        async with rig() as r:
            for method in ("TRACE", "TRACK", "CONNECT"):
                assert (await r.get("/api/", method=method)).status == 405
            assert r.upstream.seen == []
            assert (await r.get("/api/x", "Max-Forwards: 0", method="OPTIONS")).status == 200
            assert "max-forwards" not in r.upstream.seen[0].headers

    play(scene)
