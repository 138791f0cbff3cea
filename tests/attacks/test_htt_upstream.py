"""What one request leaves on a connection to an upstream reaches no other: bodies unread, bytes and answers late."""

from __future__ import annotations

import gzip

import pytest

from remit.gateway.plane import MAX_LEAKS
from remit.gateway.server import Channel
from remit.gateway.upstream import MAX_INTERIM
from tests.gateway.faulty_upstreams import SecondAnswerUpstream, UnreadBodyUpstream
from tests.gateway.rig import ALL, SECRET, Rig, http, play, rig
from tests.support.upstream import Upstream

METHODS = ("GET", "HEAD", "DELETE", "OPTIONS")
KEY = SECRET.encode()


def smuggled(size: int) -> bytes:
    """Write a request that takes the first ``size`` bytes of whatever follows it for its body."""
    return b"POST /notes HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size


async def neighbour(r: Rig) -> int:
    """Open another task, and return the port of its run."""
    other = await r.opened(ALL)
    return await r.listen(Channel(other.id, {}))


@pytest.mark.attack("HTT-09")
@pytest.mark.parametrize("deaf", [False, True])
@pytest.mark.parametrize("method", [*METHODS, "POST", "PUT", "PATCH"])
def test_a_request_smuggled_in_a_body_takes_no_key_of_another_task(method: str, *, deaf: bool) -> None:
    async def scene() -> None:
        upstream = UnreadBodyUpstream(deaf=deaf)
        async with rig(upstream=upstream, settings={"body_on": list(METHODS)}) as r:
            theirs = await neighbour(r)
            assert (await r.get("/api/hello", method=method, body=smuggled(200))).status == 200
            assert (await r.get("/api/chat", port=theirs)).body == b"fine"
            assert (await r.get("/api/chat")).body == b"fine"
            assert KEY not in b"".join(upstream.notes)
            assert deaf or upstream.requests(b"POST /notes") == 0
            assert [head.count(KEY) for _, head in upstream.heads if b"/notes" not in head] == [1, 1, 1]

    play(scene)


@pytest.mark.attack("HTT-09")
@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_request_smuggled_in_a_body_takes_no_key_of_its_own_task(framing: str) -> None:
    async def scene() -> None:
        upstream = UnreadBodyUpstream(deaf=True)
        async with rig(upstream=upstream) as r:
            wire = await r.wire()
            body = smuggled(150)
            if framing == "length":
                await wire.send(r.request("/api/hello", method="POST", body=body))
            else:
                chunk = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
                await wire.send(r.request("/api/hello", "Transfer-Encoding: chunked", method="POST") + chunk)
            assert (await wire.reply("POST")).status == 200
            for _ in range(2):
                await wire.send(r.request("/api/chat"))
                assert (await wire.reply()).status == 200
            assert KEY not in b"".join(upstream.notes)

    play(scene)


@pytest.mark.attack("HTT-09")
def test_tasks_share_no_connection_though_nothing_was_smuggled() -> None:
    async def scene() -> None:
        async with rig() as r:
            theirs = await neighbour(r)
            for port in (None, theirs, None, theirs):
                assert (await r.get("/api/bytes/3", port=port)).status == 200
            assert [seen.connection for seen in r.upstream.seen] == [1, 2, 1, 2]

    play(scene)


@pytest.mark.attack("HTT-12")
@pytest.mark.parametrize("method", METHODS)
def test_a_body_on_a_method_that_has_none_is_refused_before_anything_is_sent(method: str) -> None:
    async def scene() -> None:
        async with rig() as r:
            for lines, body in (((), b"x"), (("Transfer-Encoding: chunked",), b"")):
                reply = await r.get("/api/v1/x", *lines, method=method, body=body)
                assert reply.status == 400
                assert method == "HEAD" or "body_on" in str(reply.json()["help"])
            assert (r.upstream.seen, r.upstream.connections) == ([], 0)
            assert (await r.get("/api/v1/x", "Content-Length: 0", method=method)).status == 200

    play(scene)


@pytest.mark.attack("HTT-12")
def test_a_body_goes_along_where_the_resource_says_that_the_method_takes_one() -> None:
    async def scene() -> None:
        async with rig(settings={"body_on": ["GET"]}) as r:
            assert (await r.get("/api/_search", method="GET", body=b'{"q":1}')).status == 200
            assert (await r.get("/api/_search", method="DELETE", body=b'{"q":1}')).status == 400
            [seen] = r.upstream.seen
            assert (seen.method, seen.body, seen.headers["connection"]) == ("GET", b'{"q":1}', "close")

    play(scene)


LATE = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON"


