"""An answer that inflates: a slice a turn of the loop, in order, and no faster than the client takes it."""

from __future__ import annotations

import asyncio
import gzip
import json
import tracemalloc
import zlib
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from remit.errors import RemitError, UpstreamError
from remit.gateway import framing
from remit.gateway.encodings import STEP
from remit.gateway.patterns import SecretPatterns
from remit.gateway.response import Delivery, ResponseBody, ResponsePlan, TaskTurns
from remit.gateway.scrub import FREE, TURN, UPLOAD, Meter, Scrubber
from tests.broker.world import OPERATOR
from tests.gateway.playbook import Play, play
from tests.gateway.rig import SECRET, http, rig
from tests.gateway.rig import play as played
from tests.support.upstream import Upstream, whole

GET = b"GET /api/v1/public/a HTTP/1.1\r\nHost: gw\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
MOST = TURN + STEP  # bytes for the client in one turn
ZEROS = gzip.compress(b"\0" * 4_194_304)
SQUEEZED = {
    "gzip": ZEROS * 2,
    "gzip-in-gzip": gzip.compress(ZEROS * 2),
    "zlib": zlib.compress(b"\0" * 8_388_608),
    "empty-members": gzip.compress(b"") * 2_000,
}


def answered(body: bytes, *, labelled: bool = True) -> bytes:
    """Write an answer with a compressed body."""
    label = b"Content-Encoding: gzip\r\n" if labelled else b""
    return b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n" % (label, len(body)) + body


def scene(act: Callable[[Play], Awaitable[None]]) -> None:
    """Play one conversation."""

    async def main() -> None:
        async with play(http(actions=["GET", "POST"], args="any")) as p:
            await act(p)

    asyncio.run(main())


async def turns(p: Play, most: int = 20_000) -> list[bytes]:
    """Return what the client hears in each turn of the loop until the exchange is over."""
    heard = [p.client_hears()]
    while p.client._exchange is not None and most:
        await asyncio.sleep(0)
        heard.append(p.client_hears())
        most -= 1
    return heard


def body(parts: list[bytes]) -> bytes:
    """Return the body of a chunked answer."""
    reader = framing.Chunked(trailers=False)
    payload, rest = reader.feed(b"".join(parts).partition(b"\r\n\r\n")[2])
    assert (reader.done, rest) == (True, b"")
    return payload


def plan(*, labelled: bool = True) -> ResponsePlan:
    status, fields = framing.response_head(answered(b"x", labelled=labelled).partition(b"\r\n\r\n")[0])
    return ResponsePlan(status, fields, has_body=True)


@pytest.mark.attack("DOS-06")
def test_what_inflates_reaches_the_client_a_slice_a_turn() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        p.lines[-1][0].data_received(answered(ZEROS))
        heard = await turns(p)
        assert max(map(len, heard)) <= MOST
        assert body(heard) == b"\0" * 4_194_304

    scene(act)


def turn(answer: ResponseBody) -> int:
    assert answer._body is not None
    return answer._body.meter.turn


@pytest.mark.attack("DOS-06")
@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("form", SQUEEZED)
def test_no_turn_handles_more_than_a_slice_and_memory_stays_flat(form: str, *, labelled: bool) -> None:
    answer = ResponseBody(SecretPatterns([SECRET.encode()]), plan(labelled=labelled))
    tracemalloc.start()
    try:
        made = [len(answer.feed(SQUEEZED[form], done=True))]
        handled = [turn(answer)]
        while answer.busy:
            made.append(len(answer.more()))
            handled.append(turn(answer))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(handled) < 2 * TURN
    assert len(handled) > 50
    assert peak < 1_048_576
    assert max(made[1:]) <= MOST


@pytest.mark.attack("DOS-06")
@pytest.mark.parametrize("labelled", [True, False])
def test_an_answer_that_inflates_without_end_is_cut(*, labelled: bool) -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        p.lines[-1][0].data_received(answered(ZEROS * 9, labelled=labelled))
        heard = await turns(p)
        assert sum(map(len, heard)) <= FREE + 1_048_576
        assert p.line.log[-1] == "abort"
        assert (await p.rig.outcomes(2))[-1].code == "upstream"

    scene(act)


