"""WebSocket: a handshake that is checked at both ends, messages that are searched, an end with the grant."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from hashlib import sha1

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode
from websockets.typing import Subprotocol

from remit.core.principal import Claims
from remit.core.request import Binding, Bounds, GrantRequest
from remit.core.scope import parse
from remit.gateway.fronts.path import Verifier
from remit.gateway.server import Channel
from tests.broker.world import OPERATOR
from tests.gateway.rig import PLACEHOLDER, SECRET, Rig, Wire, bearing, borne, http, play, rig
from tests.gateway.test_proxy import connected, listening, made
from tests.support.upstream import Upstream

SOCKETS = http(paths=["/socket/*", "/socket/a"])
KEY = "dGhlIHNhbXBsZSBub25jZQ=="
ASKS = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", f"Sec-WebSocket-Key: {KEY}")
ACCEPT = b64encode(
    sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11", usedforsecurity=False).digest()
).decode()
SWITCHED = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {ACCEPT}")


class Target:
    """What answers at the resource: it repeats messages, and says on demand what it should not."""

    def __init__(self) -> None:
        self.heads: list[Mapping[str, str]] = []
        self.paths: list[str] = []
        self.heard: list[str | bytes] = []
        self.ended = asyncio.Event()
        self.codes: list[int | None] = []

    async def serve(self, socket: ServerConnection) -> None:
        assert socket.request is not None
        self.heads.append({name.lower(): value for name, value in socket.request.headers.raw_items()})
        self.paths.append(socket.request.path)
        try:
            async for message in socket:
                self.heard.append(message)
                if message == "key":
                    await socket.send(f"<{SECRET}>")
                elif message == "pieces":
                    await socket.send(["<", SECRET[:9], SECRET[9:30], SECRET[30:], ">"])
                elif message == "in base64":
                    await socket.send(b64encode(SECRET.encode()))
                elif message == "ping":
                    await socket.ping(SECRET.encode())
                elif message == "halves":
                    await socket.send(SECRET[:20])
                    await socket.send(SECRET[20:])
                elif message == "leave":
                    await socket.close(4000, "so long")
                elif message == "leave with it":
                    await socket.close(4000, SECRET)
                else:
                    await socket.send(message)
        except ConnectionClosed:
            pass
        finally:
            self.codes.append(socket.close_code)
            self.ended.set()


@asynccontextmanager
async def target_of(
    *raw: Mapping[str, object], settings: Mapping[str, object] | None = None, verify: Verifier | None = None
) -> AsyncIterator[tuple[Rig, Target]]:
    target = Target()
    chat = [Subprotocol("chat"), Subprotocol("superchat")]
    picks = lambda _, offered: next((one for one in chat if one in offered), None)  # noqa: E731
    async with (
        serve(target.serve, "127.0.0.1", 0, select_subprotocol=picks) as server,
        rig(
            *(raw or (SOCKETS,)),
            destination=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}",
            settings=settings,
            verify=verify,
        ) as r,
    ):
        yield r, target


def opened(r: Rig, path: str = "/api/socket/a", *, port: int | None = None, **more: object) -> connect:
    headers = {"Authorization": f"Bearer {PLACEHOLDER}"}
    return connect(f"ws://127.0.0.1:{port or r.port}{path}", additional_headers=headers, proxy=None, **more)  # type: ignore[arg-type]


def test_messages_go_both_ways_and_the_key_is_in_the_handshake_alone() -> None:
    async def scene() -> None:
        async with target_of() as (r, target):
            long = json.dumps({"text": "caf\u00e9 \U0001f600 " * 20_000})
            async with opened(r, subprotocols=[Subprotocol("soap"), Subprotocol("superchat")]) as socket:
                assert socket.subprotocol == "superchat"
                assert "Remit-Dropped" not in socket.response.headers  # type: ignore[union-attr]
                assert "Sec-WebSocket-Extensions" not in socket.response.headers  # type: ignore[union-attr]
                for message in ("hello", b"\x00\xff" * 70_000, "", b"", long):
                    await socket.send(message)
                    assert await socket.recv() == message
                await socket.send(["in ", "three ", "pieces"])
                assert await socket.recv() == "in three pieces"
                await (await socket.ping(b"there?"))
            await target.ended.wait()
            assert target.codes == [1000]
            (head,) = target.heads
            assert (target.paths, head["authorization"]) == (["/socket/a"], f"Bearer {SECRET}")
            assert "sec-websocket-extensions" not in head
            assert all(PLACEHOLDER not in str(message) for message in target.heard)
            size = 5 + 140_000 + len(long.encode()) + 15
            (outcome,) = await r.outcomes(1)
            assert (outcome.decision, outcome.action) == ("done", f"101, {size} bytes out, {size} in")

    play(scene)


def test_a_use_is_permitted_as_the_get_that_it_is() -> None:
    async def scene() -> None:
        async with target_of(http(paths=["/socket/a"], actions=["GET"], args={"query.model": "any"})) as (r, target):
            async with opened(r, "/api/socket/a?model=m") as socket:
                await socket.send("x")
                assert await socket.recv() == "x"
            for path in ("/api/socket/b", "/api/socket/a?model=m&more=1"):
                with pytest.raises(InvalidStatus) as refused:
                    async with opened(r, path):
                        pass
                assert refused.value.response.status_code == 403
            assert target.paths == ["/socket/a?model=m"]
            uses = [(event.decision, event.action) for event in await r.events("resource.use")]
            assert uses == [("allow", "GET"), ("deny", "GET"), ("deny", "GET")]

    play(scene)


@pytest.mark.parametrize(
    ("opens", "more"),
    [
        (True, {"paths": ["/socket/a"]}),
        (True, {"paths": ["/socket/*"], "actions": ["GET", "POST"], "args": "any"}),
        (True, {"paths": ["/socket/*"], "actions": ["GET", "POST"], "args": {"body": "any"}}),
        (False, {"paths": ["/socket/*"], "args": "any"}),
        (False, {"paths": ["/socket/*"], "actions": ["GET", "POST"], "args": {"body.a": "any"}}),
        (False, {"paths": ["/socket/*"], "actions": ["GET", "POST"]}),
        (False, {"paths": ["/socket/a"], "actions": ["POST"], "args": "any"}),
    ],
)
def test_who_may_read_by_a_pattern_may_not_say_what_nobody_judges(*, opens: bool, more: dict[str, object]) -> None:
    async def scene() -> None:
        async with target_of(http(**more)) as (r, target):
            if opens:
                async with opened(r) as socket:
                    await socket.send("x")
                    assert await socket.recv() == "x"
                return
            reply = await r.get("/api/socket/a", *ASKS)
            assert (reply.status, reply.json()["code"], target.heads) == (403, "scope", [])

    play(scene)


def test_the_key_goes_into_the_query_where_that_is_its_place() -> None:
    async def scene() -> None:
        async with target_of(http(paths=["/socket/a"], args="any"), settings={"inject": {"query": "key"}}) as (
            r,
            target,
        ):
            url = f"ws://127.0.0.1:{r.port}/api/socket/a?key={PLACEHOLDER}"
            async with connect(url, proxy=None) as socket:
                await socket.send("x")
                assert await socket.recv() == "x"
            assert target.paths == [f"/socket/a?key={SECRET}"]

    play(scene)


@pytest.mark.attack("RSP-01")
@pytest.mark.parametrize("message", ["key", "pieces", "in base64", "ping", "leave with it"])
def test_a_message_that_repeats_the_key_is_withheld_and_ends_it(message: str) -> None:
    async def scene() -> None:
        async with target_of() as (r, target):
            async with opened(r) as socket:
                await socket.send(message)
                with pytest.raises(ConnectionClosed) as ended:
                    await socket.recv()
                assert SECRET[10:25] not in str(ended.value)
            await target.ended.wait()
            assert [(event.decision, event.code) for event in await r.outcomes(1)] == [("failed", "upstream")]

    play(scene)


def test_a_key_in_two_messages_is_not_found() -> None:
    async def scene() -> None:
        async with target_of() as (r, _), opened(r) as socket:
            await socket.send("halves")
            assert [await socket.recv(), await socket.recv()] == [SECRET[:20], SECRET[20:]]

    play(scene)


@pytest.mark.attack("LAU-08")
@pytest.mark.parametrize("pieces", [[f"say {PLACEHOLDER}"], ["say ", PLACEHOLDER[:11], PLACEHOLDER[11:]]])
def test_a_placeholder_in_a_message_goes_nowhere(pieces: list[str]) -> None:
    async def scene() -> None:
        async with target_of() as (r, target):
            async with opened(r) as socket:
                await socket.send("first")
                assert await socket.recv() == "first"
                await socket.send(pieces)
                with pytest.raises(ConnectionClosed):
                    await socket.recv()
            await target.ended.wait()
            assert target.heard == ["first"]
            assert [(event.decision, event.code) for event in await r.outcomes(1)] == [("failed", "placeholder")]

    play(scene)


@pytest.mark.attack("REV-01")
@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_an_open_one_is_cut_when_its_grant_ends(how: str) -> None:
    async def scene() -> None:
        async with target_of() as (r, target):
            grant = await r.child(SOCKETS)
            port = await r.listen(Channel(grant.id, {"api": PLACEHOLDER}))
            async with opened(r, port=port) as socket:
                await socket.send("x")
                assert await socket.recv() == "x"
                if how == "revoked":
                    await r.broker.revoke(OPERATOR, grant.id)
                else:
                    r.now[0] = grant.expires_at
                    await r.broker.sweep()
                async with asyncio.timeout(5):
                    await target.ended.wait()
                    with pytest.raises(ConnectionClosed):
                        await socket.recv()
            assert target.codes == [1006]
            with pytest.raises((InvalidStatus, ConnectionError)):
                async with opened(r, port=port):
                    pass
            assert len(target.paths) == 1
            (outcome,) = await r.outcomes(1)
            assert (outcome.decision, outcome.code, outcome.action) == ("failed", "revoked", "101, 1 bytes out, 1 in")

    play(scene)


@pytest.mark.parametrize("how", ["over", "taken back"])
def test_one_that_a_bearer_opened_is_cut_when_the_token_or_the_setting_ends(how: str) -> None:
    shown: list[Claims] = []

    async def scene() -> None:
        async with target_of(settings={"bearer": True}, verify=bearing(shown)) as (r, target):
            asked = GrantRequest(parse([SOCKETS]), Bounds(timedelta(hours=8)), Binding(bearer="api"), purpose="listen")
            shown.append(borne(await r.broker.open(OPERATOR, asked), r.now[0]))
            ends = shown[0].expires_at
            async with opened(r) as socket:
                await socket.send("x")
                assert await socket.recv() == "x"
                r.gateway.connections.lapse(ends - 1)
                await socket.send("y")
                assert await socket.recv() == "y"
                if how == "over":
                    r.gateway.connections.lapse(ends)
                else:
                    there = await r.broker.resource("api")
                    await r.broker.put_resource(OPERATOR, replace(there, settings={}))
                async with asyncio.timeout(5):
                    await target.ended.wait()
                    with pytest.raises(ConnectionClosed):
                        await socket.recv()
            (outcome,) = await r.outcomes(1)
            assert outcome.code == {"over": "token", "taken back": "revoked"}[how]

    play(scene)


def test_one_that_says_nothing_is_cut_when_it_has_been_silent_for_long() -> None:
    async def scene() -> None:
        async with target_of() as (r, target), opened(r, ping_interval=None) as socket:
            await socket.send("x")
            assert await socket.recv() == "x"
            r.ticks[0] += 601
            async with asyncio.timeout(5):
                await target.ended.wait()
            assert [event.code for event in await r.outcomes(1)] == ["upstream"]

    play(scene)


def test_what_either_side_says_at_its_end_is_passed_on() -> None:
    async def scene() -> None:
        async with target_of() as (r, target):
            async with opened(r) as socket:
                await socket.send("leave")
                with pytest.raises(ConnectionClosed) as ended:
                    await socket.recv()
                assert ended.value.rcvd is not None
                assert (ended.value.rcvd.code, ended.value.rcvd.reason) == (4000, "so long")
            async with opened(r) as socket:
                await socket.close(4001, "mine")
            await r.settled(lambda: len(target.codes) == 2)
            assert target.codes == [4000, 4001]
            assert [event.decision for event in await r.outcomes(2)] == ["done", "done"]

    play(scene)


def test_one_for_a_host_is_open_through_the_proxy() -> None:
    async def scene() -> None:
        async with target_of() as (r, target):
            reached = made()
            async with connected(r, await listening(r, reached), reached, "api.test") as wire:
                await wire.send(handshake("/socket/a", "api.test", f"Authorization: Bearer {PLACEHOLDER}"))
                assert (await wire.reply("HEAD")).status == 101
                await wire.send(frame(Opcode.TEXT, b"hello"))
                assert await wire.reader.readexactly(7) == b"\x81\x05hello"
                await wire.send(frame(Opcode.CLOSE, b"\x03\xe8"))
                assert await wire.rest() == b"\x88\x02\x03\xe8"
            await target.ended.wait()
            assert target.heads[0]["authorization"] == f"Bearer {SECRET}"
            assert target.codes == [1000]

    play(scene)


def handshake(path: str, host: str, *lines: str, asks: tuple[str, ...] = ASKS) -> bytes:
    return "\r\n".join([f"GET {path} HTTP/1.1", f"Host: {host}", *asks, *lines, "", ""]).encode()


def frame(opcode: Opcode, data: bytes, *, mask: bool = True, fin: bool = True) -> bytes:
    return Frame(opcode, data, fin=fin).serialize(mask=mask)


def without(name: str, *more: str) -> tuple[str, ...]:
    return (*(line for line in ASKS if not line.startswith(name)), *more)


BAD_ASKS = {
    "no key": without("Sec-WebSocket-Key"),
    "two keys": (*ASKS, f"Sec-WebSocket-Key: {KEY}"),
    "a short key": without("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhl"),
    "a key that is no base64": without("Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=!"),
    "no version": without("Sec-WebSocket-Version"),
    "another version": without("Sec-WebSocket-Version", "Sec-WebSocket-Version: 8"),
    "a list of versions": without("Sec-WebSocket-Version", "Sec-WebSocket-Version: 13, 8"),
    "a body": (*ASKS, "Content-Length: 1"),
    "a protocol that is no name": (*ASKS, "Sec-WebSocket-Protocol: a b"),
    "a protocol twice": (*ASKS, "Sec-WebSocket-Protocol: a, a"),
    "an empty protocol": (*ASKS, "Sec-WebSocket-Protocol: a,,b"),
    "a key of the client's own": (*ASKS, "Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.sk-mine"),
    "a token of the client's own": (*ASKS, "Sec-WebSocket-Protocol: base64url.bearer.authorization.k8s.io.bXk"),
    "a placeholder": (*ASKS, f"Sec-WebSocket-Protocol: realtime, openai-insecure-api-key.{PLACEHOLDER}"),
}


@pytest.mark.attack("HTT-14")
@pytest.mark.parametrize("asks", BAD_ASKS.values(), ids=BAD_ASKS)
def test_a_handshake_that_is_none_is_refused_and_not_sent(asks: tuple[str, ...]) -> None:
    async def scene() -> None:
        async with rig(SOCKETS) as r:
            wire = await r.wire()
            await wire.send(handshake("/api/socket/a", f"127.0.0.1:{r.port}", asks=asks) + b"x")
            assert (await wire.reply()).status in {400, 403}
            assert r.upstream.seen == []

    play(scene)


def test_an_account_that_a_detail_does_not_name_is_not_selected_by_a_protocol() -> None:
    async def scene() -> None:
        async with rig(SOCKETS, settings={"arguments": ["openai-organization"]}) as r:
            reply = await r.get("/api/socket/a", *ASKS, "Sec-WebSocket-Protocol: realtime, openai-organization.org-1")
            assert (reply.status, r.upstream.seen) == (400, [])

    play(scene)


NO_ASKS = {
    "another protocol": (
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA",
    ),
    "an unknown protocol": ("Connection: Upgrade", "Upgrade: foo"),
    "a list": (*without("Upgrade"), "Upgrade: websocket, h2c"),
    "two lines": (*ASKS, "Upgrade: h2c"),
    "without a connection": without("Connection"),
    "a connection of another": without("Connection", "Connection: keep-alive"),
}


@pytest.mark.attack("HTT-14")
@pytest.mark.parametrize("asks", NO_ASKS.values(), ids=NO_ASKS)
def test_any_other_upgrade_is_left_out_and_its_answer_is_never_a_switch(asks: tuple[str, ...]) -> None:
    switched = "\r\n".join(["HTTP/1.1 101 Switching Protocols", *SWITCHED, "", ""]).encode()

    async def scene() -> None:
        async with rig(SOCKETS, upstream=Upstream(routes={"/socket/a": switched})) as r:
            assert (await r.get("/api/socket/b", *asks)).status == 200
            assert not {"upgrade", "sec-websocket-key", "http2-settings"} & r.upstream.seen[0].headers.keys()
            assert (await r.get("/api/socket/a", *asks)).status == 502

    play(scene)


def changed(name: str, *more: str) -> tuple[str, ...]:
    return (*(line for line in SWITCHED if not line.startswith(name)), *more)


BAD_ANSWERS = {
    "no accept": changed("Sec"),
    "another accept": changed("Sec", f"Sec-WebSocket-Accept: {KEY}"),
    "accept twice": (*SWITCHED, SWITCHED[2]),
    "no upgrade": changed("Upgrade"),
    "another upgrade": changed("Upgrade", "Upgrade: h2c"),
    "no connection": changed("Connection"),
    "an extension": (*SWITCHED, "Sec-WebSocket-Extensions: permessage-deflate"),
    "a protocol that nobody asked for": (*SWITCHED, "Sec-WebSocket-Protocol: other"),
    "two protocols": (*SWITCHED, "Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b"),
    "a length": (*SWITCHED, "Content-Length: 3"),
    "chunks": (*SWITCHED, "Transfer-Encoding: chunked"),
    "the key": (*SWITCHED, f"X-Key: {SECRET}"),
}


@pytest.mark.attack("HTT-14")
@pytest.mark.parametrize("lines", BAD_ANSWERS.values(), ids=BAD_ANSWERS)
def test_an_upstream_that_switches_to_something_else_is_refused(lines: tuple[str, ...]) -> None:
    switched = "\r\n".join(["HTTP/1.1 101 Switching Protocols", *lines, "", ""]).encode()

    async def scene() -> None:
        async with rig(SOCKETS, upstream=Upstream(routes={"/socket/a": switched})) as r:
            reply = await r.get("/api/socket/a", *ASKS, "Sec-WebSocket-Protocol: a, b")
            assert (reply.status, reply.json()["code"]) == (502, "upstream")
            assert SECRET.encode() not in reply.raw

    play(scene)


def test_an_upstream_that_refuses_is_heard_and_nothing_that_follows_is_a_request() -> None:
    refusal = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 2\r\n\r\nno"

    async def scene() -> None:
        async with rig(http(paths=["/**", "/socket/a"]), upstream=Upstream(routes={"/socket/a": refusal})) as r:
            wire = await r.wire()
            smuggled = r.request("/api/v1/public/smuggled")
            await wire.send(handshake("/api/socket/a", f"127.0.0.1:{r.port}") + smuggled)
            reply = await wire.reply()
            assert (reply.status, reply.body, reply.headers["connection"]) == (401, b"no", "close")
            assert await wire.rest() == b""
            assert [seen.target for seen in r.upstream.seen] == ["/socket/a"]

    play(scene)


@pytest.mark.attack("HTT-14")
def test_what_follows_a_handshake_before_its_answer_goes_nowhere() -> None:
    switched = "\r\n".join(["HTTP/1.1 101 Switching Protocols", *SWITCHED, "", ""]).encode()

    async def scene() -> None:
        async with rig(http(paths=["/**", "/socket/a"]), upstream=Upstream(routes={"/socket/a": switched})) as r:
            for more in (frame(Opcode.TEXT, b"early"), r.request("/api/v1/public/smuggled")):
                wire = await r.wire()
                await wire.send(handshake("/api/socket/a", f"127.0.0.1:{r.port}") + more)
                assert (await wire.reply()).status == 400
                assert await wire.rest() == b""
            assert [seen.target for seen in r.upstream.seen] == ["/socket/a"] * 2

    play(scene)


async def switched(r: Rig) -> Wire:
    wire = await r.wire()
    await wire.send(handshake("/api/socket/a", f"127.0.0.1:{r.port}"))
    assert (await wire.reply("HEAD")).status == 101
    return wire


BAD_FRAMES = {
    "a request": b"GET /socket/b HTTP/1.1\r\nHost: a\r\n\r\n",
    "not masked": frame(Opcode.TEXT, b"x", mask=False),
    "a reserved bit": bytes([0xC1, 0x80, 0, 0, 0, 0]),
    "a reserved opcode": bytes([0x83, 0x80, 0, 0, 0, 0]),
    "a ping in fragments": bytes([0x09, 0x80, 0, 0, 0, 0]),
    "a long ping": bytes([0x89, 0xFE, 0, 126, 0, 0, 0, 0]) + b"x" * 126,
    "a length in too many bytes": bytes([0x81, 0xFE, 0, 1, 0, 0, 0, 0]) + b"x",
    "a continuation of nothing": frame(Opcode.CONT, b"x"),
    "a message within another": frame(Opcode.TEXT, b"x", fin=False) + frame(Opcode.TEXT, b"y"),
    "text that is no UTF-8": frame(Opcode.TEXT, b"\xff"),
    "a close of one byte": frame(Opcode.CLOSE, b"x"),
}


@pytest.mark.attack("HTT-14")
@pytest.mark.parametrize("data", BAD_FRAMES.values(), ids=BAD_FRAMES)
def test_a_client_that_says_what_is_no_frame_is_cut_and_heard_by_nobody(data: bytes) -> None:
    async def scene() -> None:
        async with target_of() as (r, target):
            wire = await switched(r)
            await wire.send(data)
            assert await wire.rest() == b""
            await target.ended.wait()
            assert target.heard == []
            assert [(event.decision, event.code) for event in await r.outcomes(1)] == [("failed", "invalid-request")]

    play(scene)


MASKED = bytes([0x81, 0x81, 1, 2, 3, 4, 0x79])


@pytest.mark.attack("HTT-14")
@pytest.mark.parametrize("data", [MASKED, bytes([0xC1, 0]), b"HTTP/1.1 200 OK\r\n\r\n", b"\x81\x01\xff"])
def test_an_upstream_that_says_what_is_no_frame_is_cut(data: bytes) -> None:
    raw = "\r\n".join(["HTTP/1.1 101 Switching Protocols", *SWITCHED, "", ""]).encode() + data

    async def scene() -> None:
        async with rig(SOCKETS, upstream=Upstream(routes={"/socket/a": raw})) as r:
            wire = await r.wire()
            await wire.send(handshake("/api/socket/a", f"127.0.0.1:{r.port}"))
            heard = await wire.rest()
            assert b"\xff" not in heard
            assert data not in heard
            assert [(event.decision, event.code) for event in await r.outcomes(1)] == [("failed", "upstream")]

    play(scene)


def test_a_client_that_reads_nothing_holds_its_upstream_and_no_memory() -> None:
    async def scene() -> None:
        sent = 0
        full = asyncio.Event()

        async def flood(socket: ServerConnection) -> None:
            nonlocal sent
            with suppress(ConnectionClosed):
                while True:
                    try:
                        async with asyncio.timeout(None if full.is_set() else 1):
                            await socket.send(b"x" * 65_536)
                    except TimeoutError:  # it takes no more
                        full.set()
                    else:
                        sent += 65_536

        async with (
            serve(flood, "127.0.0.1", 0) as server,
            rig(SOCKETS, destination=f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}") as r,
        ):
            wire = await r.wire()
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await wire.send(handshake("/api/socket/a", f"127.0.0.1:{r.port}"))
            async with asyncio.timeout(20):
                await full.wait()
            assert sent < 64 * 1_048_576
            (client,) = r.gateway.connections.all
            assert client._transport is not None
            assert client._transport.get_write_buffer_size() < 1_048_576

    play(scene)
