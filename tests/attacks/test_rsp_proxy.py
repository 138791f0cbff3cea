"""Answers through a run's proxy: the key does not come back, nobody is led elsewhere, and each has its own answer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.attacks.test_rsp import scan
from tests.attacks.ways import ASKED, HTTP2, WAYS, Proxies, proxies
from tests.gateway.rig import PLACEHOLDER, SECRET, play
from tests.support.upstream import FORMS, Sink, Upstream, whole

KEY = f"Authorization: Bearer {PLACEHOLDER}"


async def raw_reply(proxy: Proxies, way: str, target: str) -> bytes:
    """Return every byte of the answer to one request."""
    if way in HTTP2:
        return (await proxy.ask(way, "api.test", target, KEY)).raw
    wire = await proxy.open(way, "api.test")
    await wire.send(proxy.request(way, "api.test", target, KEY, "Connection: close"))
    return await wire.rest()


@pytest.mark.attack("RSP-01")
@pytest.mark.attack("RSP-02")
@pytest.mark.attack("RSP-03")
@pytest.mark.attack("RSP-08")
@pytest.mark.parametrize("ways", [WAYS, HTTP2], ids=["http1", "http2"])  # a grant is suspended after three
@pytest.mark.parametrize("form", FORMS)
def test_an_echo_in_any_listed_form_is_withheld_behind_a_host(form: str, ways: Sequence[str]) -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            said = [await raw_reply(proxy, way, f"/echo/{form}") for way in ways]
            assert scan(said) == {}
            assert all(said)
            assert proxy.r.upstream.heard(SECRET) == len(ways)

    play(scene)


@pytest.mark.attack("RED-01")
@pytest.mark.attack("RED-04")
@pytest.mark.parametrize("way", ASKED)
def test_a_redirect_to_another_host_is_the_clients_to_follow_and_its_proxy_refuses_it(way: str) -> None:
    async def scene() -> None:
        async with Sink() as evil, proxies() as proxy:
            for code in (301, 302, 303, 307, 308):
                for place in (
                    f"http://127.0.0.1:{evil.port}/x",
                    "https://evil.test/x",
                    "//evil.test/x",
                    "https://else.test/x",
                ):
                    reply = await proxy.ask(way, "api.test", f"/redirect/{code}?{place}", KEY)
                    assert (reply.status, reply.headers["location"]) == (code, place)
                    assert SECRET.encode() not in reply.raw
            heard = proxy.r.upstream.heard(SECRET)
            assert (heard, proxy.other.seen, evil.connections) == (20, [], 0)
            followed = await proxy.ask("absolute", f"127.0.0.1:{evil.port}", "/x", KEY)
            assert (followed.status, evil.connections) == (403, 0)
            followed = await proxy.ask(way, "else.test", "/x", KEY)  # with the header that it had sent
            assert (followed.status, followed.json()["code"], proxy.other.seen) == (403, "placeholder", [])

    play(scene)


@pytest.mark.attack("RED-02")
@pytest.mark.attack("RED-04")
@pytest.mark.parametrize("way", ASKED)
def test_no_answer_tells_a_client_of_another_way_to_its_host(way: str) -> None:
    lines = ['Alt-Svc: h3=":4433"', "Set-Cookie: session=alice", "Proxy-Authenticate: Basic", "Upgrade: h2c"]
    lines += ["Proxy-Status: x", "Connection: upgrade, keep-alive", "Keep-Alive: timeout=99"]

    async def scene() -> None:
        async with proxies(upstream=Upstream(routes={"/steer": whole("200 OK", b"ok", *lines)})) as proxy:
            reply = await proxy.ask(way, "api.test", "/steer", KEY)
            assert reply.status == 200
            gone = {"alt-svc", "set-cookie", "proxy-authenticate", "upgrade", "keep-alive"}
            assert gone & reply.headers.keys() == set()

    play(scene)


SPLIT = {
    "two answers": whole("200 OK", b"a") + whole("200 OK", b"evil"),
    "an answer in a body that has none": b"HTTP/1.1 204 No Content\r\n\r\n" + whole("200 OK", b"evil"),
    "a bare CR in a header": b"HTTP/1.1 200 OK\r\nX: a\rSet-Cookie: evil=1\r\nContent-Length: 1\r\n\r\na",
    "a bare LF in a header": b"HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: evil=1\r\nContent-Length: 1\r\n\r\na",
    "a NUL in a header": b"HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 1\r\n\r\na",
    "a folded header": b"HTTP/1.1 200 OK\r\nX: a\r\n Set-Cookie: evil=1\r\nContent-Length: 1\r\n\r\na",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 6\r\n\r\naevil!",
    "a length and chunks": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nevil",
    "a break in the reason": b"HTTP/1.1 200 O\rK\r\nContent-Length: 1\r\n\r\na",
    "an answer before it is asked": whole("200 OK", b"a") + b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil" * 3,
    "a switch": b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nevil",
}


@pytest.mark.attack("HTT-10")
@pytest.mark.parametrize("answer", SPLIT.values(), ids=SPLIT)
@pytest.mark.parametrize("way", ASKED)
def test_an_answer_that_can_be_read_as_two_is_one_or_none(way: str, answer: bytes) -> None:
    async def scene() -> None:
        async with proxies(upstream=Upstream(routes={"/split": answer})) as proxy:
            reply = await proxy.ask(way, "api.test", "/split", KEY)
            assert reply.status in {200, 204, 502}
            assert "set-cookie" not in reply.headers
            assert all(b"\r" not in value.encode() and "\n" not in value for value in reply.headers.values())
            again = await proxy.ask(way, "api.test", "/bytes/3", KEY)
            assert (again.status, again.body) == (200, b"xxx")
            connections = [seen.connection for seen in proxy.r.upstream.seen]
            assert len(set(connections)) == 2 or b"evil" not in answer

    play(scene)