@pytest.mark.attack("DOS-06")
def test_all_layers_of_a_body_count_together() -> None:
    layers = gzip.compress(gzip.compress(ZEROS * 9))
    answer = ResponseBody(SecretPatterns([SECRET.encode()]), plan())
    with pytest.raises(UpstreamError, match="without end"):  # noqa: PT012 - whichever turn it is
        answer.feed(layers, done=True)
        while answer.busy:
            answer.more()
    assert answer._body is not None
    assert answer._body.meter._made <= FREE + STEP


def test_a_large_answer_of_json_arrives_whole_whatever_the_client_s_pace() -> None:
    text = json.dumps([{"id": index, "name": f"customer {index}", "open": True} for index in range(400_000)]).encode()
    assert len(text) > 20_000_000
    squeezed = gzip.compress(text, 1)

    async def act() -> None:
        routes = {"/v1/public/a": whole("200 OK", squeezed, "Content-Encoding: gzip")}
        async with rig(http(args="any"), upstream=Upstream(routes=routes)) as r:
            reply = await r.get("/api/v1/public/a")
            assert (reply.status, reply.body == text) == (200, True)

    played(act)


def test_others_are_answered_between_two_turns() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        p.lines[-1][0].data_received(answered(ZEROS * 7))
        other = await p.rig.get("/api/v9/denied")
        assert other.status == 403
        assert p.client._exchange is not None
        assert len(body(await turns(p))) == 7 * 4_194_304

    scene(act)


