"""Tokens of humans that an upstream does not take: renewed once, and the request made once more where it can be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import pytest

from remit.gateway.server import Channel
from tests.broker.providers import OAUTH, Issuing, connect, reached
from tests.broker.world import OPERATOR
from tests.gateway.mcp.forge import BOUND, call, forge, message
from tests.gateway.rig import ALL, PLACEHOLDER, Rig, http, play, rig
from tests.support.upstream import Seen, Upstream, whole

NO = whole("401 Unauthorized", b'{"error": "invalid_token"}', "Content-Type: application/json")
KEY = f"Authorization: Bearer {PLACEHOLDER}"


class Doubting(Upstream):
    """Takes no token but those of some numbers."""

    def __init__(self, *good: int) -> None:
        super().__init__()
        self.good = {f"Bearer access-token-number-{number}" for number in good}

    async def _answer(self, writer: asyncio.StreamWriter, seen: Seen, path: str) -> bool:
        if seen.headers.get("authorization") in self.good:
            return await super()._answer(writer, seen, path)
        writer.write(NO)
        await writer.drain()
        return True

    @property
    def shown(self) -> list[str]:
        return [seen.headers["authorization"][-1] for seen in self.seen]


@asynccontextmanager
async def doubted(upstream: Doubting, issuing: Issuing) -> AsyncIterator[Rig]:
    made = rig(ALL, secret=None, settings={"oauth": OAUTH}, providers=reached(issuing), upstream=upstream)
    async with made as r:
        await connect(r.broker, "api")
        yield r


def test_a_token_that_is_refused_is_renewed_and_the_request_made_once_more() -> None:
    async def scene() -> None:
        up = Doubting(1)
        async with doubted(up, Issuing()) as r:
            reply = await r.get("/api/x", KEY)
            assert (reply.status, up.shown) == (200, ["0", "1"])
            assert b"invalid_token" not in reply.raw
            first, second = await r.outcomes(2)
            assert [(each.decision, each.code) for each in (first, second)] == [("failed", "upstream"), ("done", None)]
            uses = await r.events("resource.use")
            assert [use.request for use in uses] == [first.request, f"{first.request}.again"]
            assert (await r.get("/api/x", KEY)).status == 200
            assert up.shown == ["0", "1", "1"]

    play(scene)


def test_many_that_are_refused_at_once_make_one_refresh() -> None:
    async def scene() -> None:
        up, issuing = Doubting(1), Issuing()
        async with doubted(up, issuing) as r:
            replies = await asyncio.gather(*(r.get(f"/api/{each}", KEY) for each in range(6)))
            assert [reply.status for reply in replies] == [200] * 6
            assert len(issuing.asked) == 2

    play(scene)


def test_an_upstream_that_refuses_every_token_is_asked_twice_and_its_answer_stands() -> None:
    async def scene() -> None:
        up, issuing = Doubting(), Issuing()
        async with doubted(up, issuing) as r:
            for _ in range(3):
                reply = await r.get("/api/x", KEY)
                assert (reply.status, reply.body) == (401, b'{"error": "invalid_token"}')
            assert (up.shown, len(issuing.asked)) == (["0", "1", "1", "1"], 2)
            r.now[0] += timedelta(seconds=61)  # it may mean it after all
            assert (await r.get("/api/x", KEY)).status == 401
            assert (up.shown[4:], len(issuing.asked)) == (["1", "2"], 3)

    play(scene)


def test_where_the_provider_refuses_too_the_human_is_asked_again() -> None:
    async def scene() -> None:
        up, issuing = Doubting(), Issuing()
        async with doubted(up, issuing) as r:
            issuing.good.clear()  # they have withdrawn it there
            reply = await r.get("/api/x", KEY)
            assert (reply.status, reply.json()["code"]) == (403, "connect")
            assert up.shown == ["0"]
            (view,) = await r.broker.connections(OPERATOR)
            assert view.over == "is over at the provider"

    play(scene)


def test_where_nothing_can_be_renewed_the_upstreams_answer_stands() -> None:
    async def scene() -> None:
        up, issuing = Doubting(), Issuing(refreshes=False)
        async with doubted(up, issuing) as r:
            assert (await r.get("/api/x", KEY)).status == 401
            assert (await r.get("/api/x", KEY)).status == 401
            assert (up.shown, len(issuing.asked)) == (["0", "0", "0"], 1)
            (view,) = await r.broker.connections(OPERATOR)
            assert view.over == ""

    play(scene)


def test_a_body_that_went_as_it_came_is_not_sent_again() -> None:
    async def scene() -> None:
        up = Doubting(1)
        async with doubted(up, Issuing()) as r:
            reply = await r.get("/api/x", KEY, "Content-Type: text/plain", method="POST", body=b"once")
            assert (reply.status, up.shown) == (401, ["0"])

    play(scene)


def test_the_second_request_counts_in_the_budget() -> None:
    async def scene() -> None:
        up = Doubting(1)
        async with doubted(up, Issuing()) as r:
            once = await r.opened(http(paths=["/**"], args="any", uses=1))
            port = await r.listen(Channel(once.id, {"api": PLACEHOLDER}))
            reply = await r.get("/api/x", KEY, port=port)
            assert (reply.status, reply.json()["code"], up.shown) == (403, "budget", ["0"])

    play(scene)


@pytest.mark.parametrize("body", [call("open", repo="acme"), message("notifications/initialized", id_=None)])
def test_a_message_that_a_server_refused_is_sent_once_more(body: bytes) -> None:
    async def scene() -> None:
        issuing = Issuing()
        async with forge(BOUND, oauth=OAUTH, providers=reached(issuing)) as there:
            await connect(there.rig.broker, "forge")
            there.server.tokens = frozenset({"access-token-number-1"})
            assert (await there.post(body)).status == 200
            assert [seen.body for seen in there.seen] == [there.seen[0].body] * 2
            assert [seen.headers["authorization"][-1] for seen in there.seen] == ["0", "1"]

    play(scene)
