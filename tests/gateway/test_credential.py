"""Sources of credentials through the real gateway: one that rotates, one that signs the finished request."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from remit.errors import UnavailableError, UpstreamError
from remit.gateway.target import BoundCredential
from remit.ports.broker import Notice
from remit.ports.credential import Injection, UnsignedRequest
from tests.gateway.rig import http, play, rig
from tests.gateway.test_target import shape
from tests.support.upstream import whole

ANY = http(actions=["GET", "POST"], paths=["/**"], args="any")
START = datetime(2026, 1, 1, tzinfo=UTC)  # as the rig's clock
KEY = b"a-signing-key-of-32-bytes-or-more-7f3a"


class RotatingSource:
    """Hands out another token each time it is asked, each good for five minutes."""

    def __init__(self, now: Callable[[], datetime] = lambda: START) -> None:
        self.names = frozenset({"authorization", "x-project"})
        self.now = now
        self.calls = 0
        self.failing: Exception | None = None
        self.go_on = asyncio.Event()
        self.go_on.set()

    def token(self, number: int) -> str:
        return f"tok-{number}-3f1c0a9be7d24856b0d1c2e3f4a59687"

    async def current(self) -> Injection:
        self.calls += 1
        await self.go_on.wait()
        if self.failing is not None:
            raise self.failing
        token = self.token(self.calls)
        fields = (("Authorization", f"Bearer {token}"), ("X-Project", "p-1"))
        return Injection(fields, (token.encode(),), self.now() + timedelta(minutes=5))


class SigningSource:
    """Signs method, target, all fields and the body of each request with one key."""

    def __init__(self) -> None:
        self.names = frozenset({"x-key-id", "x-signature"})
        self.requests: list[UnsignedRequest] = []

    async def current(self) -> Injection:
        return Injection((("X-Key-Id", "key-1"),), (KEY,))

    async def sign(self, request: UnsignedRequest) -> tuple[tuple[str, str], ...]:
        self.requests.append(request)
        return (("X-Signature", signature(request.method, request.target, dict(request.fields), request.body)),)


def signature(method: str, target: str, fields: dict[str, str], body: bytes) -> str:
    known = {name.lower(): value for name, value in fields.items()}
    lines = "\n".join(f"{name}:{known[name]}" for name in ("host", "x-key-id", "content-type") if name in known)
    return hmac.new(KEY, f"{method} {target}\n{lines}\n".encode() + body, hashlib.sha256).hexdigest()


# -- one that rotates -----------------------------------------------------------------------------------------------


def test_a_token_that_rotates_is_asked_for_once_until_it_expires() -> None:
    async def scene() -> None:
        source = RotatingSource()
        async with rig(ANY, secret=None, source_of=lambda _: source) as r:
            source.now = lambda: r.now[0]
            for _ in range(3):
                assert (await r.get("/api/x")).status == 200
            r.now[0] += timedelta(minutes=5)
            assert (await r.get("/api/x")).status == 200
            shown = [seen.headers["authorization"] for seen in r.upstream.seen]
            assert shown == [f"Bearer {source.token(n)}" for n in (1, 1, 1, 2)]
            assert {seen.headers["x-project"] for seen in r.upstream.seen} == {"p-1"}

    play(scene)


def test_requests_that_wait_for_a_token_share_it() -> None:
    async def scene() -> None:
        source = RotatingSource()
        source.go_on.clear()
        async with rig(ANY, secret=None, source_of=lambda _: source) as r:
            asking = [asyncio.create_task(r.get("/api/x")) for _ in range(5)]
            await r.settled(lambda: source.calls == 1)
            source.go_on.set()
            assert {reply.status for reply in await asyncio.gather(*asking)} == {200}
            assert source.calls == 1

    play(scene)


def test_an_answer_that_repeats_the_token_of_now_is_withheld() -> None:
    async def scene() -> None:
        source = RotatingSource()
        async with rig(ANY, secret=None, source_of=lambda _: source) as r:
            source.now = lambda: r.now[0]
            for number in (1, 2):
                reply = await r.get("/api/echo/plain")
                assert (reply.status, source.token(number).encode() in reply.raw) == (502, False)
                r.now[0] += timedelta(minutes=5)

    play(scene)


def test_a_callers_own_copies_of_what_a_source_writes_are_dropped() -> None:
    async def scene() -> None:
        source = RotatingSource()
        async with rig(ANY, secret=None, source_of=lambda _: source, settings={"headers": ["X-Project"]}) as r:
            assert (await r.get("/api/x", "X-Project: mine", "Authorization: Bearer mine")).status == 200
            [seen] = r.upstream.seen
            assert (seen.raw.lower().count(b"x-project"), seen.headers["x-project"]) == (1, "p-1")

    play(scene)


@pytest.mark.parametrize("failing", [UpstreamError("the issuer is down"), UnavailableError(), ValueError("tok-secret")])
def test_without_a_credential_nothing_is_sent_and_the_next_request_asks_again(failing: Exception) -> None:
    async def scene() -> None:
        source = RotatingSource()
        source.failing = failing
        async with rig(ANY, secret=None, source_of=lambda _: source) as r:
            reply = await r.get("/api/x")
            assert reply.status >= 500
            assert b"tok-" not in reply.raw
            assert r.upstream.seen == []
            source.failing = None
            assert (await r.get("/api/x")).status == 200

    play(scene)


def test_a_credential_that_has_expired_when_it_comes_is_not_sent() -> None:
    async def scene() -> None:
        source = RotatingSource(lambda: START - timedelta(hours=1))
        async with rig(ANY, secret=None, source_of=lambda _: source) as r:
            assert (await r.get("/api/x")).status == 502
            assert r.upstream.seen == []

    play(scene)


def test_a_grant_that_ends_while_a_token_is_fetched_sends_nothing() -> None:
    async def scene() -> None:
        source = RotatingSource()
        source.go_on.clear()
        async with rig(ANY, secret=None, source_of=lambda _: source) as r:
            wire = await r.wire()
            await wire.send(r.request("/api/x"))
            await r.settled(lambda: source.calls == 1)
            r.gateway.noticed(Notice(frozenset({r.grant.id})))
            source.go_on.set()
            await wire.rest()
            await r.settled(lambda: not r.gateway.plane.tasks)
            assert r.upstream.seen == []

    play(scene)


# -- one that signs -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True])
def test_a_finished_request_is_signed_with_its_body(*, chunked: bool) -> None:
    async def scene() -> None:
        source = SigningSource()
        async with rig(ANY, secret=None, source_of=lambda _: source, base="/v2") as r:
            wire = await r.wire()
            head = ["POST /api/x?b=2&a=1 HTTP/1.1", f"Host: 127.0.0.1:{r.port}", "Content-Type: text/plain"]
            framed = (
                (b"5\r\nhello\r\n0\r\n\r\n", "Transfer-Encoding: chunked")
                if chunked
                else (b"hello", "Content-Length: 5")
            )
            await wire.send("\r\n".join([*head, framed[1], "", ""]).encode() + framed[0])
            assert (await wire.reply("POST")).status == 200
            [seen] = r.upstream.seen
            assert seen.body == b"hello"
            assert seen.headers["x-signature"] == signature("POST", "/v2/x?b=2&a=1", dict(seen.headers), b"hello")
            [request] = source.requests
            assert dict(request.fields)["Host"] == seen.headers["host"]

    play(scene)


def test_each_request_has_a_signature_of_its_own_and_the_key_never_comes_back() -> None:
    async def scene() -> None:
        source = SigningSource()
        async with rig(ANY, secret=None, source_of=lambda _: source) as r:
            for path in ("/a", "/b"):
                assert (await r.get(f"/api{path}", "X-Signature: mine")).status == 200
            assert len({seen.headers["x-signature"] for seen in r.upstream.seen}) == 2
            r.upstream._routes["/c"] = whole("200 OK", b"<" + KEY + b">")
            assert (await r.get("/api/c")).status == 502

    play(scene)


def test_a_body_too_large_to_be_read_whole_is_not_signed() -> None:
    async def scene() -> None:
        source = SigningSource()
        async with rig(ANY, secret=None, source_of=lambda _: source, settings={"max_body": 10}) as r:
            assert (await r.get("/api/x", method="POST", body=b"x" * 11)).status == 413
            assert (source.requests, r.upstream.seen) == ([], [])

    play(scene)


# -- what may be written --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "field",
    [
        ("X-Other", "a"),
        ("Host", "evil.test"),
        ("Authorization", "a\r\nX: y"),
        ("Authorization\r\nX", "y"),
        ("Authorization", ""),
    ],
)
def test_a_source_writes_its_own_fields_alone_and_no_more_than_a_value(field: tuple[str, str]) -> None:
    with pytest.raises(UpstreamError):
        BoundCredential(shape(), Injection((field,), ()), frozenset({"authorization", "host"}))