class RecordingRecipient:
    """Whose answer it is: keeps what it gets, and in which turn."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.size = 0

    def deliver(self, data: bytes) -> None:
        self.log.append(self.name)
        self.size += len(data)

    def hold_upstream(self, *, hold: bool) -> None:
        self.log.append("" if hold else f"{self.name} reads on")

    def delivered(self) -> None:
        self.log.append(f"{self.name} ends")

    def cut(self, error: RemitError) -> None:
        raise error


@pytest.mark.attack("DOS-06")
def test_many_answers_that_inflate_together_share_one_slice_a_turn() -> None:
    async def act() -> None:
        log: list[str] = []
        shared = TaskTurns(asyncio.get_running_loop())
        recipients = [RecordingRecipient(name, log) for name in "abc"]
        for recipient in recipients:
            delivery = Delivery(
                recipient, ResponseBody(SecretPatterns([SECRET.encode()]), plan()), [b"head"], shared, "task"
            )
            delivery.take(ZEROS, done=True)
            delivery.flush()
            delivery.end()
        heard = []
        ended = 0
        while ended < len(recipients):
            log.clear()
            await asyncio.sleep(0)
            heard.append([line for line in log if line in {"a", "b", "c"}])
            ended += sum(line.endswith("ends") for line in log)
        assert max(map(len, heard)) == 1
        assert min(recipient.size for recipient in recipients) > 4_194_304
        assert ["".join(names) for names in heard][:6] == ["a", "b", "c"] * 2

    asyncio.run(act())


@pytest.mark.attack("DOS-06")
def test_answers_of_one_task_that_inflate_do_not_keep_that_of_another_waiting() -> None:
    async def act() -> None:
        done: list[str] = []
        turns = TaskTurns(asyncio.get_running_loop())
        for number in range(64):
            turns.add("many", partial(done.append, f"many {number}"))
        turns.add("one", partial(done.append, "one"))
        turns.add("one", partial(done.append, "one again"))
        for _ in range(66):
            await asyncio.sleep(0)
        assert done[:5] == ["many 0", "one", "many 1", "one again", "many 2"]
        assert done[-1] == "many 63"

    asyncio.run(act())


def test_a_client_that_takes_no_more_holds_the_slices_and_gets_them_all_in_the_end() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        p.lines[-1][0].data_received(answered(ZEROS))
        p.client.pause_writing()
        heard = [p.client_hears()]
        await p.pause()
        assert p.client_hears() == b""
        p.client.resume_writing()
        p.client.pause_writing()
        p.client.resume_writing()
        await asyncio.sleep(0)
        heard.append(p.client_hears())
        assert 0 < len(heard[-1]) <= MOST
        assert body(heard + await turns(p)) == b"\0" * 4_194_304

    scene(act)


def test_the_upstream_is_not_read_while_there_is_something_to_look_through() -> None:
    async def act(p: Play) -> None:
        said = answered(ZEROS)
        await p.client_says(GET)
        upstream, line = p.lines[-1]
        upstream.data_received(said[:-100])
        assert line.log == ["pause"]
        heard = [p.client_hears()]
        while line.log == ["pause"]:
            await asyncio.sleep(0)
            heard.append(p.client_hears())
        assert line.log == ["pause", "resume"]
        upstream.data_received(said[-100:])
        assert body(heard + await turns(p)) == b"\0" * 4_194_304

    scene(act)


def test_bytes_that_come_although_the_upstream_is_not_read_keep_their_order() -> None:
    text = b"".join(b"line %d\n" % index for index in range(60_000))
    said = answered(gzip.compress(text))

    async def act(p: Play) -> None:
        await p.client_says(GET)
        for at in range(0, len(said), 1_000):
            p.lines[-1][0].data_received(said[at : at + 1_000])
        assert body(await turns(p)) == text

    scene(act)


def test_the_next_request_of_the_connection_waits_for_the_last_slice() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET + GET)
        assert p.upstream_hears().count(b"GET ") == 1
        p.lines[-1][0].data_received(answered(ZEROS))
        heard: list[bytes] = []
        while not (said := p.upstream_hears()):
            heard.append(p.client_hears())
            await asyncio.sleep(0)
        heard.append(p.client_hears())
        assert said.count(b"GET ") == 1
        assert body(heard) == b"\0" * 4_194_304
        await p.upstream_says(OK)
        assert p.client_hears().endswith(b"ok")

    scene(act)


def test_an_answer_that_ends_with_its_connection_is_delivered_to_its_end() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        upstream, _ = p.lines[-1]
        upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n" + ZEROS)
        heard = [p.client_hears()]
        upstream.connection_lost(None)
        heard.append(p.client_hears())
        assert body(heard + await turns(p)) == b"\0" * 4_194_304

    scene(act)


def test_a_secret_in_a_later_slice_cuts_the_answer_there() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        p.lines[-1][0].data_received(answered(gzip.compress(b"x" * 1_000_000 + SECRET.encode() + b"y" * 1_000_000)))
        heard = b"".join(await turns(p))
        assert SECRET.encode() not in heard
        assert p.line.log[-1] == "abort"
        assert (await p.rig.outcomes(2))[-1].code == "upstream"
        assert p.rig.gateway.plane.routes._leaks

    scene(act)


def test_a_revoke_between_two_slices_ends_the_answer_at_once() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        p.lines[-1][0].data_received(answered(ZEROS))
        await p.rig.broker.revoke(OPERATOR, p.rig.grant.id)
        p.client_hears()
        await p.pause()
        assert p.client_hears() == b""
        assert p.line.is_closing()

    scene(act)


def test_an_upstream_that_breaks_off_between_two_slices_cuts_the_client() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        upstream, _ = p.lines[-1]
        upstream.data_received(answered(ZEROS)[:-5])
        upstream.connection_lost(None)
        p.client_hears()
        await p.pause()
        assert p.client_hears() == b""
        assert p.line.log[-1] == "abort"

    scene(act)


@pytest.mark.attack("DOS-06")
def test_a_compressed_upload_is_looked_into_up_to_a_bound_and_goes_on_whole() -> None:
    meter = Meter(UPLOAD)
    scrubber = Scrubber(SecretPatterns([SECRET.encode()]), meter=meter)
    data = ZEROS * 50
    out = b"".join(scrubber.feed(data[at : at + 65_536]) for at in range(0, len(data), 65_536)) + scrubber.end()
    assert out == data
    assert meter._made <= UPLOAD + STEP


@pytest.mark.attack("DOS-06")
def test_streams_without_content_count_in_an_upload_too() -> None:
    meter = Meter(UPLOAD)
    scrubber = Scrubber(SecretPatterns([SECRET.encode()]), meter=meter)
    data = gzip.compress(b"") * 20_000
    assert sum(not piece for piece in scrubber.steps(data)) <= UPLOAD // 4_096 + 1
    assert meter.over


NESTED = gzip.compress(gzip.compress(gzip.compress(b"x")))


@pytest.mark.parametrize("start", [b"\x28\xb5\x2f\xfd rest", NESTED], ids=["zstd", "gzip thrice"])
def test_an_upload_that_cannot_be_looked_into_goes_on(start: bytes) -> None:
    scrubber = Scrubber(SecretPatterns([SECRET.encode()]), meter=Meter(UPLOAD))
    assert scrubber.feed(start) + scrubber.end() == start
