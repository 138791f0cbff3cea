"""HTTP/2 towards upstreams: those that speak nothing older are asked in it, each request on a stream of its own."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from threading import Thread

import pytest
from h2.errors import ErrorCodes

from remit.core.secret import Secret
from remit.gateway import http2_upstream
from remit.gateway.http2_frames import STREAMS
from remit.gateway.server import Channel
from remit.gateway.upstream import IDLE
from tests.attacks.certificates import authority
from tests.broker.world import OPERATOR
from tests.gateway.rig import ALL, OTHER_SECRET, PLACEHOLDER, SECRET, Rig, Wire, http, play, rig
from tests.support.http2_upstream import Act, Http2Upstream, Spoken, frame
from tests.support.upstream import Seen, Upstream

KEY = f"Authorization: Bearer {PLACEHOLDER}"
H1, H2 = b"\x08http/1.1", b"\x02h2"
OK = (":status", "200")


@asynccontextmanager
async def spoken(
    folder: Path, acts: dict[str, Act] | None = None, **more: object
) -> AsyncIterator[tuple[Rig, Http2Upstream]]:
    """Start a gateway before an upstream of HTTP/2."""
    ca = authority(folder)
    upstream = Http2Upstream(ca.server("h2"), acts, **more)  # type: ignore[arg-type]
    async with rig(ALL, upstream=upstream, tls=ca.trust) as r:
        yield r, upstream
        await r.settled(lambda: not r.gateway.plane.in_flight)
        clients = len(r.gateway.connections.all)
        await r.settled(lambda: sum(r.gateway.quota.held.values()) - clients == _connected(r))


def _connected(r: Rig) -> int:
    return sum(len(pool.all) for pools in r.gateway.plane.pools._tasks.values() for pool in pools.values())


async def asked(r: Rig, paths: Sequence[str], *lines: str) -> list[Wire]:
    """Ask for paths, each on a connection of its own."""
    wires = [await r.wire() for _ in paths]
    for wire, path in zip(wires, paths, strict=True):
        await wire.send(r.request(path, *lines))
    return wires


def test_an_upstream_that_refuses_http_1_1_is_asked_in_http_2_with_the_credential(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            reply = await r.get("/api/v1/x?q=1", KEY, "X-Own: Kept", "Cookie: a=b", "X-Hop: 1", "Connection: x-hop")
            assert (reply.status, b"authorised" in reply.body) == (200, True)
            assert upstream.offered == [H1, H2]
            (seen,) = upstream.seen
            assert seen.headers == {
                ":method": "GET",
                ":scheme": "https",
                ":authority": f"localhost:{upstream.port}",
                ":path": "/v1/x?q=1",
                "authorization": f"Bearer {SECRET}",
                "accept-encoding": "identity",
                "x-own": "Kept",
            }
            assert (await r.get("/api/v1/y")).status == 200
            assert upstream.offered == [H1, H2]  # the same connection
            port = await r.listen(Channel((await r.opened(ALL)).id, {}))
            assert (await r.get("/api/v1/z", port=port)).status == 200
            assert upstream.offered == [H1, H2, H2]  # another task has another one, and it is known what is spoken
            assert [one.connection for one in upstream.seen] == [1, 1, 2]
            assert upstream.wrong == []
            (events, _, _) = await r.outcomes(3)
            assert (events.decision, events.action) == ("done", "200")

    play(scene)


def test_an_upstream_that_speaks_http_1_1_is_asked_in_that(tmp_path: Path) -> None:
    async def scene() -> None:
        ca = authority(tmp_path)
        for protocols in ([], ["http/1.1"], ["h2", "http/1.1"]):
            server = ca.server("both")
            if protocols:
                server.set_alpn_protocols(protocols)
            async with rig(ALL, upstream=Upstream(tls=server), tls=ca.trust) as r:
                for _ in range(2):
                    assert (await r.get("/api/v1/x")).status == 200
                assert [seen.raw.partition(b"\r\n")[0] for seen in r.upstream.seen] == [b"GET /v1/x HTTP/1.1"] * 2
                assert r.upstream.connections == 1

    play(scene)


def test_one_that_does_not_say_what_it_speaks_is_found_out(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path, shy=True) as (r, upstream):
            assert (await r.get("/api/v1/x")).status == 200
            assert upstream.offered == [H1, H2]
            uses = await r.events("resource.use")
            assert len(uses) == 2  # for what was asked in HTTP/1.1 may have been heard
            assert [event.decision for event in await r.outcomes(2)] == ["failed", "done"]

    play(scene)


def test_what_may_have_had_an_effect_is_not_asked_again_to_find_out(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path, shy=True) as (r, upstream):
            assert (await r.get("/api/v1/x", method="POST", body=b"{}")).status == 502
            assert upstream.seen == []
            assert (await r.get("/api/v1/x", method="POST", body=b"{}")).status == 200
            assert upstream.offered == [H1, H2]

    play(scene)


def test_one_of_http_1_1_that_breaks_off_is_asked_once_more_at_most(tmp_path: Path) -> None:
    async def scene() -> None:
        ca = authority(tmp_path)
        async with rig(ALL, upstream=Upstream(tls=ca.server("plain")), tls=ca.trust) as r:
            for _ in range(3):
                assert (await r.get("/api/drop")).status == 502
            assert len(r.upstream.seen) == 4  # the first one twice
            assert (await r.get("/api/v1/x")).status == 200

    play(scene)


def test_an_upstream_that_takes_neither_gets_nothing(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            upstream.context.set_alpn_protocols(["h3"])
            for _ in range(2):
                reply = await r.get("/api/v1/x")
                assert (reply.status, reply.json()["code"]) == (502, "upstream")
                assert "none of the protocols" in str(reply.json()["detail"])
            assert upstream.seen == []
            assert upstream.offered == [H1, H2] * 2
            upstream.context.set_alpn_protocols(["h2"])
            assert (await r.get("/api/v1/x")).status == 200

    play(scene)


def test_one_that_has_learnt_http_1_1_is_asked_in_that_again(tmp_path: Path) -> None:
    async def scene() -> None:
        ca = authority(tmp_path)
        async with Http2Upstream(ca.server("h2")) as old, rig(ALL, destination=old.url, tls=ca.trust) as r:
            assert (await r.get("/api/v1/x")).status == 200
            await old.__aexit__(None, None, None)
            await r.settled(lambda: _connected(r) == 0)
            new = Upstream(tls=ca.server("new"))
            new._server = await asyncio.start_server(new._serve, "127.0.0.1", old.port, ssl=new._tls)
            assert (await r.get("/api/v1/x")).status == 200
            assert len(new.seen) == 1
            new._server.close()

    play(scene)


def test_a_pool_is_not_forgotten_while_its_connection_is_opened(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            for number in range(2):
                wires = await asked(r, ["/api/hold"])
                while len(upstream.seen) == number:  # in whichever turn the sweep comes
                    r.gateway.plane.pools.sweep(r.gateway.plane.now)
                    await asyncio.sleep(0)
                assert _connected(r) == 1
                upstream.held.set()
                assert (await wires[0].reply()).status == 200
                r.pool.idle[0].abort()
                upstream.held.clear()
            assert upstream.offered == [H1, H2, H2]

    play(scene)


def test_without_its_package_the_upstream_is_refused_with_its_name(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            r.gateway.plane.pools.offers._http2 = None
            reply = await r.get("/api/v1/x")
            assert (reply.status, reply.json()["code"]) == (502, "upstream")
            assert "remit[http2]" in str(reply.json()["help"])
            assert upstream.offered == [H1]

    play(scene)


# -- many at a time -------------------------------------------------------------------------------------------------


def test_many_requests_at_a_time_share_a_connection_that_is_opened_once(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            wires = await asked(r, [f"/api/hold?n={n}" for n in range(STREAMS)])
            await r.settled(lambda: len(upstream.seen) == STREAMS)
            upstream.held.set()
            assert [(await wire.reply()).status for wire in wires] == [200] * STREAMS
            assert sorted(seen.target for seen in upstream.seen) == sorted(f"/hold?n={n}" for n in range(STREAMS))
            assert upstream.offered.count(H2) == upstream.connections == 1
            assert upstream.wrong == []

    play(scene)


def test_where_it_takes_fewer_at_a_time_there_are_more_connections(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path, streams=4) as (r, upstream):
            wires = await asked(r, ["/api/hold"] * 10)
            await r.settled(lambda: len(upstream.seen) == 10)
            assert upstream.connections == 3
            upstream.held.set()
            assert [(await wire.reply()).status for wire in wires] == [200] * 10
            assert upstream.wrong == []

    play(scene)


def test_a_connection_is_left_after_so_many_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http2_upstream, "MOST", 3)

    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            for _ in range(7):
                assert (await r.get("/api/v1/x")).status == 200
            assert [seen.connection for seen in upstream.seen] == [1, 1, 1, 2, 2, 2, 3]
            assert _connected(r) == 1

    play(scene)


# -- bodies ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 70_000, 3_000_000])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_arrives_whole(size: int, tmp_path: Path, *, chunked: bool) -> None:
    async def scene() -> None:
        body = os.urandom(size)
        async with spoken(tmp_path) as (r, upstream):
            wire = await r.wire()
            framed = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
            sent = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body) if chunked else body
            await wire.send(r.request("/api/v1/x", framed, method="POST") + sent)
            assert (await wire.reply("POST")).status == 200
            (seen,) = upstream.seen
            assert (seen.body_size, seen.body_sha256) == (size, hashlib.sha256(body).hexdigest())
            assert seen.headers.get("content-length") == (None if chunked else str(size))
            assert {"transfer-encoding", "connection", "host"}.isdisjoint(seen.headers)
            assert upstream.wrong == []

    play(scene)


def test_a_body_goes_as_fast_as_the_upstream_takes_it_and_holds_up_no_other(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            upstream.reads = False
            wire = await r.wire()
            await wire.send(r.request("/api/v1/x", "Content-Length: 8000000", method="POST"))
            wire.writer.write(b"x" * 8_000_000)
            await r.settled(lambda: bool(upstream.spoken and upstream.spoken[0].sizes.get(1) == 65_535))
            (moving,) = r.gateway.plane.in_flight
            up = moving.up  # type: ignore[attr-defined]
            await r.settled(lambda: up._transport._full)
            (one,) = upstream.spoken
            one.http.increment_flow_control_window(1_000_000)
            one.flush()
            for _ in range(20):
                assert (await r.get("/api/v1/y")).status == 200
            assert up._transport.get_write_buffer_size() < 1_000_000
            upstream.reads = True
            one.http.acknowledge_received_data(65_535, 1)
            one.flush()
            assert (await wire.reply("POST")).status == 200
            assert upstream.seen[-1].body_size == 8_000_000

    play(scene)


def test_a_long_answer_goes_as_fast_as_its_client_takes_it_and_holds_up_no_other(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            (slow,) = await asked(r, ["/api/bytes/8000000"])
            slow.writer.transport.pause_reading()  # type: ignore[attr-defined]
            await r.settled(lambda: bool(upstream.seen))
            for _ in range(20):
                assert len((await r.get("/api/bytes/100000")).body) == 100_000
            (moving,) = r.gateway.plane.in_flight
            assert len(moving.up._transport._came) <= 65_535  # type: ignore[attr-defined]
            assert upstream.spoken[0].http.local_flow_control_window(1) == 0
            slow.writer.transport.resume_reading()  # type: ignore[attr-defined]
            assert len((await slow.reply()).body) == 8_000_000

    play(scene)


def test_answers_without_a_body_end_with_their_head(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            for path, method, status in (
                ("/api/bytes/10", "HEAD", 200),
                ("/api/status/204", "GET", 204),
                ("/api/status/304", "GET", 304),
                ("/api/bytes/0", "GET", 200),
            ):
                reply = await r.get(path, method=method)
                assert (reply.status, reply.body) == (status, b"")
                assert reply.headers.get("content-length") == {"HEAD": "10"}.get(method, None if status == 204 else "0")
            assert upstream.spoken[0].resets == {}
            assert upstream.connections == 1

    play(scene)


@pytest.mark.parametrize("body", [b"body", b""])
def test_an_end_that_comes_by_itself_is_waited_for(body: bytes, tmp_path: Path) -> None:
    async def apart(one: Spoken, stream: int, _: Seen) -> None:
        one.head(stream, *((OK, ("content-length", "4")) if body else ((":status", "204"),)))
        await one.data(stream, body, ended=False)
        await one.upstream.held.wait()
        await one.data(stream, b"")

    async def scene() -> None:
        async with spoken(tmp_path, {"/apart": apart}) as (r, upstream):
            (wire,) = await asked(r, ["/api/apart"])
            await r.settled(lambda: bool(upstream.seen))
            assert (await r.get("/api/v1/x")).status == 200
            upstream.held.set()
            assert (await wire.reply()).body == body
            assert (await r.get("/api/v1/x")).status == 200
            assert upstream.spoken[0].resets == {}  # which it would count as an attack

    play(scene)


def test_what_is_not_read_of_streams_that_were_cut_takes_no_window_from_others(tmp_path: Path) -> None:
    def stuck(upstream: Http2Upstream, number: int) -> bool:
        one = upstream.spoken[0] if upstream.spoken else None
        return one is not None and number in one.heads and one.http.local_flow_control_window(number) == 0

    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            for count in range(STREAMS + 8):
                (wire,) = await asked(r, ["/api/bytes/8000000"])
                wire.writer.transport.pause_reading()  # type: ignore[attr-defined]
                await r.settled(partial(stuck, upstream, 2 * count + 1))
                wire.writer.transport.abort()
                await r.settled(partial(upstream.spoken[0].resets.__contains__, 2 * count + 1))
            assert len((await r.get("/api/bytes/300000")).body) == 300_000
            assert upstream.connections == 1

    play(scene)


def test_padding_takes_no_window_from_what_follows(tmp_path: Path) -> None:
    async def padded(one: Spoken, stream: int, _: Seen) -> None:
        one.head(stream, OK)
        for _n in range(600):
            while one.http.local_flow_control_window(stream) < 256:
                one.moved.clear()
                await one.moved.wait()
            one.http.send_data(stream, b"", pad_length=255)
            one.flush()
        await one.data(stream, b"end")

    async def scene() -> None:
        async with spoken(tmp_path, {"/padded": padded}) as (r, _):
            assert (await r.get("/api/padded")).body == b"end"

    play(scene)


def test_an_early_answer_ends_the_stream_and_not_the_connection(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path, early=frozenset({"/early"})) as (r, upstream):
            wire = await r.wire()
            await wire.send(r.request("/api/early", "Content-Length: 1000000", method="POST") + b"x" * 100)
            assert (await wire.reply("POST")).status == 200
            await r.settled(lambda: upstream.spoken[0].resets == {1: ErrorCodes.CANCEL})
            assert (await r.get("/api/v1/x")).status == 200
            assert upstream.connections == 1

    play(scene)


def test_interim_answers_and_trailers_stay_behind(tmp_path: Path) -> None:
    async def act(one: Spoken, stream: int, _: Seen) -> None:
        for _n in range(3):
            one.head(stream, (":status", "103"), ("link", "</a>"))
        one.head(stream, OK)
        await one.data(stream, b"body", ended=False)
        one.head(stream, ("x-trailer", "a"), ("grpc-status", "0"), ended=True)

    async def sized(one: Spoken, stream: int, _: Seen) -> None:
        one.head(stream, OK, ("content-length", "4"))
        await one.data(stream, b"body", ended=False)
        one.head(stream, ("x-trailer", "a"), ended=True)

    async def scene() -> None:
        async with spoken(tmp_path, {"/act": act, "/sized": sized}) as (r, upstream):
            for path in ("/api/act", "/api/sized"):
                reply = await r.get(path)
                assert (reply.status, reply.body, b"trailer" in reply.raw) == (200, b"body", False)
            assert upstream.spoken[0].resets == {}

    play(scene)


# -- what the key may not do ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["plain", "base64", "hex", "percent", "gzip", "frames"])
def test_a_key_in_an_answer_is_withheld(form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def frames(one: Spoken, stream: int, _: Seen) -> None:
        one.head(stream, OK)
        for letter in SECRET:
            await one.data(stream, letter.encode(), ended=False)
        await one.data(stream, b"")

    async def scene() -> None:
        async with spoken(tmp_path, {"/echo/frames": frames}) as (r, upstream):
            (wire,) = await asked(r, [f"/api/echo/{form}"], "Connection: close")
            rest = await wire.rest()
            assert SECRET.encode() not in rest
            assert SECRET[-20:].encode() not in rest
            assert upstream.heard(SECRET) == 1
            (outcome,) = await r.outcomes(1)
            assert (outcome.decision, outcome.code) == ("failed", "upstream")

    play(scene)
    assert "repeated the credential" in caplog.text


LEAKS = {
    "a field": [(OK, ("x-own", SECRET))],
    "a field before": [((":status", "103"), ("link", SECRET)), (OK,)],
    "the name of a field": [(OK, (SECRET.lower(), "x"))],
}


@pytest.mark.parametrize("heads", LEAKS.values(), ids=LEAKS)
def test_a_key_in_a_head_is_withheld(
    heads: Sequence[Sequence[tuple[str, str]]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def act(one: Spoken, stream: int, _: Seen) -> None:
        for number, head in enumerate(heads, 1):
            one.head(stream, *head, ended=number == len(heads))

    async def scene() -> None:
        async with spoken(tmp_path, {"/act": act}) as (r, _):
            reply = await r.get("/api/act")
            assert reply.status == 502
            assert SECRET.lower().encode() not in reply.raw.lower()
            assert [event.code for event in await r.outcomes(1)] == ["upstream"]

    play(scene)
    assert "repeated the credential" in caplog.text


def test_a_key_in_a_trailer_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def act(one: Spoken, stream: int, _: Seen) -> None:
        one.head(stream, OK)
        await one.data(stream, b"body", ended=False)
        one.head(stream, ("x-trailer", SECRET), ended=True)

    async def scene() -> None:
        async with spoken(tmp_path, {"/act": act}) as (r, _):
            (wire,) = await asked(r, ["/api/act"], "Connection: close")
            assert SECRET.encode() not in await wire.rest()
            assert [event.code for event in await r.outcomes(1)] == ["upstream"]

    play(scene)
    assert "repeated the credential" in caplog.text


def test_nobody_keeps_the_key_to_compare_other_fields_with_or_logs_it(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)

    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            for _ in range(3):
                assert (await r.get("/api/v1/x", "X-Own: a")).status == 200
            (one,) = upstream.spoken
            assert (
                one.http.decoder.header_table.dynamic_entries == type(one.http.decoder.header_table.dynamic_entries)()
            )
            assert upstream.heard(SECRET) == 3

    play(scene)
    assert not [record for record in caplog.records if record.name.startswith(("hpack", "h2"))]


# -- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.attack("REV-01")
def test_streams_end_with_their_grant_and_the_connection_with_its_task(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            child = await r.child(ALL)
            cut, other = await r.wire(), await r.wire()
            await cut.send(r.request("/api/forever", f"Remit-Grant: {child.id}"))
            await cut.reader.readuntil(b"tick")
            await other.send(r.request("/api/forever"))
            await other.reader.readuntil(b"tick")
            await r.broker.revoke(OPERATOR, child.id)
            await r.settled(lambda: upstream.spoken[0].resets == {1: ErrorCodes.CANCEL})
            assert not (await cut.rest()).endswith(b"0\r\n\r\n")
            await other.reader.readuntil(b"tick")
            assert not upstream.spoken[0].lost
            await r.broker.revoke(OPERATOR, r.grant.id)
            await r.settled(lambda: upstream.spoken[0].lost)
            assert not (await other.rest()).endswith(b"0\r\n\r\n")
            assert [event.code for event in await r.outcomes(2)] == ["revoked", "revoked"]

    play(scene)


def test_where_the_loop_is_late_the_connection_is_shut(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            (wire,) = await asked(r, ["/api/forever"])
            await wire.reader.readuntil(b"tick")
            ended = frozenset({r.grant.id})
            r.gateway.mark(ended)
            thread = Thread(target=r.gateway.sever, args=(ended,))
            thread.start()
            thread.join()
            assert not (await wire.rest()).endswith(b"0\r\n\r\n")
            await r.settled(lambda: not r.gateway.plane.in_flight)
            await r.settled(lambda: _connected(r) == 0)
            await r.settled(lambda: upstream.spoken[0].lost)

    play(scene)


def test_a_client_that_goes_away_has_its_stream_cut(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            (wire,) = await asked(r, ["/api/forever"])
            await wire.reader.readuntil(b"tick")
            wire.writer.transport.abort()
            await r.settled(lambda: upstream.spoken[0].resets == {1: ErrorCodes.CANCEL})
            assert (await r.get("/api/v1/x")).status == 200
            assert upstream.connections == 1

    play(scene)


def test_a_connection_that_nobody_uses_is_closed(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            assert (await r.get("/api/v1/x")).status == 200
            (wire,) = await asked(r, ["/api/hold"])
            await r.settled(lambda: len(upstream.seen) == 2)
            r.ticks[0] += IDLE + 1
            r.gateway._sweep()
            assert not upstream.spoken[0].lost  # it is used
            upstream.held.set()
            assert (await wire.reply()).status == 200
            r.ticks[0] += IDLE + 1
            r.gateway._sweep()
            await r.settled(lambda: upstream.spoken[0].lost)
            assert r.gateway.plane.pools._tasks == {}

    play(scene)


def test_an_idle_connection_gives_way_where_no_descriptor_is_left(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            assert (await r.get("/api/v1/x")).status == 200
            port = await r.listen(Channel((await r.opened(ALL)).id, {}))
            wire = await r.wire(port)
            await r.settled(lambda: len(r.gateway.connections.all) == 1)
            r.gateway.quota.free = 0
            await wire.send(r.request("/api/v1/x", port=port))
            assert (await wire.reply()).status == 200
            await r.settled(lambda: [one.lost for one in upstream.spoken] == [True, False])
            r.gateway.quota.free = 100

    play(scene)


def test_a_new_secret_has_a_new_connection(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            (wire,) = await asked(r, ["/api/hold"])
            await r.settled(lambda: len(upstream.seen) == 1)
            await r.broker.put_secret(OPERATOR, "api", Secret(OTHER_SECRET))
            assert (await r.get("/api/v1/x")).status == 200
            assert [seen.connection for seen in upstream.seen] == [1, 2]
            assert upstream.heard(OTHER_SECRET) == 1
            upstream.held.set()
            assert (await wire.reply()).status == 200
            await r.settled(lambda: upstream.spoken[0].lost)

    play(scene)


# -- what breaks ----------------------------------------------------------------------------------------------------


async def _breaks(one: Spoken, stream: int, _: Seen) -> None:
    one.head(stream, OK, ("content-length", "10"))
    await one.data(stream, b"half", ended=False)
    assert one.transport is not None
    one.transport.abort()


def test_an_answer_that_breaks_off_is_no_whole_one(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path, {"/breaks": _breaks}) as (r, upstream):
            (wire,) = await asked(r, ["/api/breaks"])
            assert not (await wire.rest()).endswith(b"half" + b"x" * 6)
            (outcome,) = await r.outcomes(1)
            assert (outcome.decision, outcome.code) == ("failed", "upstream")
            assert (await r.get("/api/v1/x")).status == 200
            assert upstream.offered == [H1, H2, H2]

    play(scene)


def test_what_was_not_looked_at_is_asked_again_on_another_connection(tmp_path: Path) -> None:
    async def leaves(one: Spoken, stream: int, _: Seen) -> None:
        if one.number == 1:
            one.say(frame(7, 0, 0, (stream - 2).to_bytes(4) + bytes(4)))
        else:
            one.head(stream, OK, ended=True)

    async def scene() -> None:
        async with spoken(tmp_path, {"/leaves": leaves}) as (r, upstream):
            assert (await r.get("/api/v1/x")).status == 200
            assert (await r.get("/api/leaves")).status == 200
            assert [seen.connection for seen in upstream.seen] == [1, 1, 2]
            assert len(await r.events("resource.use")) == 3  # in which the second time counts
            await r.settled(lambda: upstream.spoken[0].lost)

    play(scene)


def test_who_leaves_answers_what_it_has_been_asked(tmp_path: Path) -> None:
    async def leaves(one: Spoken, stream: int, _: Seen) -> None:
        one.say(frame(7, 0, 0, stream.to_bytes(4) + bytes(4)))
        await one.upstream.held.wait()
        one.head(stream, OK)
        await one.data(stream, b"late")

    async def scene() -> None:
        async with spoken(tmp_path, {"/leaves": leaves}) as (r, upstream):
            (wire,) = await asked(r, ["/api/leaves"])
            await r.settled(lambda: bool(upstream.spoken and upstream.seen))
            await r.settled(lambda: all(not one.room for one in r.pool._shared._all))
            assert (await r.get("/api/v1/x")).status == 200
            assert [seen.connection for seen in upstream.seen] == [1, 2]
            upstream.held.set()
            assert (await wire.reply()).body == b"late"
            await r.settled(lambda: upstream.spoken[0].lost)

    play(scene)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_stream_that_is_refused_is_asked_once_more_at_most(method: str, tmp_path: Path) -> None:
    async def refuses(one: Spoken, stream: int, _: Seen) -> None:
        one.say(frame(3, 0, stream, (7).to_bytes(4)))

    async def scene() -> None:
        async with spoken(tmp_path, {"/refuses": refuses}) as (r, upstream):
            assert (await r.get("/api/v1/x")).status == 200
            assert (await r.get("/api/refuses", method=method)).status == 502
            assert len(upstream.seen) == (3 if method == "GET" else 2)

    play(scene)


def test_what_was_answered_in_part_is_not_asked_again(tmp_path: Path) -> None:
    async def refuses(one: Spoken, stream: int, _: Seen) -> None:
        one.say(frame(1, 4, stream, b"\x88") + frame(3, 0, stream, (7).to_bytes(4)))

    async def scene() -> None:
        async with spoken(tmp_path, {"/refuses": refuses}) as (r, upstream):
            assert (await r.get("/api/v1/x")).status == 200
            (wire,) = await asked(r, ["/api/refuses"], "Connection: close")
            assert not (await wire.rest()).endswith(b"0\r\n\r\n")
            assert len(upstream.seen) == 2

    play(scene)


def test_an_answer_that_is_all_there_outlives_its_stream_and_its_connection(tmp_path: Path) -> None:
    async def gone(one: Spoken, stream: int, _: Seen) -> None:
        one.head(stream, OK)
        await one.data(stream, b"x" * 60_000)
        one.say(frame(3, 0, stream, bytes(4)))
        assert one.transport is not None
        one.transport.close()

    async def scene() -> None:
        async with spoken(tmp_path, {"/gone": gone}, early=frozenset({"/gone"})) as (r, _):
            for method, lines in (("GET", ()), ("POST", ("Content-Length: 100",))):
                wire = await r.wire()
                await wire.send(r.request("/api/gone", *lines, method=method))
                assert (await wire.reply(method)).body == b"x" * 60_000

    play(scene)


def test_a_websocket_is_refused_clearly(tmp_path: Path) -> None:
    async def scene() -> None:
        async with spoken(tmp_path) as (r, upstream):
            handshake = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
            for _ in range(2):
                reply = await r.get("/api/v1/x", *handshake, "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==")
                assert (reply.status, reply.json()["code"]) == (502, "upstream")
                assert "WebSocket" in str(reply.json()["detail"])
            assert upstream.seen == []
            assert (await r.get("/api/v1/x")).status == 200

    play(scene)


def test_a_grant_has_no_more_here_than_elsewhere(tmp_path: Path) -> None:
    async def scene() -> None:
        ca = authority(tmp_path)
        async with rig(http(), upstream=Http2Upstream(ca.server("h2")), tls=ca.trust) as r:
            assert (await r.get("/api/v1/public/x")).status == 200
            assert (await r.get("/api/v1/private")).status == 403
            assert [seen.target for seen in r.upstream.seen] == ["/v1/public/x"]

    play(scene)
