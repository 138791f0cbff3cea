"""Connections apart per credential and task, and forgotten with it."""

from __future__ import annotations

from remit.core.secret import Secret
from remit.gateway.server import Channel
from remit.gateway.upstream import IDLE
from tests.broker.world import OPERATOR
from tests.gateway.faulty_upstreams import UnreadBodyUpstream
from tests.gateway.rig import ALL, OTHER_SECRET, Rig, http, play, rig


async def passed(r: Rig, seconds: float) -> None:
    """Let time pass for the gateway."""
    r.ticks[0] += seconds
    r.gateway._sweep()


def test_a_grant_and_those_below_it_share_their_tasks_connections() -> None:
    async def act() -> None:
        async with rig() as r:
            child = await r.child(ALL)
            for lines in ((), (f"Remit-Grant: {child.id}",), ()):
                assert (await r.get("/api/bytes/1", *lines)).status == 200
            assert r.upstream.connections == 1

    play(act)


def test_the_connections_of_a_task_are_closed_when_it_ends() -> None:
    async def act() -> None:
        async with rig() as r:
            other = await r.opened(ALL)
            port = await r.listen(Channel(other.id, {}))
            for at in (None, port):
                assert (await r.get("/api/bytes/1", port=at)).status == 200
            await r.broker.revoke(OPERATOR, other.id)
            await r.settled(lambda: len(r.upstream._open) == 1)
            assert list(r.gateway.plane.pools._tasks) == [r.broker._tasks.task_of(r.grant.id).id]
            assert list(r.gateway.plane.pools._roots) == [r.grant.id]

    play(act)


def test_the_connections_of_a_task_outlive_a_grant_in_it() -> None:
    async def act() -> None:
        async with rig() as r:
            child = await r.child(ALL)
            assert (await r.get("/api/bytes/1", f"Remit-Grant: {child.id}")).status == 200
            await r.broker.revoke(OPERATOR, child.id)
            assert (await r.get("/api/bytes/1")).status == 200
            assert r.upstream.connections == 1

    play(act)


def test_a_pool_that_nobody_uses_is_forgotten() -> None:
    async def act() -> None:
        async with rig() as r:
            assert (await r.get("/api/bytes/1")).status == 200
            await passed(r, IDLE - 1)
            assert len(r.pool.idle) == 1
            await passed(r, 2)
            assert r.gateway.plane.pools._tasks == {}
            assert (await r.get("/api/bytes/1")).status == 200

    play(act)


def test_an_idle_connection_of_another_task_gives_way_where_no_descriptor_is_left() -> None:
    async def act() -> None:
        async with rig() as r:
            ports = [await r.listen(Channel((await r.opened(ALL)).id, {})) for _ in range(3)]
            wires = [await r.wire(port) for port in ports]
            for port, wire in zip(ports[:2], wires, strict=False):
                await wire.send(r.request("/api/bytes/1", port=port))
                assert (await wire.reply()).status == 200
                r.ticks[0] += 1
                r.gateway._sweep()
            await r.settled(lambda: len(r.gateway.connections.all) == 3)
            r.gateway.quota.free = 0
            await wires[2].send(r.request("/api/bytes/1", port=ports[2]))
            assert (await wires[2].reply()).status == 200
            first, second, third = (pools["api"] for pools in r.gateway.plane.pools._tasks.values())
            assert [len(pool.idle) for pool in (first, second, third)] == [0, 1, 1]

    play(act)


def test_a_pool_with_a_request_under_way_is_kept() -> None:
    async def act() -> None:
        async with rig() as r:
            wire = await r.wire()
            await wire.send(r.request("/api/hold"))
            await r.upstream.arrived.wait()
            await passed(r, IDLE + 1)
            r.upstream.held.set()
            assert (await wire.reply()).status == 200
            assert len(r.pool.idle) == 1

    play(act)


def test_a_new_secret_has_new_connections_in_every_task() -> None:
    async def act() -> None:
        async with rig() as r:
            other = await r.opened(ALL)
            port = await r.listen(Channel(other.id, {}))
            for at in (None, port):
                assert (await r.get("/api/bytes/1", port=at)).status == 200
            await r.broker.put_secret(OPERATOR, "api", Secret(OTHER_SECRET))
            for at in (None, port):
                assert (await r.get("/api/bytes/1", port=at)).status == 200
            assert [seen.connection for seen in r.upstream.seen] == [1, 2, 3, 4]
            assert r.upstream.heard(OTHER_SECRET) == 2

    play(act)


def test_tasks_do_not_prepare_what_to_look_for_anew() -> None:
    async def act() -> None:
        async with rig() as r:
            other = await r.opened(ALL)
            port = await r.listen(Channel(other.id, {}))
            for at in (None, port):
                assert (await r.get("/api/bytes/1", port=at)).status == 200
            [mine, theirs] = [pools["api"] for pools in r.gateway.plane.pools._tasks.values()]
            assert mine is not theirs
            assert mine.credential is theirs.credential

    play(act)


# -- after a body ---------------------------------------------------------------------------------------------------


def test_a_connection_is_used_again_after_a_body_where_the_upstream_is_known_to_read_it() -> None:
    async def act() -> None:
        async with rig(settings={"reads_bodies": True}) as r:
            for method in ("POST", "PUT", "PATCH"):
                assert (await r.get("/api/x", method=method, body=b"{}")).status == 200
            assert {seen.connection for seen in r.upstream.seen} == {1}
            assert not any("connection" in seen.headers for seen in r.upstream.seen)

    play(act)


def test_it_is_not_where_the_answer_came_before_the_bodys_end() -> None:
    async def act() -> None:
        upstream = UnreadBodyUpstream()
        async with rig(settings={"reads_bodies": True}, upstream=upstream) as r:
            wire = await r.wire()
            await wire.send(r.request("/api/x", "Content-Length: 10", method="POST") + b"hello")
            assert (await wire.reply("POST")).status == 200
            await wire.send(b"world")
            assert (await r.get("/api/y")).status == 200
            assert upstream.connections == 2

    play(act)


def test_a_body_where_it_has_no_meaning_is_not_trusted_to_be_read() -> None:
    async def act() -> None:
        async with rig(settings={"reads_bodies": True, "body_on": ["DELETE"]}) as r:
            assert (await r.get("/api/x", method="DELETE", body=b"{}")).status == 200
            assert (await r.get("/api/x")).status == 200
            assert [seen.connection for seen in r.upstream.seen] == [1, 2]

    play(act)


def test_a_body_written_anew_is_no_more_trusted_to_be_read() -> None:
    async def act() -> None:
        async with rig(http(actions=["POST"], args={"body.a": "any"})) as r:
            lines = "Content-Type: application/json"
            for _ in range(2):
                assert (await r.get("/api/v1/public/x", lines, method="POST", body=b'{"a":1}')).status == 200
            assert [seen.headers["connection"] for seen in r.upstream.seen] == ["close", "close"]
            assert r.upstream.connections == 2

    play(act)
