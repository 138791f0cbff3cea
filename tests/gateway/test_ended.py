"""What has ended is cut by another thread, whatever the loop is busy with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from threading import Thread

import pytest
import uvloop

from remit.gateway.cutting import shut
from remit.gateway.ended import KEPT, EndedGrants
from tests.gateway.rig import Rig, play, rig


def _in_a_thread(r: Rig, grant: str, *, sever: bool) -> None:
    """Mark a grant, and cut what moves under it, while the loop is held up by waiting for just that."""

    def end() -> None:
        r.gateway.mark(frozenset({grant}))
        if sever:
            r.gateway.sever(frozenset({grant}))

    thread = Thread(target=end)
    thread.start()
    thread.join()


def test_a_stream_is_cut_on_both_sides_while_the_loop_does_nothing() -> None:
    async def scene() -> None:
        async with rig() as r:
            wire, other = await r.wire(), await r.wire()
            await wire.send(r.request("/api/forever"))
            child = await r.child({"type": "http", "resource": "api", "actions": ["GET"], "paths": ["/**"]})
            await other.send(r.request("/api/forever", f"Remit-Grant: {child.id}"))
            for each in (wire, other):
                await each.reader.readuntil(b"tick")
            _in_a_thread(r, child.id, sever=True)
            rest = await other.rest()
            assert not rest.endswith(b"0\r\n\r\n")
            await wire.reader.readuntil(b"tick")  # what moves under another grant goes on
            await r.settled(lambda: len(r.gateway.plane.in_flight) == 1)
            wire.close()

    play(scene)


def test_nothing_is_sent_under_a_grant_that_ended_after_its_use_was_permitted() -> None:
    async def scene() -> None:
        async with rig() as r:
            assert (await r.get("/api/status/200")).status == 200
            _in_a_thread(r, r.grant.id, sever=False)
            reply = await r.get("/api/status/200")
            assert (reply.status, reply.json()["code"]) == (403, "revoked")
            assert len(r.upstream.seen) == 1
            assert [event.code for event in await r.outcomes(2)] == [None, "revoked"]

    play(scene)


def test_a_mark_is_kept_while_a_permit_may_be_on_its_way() -> None:
    ended = EndedGrants()
    ended.sweep(KEPT + 1)
    ended.mark({"grt_1"})
    ended.sweep(KEPT + 2)
    assert "grt_1" in ended
    ended.sweep(2 * KEPT + 2)
    ended.mark({"grt_2"})
    assert "grt_1" in ended
    ended.sweep(3 * KEPT + 3)
    assert "grt_1" not in ended
    assert "grt_2" in ended


class _Line(asyncio.Protocol):
    """Says back what it hears, or keeps it."""

    def __init__(self, *, echoes: bool) -> None:
        self._echoes = echoes
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]  # of a stream

    def data_received(self, data: bytes) -> None:
        if self._echoes:
            self._transport.write(data)
        else:
            self.heard.put_nowait(data)

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.heard.put_nowait(b"")


@pytest.mark.parametrize("run", [asyncio.run, uvloop.run])
def test_a_connection_that_was_closed_is_left_alone_with_whoever_has_its_number_now(
    run: Callable[[Coroutine[None, None, None]], None],
) -> None:
    async def body() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Line(echoes=True), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        first, gone = await loop.create_connection(lambda: _Line(echoes=False), "127.0.0.1", port)
        number = first.get_extra_info("socket").fileno()
        first.abort()
        assert await gone.heard.get() == b""
        await asyncio.sleep(0)
        second, kept = await loop.create_connection(lambda: _Line(echoes=False), "127.0.0.1", port)
        assert second.get_extra_info("socket").fileno() == number
        shut(first)
        second.write(b"still here")
        assert await kept.heard.get() == b"still here"
        shut(second)
        assert await kept.heard.get() == b""
        server.close()

    async def timed() -> None:
        async with asyncio.timeout(10):
            await body()

    run(timed())
