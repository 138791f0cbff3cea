"""Whatever bytes come: a head and a body are read or refused, and httptools reads what is accepted the same way."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import httptools
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.errors import InvalidRequestError, RemitError, UpstreamError
from remit.gateway import framing

PIECES = [
    b"GET",
    b"POST",
    b"get",
    b" ",
    b"\t",
    b"/a?b=c",
    b"http://a/",
    b"*",
    b" HTTP/1.1",
    b" HTTP/1.0",
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"Host: a",
    b"Host:a",
    b"Host : a",
    b"Content-Length: 5",
    b"Content-Length: +5",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: Chunked",
    b"Connection: close",
    b"Connection: x, keep-alive",
    b"X: y",
    b" folded",
    b":",
    b"\xff",
    b"Expect: 100-continue",
]
heads = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map(b"".join),
    st.lists(st.sampled_from([p for p in PIECES if b":" in p]), max_size=6).map(
        lambda lines: b"\r\n".join([b"POST /a HTTP/1.1", b"Host: a", *lines])
    ),
    st.binary(max_size=200),
)


class Reader:
    """What httptools makes of a head."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[bytes, bytes]] = []
        self.keep = True
        self.parser: Any = None

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_headers_complete(self) -> None:
        self.keep = self.parser.should_keep_alive()

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))


@settings(max_examples=1500)
@given(heads)
def test_an_accepted_head_is_read_alike_by_an_independent_parser(head: bytes) -> None:
    line, _, block = head.partition(b"\r\n")
    try:
        method, target = framing.request_line(line)
        fields = framing.request_fields(block)
    except RemitError:
        return
    if not target.startswith(b"/") or method not in {"GET", "POST"}:
        return  # refused later: as a target, as a method of no grant
    reader = Reader()
    reader.parser = parser = httptools.HttpRequestParser(reader)
    parser.feed_data(head + framing.END)
    assert parser.get_method().decode() == method
    assert (reader.target, parser.get_http_version()) == (target, "1.1")
    assert tuple(reader.headers) == fields.items
    assert reader.keep is fields.keep


@settings(max_examples=500)
@given(heads)
def test_a_response_head_is_read_or_refused(head: bytes) -> None:
    try:
        status, _ = framing.response_head(head)
    except UpstreamError:
        return
    assert 100 <= status.code <= 599


chunk_pieces = st.lists(
    st.sampled_from([b"5\r\nhello\r\n", b"0\r\n", b"\r\n", b"a\r\n", b"5;x\r\n", b"\n", b"X: y\r\n", b"GET / \r\n"]),
    max_size=8,
).map(b"".join)


@settings(max_examples=800)
@given(st.one_of(chunk_pieces, st.binary(max_size=64)), st.lists(st.integers(0, 64), max_size=6))
def test_a_chunked_body_means_the_same_however_it_is_cut(raw: bytes, cuts: list[int]) -> None:
    whole = _read(raw, [])
    assert _read(raw, cuts) == whole
    if isinstance(whole, tuple) and whole[2]:
        pieces: list[bytes] = []
        reader = type("Body", (), {"on_body": lambda _self, body: pieces.append(body)})()
        parser = httptools.HttpRequestParser(reader)
        end = len(raw) - len(whole[1])
        parser.feed_data(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + raw[:end])
        assert b"".join(pieces) == whole[0]


def _read(raw: bytes, cuts: list[int]) -> tuple[bytes, bytes, bool] | str:
    body = framing.Chunked(trailers=False)
    edges = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
    payload, rest = b"", b""
    try:
        for start, end in pairwise(edges):
            if body.done:
                rest += raw[start:end]
                continue
            piece, rest = body.feed(raw[start:end])
            payload += piece
    except InvalidRequestError:
        return "refused"
    return payload, rest, body.done


def test_the_pieces_reach_acceptance() -> None:
    """Keep the generator honest: its sane form is accepted."""
    framing.request_fields(b"Host: a\r\nConnection: close")
    with pytest.raises(InvalidRequestError):
        framing.request_fields(b"Host: a\r\nHost: a")
