"""Conversations through the gateway, byte by byte, without sockets."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Awaitable, Callable

import pytest

from remit.gateway import framing
from tests.broker.world import OPERATOR
from tests.gateway.playbook import Play, play
from tests.gateway.rig import PLACEHOLDER, SECRET, http

GET = b"GET /api/v1/public/a HTTP/1.1\r\nHost: gw\r\n\r\n"
POST = b"POST /api/v1/public/a HTTP/1.1\r\nHost: gw\r\nContent-Length: 10\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
HEARD = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
BOTH = http(actions=["GET", "POST"], args="any")


def scene(act: Callable[[Play], Awaitable[None]]) -> None:
    """Play one conversation."""

    async def main() -> None:
        async with play(BOTH) as p:
            await act(p)

    asyncio.run(main())


def test_a_request_goes_out_rewritten_and_its_answer_comes_back() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET[:-2] + b"Authorization: Bearer " + PLACEHOLDER.encode() + b"\r\nX: y\r\n\r\n")
        said = p.upstream_hears()
        assert said.startswith(b"GET /v1/public/a HTTP/1.1\r\nHost: 127.0.0.1:")
        fixed = f"\r\nAuthorization: Bearer {SECRET}\r\nAccept-Encoding: identity\r\n"
        assert said.endswith(f"{fixed}x: y\r\n\r\n".encode())
        await p.upstream_says(OK)
        assert p.client_hears() == HEARD

    scene(act)


def test_it_does_not_matter_how_the_bytes_are_cut() -> None:
    async def act(p: Play) -> None:
        for byte in GET:
            p.client.data_received(bytes([byte]))
        await p.pause()
        for byte in OK:
            p.lines[0][0].data_received(bytes([byte]))
        assert p.client_hears() == HEARD
        await p.client_says(GET)
        await p.upstream_says(OK)
        assert p.client_hears() == HEARD
        assert len(p.lines) == 1

    scene(act)


def test_a_second_request_waits_for_the_first_answer() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET + GET)
        assert p.upstream_hears().count(b"GET ") == 1
        await p.upstream_says(OK)
        assert p.upstream_hears().count(b"GET ") == 1
        await p.upstream_says(OK)
        assert p.client_hears() == HEARD * 2

    scene(act)


def test_a_body_goes_on_as_it_comes_and_the_client_is_held_while_the_upstream_is_full() -> None:
    async def act(p: Play) -> None:
        await p.client_says(POST + b"hello")
        upstream, _ = p.lines[0]
        upstream.pause_writing()
        assert p.line.log[-1] == "pause"
        upstream.resume_writing()
        assert p.line.log[-1] == "resume"
        await p.client_says(b"world")
        assert p.upstream_hears().endswith(b"content-length: 10\r\n\r\nhelloworld")
        await p.upstream_says(OK)
        assert p.client_hears() == HEARD

    scene(act)


def test_the_upstream_is_held_while_the_client_is_full_and_is_read_again_when_it_is_reused() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        await p.upstream_says(OK[:-1])
        p.client.pause_writing()
        assert p.lines[0][1].log == ["pause"]
        await p.upstream_says(OK[-1:])
        assert p.lines[0][1].log == ["pause", "resume"]
        assert len(p.rig.pool.idle) == 1

    scene(act)


def test_a_placeholder_in_a_body_stops_it_before_it_is_out() -> None:
    async def act(p: Play) -> None:
        text = PLACEHOLDER.encode()
        await p.client_says(POST.replace(b": 10", b": %d" % (len(text) + 2)) + b"<" + text[:20])
        await p.client_says(text[20:] + b">")
        assert text[:20] not in p.upstream_hears()
        assert p.lines[0][1].log == ["abort"]
        assert b" 403 " in p.client_hears()
        [outcome] = (await p.rig.outcomes(2))[1:]
        assert (outcome.decision, outcome.code) == ("failed", "placeholder")

    scene(act)


STREAMS = {
    "gzip": gzip.compress(b"a" * 90),
    "gzip thrice": gzip.compress(gzip.compress(gzip.compress(gzip.compress(b"a" * 90)))),
    "zlib": zlib.compress(b"a" * 90),
    "zstd": b"\x28\xb5\x2f\xfd" + b"a" * 90,
    "zeros": gzip.compress(bytes(9_000_000)),
    "no gzip": b"\x1f\x8b\x08 after all",
    "gzip and more": gzip.compress(b"a") + b"more",
}


@pytest.mark.parametrize("upload", STREAMS.values(), ids=STREAMS)
def test_an_upload_goes_on_however_it_begins(upload: bytes) -> None:
    async def act(p: Play) -> None:
        await p.client_says(POST.replace(b": 10", b": %d" % len(upload)) + upload[:3])
        await p.client_says(upload[3:])
        assert p.upstream_hears().endswith(b"\r\n\r\n" + upload)
        await p.upstream_says(OK)
        assert p.client_hears() == HEARD

    scene(act)


@pytest.mark.parametrize(
    "start",
    [STREAMS["gzip"], STREAMS["zstd"], b"\x1f\x8b\x08", b"\x78\x9c"],
    ids=["gzip", "zstd", "gzip cut", "zlib cut"],
)
def test_a_placeholder_is_found_in_an_upload_however_it_begins(start: bytes) -> None:
    async def act(p: Play) -> None:
        upload = start + PLACEHOLDER.encode()
        await p.client_says(POST.replace(b": 10", b": %d" % len(upload)) + upload[:9])
        await p.client_says(upload[9:])
        assert PLACEHOLDER.encode() not in p.upstream_hears()
        assert b" 403 " in p.client_hears()

    scene(act)


def test_interim_answers_stay_here() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        await p.upstream_says(b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 102 P\r\n\r\n" + OK)
        assert p.client_hears() == HEARD

    scene(act)


def test_a_change_of_protocol_is_refused() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        await p.upstream_says(b"HTTP/1.1 101 Switching\r\nUpgrade: h2c\r\n\r\n")
        assert b" 502 " in p.client_hears()
        assert p.lines[0][1].log == ["abort"]

    scene(act)


def test_an_answer_that_makes_no_sense_is_a_bad_gateway() -> None:
    async def act(p: Play) -> None:
        for said in (b"ICY 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"x" * 40_000):
            await p.client_says(GET)
            await p.upstream_says(said)
            assert b" 502 " in p.client_hears()
        assert [line.log for _, line in p.lines] == [["abort"]] * 3

    scene(act)


LONG = GET[:-2] + b"X: " + b"y" * framing.MAX_HEAD + b"\r\n\r\n"


@pytest.mark.parametrize("parts", [[LONG], [LONG[:30_000], LONG[30_000:]], [LONG[:-4]]])
def test_a_head_has_one_bound_however_it_comes(parts: list[bytes]) -> None:
    async def act(p: Play) -> None:
        for part in parts:
            await p.client_says(part)
        assert p.client_hears().startswith(b"HTTP/1.1 413 ")
        assert p.lines == []

    scene(act)


def test_the_head_of_an_answer_has_one_bound_however_it_comes() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        await p.upstream_says(OK[:-6] + b"\r\nX: " + b"y" * framing.MAX_HEAD + b"\r\n\r\nok")
        assert p.client_hears().startswith(b"HTTP/1.1 502 ")

    scene(act)


def test_a_secret_after_the_head_is_out_cuts_the_client() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        await p.upstream_says(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        assert b"content-length: 1000" in p.client_hears()
        await p.upstream_says(b"<" + SECRET.encode())
        assert p.client_hears() == b""
        assert (p.line.log, p.lines[0][1].log) == (["abort"], ["abort"])

    scene(act)


def test_an_answer_before_the_end_of_the_request_ends_both_connections() -> None:
    async def act(p: Play) -> None:
        await p.client_says(POST + b"hello")
        await p.upstream_says(OK)
        assert p.client_hears() == HEARD.replace(b"2\r\n\r\n", b"2\r\nconnection: close\r\n\r\n")
        assert p.line.log[-1] == "eof"
        assert p.lines[0][1].log == ["abort"]
        await p.client_says(b"world" + GET)
        assert len(p.lines) == 1

    scene(act)


def test_a_client_that_leaves_takes_its_request_with_it() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        p.client.connection_lost(None)
        await p.pause()
        assert p.lines[0][1].log == ["abort"]
        assert (await p.rig.outcomes(2))[-1].decision == "failed"

    scene(act)


def test_an_upstream_that_speaks_unasked_is_dropped() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        await p.upstream_says(OK)
        await p.upstream_says(OK)
        assert p.lines[0][1].log == ["abort"]
        assert p.client_hears() == HEARD
        await p.client_says(GET)
        assert len(p.lines) == 2

    scene(act)


def test_an_upstream_that_closes_in_mid_answer_cuts_the_client() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        await p.upstream_says(OK[:-1])
        p.lines[0][0].connection_lost(None)
        await p.pause()
        assert p.line.log == ["abort"]

    scene(act)


def test_revocation_between_two_requests_of_a_connection_ends_it() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        await p.upstream_says(OK)
        await p.rig.broker.revoke(OPERATOR, p.rig.grant.id)
        assert p.line.is_closing()

    scene(act)


def test_what_follows_a_malformed_request_is_not_read() -> None:
    async def act(p: Play) -> None:
        await p.client_says(b"GET /api/x HTTP/1.1\r\nHost: gw\r\nX : y\r\n\r\n" + GET)
        assert p.client_hears().count(b"HTTP/1.1 ") == 1
        await p.client_says(GET)
        assert p.client_hears() == b""
        assert p.lines == []

    scene(act)


LEAKING = f'{{"echo":"{SECRET}"}}'.encode()


@pytest.mark.parametrize("pieces", [1, 2])
@pytest.mark.parametrize(
    ("line", "body"),
    [
        (b"", LEAKING),
        (b"", gzip.compress(LEAKING)),
        (b"", b"\xc3\xa9" + LEAKING),
        (b"Content-Encoding: gzip\r\n", gzip.compress(LEAKING)),
        (b"", LEAKING + b" " * 9_000),
    ],
    ids=["text", "compressed", "more than text", "labelled", "long"],
)
def test_a_credential_in_a_whole_answer_is_found_as_in_pieces(line: bytes, body: bytes, pieces: int) -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        said = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), line, body)
        for piece in (said,) if pieces == 1 else (said[:-4], said[-4:]):
            await p.upstream_says(piece)
        heard = p.client_hears()
        assert SECRET.encode() not in heard
        assert body[:30] not in heard
        told = (await p.rig.outcomes(2))[-1]
        assert (told.decision, told.code, told.action) == ("failed", "upstream", "200")
        assert p.lines[0][1].is_closing()  # nothing more is asked on this connection

    scene(act)


def test_a_whole_answer_of_another_coding_comes_as_it_is() -> None:
    async def act(p: Play) -> None:
        for body in (b"\xc3\xa9t\xc3\xa9 " * 9, gzip.compress(b"nothing to hide"), b"x" * 9_000):
            await p.client_says(GET)
            await p.upstream_says(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            assert p.client_hears() == b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body)
        assert len(p.lines) == 1

    scene(act)


def test_a_whole_answer_that_is_not_in_the_coding_that_it_names_is_withheld() -> None:
    async def act(p: Play) -> None:
        await p.client_says(GET)
        await p.upstream_says(b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\nContent-Encoding: gzip\r\n\r\n" + b"x" * 20)
        assert p.client_hears().startswith(b"HTTP/1.1 502 ")

    scene(act)
