"""What moves through the gateway on real sockets: streams, uploads, pipelines, back-pressure, and being cut."""

from __future__ import annotations

import asyncio
import hashlib
import os

import psutil
import pytest

from remit.core.principal import Holder
from remit.gateway.server import Channel
from tests.broker.world import OPERATOR
from tests.gateway.rig import ALL, PLACEHOLDER, Rig, http, play, rig
from tests.support.upstream import Upstream

pytestmark = pytest.mark.live
MEGABYTE = 1 << 20


def test_the_credential_replaces_the_placeholder_in_its_header() -> None:
    async def scene() -> None:
        async with rig() as r:
            reply = await r.get("/api/v1/x", f"Authorization: Bearer {PLACEHOLDER}")
            assert reply.status == 200
            assert [s.headers["authorization"] for s in r.upstream.seen] == [
                "Bearer rmt-real-3f1c0a9be7d24856b0d1c2e3f4a59687-k"
            ]

    play(scene)


def test_the_outcome_follows_the_use_in_the_log() -> None:
    async def scene() -> None:
        async with rig() as r:
            await r.get("/api/status/404")
            await r.outcomes(1)
            events = await r.events("resource.")
            assert [(e.event, e.decision, e.action) for e in events[-2:]] == [
                ("resource.use", "allow", "GET"),
                ("resource.outcome", "done", "404"),
            ]

    play(scene)


def test_connections_are_kept_on_both_sides() -> None:
    async def scene() -> None:
        async with rig() as r:
            wire = await r.wire()
            for _ in range(5):
                await wire.send(r.request("/api/v1/x"))
                assert (await wire.reply()).status == 200
            assert r.upstream.connections == 1

    play(scene)


def test_a_head_request_is_answered_without_a_body_and_its_upstream_connection_is_not_used_again() -> None:
    async def scene() -> None:
        async with rig() as r:
            wire = await r.wire()
            await wire.send(r.request("/api/bytes/10", method="HEAD") + r.request("/api/bytes/3"))
            first = await wire.reply("HEAD")
            second = await wire.reply()
            assert (first.status, first.headers["content-length"], second.body) == (200, "10", b"xxx")
            assert r.upstream.connections == 2

    play(scene)


