"""HTTP/2 towards upstreams that speak nothing older (RFC 9113): each stream is the connection of one request.

What is asked is written as HTTP/1.1, and taken apart here; an answer is written as one of HTTP/1.1 and read by the
reader of all others, once nothing in it can become another line there. It waits for its turn, one stream after the
other, and no more of it comes than was asked for.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Protocol, cast

from remit.errors import RemitError, UpstreamError
from remit.gateway import framing
from remit.gateway.framing import Body
from remit.gateway.http2_frames import AVAILABLE, NAME, OF_CONNECTIONS, STREAMS, Multiplexing, StreamTransport
from remit.gateway.response import TaskTurns, chunk

if AVAILABLE:
    from h2 import events
    from h2.errors import ErrorCodes
    from h2.exceptions import ProtocolError
    from hpack import NeverIndexedHeaderTuple

MOST = 10_000  # streams of one connection, one after the other: what ``h2`` keeps of them is to be forgotten
UNREAD = 1_048_576  # bytes that wait for an upstream which does not read, and is then not listened to either
_STATUS = re.compile(rb"[1-5][0-9]{2}")
_VALUE = re.compile(rb"(?:[\x21-\x7e\x80-\xff](?:[\t\x20-\x7e\x80-\xff]*[\x21-\x7e\x80-\xff])?)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
Pairs = Iterable[tuple[bytes, bytes]]
BROKEN = "the upstream broke off its answer"


def request_pairs(head: bytes) -> tuple[list[tuple[bytes, bytes]], Body | None]:
    """Return a head of HTTP/1.1, which remit wrote, as fields of HTTP/2, and what reads the body that follows it."""
    line, _, block = head.partition(b"\r\n")
    method, target, _ = line.split(b" ")
    pairs = [(name.lower(), value) for name, _, value in (each.partition(b": ") for each in block.split(b"\r\n"))]
    said = dict(pairs)
    if b"upgrade" in said:
        raise UpstreamError(
            "the upstream speaks HTTP/2 alone, and there remit opens no WebSocket",
            help="have the resource lead to an endpoint that speaks HTTP/1.1, too",
        )
    pseudo = [(b":method", method), (b":scheme", b"https"), (b":authority", said[b"host"]), (b":path", target)]
    fields = [(name, value) for name, value in pairs if name != b"host" and name not in OF_CONNECTIONS]
    if b"transfer-encoding" in said:
        return pseudo + fields, framing.Chunked(trailers=False)
    length = int(said.get(b"content-length", b"0"))
    return pseudo + fields, framing.Length(length) if length else None


def response_head(headers: Pairs, method: str, *, ended: bool) -> tuple[bytes, bool, int | None]:
    """Return an answer's head as HTTP/1.1 has it, whether its body is to follow in chunks, and its size if it says.

    UpstreamError for headers that are malformed (§8.2, §8.3), so also for all that could be read as another line.
    """
    (name, status), *fields = [*headers] or [(b"", b"")]
    if name != b":status" or not _STATUS.fullmatch(status) or status == b"101":  # §8.6
        raise UpstreamError("the upstream's answer has no proper status")
    lines, code = field_lines(fields), int(status)
    lengths = {value for name, value in fields if name == b"content-length"}
    if lengths and (len(lengths) > 1 or not all(map(_LENGTH.fullmatch, lengths))):
        raise UpstreamError("the upstream's answer has more than one length")
    size = int(*lengths) if lengths else None
    framed = b"connection: close\r\n\r\n"
    if code < 200:  # noqa: PLR2004 - interim
        return b"HTTP/1.1 %b \r\n%b\r\n" % (status, lines), False, None
    if framing.bodiless(code, method):
        size, chunked = 0, False
    else:
        chunked = size is None and not ended
        framed = (b"transfer-encoding: chunked\r\n" if chunked else b"") + framed
        framed = (b"content-length: 0\r\n" if size is None and ended else b"") + framed
    return b"HTTP/1.1 %b \r\n%b%b" % (status, lines, framed), chunked, size


def field_lines(fields: Pairs) -> bytes:
    """Return fields as lines of HTTP/1.1, or raise UpstreamError where one is none, or is not HTTP/2's to say."""
    lines = []
    for name, value in fields:
        if not NAME.fullmatch(name) or not _VALUE.fullmatch(value) or name in OF_CONNECTIONS:
            raise UpstreamError("the upstream answered with a malformed head")
        lines.append(b"%b: %b\r\n" % (name, value))
    return b"".join(lines)


class AnswerReader(asyncio.Protocol):
    """What reads the answer on a stream as one of HTTP/1.1."""

    __slots__ = ()

    def fail(self, error: RemitError) -> None:
        """Go on with no more of it."""


