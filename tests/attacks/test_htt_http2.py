"""Framing, smuggling and switches in HTTP/2 of a run's clients: a stream is one request, and judged alone."""

from __future__ import annotations

import gzip

import pytest

from remit.gateway.upstream import MAX_INTERIM
from tests.attacks.test_dst_proxy import ELSEWHERE
from tests.attacks.test_htt_upstream import LATE, METHODS, smuggled
from tests.attacks.ways import HTTP2, begun, proxies, told
from tests.broker.world import OPERATOR
from tests.gateway.faulty_upstreams import UnreadBodyUpstream
from tests.gateway.rig import ALL, PLACEHOLDER, SECRET, http, play
from tests.support.upstream import Upstream

KEY = f"Authorization: Bearer {PLACEHOLDER}"
HOST = "api.test"
SMUGGLED = b"POST /admin HTTP/1.1\r\nHost: api.test\r\nContent-Length: 0\r\n\r\n"


@pytest.mark.attack("HTT-01")
@pytest.mark.parametrize(
    ("said", "sent"),
    [
        ("3", b"abc" + SMUGGLED),
        ("0", SMUGGLED),
        ("100", b"abc"),
        ("3, 3", b"abc"),
        ("+3", b"abc"),
        ("0x3", b"abc"),
        ("", b"abc"),
        ("99999999999999999999", b"abc"),
    ],
)
def test_a_length_that_lies_makes_no_second_request(said: str, sent: bytes) -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            client = await proxy.speak("http2", HOST)
            lines = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", "/x")]
            number = client.ask_raw([*lines, ("content-length", said)], ended=False)
            client.http.send_data(number, sent, end_stream=True)
            assert told(client, await client.answer(number)).status in {0, 400}
            assert (await proxy.ask("http2", HOST, "/bytes/3", KEY)).body == b"xxx"
            [seen] = proxy.r.upstream.seen  # nothing but that one came whole
            assert seen.target == "/bytes/3"
            assert proxy.other.seen == []

    play(scene)


@pytest.mark.attack("HTT-04")
@pytest.mark.attack("RED-02")
@pytest.mark.parametrize("way", HTTP2)
def test_what_is_said_to_a_proxy_stays_there_in_http2(way: str) -> None:
    """Cookies may come in crumbs (RFC 9113 §8.2.3)."""
    lines = ["Proxy-Authorization: Basic bWU6c2VjcmV0", "Proxy-Custom: x", "TE: trailers", "Cookie: a=b", "Cookie: c=d"]

    async def scene() -> None:
        async with proxies() as proxy:
            assert (await proxy.ask(way, HOST, "/bytes/3", *lines, KEY)).status == 200
            [seen] = proxy.r.upstream.seen
            assert seen.headers["authorization"] == f"Bearer {SECRET}"
            assert seen.headers["host"] == f"127.0.0.1:{proxy.r.upstream.port}"
            assert not {"proxy-authorization", "proxy-custom", "te", "cookie", "connection"} & seen.headers.keys()
            for nominated in ("authorization", "host", "remit-grant"):
                assert (await proxy.ask(way, HOST, "/x", f"Connection: {nominated}", KEY)).status == 400
            assert len(proxy.r.upstream.seen) == 1

    play(scene)


@pytest.mark.attack("DST-01")
@pytest.mark.attack("DST-02")
@pytest.mark.attack("DST-04")
@pytest.mark.parametrize("way", HTTP2)
def test_no_authority_of_a_stream_leads_to_another_host_than_its_connections(way: str) -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            for place in (*ELSEWHERE, "else.test", "else.test:443", "api.test, else.test", "api.test else.test"):
                host = place.replace("%p", str(proxy.other.port))
                if host == HOST:
                    continue
                for stated in ([(":authority", host.encode())], [(":authority", HOST), ("host", host.encode())]):
                    client = await proxy.speak(way, HOST)
                    asked = [(":method", "GET"), (":scheme", "https"), *stated[:1], (":path", "/x"), *stated[1:]]
                    answer = told(client, await client.answer(client.ask_raw([*asked, ("x-key", PLACEHOLDER)])))
                    assert answer.status in {400, 403, 421}, host
                    client.writer.close()
            for target in ("http://else.test/x", "https://else.test/x", "@else.test/x", "*", "else.test:443"):
                assert (await proxy.ask(way, HOST, target, KEY)).status in {400, 403}, target
            assert proxy.nothing_went_out()
            forwarded = ["X-Forwarded-Host: else.test", "Forwarded: host=else.test", "X-Host: else.test", KEY]
            assert (await proxy.ask(way, HOST, "/x", *forwarded)).status == 200
            assert (await proxy.ask(way, "API.test", "/x", KEY)).status == 200
            assert b"else.test" not in proxy.r.upstream.seen[0].raw
            assert proxy.other.seen == []

    play(scene)


