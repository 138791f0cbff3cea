"""The same bytes again: a head that was permitted is neither read nor judged anew, and asks for its use without a task.

What decides is looked at each time: the use, the grant's end, the route, the suspension.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import pytest

from remit.core.scope import Access
from remit.errors import LimitError
from remit.gateway.plane import MAX_LEAKS
from remit.gateway.recorder import Found
from remit.ports.broker import Use
from tests.gateway.playbook import Play, play
from tests.gateway.rig import http

GET = b"GET /api/v1/public/a HTTP/1.1\r\nHost: gw\r\n\r\n"
POST = b"POST /api/v1/public/a HTTP/1.1\r\nHost: gw\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEARD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@dataclass
class Asked:
    """Uses that were asked for by callback."""

    play: Play
    waiting: list[tuple[tuple[str, Access, str, int], Callable[[Found], None]]] = field(default_factory=list)

    def __call__(self, grant: str, access: Access, request: str, index: int, then: Callable[[Found], None]) -> bool:
        self.waiting.append(((grant, access, request, index), then))
        return True

    async def permitted(self) -> Use:
        """Have the oldest permitted by the broker."""
        grant, access, request, index = self.waiting[0][0]
        return await self.play.rig.broker.use(grant, access, request, index)

    def tell(self, found: Found) -> None:
        """Answer the oldest."""
        self.waiting.pop(0)[1](found)


def scene(act: Callable[[Play, Asked], Awaitable[None]]) -> None:
    """Play what follows once a request was permitted and answered, and outcomes were recorded."""

    async def main() -> None:
        async with play(http(actions=["GET", "POST"], args="any")) as p:
            await p.client_says(GET)
            await p.upstream_says(OK)
            assert p.client_hears() == HEARD
            p.upstream_hears()
            await p.rig.outcomes(2)
            await p.rig.settled(lambda: not p.rig.gateway.plane.tasks)
            asked = Asked(p)
            p.rig.gateway.plane.recorder._ask = asked
            await act(p, asked)

    asyncio.run(main())


def test_a_known_request_is_sent_and_answered_without_a_task() -> None:
    async def act(p: Play, asked: Asked) -> None:
        plane = p.rig.gateway.plane
        p.client.data_received(GET)
        use = await asked.permitted()
        assert asked.waiting[0][0] == (p.rig.grant.id, Access("api", "GET", "/v1/public/a", {}), use.request, 0)
        asked.tell(use)
        assert p.upstream_hears().startswith(b"GET /v1/public/a HTTP/1.1\r\n")
        p.lines[0][0].data_received(OK)
        assert p.client_hears() == HEARD
        assert not plane.tasks
        assert (await p.rig.outcomes(3))[-1].request == use.request

    scene(act)


@pytest.mark.parametrize(
    "raw", [GET.replace(b"GET", b"POST"), GET.replace(b"/a ", b"/b "), GET.replace(b"gw", b"gw\r\nA: b")]
)
def test_other_bytes_are_judged(raw: bytes) -> None:
    async def act(p: Play, asked: Asked) -> None:
        for judged in (True, False):
            p.client.data_received(raw)
            assert bool(p.rig.gateway.plane.tasks) == judged
            await p.pause()
            asked.tell(await asked.permitted())
            assert raw[:5] == p.upstream_hears()[:5]
            await p.upstream_says(OK)

    scene(act)


def test_a_known_request_whose_use_is_refused_is_denied() -> None:
    async def act(p: Play, asked: Asked) -> None:
        p.client.data_received(GET)
        asked.tell(LimitError("too many", retry_after=1))
        await p.pause()
        assert p.client_hears().startswith(b"HTTP/1.1 429 ")
        assert p.upstream_hears() == b""
        denied = (await p.rig.events("resource.use"))[-1]
        assert (denied.decision, denied.grant, denied.code) == ("deny", p.rig.grant.id, "limit")

    scene(act)


def test_a_use_that_is_permitted_when_its_client_has_gone_is_not_sent() -> None:
    async def act(p: Play, asked: Asked) -> None:
        p.client.data_received(GET)
        p.client.connection_lost(None)
        asked.tell(await asked.permitted())
        assert p.upstream_hears() == b""
        assert (await p.rig.outcomes(3))[-1].decision == "failed"
        assert not p.rig.gateway.plane.in_flight

    scene(act)


def test_a_use_that_is_permitted_before_its_grant_ended_is_not_sent_after() -> None:
    async def act(p: Play, asked: Asked) -> None:
        p.client.data_received(GET)
        use = await asked.permitted()
        p.rig.gateway.mark(frozenset({p.rig.grant.id}))
        asked.tell(use)
        assert b'"code":"revoked"' in p.client_hears()
        assert p.upstream_hears() == b""
        assert (await p.rig.outcomes(3))[-1].code == "revoked"

    scene(act)


@pytest.mark.parametrize("what", ["grant", "resource"])
def test_what_has_changed_is_judged_again(what: str) -> None:
    async def act(p: Play, asked: Asked) -> None:
        changed = ({p.rig.grant.id}, set()) if what == "grant" else (set(), {"api"})
        p.rig.gateway.plane.routes.forget(*map(frozenset, changed))
        p.client.data_received(GET)
        assert asked.waiting == []
        assert p.rig.gateway.plane.tasks

    scene(act)


def test_a_request_that_names_another_grant_is_looked_at_each_time() -> None:
    async def act(p: Play, asked: Asked) -> None:
        child = await p.rig.child(http())
        raw = GET.replace(b"\r\n\r\n", b"\r\nRemit-Grant: %b\r\n\r\n" % child.id.encode())
        for _ in range(2):
            p.client.data_received(raw)
            assert p.rig.gateway.plane.tasks
            await p.pause()
            assert asked.waiting[0][0][0] == child.id
            asked.tell(await asked.permitted())
            await p.upstream_says(OK)

    scene(act)


def test_a_body_is_judged_and_sent_each_time_however_equal_the_heads_are() -> None:
    async def main() -> None:
        async with play(http(actions=["POST"], args={"body.t": "any"}), http()) as p:
            for text in (b'{"t":1}', b'{"t":2}', b'{"u":3}'):
                head = POST % len(text)
                p.client.data_received(head + text)
                await p.pause()
                if text.startswith(b'{"t"'):
                    assert p.upstream_hears().endswith(b"\r\n\r\n" + text)
                    await p.upstream_says(OK)
            assert p.upstream_hears() == b""
            assert b"HTTP/1.1 403 " in p.client_hears()

    asyncio.run(main())


def test_a_client_is_told_once_to_go_on() -> None:
    async def main() -> None:
        async with play(http(actions=["POST"], args={"body.t": "any"}), http()) as p:
            expects = b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n"
            await p.client_says((POST % 0).replace(b"Content-Length: 0\r\n\r\n", expects))
            for piece in (b"7", b"\r\n", b'{"t":1}\r\n0\r\n\r\n'):
                await p.client_says(piece)
            assert p.client_hears() == b"HTTP/1.1 100 Continue\r\n\r\n"
            assert p.upstream_hears().endswith(b'{"t":1}')

    asyncio.run(main())


def test_a_suspended_grant_is_denied_what_it_was_permitted_before() -> None:
    async def act(p: Play, asked: Asked) -> None:
        for _ in range(MAX_LEAKS):
            p.rig.gateway.plane.routes.leaked(p.rig.grant.id, None, "api")
        await p.client_says(GET)
        assert p.client_hears().startswith(b"HTTP/1.1 403 ")
        assert asked.waiting == []

    scene(act)


def test_what_breaks_ends_its_own_request_alone(caplog: pytest.LogCaptureFixture) -> None:
    async def act(p: Play, asked: Asked) -> None:
        pools = p.rig.gateway.plane.pools
        ready = pools.ready
        p.client.data_received(GET)
        use = await asked.permitted()
        pools.ready = None  # type: ignore[method-assign, assignment]  # so that it breaks
        asked.tell(use)
        pools.ready = ready  # type: ignore[method-assign]
        assert p.client_hears().startswith(b"HTTP/1.1 500 ")
        assert "TypeError" in caplog.text
        await p.client_says(GET)
        asked.tell(await asked.permitted())
        await p.upstream_says(OK)
        assert p.client_hears() == HEARD

    scene(act)
