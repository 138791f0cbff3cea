"""How many connections there may be, and which have to go."""

from __future__ import annotations

from remit.gateway import room
from remit.gateway.room import Room
from tests.gateway.rig import http, play, rig

ANY = http(paths=["/**"], args="any")


def test_a_channel_with_too_many_connections_loses_the_one_that_is_idle_for_longest() -> None:
    async def scene() -> None:
        async with rig(ANY) as r:
            busy = await r.wire()
            await busy.send(r.request("/api/hold"))
            await r.upstream.arrived.wait()
            idle = [await r.wire() for _ in range(room.MAX_CLIENTS - 1)]
            await r.settled(lambda: len(r.gateway._clients) == room.MAX_CLIENTS)
            assert (await r.get("/api/bytes/3")).body == b"xxx"
            assert await idle[0].rest() == b""
            await idle[1].send(r.request("/api/bytes/3"))
            assert (await idle[1].reply()).body == b"xxx"
            r.upstream.held.set()
            assert (await busy.reply()).status == 200

    play(scene)


def test_a_connection_is_not_taken_where_all_others_are_in_use_and_none_is_left() -> None:
    async def scene() -> None:
        async with rig(ANY) as r:
            busy = await r.wire()
            await busy.send(r.request("/api/hold"))
            await r.upstream.arrived.wait()
            while r.gateway.room.take(1):
                pass
            assert await (await r.wire()).rest() == b""
            r.upstream.held.set()
            assert (await busy.reply()).status == 200

    play(scene)


def test_a_request_is_told_to_come_back_while_no_descriptor_is_left_for_its_upstream() -> None:
    async def scene() -> None:
        async with rig(ANY) as r:
            wire = await r.wire()
            await r.settled(lambda: len(r.gateway._clients) == 1)
            taken = 0
            while r.gateway.room.take(1):
                taken += 1
            await wire.send(r.request("/api/bytes/3"))
            assert (await wire.reply()).status == 429
            r.gateway.room.give(taken)
            await wire.send(r.request("/api/bytes/3"))
            assert (await wire.reply()).status == 200

    play(scene)


def test_what_is_closed_is_given_back() -> None:
    async def scene() -> None:
        async with rig(ANY) as r:
            free = r.gateway.room._free
            await r.get("/api/bytes/3")
            await r.settled(lambda: not r.gateway._clients)
            r.pool.close()
            assert r.gateway.room._free == free

    play(scene)


def test_a_grant_has_so_many_pipes_and_another_grant_has_its_own() -> None:
    made = Room(1_000)
    assert all(made.take_pipe("grt_a") for _ in range(room.MAX_PIPES))
    assert not made.take_pipe("grt_a")
    assert made.take_pipe("grt_b")
    made.give_pipe("grt_a")
    assert made.take_pipe("grt_a")


def test_pipes_end_where_the_descriptors_do() -> None:
    made = Room(3)
    assert made.take_pipe("grt_a")
    assert not made.take_pipe("grt_b")
