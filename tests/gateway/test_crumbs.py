"""What is dear to read: bodies in chunks of a byte, a few hundred a turn of the loop, and targets of many arguments."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from remit.gateway.canon import SHORT
from remit.gateway.framing import CHUNKS, Chunked
from remit.gateway.patterns import SecretPatterns
from remit.gateway.plane import GrantRoute
from remit.gateway.server import Channel
from tests.broker.world import OPERATOR
from tests.gateway.playbook import Play, play
from tests.gateway.rig import PLACEHOLDER, Rig, http, rig
from tests.gateway.rig import play as played

HEAD = b"POST /api/v1/public/a HTTP/1.1\r\nHost: gw\r\nTransfer-Encoding: chunked\r\n\r\n"
GET = b"GET /api/v1/public/a HTTP/1.1\r\nHost: gw\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
ANSWER = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
CRUMB, LAST = b"1\r\nx\r\n", b"0\r\n\r\n"
MANY = 20_000


def scene(act: Callable[[Play], Awaitable[None]], **more: object) -> None:
    """Play one conversation."""

    async def main() -> None:
        async with play(http(actions=["GET", "POST"], **{"args": "any", **more})) as p:
            await act(p)

    asyncio.run(main())


def said(data: bytes) -> bytes:
    """Return the payload of a chunked message."""
    body, found = Chunked(trailers=False), b""
    payload, rest = body.feed(data.partition(b"\r\n\r\n")[2])
    found += payload
    while body.more:
        payload, rest = body.feed(b"")
        found += payload
    assert body.done
    assert rest == b""
    return found


async def over(condition: Callable[[], bool]) -> None:
    """Let turns pass until something holds."""
    for _ in range(MANY):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError


@pytest.mark.attack("DOS-16")
def test_an_upload_of_crumbs_is_read_a_few_a_turn_and_goes_on_whole() -> None:
    async def act(p: Play) -> None:
        await p.client_says(HEAD)
        p.upstream_hears()
        p.client.data_received(CRUMB * MANY + LAST + GET)
        upstream = p.lines[-1][1]
        assert upstream.out.count(b"x") <= CHUNKS
        assert p.line.log[-1] == "pause"
        heard = bytes(upstream.out)
        exchange = p.client._exchange
        assert exchange is not None
        while exchange.reading:
            before = len(upstream.out)
            await asyncio.sleep(0)
            assert upstream.out[before:].count(b"x") <= CHUNKS + SecretPatterns([PLACEHOLDER.encode()]).keep
        heard = p.upstream_hears()
        assert said(b"\r\n\r\n" + heard) == b"x" * MANY
        assert p.line.log[-1] == "resume"
        await p.upstream_says(OK)
        assert p.client_hears().endswith(b"\r\n\r\nok")
        assert p.upstream_hears().startswith(b"GET /v1/public/a")
        await p.upstream_says(OK)
        assert p.client_hears().endswith(b"\r\n\r\nok")

    scene(act)


@pytest.mark.attack("DOS-16")
def test_an_answer_of_crumbs_is_read_a_few_a_turn_and_goes_on_whole() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        upstream, line = p.lines[-1]
        upstream.data_received(ANSWER + CRUMB * MANY + LAST)
        assert p.line.out.count(b"x") <= CHUNKS
        assert line.log == ["pause"]
        p.client.pause_writing()
        p.client.resume_writing()
        assert line.log == ["pause"]
        await over(lambda: p.client._exchange is None)
        assert said(p.client_hears()) == b"x" * MANY
        assert line.log == ["pause", "resume"]
        await p.client_says(GET)
        await p.upstream_says(OK)
        assert p.client_hears().endswith(b"\r\n\r\nok")
        assert len(p.lines) == 1

    scene(act)


@pytest.mark.attack("DOS-16")
def test_a_client_that_takes_no_more_holds_an_answer_of_crumbs() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        upstream, line = p.lines[-1]
        upstream.data_received(ANSWER + CRUMB * CHUNKS * 3)
        p.client.pause_writing()
        await p.pause()
        assert line.log == ["pause"]
        p.client.resume_writing()
        assert line.log == ["pause", "resume"]
        upstream.data_received(LAST)
        assert said(p.client_hears()) == b"x" * CHUNKS * 3

    scene(act)


@pytest.mark.attack("DOS-16")
def test_an_upstream_that_takes_no_more_holds_an_upload_of_crumbs() -> None:
    async def act(p: Play) -> None:
        await p.client_says(HEAD)
        p.client.data_received(CRUMB * CHUNKS * 3)
        p.lines[-1][0].pause_writing()
        await p.pause()
        assert p.line.log[-1] == "pause"
        p.lines[-1][0].resume_writing()
        assert p.line.log[-1] == "resume"

    scene(act)


@pytest.mark.attack("DOS-16")
def test_crumbs_that_wait_for_their_turn_end_with_their_grant() -> None:
    async def act(p: Play) -> None:
        await p.client_says(HEAD)
        p.client.data_received(CRUMB * MANY)
        await p.rig.broker.revoke(OPERATOR, p.rig.grant.id)
        p.upstream_hears()
        await p.pause()
        assert p.upstream_hears() == b""
        assert p.lines[-1][1].log[-1] == "abort"

    scene(act)


@pytest.mark.attack("DOS-16")
@pytest.mark.parametrize("args", ["any", {"body": "any"}, {"body.t": "any"}])
def test_crumbs_arrive_whole_over_sockets(args: object) -> None:
    text = b'{"t":"' + b"x" * MANY + b'"}'
    coded = b"".join(b"1\r\n%c\r\n" % char for char in text) + LAST

    async def posted(r: Rig) -> None:
        wire = await r.wire()
        lines = ("Content-Type: application/json", "Transfer-Encoding: chunked")
        await wire.send(r.request("/api/v1/public/a", *lines, method="POST") + coded)
        assert (await wire.reply()).status == 200
        assert r.upstream.seen[-1].body == text

    async def scene() -> None:
        async with rig(http(actions=["POST"], args=args)) as r:
            await asyncio.gather(*(posted(r) for _ in range(4)))

    played(scene)


@pytest.mark.attack("DOS-16")
def test_long_targets_are_judged_one_a_turn_of_the_loop() -> None:
    long = "/api/v1/public/a?" + "&".join(f"q{n}=x" for n in range(SHORT // 6))

    async def scene() -> None:
        async with rig(http(args="any")) as r:
            port = await r.listen(Channel((await r.opened(http(args="any"))).id, {}))
            await asyncio.gather(*(r.get(f"{long}{n}", port=at) for at in (port, r.port) for n in range(8)))
            assert len(r.upstream.seen) == 16
            judged: list[int] = []
            turn = 0
            routes = r.gateway.plane.routes
            find = routes.of

            def route(grant: str, name: str) -> GrantRoute | None:
                judged.append(turn)
                return find(grant, name)

            routes.of = route  # type: ignore[method-assign, assignment]  # mypy counts `self`
            wires = [await r.wire() for _ in range(8)]
            for wire in wires:
                await wire.send(r.request(long))
            while len(judged) < len(wires):
                turn += 1
                await asyncio.sleep(0)
            assert len(set(judged)) == len(wires)

    played(scene)
