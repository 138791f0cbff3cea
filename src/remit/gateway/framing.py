"""HTTP/1.1 messages read strictly from raw bytes: heads and bodies, both ways. Pure.

One grammar, no leniency, because two readers that disagree about a message are how a request is smuggled (RFC 9112
§11): no bare CR or LF, no folded lines, no space before a colon, no `Transfer-Encoding` beside `Content-Length`, no
repeated framing header, no chunk extensions, no trailers from clients. The end of a message is known exactly, so that
pipelined requests are judged one by one; that is what a callback parser cannot tell (``tests/fuzz/test_framing.py``
holds this reader against ``httptools``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import ClassVar

from remit.errors import InvalidRequestError, TooLargeError, UpstreamError

MAX_HEAD = 32_768  # bytes of a head
MAX_TARGET = 8_192  # bytes
MAX_FIELDS = 100  # header lines
CHUNKS = 512  # that are read at a time: each takes as long as many bytes
END = b"\r\n\r\n"
BODILESS = frozenset({"GET", "HEAD", "DELETE", "OPTIONS"})  # a body has no meaning there (RFC 9110 §9.3)

_VISIBLE = bytes(range(0x20, 0x7F)) + b"\t"
_OPAQUE = _VISIBLE + bytes(range(0x80, 0x100))  # responses may carry obs-text (RFC 9110 §5.5)
_REQUEST_LINE = re.compile(rb"([A-Z][A-Z-]{0,19}) ([\x21-\x7e]+) HTTP/1\.1")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: ([\t\x20-\x7e\x80-\xff]*))?")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_CHUNK = re.compile(rb"[0-9A-Fa-f]{1,15}")
_ONCE = frozenset(
    b"host content-length transfer-encoding content-type content-encoding authorization dpop expect remit-grant".split()
)


@dataclass(frozen=True, slots=True)
class Fields:
    """The header section of one message. Names are in lower case, values without surrounding blanks."""

    items: tuple[tuple[bytes, bytes], ...]
    length: int | None  # bytes of the body, or None when nothing says
    chunked: bool
    keep: bool  # the connection may be used again
    nominated: frozenset[bytes]  # names that `Connection` makes hop-by-hop

    def get(self, name: bytes) -> bytes | None:
        """Return the first value of a header, or None."""
        for key, value in self.items:
            if key == name:
                return value
        return None


@dataclass(frozen=True, slots=True)
class Status:
    """The first line of a response."""

    code: int
    reason: bytes
    minor: int  # of HTTP/1.x


def request_line(line: bytes) -> tuple[str, bytes]:
    """Return method and raw target of a request line, or raise InvalidRequestError."""
    found = _REQUEST_LINE.fullmatch(line)
    if found is None:
        raise InvalidRequestError("the request line is not that of an HTTP/1.1 request in strict form")
    if len(found[2]) > MAX_TARGET:
        raise InvalidRequestError(f"the target is longer than {MAX_TARGET} bytes")
    return found[1].decode(), found[2]


def request_fields(block: bytes) -> Fields:
    """Read the header lines of a request. ``block`` is what stands between the request line and the empty line."""
    fields = _fields(block, _VISIBLE)
    if fields.get(b"host") is None:
        raise InvalidRequestError("the request has no `Host`")
    if fields.get(b"expect") not in {None, b"100-continue", b"100-Continue"}:
        raise InvalidRequestError("the only expectation accepted is `100-continue`")
    return fields


def response_head(head: bytes) -> tuple[Status, Fields]:
    """Read the head of a response (without its empty line), or raise UpstreamError."""
    line, _, block = head.partition(b"\r\n")
    found = _STATUS_LINE.fullmatch(line)
    if found is None:
        raise UpstreamError("the upstream did not answer in HTTP/1.1")
    try:
        fields = _fields(block, _OPAQUE)
    except InvalidRequestError as error:
        raise UpstreamError("the upstream answered with a malformed head") from error
    return Status(int(found[2]), found[3] or b"", int(found[1])), fields


def _fields(block: bytes, allowed: bytes) -> Fields:
    lines = block.split(b"\r\n") if block else []
    if len(lines) > MAX_FIELDS:
        raise TooLargeError(f"the request has more than {MAX_FIELDS} header lines")
    if block.translate(None, allowed) != b"\r\n" * (len(lines) - 1):  # a bare CR or LF, NUL, other controls
        raise InvalidRequestError("a header holds a byte that does not belong there")
    items: list[tuple[bytes, bytes]] = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not _NAME.fullmatch(name):
            raise InvalidRequestError("a header line has no proper name")
        name = name.lower()
        items.append((name, value.strip(b" ") if name in _ONCE else value.strip(b" \t")))
    once = [item for item in items if item[0] in _ONCE]
    if len(dict(once)) != len(once):
        raise InvalidRequestError("a header that may stand once is repeated")
    length, chunked = _framed(dict(once))
    said = b",".join(value for name, value in items if name == b"connection")
    tokens = frozenset(token.strip(b" \t").lower() for token in set(said.split(b","))) - {b""}
    return Fields(tuple(items), length, chunked, b"close" not in tokens, tokens - {b"close", b"keep-alive"})


def _framed(seen: dict[bytes, bytes]) -> tuple[int | None, bool]:
    coding, length = seen.get(b"transfer-encoding"), seen.get(b"content-length")
    if coding is not None:
        if length is not None or coding != b"chunked":
            raise InvalidRequestError("`Transfer-Encoding` may only be `chunked`, and not beside `Content-Length`")
        return None, True
    if length is None:
        return None, False
    if not _LENGTH.fullmatch(length):
        raise InvalidRequestError("`Content-Length` is not a plain number")
    return int(length), False


@dataclass(slots=True, eq=False, repr=False)
class Length:
    """A body of a known number of bytes, and not of none.

    ``done``: the message is complete. ``more``: of what was fed, some waits to be read by another ``feed``, of nothing
    or of what came since.
    """

    _left: int
    done: bool = False
    more: ClassVar[bool] = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes; return the payload among them, and what follows the message."""
        if len(data) < self._left:
            self._left -= len(data)
            return data, b""
        left, self._left, self.done = self._left, 0, True
        return (data, b"") if len(data) == left else (data[:left], data[left:])


