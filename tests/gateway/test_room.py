"""How many connections there may be, and which have to go."""

from __future__ import annotations

from remit.gateway import room
from remit.gateway.room import Room, Share
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
            r.gateway.room.free = 0
            assert await (await r.wire()).rest() == b""
            r.upstream.held.set()
            assert (await busy.reply()).status == 200

    play(scene)


def test_a_request_is_told_to_come_back_while_no_descriptor_is_left_for_its_upstream() -> None:
    async def scene() -> None:
        async with rig(ANY) as r:
            wire = await r.wire()
            await r.settled(lambda: len(r.gateway._clients) == 1)
            taken, r.gateway.room.free = r.gateway.room.free, 0
            await wire.send(r.request("/api/bytes/3"))
            assert (await wire.reply()).status == 429
            r.gateway.room.free = taken
            await wire.send(r.request("/api/bytes/3"))
            assert (await wire.reply()).status == 200

    play(scene)


def test_what_is_closed_is_given_back() -> None:
    async def scene() -> None:
        async with rig(ANY) as r:
            free = r.gateway.room.free
            await r.get("/api/bytes/3")
            await r.settled(lambda: not r.gateway._clients)
            r.pool.close()
            assert r.gateway.room.free == free

    play(scene)


def test_a_grant_has_so_many_pipes_and_another_grant_has_its_own() -> None:
    made = Room(1_000).of("task")
    assert all(made.take_pipe("grt_a") for _ in range(room.MAX_PIPES))
    assert not made.take_pipe("grt_a")
    assert made.take_pipe("grt_b")
    made.give_pipe("grt_a")
    assert made.take_pipe("grt_a")


def test_pipes_end_where_the_descriptors_do() -> None:
    made = Room(3).of("task")
    assert made.take_pipe("grt_a")
    assert not made.take_pipe("grt_b")


def test_a_task_has_no_more_than_half_of_what_it_and_nobody_have() -> None:
    made = Room(1_000)
    greedy = taken(made.of("task_a"))
    assert greedy == 500
    assert taken(made.of("task_b")) == 250
    made.of("task_b").give(250)
    assert not made.take("task_a", 1)


def test_a_task_may_always_have_a_few_while_there_are_some() -> None:
    made = Room(2 * room.LEAST)
    assert [taken(made.of(task)) for task in "abc"] == [room.LEAST, room.LEAST, 0]


def test_a_task_has_so_many_descriptors_however_many_there_are() -> None:
    assert taken(Room(1_000_000).of("task")) == room.MOST


def test_what_a_task_has_is_counted_together_whatever_it_is_for() -> None:
    made = Room(1_000)
    assert made.take("task", 400)
    assert sum(made.take_pipe("task", f"grt_{number}") for number in range(100)) == 50


def test_what_a_task_has_given_back_it_may_have_again() -> None:
    made = Room(1_000)
    assert taken(made.of("task")) == 500
    made.give("task", 500)
    assert (made.free, taken(made.of("task"))) == (1_000, 500)


def test_a_task_that_has_more_than_its_share_by_now_changes_one_connection_for_another() -> None:
    async def scene() -> None:
        async with rig(ANY) as r:
            idle = [await r.wire() for _ in range(8)]
            await r.settled(lambda: len(r.gateway._clients) == 8)
            free, r.gateway.room.free = r.gateway.room.free, 0
            await r.wire()
            assert await idle[0].rest() == b""
            assert len(r.gateway._clients) == 8
            r.gateway.room.free = free
            for wire in r.wires:
                wire.close()
            await r.settled(lambda: not r.gateway._clients)
            assert (r.gateway.room.free, dict(r.gateway.room._held)) == (free + 8, {})

    play(scene)


def taken(share: Share) -> int:
    """Take one by one, as many as there are."""
    count = 0
    while share.take():
        count += 1
    return count