class Owner(Protocol):
    """The pool of a connection."""

    def put(self, upstream: UpstreamStreams) -> None: ...  # nobody uses it now
    def gone(self, upstream: UpstreamStreams) -> None: ...  # it has ended


@dataclass(slots=True, eq=False, repr=False)
class UpstreamStream(StreamTransport[AnswerReader]):
    """One stream, as the transport of one request's connection."""

    streams: UpstreamStreams
    _method: str = "GET"
    _chunked: bool = False  # the answer's body is written so
    _left: int | None = None  # bytes of it that are to come, if it has said
    _came: bytearray = field(default_factory=bytearray)  # of the answer, for a later turn
    _due: bool = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        if self.number:
            self._add(bytes(data))
        else:
            self._ask(bytes(data))
        self.streams.send(self)

    def _ask(self, data: bytes) -> None:
        """Begin with a head, which is all there, and what there is of the body."""
        head, _, body = data.partition(framing.END)
        pairs, self.reader = request_pairs(head)
        self._method = pairs[0][1].decode()
        self.said = self.complete = self.reader is None
        self.number = self.streams.ask(self, pairs, ended=self.said)
        self._add(body)

    def answer(self, headers: Pairs, *, ended: bool) -> None:
        """Take a head, of the answer or before it."""
        try:
            head, self._chunked, self._left = response_head(headers, self._method, ended=ended)
        except UpstreamError as error:
            self.protocol.fail(error)
        else:
            self._hand(head)

    def receive(self, data: bytes, size: int) -> None:
        """Take a part of the body, which came in ``size`` bytes of the window."""
        self._unacknowledged += size
        self._left = None if self._left is None else self._left - len(data)
        self._hand(chunk(data, done=False) if self._chunked else data)

    def trailers(self, headers: Pairs) -> None:
        """Take what follows the body: to be searched, where its end is not known by a length, and left out."""
        try:
            lines = field_lines(headers)
        except UpstreamError as error:
            self.protocol.fail(error)
            return
        if self._chunked:
            self._chunked = False
            self._hand(b"0\r\n" + lines + b"\r\n")

    def end(self) -> None:
        """Take the end of the answer."""
        self.heard = True
        if self._left:
            self.protocol.fail(UpstreamError(BROKEN))
            return
        self._hand(chunk(b"", done=True) if self._chunked else b"")

    def _hand(self, data: bytes) -> None:
        """Have what came read in a turn of its own."""
        self._came += data
        if not self._came:
            self._acknowledge()  # of padding
        elif not self._due:
            self._due = True
            self.streams.later(self._on)

    def _on(self) -> None:
        self._due = False
        # What completes the answer waits for the stream's end, which would be cut otherwise.
        if self._held or self._closing or (self._left == 0 and not self.heard):
            return
        came, self._came = bytes(self._came), bytearray()
        self._acknowledge()
        self.streams.flush()
        self.protocol.data_received(came)

    def resume_reading(self) -> None:
        self._held = False
        self._hand(b"")

    def reset(self, *, unread: bool) -> None:
        """Take note that the upstream has given up; ``unread``: before it has looked at what was asked."""
        if self.heard:  # it wants no more of the request (§8.1)
            self.out.clear()
            self.said = self.complete = True
        elif unread and not self._came:
            self.protocol.connection_lost(None)
        else:
            self.protocol.fail(UpstreamError(BROKEN))

    def abort(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._came.clear()
        self._acknowledge()  # or the connection would have less and less of a window
        self.streams.over(self)

    close = abort


class UpstreamStreams(Multiplexing[UpstreamStream], asyncio.Protocol):
    """One connection to an upstream. ``spoken``: TLS has agreed on HTTP/2. ``begun`` is set when it may be used."""

    def __init__(self, owner: Owner, turns: TaskTurns, task: str) -> None:
        super().__init__(client=True)
        self._owner, self._turns, self._task = owner, turns, task
        self._using: set[UpstreamStream] = set()  # also those on which nothing has been asked yet
        self._asked = 0
        self._leaving = False  # nothing new is asked here
        self._connected = self._finished = False
        self._held = False  # it is not read
        self.idle_since = 0.0
        self.spoken = False
        self.begun = asyncio.Event()

    @property
    def room(self) -> bool:
        """Whether one more stream can be opened."""
        most = min(STREAMS, self.http.remote_settings.max_concurrent_streams)
        usable = self.begun.is_set() and not (self._leaving or self._ending or self.transport.is_closing())
        return usable and len(self._using) < most

    def open(self, protocol: AnswerReader) -> None:
        """Be the connection of one request."""
        stream = UpstreamStream(self, 0, protocol)
        self._using.add(stream)
        protocol.connection_made(stream)

    def ask(self, stream: UpstreamStream, pairs: Pairs, *, ended: bool) -> int:
        """Send a head; return the number of its stream. Nothing of it is kept by either side to compare others with."""
        try:
            if self._ending:
                raise ProtocolError  # noqa: TRY301 - as ``h2`` says where it knows
            number = self.http.get_next_available_stream_id()
            never = [NeverIndexedHeaderTuple(*pair) for pair in pairs]
            self.http.send_headers(number, never, end_stream=ended)
        except ProtocolError as error:
            raise UpstreamError("the upstream takes no more requests") from error
        self._open[number] = stream
        self._asked += 1
        self._leaving = self._leaving or self._asked >= MOST
        return number

    def over(self, stream: UpstreamStream) -> None:
        """Let go of a stream, which is cut where it is not complete."""
        if stream not in self._using:
            return
        self._using.discard(stream)
        if self._open.pop(stream.number, None) is not None and not (stream.said and stream.heard):
            with suppress(ProtocolError):  # it has ended, or the connection has
                self.http.reset_stream(stream.number, ErrorCodes.CANCEL)
        if not self._ending:
            self.flush()
            self._unused()

    def _unused(self) -> None:
        if self._using:
            return
        if self._leaving:
            self.abort()
        else:
            self._owner.put(self)

    def abort(self) -> None:
        self._lost()
        if self._connected:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self._connected = cast("asyncio.Transport", transport), True
        session = transport.get_extra_info("ssl_object")
        self.spoken = session is not None and session.selected_alpn_protocol() == "h2"
        if self.spoken:
            self._begin()
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        self.receive(data)

    def eof_received(self) -> None:
        self._finish()  # TLS would wait for the other side's goodbye

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it came about
        self._finish()

    def _finish(self) -> None:
        """End once all is read that has come."""
        self._leaving = self._finished = True
        if not self._due:
            self.abort()

    def pause_writing(self) -> None:
        self.block(blocked=True)

    def resume_writing(self) -> None:
        self.block(blocked=False)

    def later(self, step: Callable[[], None]) -> None:
        """Have something done in a turn of the task."""
        self._turns.add(self._task, step)

    def _later(self) -> None:
        self.later(self._read)

    def _write(self, data: bytes) -> None:
        if not (self._ending or self.transport.is_closing()):
            self.transport.write(data)

    def _take(self, event: events.Event) -> None:
        stream = self._open.get(getattr(event, "stream_id", None) or 0)
        if isinstance(event, events.RemoteSettingsChanged):
            self.begun.set()
        elif stream is None:
            return
        elif isinstance(event, events.ResponseReceived | events.InformationalResponseReceived):
            stream.answer(_pairs(event.headers), ended=getattr(event, "stream_ended", None) is not None)
        elif isinstance(event, events.DataReceived):
            stream.receive(bytes(event.data), event.flow_controlled_length)
        elif isinstance(event, events.TrailersReceived):
            stream.trailers(_pairs(event.headers))
        elif isinstance(event, events.StreamEnded):
            stream.end()
        elif isinstance(event, events.StreamReset):
            stream.reset(unread=event.error_code == ErrorCodes.REFUSED_STREAM)

    def _leaves(self, last: int) -> None:
        self._leaving = True
        for stream in [one for number, one in self._open.items() if number > last]:
            stream.reset(unread=True)
        self._unused()

    def _refused(self) -> None:
        self.flush()
        self._lost(UpstreamError("the upstream does not speak HTTP/2 as it should"))
        self.transport.abort()

    def _lost(self, error: UpstreamError | None = None) -> None:
        """Let go of everything; what has an answer that is all there keeps it."""
        if self._ending:
            return
        self._ending = True
        self.begun.set()
        self._owner.gone(self)
        for stream in tuple(self._using):
            if error is not None and not stream.heard:
                stream.protocol.fail(error)
            else:
                stream.reset(unread=True)

    def _hold(self) -> None:
        if self._finished and not self._due:
            self.abort()
        if self._ending or self.transport.is_closing():
            return
        hold = self._due or (self._blocked and self.transport.get_write_buffer_size() > UNREAD)
        if hold != self._held:
            self._held = hold
            (self.transport.pause_reading if hold else self.transport.resume_reading)()


def _pairs(headers: Iterable[tuple[bytes | str, bytes | str]]) -> list[tuple[bytes, bytes]]:
    return [(bytes(name), bytes(value)) for name, value in headers]  # type: ignore[arg-type]  # none is decoded
