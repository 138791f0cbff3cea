"""Bodies that take long to judge: one at a time for each task, beside the loop."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator

import pytest

from remit.core.task import Grant
from remit.gateway import canon
from remit.gateway.authorize import Rule, Rules
from remit.gateway.server import Channel
from tests.broker.world import OPERATOR
from tests.gateway.rig import Rig, http, play, rig

JUDGED = http(actions=["GET", "POST"], args={"body.t": "any", "query.q": "any"})
JSON = "Content-Type: application/json"
LARGE = json.dumps({"t": "x, [y] " * 10_000}).encode()


class Slow(tuple[Rule, ...]):  # noqa: SLOT001 - it has attributes
    """Rules that wait, wherever but in the loop, until they may go on, and know who was there meanwhile."""

    def __init__(self, _: Rules) -> None:
        self._loop = threading.get_ident()
        self.go_on = threading.Event()
        self.there = 0
        self.most = 0

    def __iter__(self) -> Iterator[Rule]:
        if threading.get_ident() != self._loop:
            self.there += 1
            self.most = max(self.most, self.there)
            assert self.go_on.wait(10)
            self.there -= 1
        return super().__iter__()


def task_of(r: Rig, grant: Grant) -> str:
    return r.broker._tasks.task_of(grant.id).id


async def slow(r: Rig) -> Slow:
    """Make judging a body of the rig's grant wait."""
    route = await r.gateway.plane.routes.compiled(r.grant.id, "api")
    found = route.rules = Slow(route.rules)
    return found


async def post(r: Rig, body: bytes, *lines: str, port: int | None = None) -> int:
    return (await r.get("/api/v1/public/a", *(lines or (JSON,)), method="POST", body=body, port=port)).status


@pytest.mark.attack("DOS-07")
def test_while_large_bodies_are_judged_others_are_answered() -> None:
    async def scene() -> None:
        async with rig(JUDGED) as r:
            rules = await slow(r)
            large = [asyncio.create_task(post(r, LARGE)) for _ in range(8)]
            await r.settled(lambda: rules.there == 1)
            other = await r.listen(Channel((await r.opened(JUDGED)).id, {}))
            for _ in range(20):
                assert (await r.get("/api/v1/public/b?q=x", port=other)).status == 200
                assert await post(r, b'{"t":"light"}', port=other) == 200
            rules.go_on.set()
            assert await asyncio.gather(*large) == [200] * 8
            assert rules.most == 1

    play(scene)


@pytest.mark.attack("DOS-07")
def test_a_large_body_goes_on_as_it_was_judged() -> None:
    async def scene() -> None:
        async with rig(http(actions=["POST"], args={"body.t": "any"})) as r:
            rules = await slow(r)
            rules.go_on.set()
            assert await post(r, LARGE) == 200
            assert rules.most == 1
            assert json.loads(r.upstream.seen[-1].body) == json.loads(LARGE)
            assert await post(r, json.dumps({"t": 1, "u": "x" * 9_000}).encode()) == 403
            assert len(r.upstream.seen) == 1

    play(scene)


@pytest.mark.attack("DOS-07")
def test_a_body_that_waits_to_be_judged_ends_with_its_grant() -> None:
    async def scene() -> None:
        async with rig(http(actions=["POST"], args={"body.t": "any"})) as r:
            rules = await slow(r)
            large = [asyncio.create_task(post(r, LARGE)) for _ in range(3)]
            await r.settled(lambda: rules.there == 1)
            await r.broker.revoke(OPERATOR, r.grant.id)
            rules.go_on.set()
            await asyncio.gather(*large, return_exceptions=True)
            assert r.upstream.seen == []

    play(scene)


@pytest.mark.attack("DOS-07")
@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"[" + b",".join([b'{"a":[1,2,3]}'] * 18_000) + b"]"),
        ("application/json", b'{"t":' + b"1" * 100_000 + b"}"),
        ("application/json", b'{"t":"' + b"x" * 262_144 + b'"}'),
        ("application/x-www-form-urlencoded", b"&".join([b"a=1"] * 60_000)),
        ("multipart/form-data; boundary=x", b"--x\r\n\r\na\r\n" * 20_000 + b"--x--"),
    ],
)
def test_a_body_that_is_not_judged_never_reaches_the_upstream(kind: str, body: bytes) -> None:
    async def scene() -> None:
        async with rig(http(actions=["POST"], args={"body.t": "any"})) as r:
            assert await post(r, body, f"Content-Type: {kind}") in {400, 413}
            assert r.upstream.seen == []

    play(scene)


@pytest.mark.attack("DOS-07")
def test_a_query_of_thousands_of_arguments_is_refused() -> None:
    async def scene() -> None:
        async with rig(JUDGED) as r:
            for query in ("&".join(["a=1"] * 2_000), "&".join(f"a{i}=" for i in range(1_500)), "a=" + "1" * 9_000):
                assert (await r.get(f"/api/v1/public/a?{query}")).status == 400
            assert r.upstream.seen == []

    play(scene)


def test_a_resource_may_say_how_large_a_judged_body_is() -> None:
    async def scene() -> None:
        async with rig(http(actions=["POST"], args={"body.t": "any"}), settings={"max_body": 400_000}) as r:
            assert await post(r, json.dumps({"t": "x" * 300_000}).encode()) == 200
            assert await post(r, json.dumps({"t": "x" * 500_000}).encode()) == 413
            assert [canon.heavy(seen.body) for seen in r.upstream.seen] == [True]

    play(scene)


def test_a_task_waits_for_its_own_large_bodies_alone() -> None:
    async def scene() -> None:
        async with rig(JUDGED) as r:
            mine = r.gateway.plane.loop.create_task(post(r, LARGE))
            rules = await slow(r)
            await r.settled(lambda: rules.there == 1)
            [client] = r.gateway.connections.all
            other = await r.opened(JUDGED)
            assert client.plane.authorizing[task_of(r, r.grant)].locked()
            assert task_of(r, other) not in client.plane.authorizing
            rules.go_on.set()
            assert await mine == 200

    play(scene)


@pytest.mark.attack("DOS-07")
def test_large_bodies_of_one_task_take_turns_whichever_of_its_runs_they_come_from() -> None:
    async def scene() -> None:
        async with rig(JUDGED) as r:
            inner = await r.listen(Channel((await r.child(JUDGED)).id, {}))
            first = r.gateway.plane.loop.create_task(post(r, LARGE))
            rules = await slow(r)
            await r.settled(lambda: rules.there == 1)
            [client] = r.gateway.connections.all
            second = r.gateway.plane.loop.create_task(post(r, LARGE, port=inner))
            await r.settled(lambda: len(r.gateway.connections.all) == 2)
            [other] = r.gateway.connections.all - {client}
            task = task_of(r, r.grant)
            assert other.plane.authorizing[task] is client.plane.authorizing[task]
            rules.go_on.set()
            assert set(await asyncio.gather(first, second)) == {200}

    play(scene)
