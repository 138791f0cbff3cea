"""Heads and bodies, read strictly."""

from __future__ import annotations

import pytest

from remit.errors import InvalidRequestError, TooLargeError, UpstreamError
from remit.gateway import framing


def fields(*lines: str) -> framing.Fields:
    """Read a header section."""
    return framing.request_fields("\r\n".join(["Host: a", *lines]).encode())


def test_a_request_line_is_method_and_target() -> None:
    assert framing.request_line(b"GET /a?b HTTP/1.1") == ("GET", b"/a?b")


def test_a_target_has_a_longest_length() -> None:
    with pytest.raises(InvalidRequestError):
        framing.request_line(b"GET /" + b"a" * framing.MAX_TARGET + b" HTTP/1.1")


def test_names_are_lowered_and_values_bared() -> None:
    assert fields("X-Y:  z \t").items[1] == (b"x-y", b"z")


def test_too_many_lines_are_too_large() -> None:
    with pytest.raises(TooLargeError):
        fields(*["X: y"] * framing.MAX_FIELDS)


def test_connection_names_what_goes_no_further() -> None:
    read = fields("Connection: close, X-A", "Connection: x-b")
    assert (read.keep, read.nominated) == (False, frozenset({b"x-a", b"x-b"}))


def test_only_one_expectation_is_known() -> None:
    assert fields("Expect: 100-continue").get(b"expect") == b"100-continue"
    with pytest.raises(InvalidRequestError):
        fields("Expect: magic")


def test_a_body_ends_where_its_length_says() -> None:
    body = framing.request_body(fields("Content-Length: 5"))
    assert body is not None
    assert body.feed(b"hel") == (b"hel", b"")
    assert body.feed(b"loGET") == (b"lo", b"GET")
    assert body.done


def test_a_chunked_body_ends_at_its_last_chunk() -> None:
    body = framing.request_body(fields("Transfer-Encoding: chunked"))
    assert body is not None
    assert body.feed(b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\nGET") == (b"hello", b"GET")
    assert body.done


def test_no_framing_and_a_length_of_zero_are_no_body() -> None:
    assert framing.request_body(fields()) is None
    assert framing.request_body(fields("Content-Length: 0")) is None


def test_trailers_of_a_response_are_kept_apart() -> None:
    body = framing.Chunked(trailers=True)
    assert body.feed(b"0\r\nX: y\r\n\r\n") == (b"", b"")
    assert (body.done, body.trailer) == (True, b"X: y\r\n")


def test_endless_lines_are_not_collected() -> None:
    with pytest.raises(InvalidRequestError):
        framing.Chunked(trailers=False).feed(b"0" * 33)
    with pytest.raises(InvalidRequestError):
        framing.Chunked(trailers=True).feed(b"0\r\n" + b"x" * (framing.MAX_HEAD + 1))


@pytest.mark.parametrize(
    ("status", "method", "lines", "kind"),
    [
        (200, "HEAD", b"Content-Length: 5", None),
        (204, "GET", b"Content-Length: 5", None),
        (304, "GET", b"Content-Length: 5", None),
        (200, "GET", b"Content-Length: 5", framing.Length),
        (200, "GET", b"Content-Length: 0", None),
        (200, "GET", b"Transfer-Encoding: chunked", framing.Chunked),
        (200, "GET", b"X: y", framing.UntilClose),
    ],
)
def test_how_a_response_ends(status: int, method: str, lines: bytes, kind: type | None) -> None:
    _, read = framing.response_head(b"HTTP/1.1 200 OK\r\n" + lines)
    body = framing.response_body(status, read, method)
    assert (type(body) if body is not None else None) is kind


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/2 200 OK",
        b"HTTP/1.1 20 OK",
        b"HTTP/1.1 600 OK",
        b"HTTP/1.1200 OK",
        b"ICY 200 OK",
        b"HTTP/1.1 200 OK\nX: y",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked",
        b"HTTP/1.1 200 OK\r\n folded",
        b"",
    ],
)
def test_a_response_that_can_be_read_in_two_ways_is_refused(head: bytes) -> None:
    with pytest.raises(UpstreamError):
        framing.response_head(head)


def test_a_reason_may_be_missing_and_a_value_may_be_opaque() -> None:
    status, read = framing.response_head(b"HTTP/1.0 200\r\nX: caf\xe9")
    assert (status.code, status.reason, status.minor, read.get(b"x")) == (200, b"", 0, b"caf\xe9")
