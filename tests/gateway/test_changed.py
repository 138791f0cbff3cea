"""A resource that is changed while a request is under way: its new key reaches its new destination alone."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

from remit.core.secret import Secret
from remit.gateway.upstream import Pool, UpstreamConnection
from tests.broker.world import OPERATOR
from tests.gateway.playbook import Line, PlayedPool
from tests.gateway.rig import OTHER_SECRET, SECRET, Rig, http, play, rig
from tests.support.upstream import Upstream

BODY = b'{"to":"ann"}'


async def moved(r: Rig, destination: str) -> None:
    """Move `api` elsewhere, with another secret."""
    resource = replace(r.broker._registry.resource("api"), destination=destination)
    await r.broker.put_resource(OPERATOR, resource, Secret(OTHER_SECRET))


def test_a_body_held_back_while_the_resource_moves_does_not_carry_the_new_key_to_the_old_host() -> None:
    async def scene() -> None:
        bound = http(actions=["POST"], paths=["/**"], args={"body.to": "ann"})
        async with Upstream() as elsewhere, rig(bound) as r:
            wire = await r.wire()
            head = r.request("/api/send", "Content-Type: application/json", method="POST", body=BODY)[: -len(BODY)]
            await wire.send(head + BODY[:4])
            await r.settled(lambda: bool(r.gateway.plane.tasks))
            await moved(r, elsewhere.url)
            await wire.send(BODY[4:])
            reply = await wire.reply("POST")
            assert (reply.status, reply.json()["code"]) == (409, "conflict")
            assert (r.upstream.seen, elsewhere.seen) == ([], [])
            [outcome] = await r.outcomes(1)
            assert (outcome.decision, outcome.code) == ("failed", "conflict")
            assert not r.gateway.plane.in_flight
            assert (await r.get("/api/send", "Content-Type: application/json", method="POST", body=BODY)).status == 200
            assert (r.upstream.heard(OTHER_SECRET), elsewhere.heard(OTHER_SECRET)) == (0, 1)

    play(scene)


class SlowPool(PlayedPool):
    """A pool during whose connecting something happens."""

    __slots__ = ("happening",)

    def __init__(self, real: Pool, happening: Callable[[], Awaitable[None]]) -> None:
        super().__init__(real)
        self.happening = happening

    async def connect(self) -> UpstreamConnection:
        upstream = await super().connect()
        await self.happening()
        return upstream


def test_a_resource_that_moves_while_a_connection_is_made_gets_nothing_by_it() -> None:
    async def scene() -> None:
        async with rig() as r:
            await r.get("/api/v1/x")
            pool = SlowPool(r.pool, lambda: moved(r, "http://127.0.0.1:9"))
            r.pool = pool
            assert (await r.get("/api/v1/x")).status == 409
            [(_, line)] = pool.lines
            assert (bytes(line.out), line.log) == (b"", ["abort"])
            assert [(o.decision, o.code) for o in (await r.outcomes(2))[1:]] == [("failed", "conflict")]

    play(scene)


def test_a_request_is_not_tried_again_at_a_destination_that_changed() -> None:
    async def scene() -> None:
        async with rig() as r:
            await r.get("/api/v1/x")
            pool = SlowPool(r.pool, lambda: moved(r, "http://127.0.0.1:9"))
            idle, line = UpstreamConnection(pool), Line()
            line.protocol = idle
            idle.connection_made(line)
            idle.fresh = False
            pool.put(idle)
            r.pool = pool
            wire = await r.wire()
            await wire.send(r.request("/api/v1/x"))
            await r.settled(lambda: SECRET.encode() in line.out)
            idle.connection_lost(None)
            assert (await wire.reply()).status == 409
            [(_, again)] = pool.lines
            assert again.out == b""
            codes = [(o.request or "").endswith(".again") for o in await r.outcomes(3)]
            assert codes == [False, False, True]

    play(scene)


def test_a_second_try_that_is_refused_leaves_one_outcome_of_the_first() -> None:
    async def scene() -> None:
        async with rig(http(paths=["/**"], uses=2)) as r:
            await r.get("/api/v1/x")
            pool = PlayedPool(r.pool)
            idle, line = UpstreamConnection(pool), Line()
            idle.connection_made(line)
            idle.fresh = False
            pool.put(idle)
            r.pool = pool
            wire = await r.wire()
            await wire.send(r.request("/api/v1/x"))
            await r.settled(lambda: SECRET.encode() in line.out)
            idle.connection_lost(None)
            assert (await wire.reply()).json()["code"] == "budget"
            await r.gateway.close()
            [_, outcome] = await r.outcomes(2)
            assert (outcome.decision, outcome.code) == ("failed", "budget")

    play(scene)