@pytest.mark.attack("HTT-10")
@pytest.mark.parametrize(
    ("method", "first"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 6\r\n\r\n"),
        ("GET", b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
        ("GET", b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"),
        ("GET", b"HTTP/1.1 102 P\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    ],
)
def test_a_connection_is_not_used_again_where_a_body_may_follow_that_should_not(method: str, first: bytes) -> None:
    async def scene() -> None:
        async with rig(upstream=Upstream(routes={"/odd": first})) as r:
            assert (await r.get("/api/odd", method=method)).status < 400
            assert (await r.get("/api/bytes/2")).body == b"xx"
            assert [seen.connection for seen in r.upstream.seen] == [1, 2]

    play(scene)


@pytest.mark.attack("HTT-13")
def test_a_compressed_body_keeps_its_coding_or_is_refused() -> None:
    async def scene() -> None:
        body = gzip.compress(b'{"to":"bob"}')
        lines = ("Content-Type: application/json", "Content-Encoding: gzip")
        async with rig(http(actions=["POST"], args={"body.to": "bob"}), ALL) as r:
            narrow = await r.child(http(actions=["POST"], args={"body.to": "bob"}))
            under = f"Remit-Grant: {narrow.id}"
            refused = await r.get("/api/v1/public/x", *lines, under, method="POST", body=body)
            assert (refused.status, refused.json()["code"]) == (415, "coding")
            assert r.upstream.seen == []
            assert (await r.get("/api/v1/public/x", *lines, method="POST", body=body)).status == 200
            [seen] = r.upstream.seen
            assert (seen.headers["content-encoding"], seen.body) == ("gzip", body)

    play(scene)


@pytest.mark.attack("HTT-13")
def test_a_header_that_changes_what_a_request_does_stays_here_and_the_client_is_told() -> None:
    async def scene() -> None:
        async with rig() as r:
            sent = {
                "X-HTTP-Method-Override": "DELETE",
                "X_HTTP_Method_Override": "DELETE",
                "X-Original-URL": "/admin",
                "Destination": "/admin",
                "X-Amz-Copy-Source": "/admin",
                "X-Forwarded-For": "127.0.0.1",
                "X-Api-Key": "mine",
                "Cookie": "a=b",
                "Git-Protocol": "version=2",
            }
            reply = await r.get("/api/v1/x", *(f"{name}: {value}" for name, value in sent.items()))
            dropped = sorted(name.lower() for name in sent if name != "Git-Protocol")
            assert reply.headers["remit-dropped"] == ", ".join(dropped)
            [seen] = r.upstream.seen
            assert not set(dropped) & seen.headers.keys()
            assert seen.headers["git-protocol"] == "version=2"
            assert "remit-dropped" not in (await r.get("/api/v1/x", "Accept-Encoding: gzip", "Connection: x")).headers

    play(scene)


@pytest.mark.attack("HTT-13")
def test_an_upstream_cannot_say_what_remit_dropped() -> None:
    async def scene() -> None:
        answer = b"HTTP/1.1 200 OK\r\nRemit-Dropped: x\r\nContent-Length: 0\r\n\r\n"
        async with rig(upstream=Upstream(routes={"/says": answer})) as r:
            assert "remit-dropped" not in (await r.get("/api/says")).headers

    play(scene)


@pytest.mark.attack("RSP-07")
def test_nobody_is_suspended_for_a_late_answer_to_another_task() -> None:
    async def scene() -> None:
        async with rig(upstream=SecondAnswerUpstream()) as r:
            theirs = await neighbour(r)
            for _ in range(MAX_LEAKS + 1):
                assert (await r.get("/api/evil")).status in {200, 403, 502}
                assert (await r.get("/api/fine", port=theirs)).status == 200
            assert (await r.get("/api/fine", port=theirs)).status == 200

    play(scene)


@pytest.mark.attack("RSP-07")
def test_a_task_pays_for_late_answers_on_its_own_connections() -> None:
    async def scene() -> None:
        async with rig(upstream=SecondAnswerUpstream()) as r:
            for _ in range(MAX_LEAKS):
                assert (await r.get("/api/evil")).status == 200
                assert (await r.get("/api/fine")).status == 502
            assert (await r.get("/api/fine")).json()["code"] == "denied"

    play(scene)


@pytest.mark.attack("HTT-11")
@pytest.mark.parametrize("interim", [b"HTTP/1.1 103 Early Hints\r\n\r\n", b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n"])
def test_a_flood_of_interim_answers_is_cut(interim: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scene() -> None:
        answer = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na"
        routes = {"/flood": interim * 3_000 + answer, "/many": interim * MAX_INTERIM + answer}
        async with rig(upstream=Upstream(routes=routes)) as r:
            assert (await r.get("/api/many")).body == b"a"
            assert (await r.get("/api/flood")).status == 502
            assert (await r.get("/api/many")).body == b"a"

    play(scene)
    assert [record for record in caplog.records if record.exc_info] == []
