"""How many connections there may be, and which have to go."""

from __future__ import annotations

from remit.gateway import quota
from remit.gateway.quota import DescriptorBudget, TaskQuota
from tests.gateway.rig import http, play, rig

ANY = http(paths=["/**"], args="any")


def test_a_channel_with_too_many_connections_loses_the_one_that_is_idle_for_longest() -> None:
    async def scene() -> None:
        async with rig(ANY) as r:
            busy = await r.wire()
            await busy.send(r.request("/api/hold"))
            await r.upstream.arrived.wait()
            idle = [await r.wire() for _ in range(quota.MAX_CLIENTS - 1)]
            await r.settled(lambda: len(r.gateway.connections.all) == quota.MAX_CLIENTS)
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
            r.gateway.quota.free = 0
            assert await (await r.wire()).rest() == b""
            r.upstream.held.set()
            assert (await busy.reply()).status == 200

    play(scene)


def test_a_request_is_told_to_come_back_while_no_descriptor_is_left_for_its_upstream() -> None:
    async def scene() -> None:
        async with rig(ANY) as r:
            wire = await r.wire()
            await r.settled(lambda: len(r.gateway.connections.all) == 1)
            taken, r.gateway.quota.free = r.gateway.quota.free, 0
            await wire.send(r.request("/api/bytes/3"))
            assert (await wire.reply()).status == 429
            r.gateway.quota.free = taken
            await wire.send(r.request("/api/bytes/3"))
            assert (await wire.reply()).status == 200

    play(scene)


def test_what_is_closed_is_given_back() -> None:
    async def scene() -> None:
        async with rig(ANY) as r:
            free = r.gateway.quota.free
            await r.get("/api/bytes/3")
            await r.settled(lambda: not r.gateway.connections.all)
            r.pool.close()
            assert r.gateway.quota.free == free

    play(scene)


def test_a_grant_has_so_many_pipes_and_another_grant_has_its_own() -> None:
    made = DescriptorBudget(1_000).of("task")
    assert all(made.take_pipe("grt_a") for _ in range(quota.MAX_PIPES))
    assert not made.take_pipe("grt_a")
    assert made.take_pipe("grt_b")
    made.give_pipe("grt_a")
    assert made.take_pipe("grt_a")


def test_pipes_end_where_the_descriptors_do() -> None:
    made = DescriptorBudget(3).of("task")
    assert made.take_pipe("grt_a")
    assert not made.take_pipe("grt_b")


def test_a_task_has_no_more_than_half_of_what_it_and_nobody_have() -> None:
    made = DescriptorBudget(1_000)
    greedy = taken(made.of("task_a"))
    assert greedy == 500
    assert taken(made.of("task_b")) == 250
    made.of("task_b").give(250)
    assert not made.of("task_a").take()


def test_a_task_may_always_have_a_few_while_there_are_some() -> None:
    made = DescriptorBudget(2 * quota.LEAST)
    assert [taken(made.of(task)) for task in "abc"] == [quota.LEAST, quota.LEAST, 0]


def test_a_task_has_so_many_descriptors_however_many_there_are() -> None:
    assert taken(DescriptorBudget(1_000_000).of("task")) == quota.MOST


def test_what_a_task_has_is_counted_together_whatever_it_is_for() -> None:
    made = DescriptorBudget(1_000)
    assert made.of("task").take(400)
    assert sum(made.of("task").take_pipe(f"grt_{number}") for number in range(100)) == 50


def test_what_a_task_has_given_back_it_may_have_again() -> None:
    made = DescriptorBudget(1_000)
    assert taken(made.of("task")) == 500
    made.of("task").give(500)
    assert (made.free, taken(made.of("task"))) == (1_000, 500)


def test_a_task_that_has_more_than_its_share_by_now_changes_one_connection_for_another() -> None:
    async def scene() -> None:
        async with rig(ANY) as r:
            idle = [await r.wire() for _ in range(8)]
            await r.settled(lambda: len(r.gateway.connections.all) == 8)
            free, r.gateway.quota.free = r.gateway.quota.free, 0
            await r.wire()
            assert await idle[0].rest() == b""
            assert len(r.gateway.connections.all) == 8
            r.gateway.quota.free = free
            for wire in r.wires:
                wire.close()
            await r.settled(lambda: not r.gateway.connections.all)
            assert (r.gateway.quota.free, dict(r.gateway.quota.held)) == (free + 8, {})

    play(scene)


def taken(share: TaskQuota) -> int:
    """Take one by one, as many as there are."""
    count = 0
    while share.take():
        count += 1
    return count
