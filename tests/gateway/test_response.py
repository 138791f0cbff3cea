"""A response on its way to the client, as a conversation: raw upstream in, client bytes out."""

from __future__ import annotations

import gzip

import pytest

from remit.errors import UpstreamError
from remit.gateway import framing
from remit.gateway.patterns import LeakError, SecretPatterns
from remit.gateway.response import ResponseBody, ResponsePlan
from remit.gateway.scrub import Scrubber
from tests.gateway.rig import SECRET

PATTERNS = SecretPatterns([SECRET.encode()])


def plan(head: bytes, method: str = "GET") -> ResponsePlan:
    """ResponsePlan the response to a request."""
    status, fields = framing.response_head(head)
    return ResponsePlan(status, fields, has_body=framing.response_body(status.code, fields, method) is not None)


def played(head: bytes, *pieces: bytes) -> bytes:
    """Return everything the client gets."""
    how = plan(head)
    answer = ResponseBody(PATTERNS, how)
    last = len(pieces) - 1
    return how.heads[True] + b"".join(answer.feed(p, done=i == last) for i, p in enumerate(pieces))


def test_a_body_of_known_length_keeps_its_length() -> None:
    raw = played(b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nX: y", b"he", b"llo")
    assert raw == b"HTTP/1.1 200 Fine\r\nx: y\r\ncontent-length: 5\r\n\r\nhello"


def test_a_body_of_unknown_length_is_chunked_anew() -> None:
    raw = played(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked", b"hello")
    assert raw == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


def test_a_compressed_body_arrives_plain() -> None:
    squeezed = gzip.compress(b"hello")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d" % len(squeezed)
    raw = played(head, squeezed[:7], squeezed[7:])
    assert raw == b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"


def test_a_compressed_body_that_breaks_off_is_an_error() -> None:
    with pytest.raises(UpstreamError):
        played(b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 9", gzip.compress(b"hello")[:9])


@pytest.mark.parametrize("coding", [b"gzip, gzip", b"br, gzip", b"compress", b"x"])
def test_an_encoding_that_cannot_be_looked_into_is_refused(coding: bytes) -> None:
    with pytest.raises(UpstreamError):
        plan(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: " + coding)


def test_a_head_alone_keeps_what_it_says() -> None:
    how = plan(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Encoding: br", "HEAD")
    assert how.heads[True] == b"HTTP/1.1 200 OK\r\ncontent-encoding: br\r\ncontent-length: 5\r\n\r\n"


def test_hop_by_hop_headers_and_cookies_stay_here() -> None:
    lines = b"\r\n".join(
        [
            b"Connection: keep-alive, X-Hop",
            b"X-Hop: 1",
            b"Keep-Alive: timeout=5",
            b"Set-Cookie: a=b",
            b"Alt-Svc: h3",
            b"Proxy-Status: other",
            b"Upgrade: h2c",
            b"Trailer: X",
        ]
    )
    raw = played(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n" + lines, b"x")
    assert raw == b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx"


def test_an_answer_that_ends_the_connection_says_so() -> None:
    assert plan(b"HTTP/1.1 200 OK\r\nContent-Length: 1").heads[False].endswith(b"\r\nconnection: close\r\n\r\n")


def test_a_secret_in_one_piece_or_in_two_is_withheld() -> None:
    text = f"<{SECRET}>".encode()
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked"
    for pieces in ([text], [text[:9], text[9:]], [text, b""]):
        with pytest.raises(LeakError):
            played(head, *pieces)


def test_a_line_of_events_is_let_go_as_it_ends() -> None:
    how = plan(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Type: text/event-stream")
    answer = ResponseBody(PATTERNS, how)
    assert answer.feed(b"data: 1\n\ndata:", done=False) == b"9\r\ndata: 1\n\n\r\n"
    assert answer.feed(b" 2\n\n", done=False) == b"9\r\ndata: 2\n\n\r\n"
    assert answer.feed(b"", done=True) == b"0\r\n\r\n"


PEM = b"-----BEGIN PRIVATE KEY-----\nMIGHAgEAMBMGByqGSM49AgEG\n-----END PRIVATE KEY-----\n"


@pytest.mark.parametrize("cut", [10, 40, 60, len(PEM)])
def test_a_secret_of_several_lines_is_found_in_a_format_of_lines(cut: int) -> None:
    scrubber = Scrubber(SecretPatterns([PEM]), lines=True)
    out = scrubber.feed(b"data: x\n" + PEM[:cut]) if cut < len(PEM) else b""
    assert b"BEGIN" not in out
    with pytest.raises(LeakError):
        scrubber.feed(PEM[cut:] if cut < len(PEM) else PEM)