@pytest.mark.parametrize("status", ["204", "304"])
def test_an_answer_without_a_body_ends_at_its_head(status: str) -> None:
    async def scene() -> None:
        async with rig() as r:
            wire = await r.wire()
            await wire.send(r.request(f"/api/status/{status}") + r.request("/api/bytes/3"))
            assert (await wire.reply()).status == int(status)
            assert (await wire.reply()).body == b"xxx"

    play(scene)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_large_upload_arrives_whole_and_memory_stays_flat(*, chunked: bool) -> None:
    size = 192 * MEGABYTE

    async def scene() -> None:
        async with rig() as r:
            wire = await r.wire()
            block, digest = os.urandom(MEGABYTE), hashlib.sha256()
            framing = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {size}"
            await wire.send(r.request("/api/upload", framing, method="POST"))
            before = psutil.Process().memory_info().rss
            peak = 0
            for _ in range(size // MEGABYTE):
                digest.update(block)
                await wire.send(b"100000\r\n" + block + b"\r\n" if chunked else block)
                peak = max(peak, psutil.Process().memory_info().rss)
            if chunked:
                await wire.send(b"0\r\n\r\n")
            described = (await wire.reply("POST")).json()
            assert (described["body_size"], described["body_sha256"]) == (size, digest.hexdigest())
            assert peak - before < 48 * MEGABYTE

    play(scene)


def test_a_large_download_arrives_whole() -> None:
    async def scene() -> None:
        async with rig() as r:
            reply = await r.get(f"/api/bytes/{8 * MEGABYTE}")
            assert reply.body == b"x" * (8 * MEGABYTE)

    play(scene)


def test_a_client_that_does_not_read_holds_the_upstream_and_not_memory() -> None:
    async def scene() -> None:
        async with rig() as r:
            wire = await r.wire()
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a socket's transport
            before = psutil.Process().memory_info().rss
            await wire.send(r.request("/api/forever"))
            await r.settled(lambda: bool(r.upstream.seen))
            await asyncio.sleep(0.3)
            assert psutil.Process().memory_info().rss - before < 32 * MEGABYTE

    play(scene)


def test_events_arrive_one_by_one_as_they_are_sent() -> None:
    async def scene() -> None:
        async with rig() as r:
            wire = await r.wire()
            await wire.send(r.request("/api/events/3"))
            head = await wire.reader.readuntil(b"\r\n\r\n")
            assert b"text/event-stream" in head
            assert (
                await wire.reader.readuntil(b"\n\n\r\n") == b"9\r\ndata: 0\n\n\r\n"
            )  # while the upstream holds the next
            r.upstream.held.set()
            assert (await wire.reader.readuntil(b"0\r\n\r\n")).count(b"data: ") == 2

    play(scene)


def test_each_pipelined_request_is_judged_on_its_own() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            wire = await r.wire()
            await wire.send(r.request("/api/v1/public/a") + r.request("/api/v1/admin") + r.request("/api/v1/public/b"))
            replies = [await wire.reply() for _ in range(3)]
            assert [reply.status for reply in replies] == [200, 403, 200]
            assert [seen.target for seen in r.upstream.seen] == ["/v1/public/a", "/v1/public/b"]

    play(scene)


def test_a_body_is_asked_for_only_once_the_request_is_permitted() -> None:
    async def scene() -> None:
        async with rig() as r:
            wire = await r.wire()
            await wire.send(r.request("/api/up", "Expect: 100-continue", "Content-Length: 5", method="POST"))
            assert (await wire.reply()).status == 100
            await wire.send(b"hello")
            assert (await wire.reply("POST")).json()["body_size"] == 5
            assert "expect" not in r.upstream.seen[0].headers

    play(scene)


def test_a_body_is_not_asked_for_when_the_request_is_denied() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            wire = await r.wire()
            await wire.send(r.request("/api/up", "Expect: 100-continue", "Content-Length: 5", method="POST"))
            assert (await wire.reply()).status == 403

    play(scene)


def test_a_denied_upload_is_told_so_before_it_is_over() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            wire = await r.wire()
            await wire.send(r.request("/api/up", "Content-Length: 1000000", method="POST") + b"x" * 100_000)
            assert (await wire.reply("POST")).status == 403
            assert await wire.rest() == b""

    play(scene)


def test_revoking_cuts_a_stream_at_once_on_both_sides() -> None:
    async def scene() -> None:
        async with rig() as r:
            wire = await r.wire()
            await wire.send(r.request("/api/forever"))
            await wire.reader.readuntil(b"tick")
            await revoke(r)
            await wire.rest()
            await asyncio.wait_for(r.upstream.cut.wait(), 5)

    play(scene)


def test_revoking_cuts_an_upload_at_once() -> None:
    async def scene() -> None:
        async with rig() as r:
            wire = await r.wire()
            await wire.send(r.request("/api/up", "Content-Length: 1000000", method="POST") + b"x" * 1000)
            await r.settled(lambda: r.upstream.connections == 1)
            await revoke(r)
            assert (await wire.reply("POST")).status == 403
            await wire.rest()
            assert r.upstream.seen == []

    play(scene)


def test_revoking_a_request_that_waits_for_its_answer_is_told_to_the_client() -> None:
    async def scene() -> None:
        async with rig() as r:
            wire = await r.wire()
            await wire.send(r.request("/api/hold"))
            await r.upstream.arrived.wait()
            await revoke(r)
            reply = await wire.reply()
            assert (reply.status, reply.json()["code"]) == (403, "revoked")

    play(scene)


def test_revoking_a_child_leaves_its_parent_moving() -> None:
    async def scene() -> None:
        async with rig() as r:
            child = await r.child(ALL)
            mine, its = await r.wire(), await r.wire()
            await mine.send(r.request("/api/forever"))
            await its.send(r.request("/api/forever", f"Remit-Grant: {child.id}"))
            await mine.reader.readuntil(b"tick")
            await its.reader.readuntil(b"tick")
            await r.broker.revoke(OPERATOR, child.id)
            await its.rest()
            assert await mine.reader.readexactly(100)

    play(scene)


def test_expiry_cuts_what_moves() -> None:
    async def scene() -> None:
        async with rig() as r:
            wire = await r.wire()
            await wire.send(r.request("/api/forever"))
            await wire.reader.readuntil(b"tick")
            r.now[0] = r.grant.expires_at
            await r.broker.sweep()
            await wire.rest()

    play(scene)


def test_a_request_after_revocation_is_refused_as_revoked() -> None:
    async def scene() -> None:
        async with rig() as r:
            await revoke(r)
            reply = await r.get("/api/v1/x")
            assert (reply.status, reply.json()["code"]) == (403, "revoked")
            assert r.upstream.seen == []

    play(scene)


@pytest.mark.attack("REV-10")
@pytest.mark.parametrize("suspended", [False, True])
@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("known", [False, True])
def test_a_request_after_the_task_is_over_is_refused_as_expired(suspended: bool, named: bool, known: bool) -> None:  # noqa: FBT001 - parameters
    """The sweep closes the task and lets go of it; the agent is still told what became of its grant."""

    async def scene() -> None:
        async with rig() as r:
            if known:
                assert (await r.get("/api/v1/x")).status == 200
            if suspended:
                r.gateway.plane.routes._suspended.add("grt_other")
            r.now[0] = r.grant.expires_at
            await r.broker.sweep()
            assert list(r.broker._tasks) == []
            r.upstream.seen.clear()
            reply = await r.get("/api/v1/x", *(["Remit-Grant: grt_child"] if named else []))
            assert (reply.status, reply.json()["code"]) == (403, "expired")
            assert r.upstream.seen == []

    play(scene)


def test_a_grant_that_is_no_descendant_is_not_found() -> None:
    async def scene() -> None:
        async with rig() as r:
            other = await r.opened(ALL)
            for name in (other.id, "grt_unknown", "x"):
                assert (await r.get("/api/v1/x", f"Remit-Grant: {name}")).status == 404
            assert r.upstream.seen == []

    play(scene)


def test_a_named_descendant_is_bound_by_its_own_scope() -> None:
    async def scene() -> None:
        async with rig() as r:
            child = await r.child(http())
            line = f"Remit-Grant: {child.id}"
            assert (await r.get("/api/v1/public/a", line)).status == 200
            assert (await r.get("/api/v1/admin", line)).status == 403
            assert "remit-grant" not in r.upstream.seen[0].headers

    play(scene)


def test_a_budget_is_exact_and_said_to_be_used_up() -> None:
    async def scene() -> None:
        async with rig(http(uses=2)) as r:
            statuses = [(await r.get("/api/v1/public/a")).status for _ in range(3)]
            assert statuses == [200, 200, 403]
            assert len(r.upstream.seen) == 2

    play(scene)


def test_an_upstream_that_hangs_up_is_a_bad_gateway() -> None:
    async def scene() -> None:
        async with rig() as r:
            reply = await r.get("/api/drop", method="POST")
            assert (reply.status, reply.headers["proxy-status"].split(";")[0]) == (502, "remit")

    play(scene)


def test_a_kept_connection_that_went_stale_is_replaced_for_a_safe_request() -> None:
    async def scene() -> None:
        async with rig() as r:
            assert (await r.get("/api/v1/x")).status == 200
            assert (await r.get("/api/drop")).status == 502  # on the kept one, then on a fresh one
            assert r.upstream.connections == 2

    play(scene)


def test_a_slow_head_is_not_waited_for() -> None:
    async def scene() -> None:
        async with rig() as r:
            wire = await r.wire()
            await wire.send(b"GET /api/x HTTP/1.1\r\n")
            await r.settled(lambda: any(client._buffer for client in r.gateway.connections.all))
            r.ticks[0] = 31.0
            assert await wire.rest() == b""

    play(scene)


def test_an_answer_that_never_comes_is_given_up() -> None:
    async def scene() -> None:
        async with rig() as r:
            wire = await r.wire()
            await wire.send(r.request("/api/hold"))
            await r.upstream.arrived.wait()
            r.ticks[0] = 601.0
            assert (await wire.reply()).status == 502

    play(scene)


def test_callers_without_a_channel_prove_their_grant() -> None:
    asked: list[tuple[str, str]] = []

    async def scene() -> None:
        granted: list[str] = []

        async def verify(headers: object, method: str, url: str, _resource: str) -> Holder:
            asked.append((method, url))
            assert isinstance(headers, dict)
            assert headers["dpop"] == "proof"
            return Holder("task", granted[0])

        async with rig(verify=verify) as r:
            granted.append(r.grant.id)
            reply = await r.get("/api/v1/x?q=1", "Authorization: DPoP token", "DPoP: proof")
            assert reply.status == 200
            assert asked == [("GET", f"http://127.0.0.1:{r.port}/api/v1/x")]
            assert r.upstream.seen[0].headers["authorization"].startswith("Bearer rmt-real")
            assert "dpop" not in r.upstream.seen[0].headers

    play(scene)


def test_channels_of_two_runs_do_not_mix() -> None:
    async def scene() -> None:
        async with rig(http()) as r:
            other = await r.opened(ALL)
            port = await r.listen(Channel(other.id, {}))
            assert (await r.get("/api/v1/admin")).status == 403
            assert (await r.get("/api/v1/admin", port=port)).status == 200

    play(scene)


def test_many_clients_at_once_get_their_own_answers() -> None:
    async def scene() -> None:
        async with rig() as r:

            async def client(number: int) -> None:
                wire = await r.wire()
                for index in range(20):
                    await wire.send(r.request(f"/api/c/{number}/{index}"))
                    assert (await wire.reply()).json()["target"] == f"/c/{number}/{index}"

            await asyncio.gather(*(client(number) for number in range(16)))

    play(scene)


def test_an_upstream_may_be_reached_below_a_base_path() -> None:
    async def scene() -> None:
        async with rig(base="/base") as r:
            assert (await r.get("/api/v1/x?a=b")).json()["target"] == "/base/v1/x?a=b"

    play(scene)


async def revoke(r: Rig) -> None:
    """Revoke the channel's grant as the operator."""
    await r.broker.revoke(OPERATOR, r.grant.id)


def test_the_holder_of_a_grant_can_end_what_it_moves() -> None:
    async def scene() -> None:
        async with rig(upstream=Upstream()) as r:
            child = await r.child(ALL)
            wire = await r.wire()
            await wire.send(r.request("/api/forever", f"Remit-Grant: {child.id}"))
            await wire.reader.readuntil(b"tick")
            await r.broker.revoke(Holder(r.broker._tasks.task_of(r.grant.id).id, r.grant.id), child.id)
            await wire.rest()

    play(scene)