@pytest.mark.attack("HTT-06")
@pytest.mark.parametrize("way", HTTP2)
def test_each_of_the_streams_of_a_connection_is_judged_and_has_its_own_answer(way: str) -> None:
    async def scene() -> None:
        async with proxies(ALL) as proxy:
            r = proxy.r
            child, narrow = await r.child(http(actions=["POST"])), await r.child(http())
            client = await proxy.speak(way, HOST)
            held = begun(client, HOST, "/hold", KEY)
            denied = begun(client, HOST, "/v1/admin", f"Remit-Grant: {narrow.id}")
            sized = {size: begun(client, HOST, f"/bytes/{size}", KEY) for size in range(1, 20)}
            for size, number in reversed(sized.items()):
                assert (await client.answer(number)).body == b"x" * size
            await r.upstream.arrived.wait()
            await r.broker.revoke(OPERATOR, child.id)
            revoked = begun(client, HOST, "/v1/public/x", f"Remit-Grant: {child.id}", method="POST")
            refused = [told(client, await client.answer(number)) for number in (denied, revoked)]
            assert [(one.status, one.json()["code"]) for one in refused] == [(403, "scope"), (403, "revoked")]
            assert not client.answers[held].headers
            r.upstream.held.set()
            assert told(client, await client.answer(held)).json()["target"] == "/hold"
            assert {seen.target for seen in r.upstream.seen} == {"/hold", *(f"/bytes/{size}" for size in sized)}

    play(scene)


