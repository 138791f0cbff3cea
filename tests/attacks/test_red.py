"""Redirects, cookies and what connections share."""

from __future__ import annotations

import pytest

from remit.core.secret import Secret
from remit.gateway.server import Channel
from remit.ports import Resource
from tests.broker.world import OPERATOR, details
from tests.gateway.rig import ALL, OTHER_SECRET, SECRET, play, rig
from tests.support.upstream import Sink, Upstream, whole


@pytest.mark.attack("RED-01")
@pytest.mark.parametrize("header", ["Authorization", "X-Api-Key"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_redirect_is_handed_on_and_never_followed(header: str, method: str) -> None:
    async def scene() -> None:
        async with Sink() as evil, rig(settings={"inject": {"header": header}}) as r:
            places = [f"http://127.0.0.1:{evil.port}/x", f"https://localhost:{evil.port}/", f"//localhost:{evil.port}/"]
            for code in (301, 302, 303, 307, 308):
                for place in places:
                    reply = await r.get(f"/api/redirect/{code}?{place}", method=method)
                    assert (reply.status, reply.headers["location"]) == (code, place)
                    assert SECRET.encode() not in reply.raw
            assert (evil.connections, bytes(evil.received)) == (0, b"")
            assert r.upstream.heard(SECRET) == 15

    play(scene)


@pytest.mark.attack("RED-02")
def test_a_cookie_set_for_one_run_reaches_no_other() -> None:
    async def scene() -> None:
        upstream = Upstream(routes={"/login": whole("200 OK", b"in", "Set-Cookie: session=alice; Path=/")})
        async with rig(upstream=upstream) as r:
            other = await r.opened(ALL)
            port = await r.listen(Channel(other.id, {}))
            reply = await r.get("/api/login")
            assert "set-cookie" not in reply.headers
            await r.get("/api/mine", port=port)
            await r.get("/api/mine", "Cookie: session=alice", port=port)
            assert [seen for seen in r.upstream.seen if "cookie" in seen.headers] == []

    play(scene)


@pytest.mark.attack("RED-03")
def test_connections_are_apart_for_each_credential() -> None:
    async def scene() -> None:
        async with rig() as r:
            bound = details({**ALL, "resource": "again"})
            again = Resource("again", "http", r.upstream.url, bound, None, {})
            await r.broker.put_resource(OPERATOR, again, Secret(OTHER_SECRET))
            other = await r.opened({**ALL, "resource": "again"})
            port = await r.listen(Channel(other.id, {}))
            for _ in range(3):
                await r.get("/api/a", "Authorization: NTLM TlRMTVNTUAAB")
                await r.get("/again/a", "Authorization: NTLM TlRMTVNTUAAB", port=port)
            carried = {(seen.connection, seen.headers["authorization"]) for seen in r.upstream.seen}
            assert carried == {(1, f"Bearer {SECRET}"), (2, f"Bearer {OTHER_SECRET}")}

    play(scene)


@pytest.mark.attack("RED-03")
def test_a_replaced_secret_leaves_its_connections_behind() -> None:
    async def scene() -> None:
        async with rig() as r:
            await r.get("/api/a")
            await r.broker.put_secret(OPERATOR, "api", Secret(OTHER_SECRET))
            await r.get("/api/a")
            assert [(seen.connection, SECRET.encode() in seen.raw) for seen in r.upstream.seen] == [
                (1, True),
                (2, False),
            ]

    play(scene)


@pytest.mark.attack("RED-04")
def test_headers_that_steer_a_client_are_not_acted_on_and_alt_svc_is_dropped() -> None:
    async def scene() -> None:
        async with Sink() as evil:
            there = f"http://127.0.0.1:{evil.port}/"
            steering = {
                "refresh": f"0; url={there}",
                "link": f"<{there}>; rel=preload",
                "content-location": there,
            }
            lines = [f"{name}: {value}" for name, value in steering.items()]
            body = f"retry: 1\nurl: {there}\n\n".encode()
            routes = {"/steer": whole("200 OK", body, *lines, f'Alt-Svc: h3="127.0.0.1:{evil.port}"')}
            async with rig(upstream=Upstream(routes=routes)) as r:
                reply = await r.get("/api/steer")
                assert {name: reply.headers.get(name) for name in steering} == steering
                assert "alt-svc" not in reply.headers
                assert (reply.body, evil.connections) == (body, 0)

    play(scene)