class UntilClose:
    """A response body that ends with its connection."""

    __slots__ = ()
    done = more = False

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        return data, b""


@dataclass(slots=True, eq=False, repr=False)
class Chunked:
    """A chunked body (RFC 9112 §7.1) without extensions. ``trailer`` is what stood after the last one, if tolerated."""

    trailers: bool  # whether they are tolerated
    trailer: bytes = b""
    done: bool = False
    more: bool = False
    _buffer: bytes = b""
    _left: int = -1  # bytes left of this chunk with its CRLF; -1 at a size line, -2 in the trailer section

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        data = self._buffer + data if self._buffer else data
        self._buffer = b""
        payload: list[bytes] = []
        at, self.more = 0, False
        while at < len(data) and not self.done:
            step = self._within(data, at, payload) if self._left >= 0 else self._line(data, at)
            self.more = len(payload) >= CHUNKS and step < len(data) and not self.done
            if step == at or self.more:
                self._buffer = data[step:]
                return b"".join(payload), b""
            at = step
        return b"".join(payload), data[at:]

    def _within(self, data: bytes, at: int, payload: list[bytes]) -> int:
        """Take what is there of a chunk. Its closing CRLF is part of ``_left`` and is never payload."""
        if self._left > 2:  # noqa: PLR2004 - the CRLF
            piece = data[at : at + self._left - 2]
            payload.append(piece)
            self._left -= len(piece)
            return at + len(piece)
        if len(data) - at < 2:  # noqa: PLR2004 - the CRLF
            return at
        if data[at : at + 2] != b"\r\n":
            raise InvalidRequestError("a chunk does not end where its size says")
        self._left = -1
        return at + 2

    def _line(self, data: bytes, at: int) -> int:
        end = data.find(b"\n", at)
        if end < 0:
            if len(data) - at > (MAX_HEAD if self._left == -2 else 32):  # noqa: PLR2004 - the trailer state, a size line
                raise InvalidRequestError("a line of the chunked body is too long")
            return at
        if data[end - 1 : end] != b"\r" or end == at:
            raise InvalidRequestError("a line of the chunked body does not end in CRLF")
        line = data[at : end - 1]
        if self._left == -1:
            if not _CHUNK.fullmatch(line):
                raise InvalidRequestError("a chunk size is not a plain hexadecimal number")
            size = int(line, 16)
            self._left = size + 2 if size else -2
        elif not line:
            self.done = True
        elif not self.trailers or len(self.trailer) > MAX_HEAD:
            raise InvalidRequestError("trailers are not accepted")
        else:
            self.trailer += line + b"\r\n"
        return end + 1


Body = Length | UntilClose | Chunked


def request_body(fields: Fields) -> Body | None:
    """Return the reader of a request's body, or None when there is none."""
    if fields.chunked:
        return Chunked(trailers=False)
    return Length(fields.length) if fields.length else None


def bodiless(status: int, method: str) -> bool:
    """Whether a response ends with its head whatever that says (RFC 9112 §6.3)."""
    return method == "HEAD" or status in {204, 304} or status < 200  # noqa: PLR2004 - 1xx


def response_body(status: int, fields: Fields, method: str) -> Body | None:
    """Return the reader of a response's body (RFC 9112 §6.3), or None when there is none."""
    if bodiless(status, method) or fields.length == 0:
        return None
    if fields.chunked:
        return Chunked(trailers=True)
    return UntilClose() if fields.length is None else Length(fields.length)