@pytest.mark.attack("HTT-07")
def test_leftovers_of_an_early_answer_to_a_stream_reach_no_other() -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            client = await proxy.speak("http2", HOST)
            early = client.ask_raw(
                [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", "/early")], ended=False
            )
            client.http.send_data(early, b"x" * 16_000)
            assert (await client.answer(early)).status == 401
            assert (await client.answer(begun(client, HOST, "/bytes/5", KEY))).body == b"xxxxx"
            assert [seen.connection for seen in proxy.r.upstream.seen] == [1, 2]

    play(scene)


@pytest.mark.attack("HTT-09")
@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("sized", [False, True])
@pytest.mark.parametrize("method", ["GET", "DELETE", "POST", "PUT"])
def test_a_request_smuggled_in_the_body_of_a_stream_takes_no_key(method: str, *, sized: bool, deaf: bool) -> None:
    async def scene() -> None:
        upstream = UnreadBodyUpstream(deaf=deaf)
        async with proxies(upstream=upstream, settings={"body_on": list(METHODS)}) as proxy:
            client = await proxy.speak("http2", HOST)
            body = smuggled(200)
            length = [("content-length", str(len(body)))] if sized else []
            lines = [(":method", method), (":scheme", "https"), (":authority", HOST), (":path", "/hello")]
            number = client.ask_raw([*lines, *length], ended=False)
            client.http.send_data(number, body, end_stream=True)
            assert (await client.answer(number)).status == 200
            for _ in range(2):
                assert (await client.answer(begun(client, HOST, "/chat", KEY))).body == b"fine"
            assert SECRET.encode() not in b"".join(upstream.notes)
            assert deaf or upstream.requests(b"POST /notes") == 0

    play(scene)


@pytest.mark.attack("HTT-10")
@pytest.mark.attack("HTT-14")
@pytest.mark.parametrize(
    ("method", "first", "status"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n" + LATE, 200),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n" + LATE, 204),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n" + LATE, 304),
        ("GET", b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na" + LATE, 200),
        ("GET", b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: upgrade\r\n\r\n" + LATE, 502),
        ("GET", b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + LATE, 502),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n:status: 500\r\n\r\na", 502),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nX-A: b\r\n\tc\r\n\r\na", 502),
    ],
)
def test_what_follows_an_answer_is_no_part_of_any_stream(method: str, first: bytes, status: int) -> None:
    async def scene() -> None:
        async with proxies(upstream=Upstream(routes={"/odd": first})) as proxy:
            client = await proxy.speak("http2", HOST)
            odd, fine = (begun(client, HOST, path, KEY, method=method) for path in ("/odd", "/v1/a"))
            answers = [await client.answer(odd), await client.answer(fine)]
            answers += [await client.answer(begun(client, HOST, "/bytes/2", KEY))]
            assert [answer.status for answer in answers] == [status, 200, 200]
            assert [b"POISON" in answer.body for answer in answers] == [False] * 3
            assert "x-a" not in answers[0].headers
            used = {seen.target: seen.connection for seen in proxy.r.upstream.seen}
            assert used["/bytes/2"] != used["/odd"]

    play(scene)


HOPS = ["Connection: x-hop", "Keep-Alive: 1", "Proxy-Connection: a", "TE: gzip", "Upgrade: h2c", "X-Hop: a"]
HOPS += ["Http2-Settings: AAMAAABk"]


@pytest.mark.attack("HTT-04")
def test_headers_of_a_connection_upstream_are_none_of_a_stream() -> None:
    """Where one came through, the client's library would take the connection for broken."""

    async def scene() -> None:
        lines = "\r\n".join([*HOPS, ""])
        interim = f"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n{lines}\r\n"
        answer = f"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Type: a\xff\r\nHost: evil.test\r\n{lines}\r\na"
        routes = {"/hops": answer.encode("latin-1"), "/early": interim.encode() + answer.encode("latin-1")}
        async with proxies(upstream=Upstream(routes=routes)) as proxy:
            client = await proxy.speak("http2", HOST)
            for _ in range(2):
                found = await client.answer(begun(client, HOST, "/hops", KEY))
                assert (found.status, found.body, found.reset) == (200, b"a", None)
                assert not {line.partition(":")[0].lower() for line in HOPS} & found.headers.keys()

    play(scene)


@pytest.mark.attack("HTT-11")
@pytest.mark.parametrize("interim", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n"])
def test_a_flood_of_interim_answers_ends_its_stream_alone(interim: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"
        routes = {"/flood": interim * 3_000 + answer, "/many": interim * MAX_INTERIM + answer}
        async with proxies(upstream=Upstream(routes=routes)) as proxy:
            client = await proxy.speak("http2", HOST)
            for path, status in (("/many", 200), ("/flood", 502), ("/many", 200)):
                assert (await client.answer(begun(client, HOST, path, KEY))).status == status

    play(scene)
    assert [record for record in caplog.records if record.exc_info] == []


@pytest.mark.attack("HTT-12")
@pytest.mark.parametrize("method", METHODS)
def test_a_body_on_a_method_that_has_none_is_refused_on_its_stream(method: str) -> None:
    async def scene() -> None:
        async with proxies() as proxy:
            client = await proxy.speak("http2", HOST)
            lines = [(":method", method), (":scheme", "https"), (":authority", HOST), (":path", "/v1/x")]
            for length, body in (([], b"x"), ([], b""), ([("content-length", "1")], b"x")):
                number = client.ask_raw([*lines, *length], ended=False)
                client.http.send_data(number, body, end_stream=True)
                assert (await client.answer(number)).status == 400
            assert proxy.nothing_went_out()
            assert proxy.r.upstream.connections == 0
            assert (await client.answer(begun(client, HOST, "/v1/x", KEY, method=method))).status == 200

    play(scene)


@pytest.mark.attack("HTT-13")
@pytest.mark.parametrize("way", HTTP2)
def test_a_coded_body_and_headers_that_steer_are_held_back_in_http2(way: str) -> None:
    narrow = http(actions=["POST"], args={"body.to": "bob"})

    async def scene() -> None:
        async with proxies(narrow) as proxy:
            coded = ("Content-Type: application/json", "Content-Encoding: gzip")
            body = gzip.compress(b'{"to":"bob"}')
            refused = await proxy.ask(way, HOST, "/v1/public/x", *coded, KEY, body=body, method="POST")
            assert (refused.status, refused.json()["code"]) == (415, "coding")
            assert proxy.nothing_went_out()
            sent = {
                "X-HTTP-Method-Override": "DELETE",
                "X_HTTP_Method_Override": "DELETE",
                "X-Original-URL": "/admin",
                "Destination": "/admin",
                "X-Forwarded-For": "127.0.0.1",
                "X-Api-Key": "mine",
                "Cookie": "a=b",
            }
            lines = [f"{name}: {value}" for name, value in sent.items()]
            reply = await proxy.ask(
                way, HOST, "/v1/public/x", coded[0], *lines, KEY, body=b'{"to":"bob"}', method="POST"
            )
            assert reply.status == 200
            assert reply.headers["remit-dropped"] == ", ".join(sorted(name.lower() for name in sent))
            [seen] = proxy.r.upstream.seen
            assert not {name.lower() for name in sent} & seen.headers.keys()

    play(scene)
