"""HTTP/2 towards clients (RFC 9113): each stream is a connection with one request, which is judged like any other.

A request is written as one of HTTP/1.1 and read by the reader of all others, once nothing in it can become another line
there; its answer is taken apart again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from remit.core.scope import Access
from remit.errors import InvalidRequestError
from remit.gateway import framing
from remit.gateway.connection import IDLE, ClientConnection, ClientConnections
from remit.gateway.downstream import STALL, Downstream
from remit.gateway.http2_frames import AVAILABLE, NAME, OF_CONNECTIONS, Multiplexing, StreamTransport
from remit.gateway.response import chunk

if AVAILABLE:
    from h2 import events
    from h2.errors import ErrorCodes
    from h2.exceptions import ProtocolError

RESETS = 100  # streams that a client may take back, more than it lets be answered (CVE-2023-44487)
_METHOD = re.compile(rb"[A-Z][A-Z-]{0,19}")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_VALUE = re.compile(rb"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")
_PSEUDO = frozenset({b":method", b":scheme", b":path", b":authority"})


def request_head(headers: Iterable[tuple[bytes, bytes]], *, ended: bool) -> tuple[bytes, bool]:
    """Return a request's head as HTTP/1.1 has it, and whether a body is to follow it in chunks.

    InvalidRequestError for headers that are malformed (§8.2, §8.3), so also for all that could be read as another line.
    """
    pseudo: dict[bytes, bytes] = {}
    lines: list[bytes] = []
    sized = False
    for name, value in headers:
        if name.startswith(b":"):
            if lines or name in pseudo or name not in _PSEUDO or not _TARGET.fullmatch(value):
                raise InvalidRequestError("a pseudo-header is unknown, repeated, empty or out of place")
            pseudo[name] = value
            continue
        if not NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise InvalidRequestError("a header holds a byte that does not belong there")
        if name in OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
            raise InvalidRequestError(f"`{name.decode()}` has no meaning in HTTP/2")
        sized = sized or name == b"content-length"
        if name != b"host":
            lines.append(b"%b: %b\r\n" % (name, value))
        elif pseudo.setdefault(b":authority", value) != value or not value:
            raise InvalidRequestError("`Host` is another than `:authority`")
    if pseudo.keys() != _PSEUDO or pseudo[b":scheme"] != b"https" or not _METHOD.fullmatch(pseudo[b":method"]):
        raise InvalidRequestError("a request has `:method`, `:path`, `:authority`, and `:scheme`, which is `https`")
    start = b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (pseudo[b":method"], pseudo[b":path"], pseudo[b":authority"])
    chunked = not ended and not sized
    framed = b"transfer-encoding: chunked\r\n" if chunked else b""
    return start + b"".join(lines) + framed + b"connection: close\r\n\r\n", chunked


@dataclass(slots=True, eq=False, repr=False)
class Stream(StreamTransport[ClientConnection]):
    """One stream, as the transport of a connection with one request."""

    streams: Streams
    _method: str = "GET"
    _chunked: bool = False
    _early: bytes = b""  # of an answer whose head has not ended
    _answering: bool = False  # its head has gone

    def begin(self, headers: list[tuple[bytes, bytes]], *, ended: bool) -> None:
        """Have the request judged."""
        self.protocol.connection_made(self)
        if self._closing:  # there are too many
            return
        self._method = dict(headers).get(b":method", b"").decode("latin-1")
        try:
            head, self._chunked = request_head(headers, ended=ended)
        except InvalidRequestError as error:
            self.protocol.refused(error, Access("", ""))
        else:
            self.protocol.data_received(head)

    def receive(self, data: bytes, size: int) -> None:
        """Take a part of the body, which came in ``size`` bytes of the client's window."""
        if data:
            self.protocol.data_received(chunk(data, done=False) if self._chunked else data)
        self._unacknowledged += size
        if not self._held:
            self._acknowledge()

    def end(self) -> None:
        """Take the end of the request."""
        self.heard = True
        if self._chunked:
            self.protocol.data_received(chunk(b"", done=True))

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        if self._answering:
            self._add(bytes(data))
        else:
            self._head(self._early + bytes(data))
        self.streams.send(self)

    def _head(self, data: bytes) -> None:
        while (end := data.find(framing.END)) >= 0 and not self._answering:
            status, fields = framing.response_head(data[:end])
            data = data[end + 4 :]
            self._answering = status.code >= 200  # noqa: PLR2004 - interim answers come before
            self.reader = framing.response_body(status.code, fields, self._method) if self._answering else None
            self.said = self.complete = self._answering and self.reader is None
            named = [item for item in fields.items if item[0] not in OF_CONNECTIONS]
            coded = [(b":status", b"%d" % status.code), *named]
            self.streams.http.send_headers(self.number, coded, end_stream=self.said)
        if self._answering:
            self._add(data)
        else:
            self._early = data

    def drained(self) -> None:
        """Take note of how much waits for the client, and be over if that was all."""
        if self.said and self._closing:
            self.streams.over(self)
        else:
            StreamTransport.drained(self)  # slots have made another class of this one

    def close(self) -> None:
        """Be over once all that was written has gone."""
        if self._closing:
            return
        self._closing = True
        if self.complete:
            self.drained()
        else:
            self.streams.over(self, ErrorCodes.INTERNAL_ERROR)

    def write_eof(self) -> None:
        self.close()

    def abort(self) -> None:
        self._closing = True
        self.streams.over(self, ErrorCodes.INTERNAL_ERROR if self._answering else ErrorCodes.REFUSED_STREAM)

    def lost(self) -> None:
        """Take note that nothing can be said or heard any more."""
        self._closing = True
        self._acknowledge()  # or the connection would have less and less of a window
        self.protocol.connection_lost(None)

    def resume_reading(self) -> None:
        self._held = False
        self._acknowledge()
        self.streams.flush()


class Streams(Multiplexing[Stream]):
    """The streams of one connection, ``below``, which tells what it reads and whether it takes more."""

    def __init__(self, below: Downstream, transport: asyncio.Transport, connections: ClientConnections) -> None:
        super().__init__(client=False)
        self.transport = transport
        self._below, self._connections = below, connections
        self._resets = 0
        self._leaving = False
        self._begin()

    @property
    def idle(self) -> bool:
        return not self._open

    def receive(self, data: bytes) -> None:
        self._below.deadline = self._below.plane.now + STALL
        super().receive(data)

    def _later(self) -> None:
        self._below.plane.turns.add(self._below.listener.quota.task, self._read)

    def _write(self, data: bytes) -> None:
        self._below.write(data)

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            client = ClientConnection(self._below.listener, self._connections)
            self._open[event.stream_id] = made = Stream(self, event.stream_id, client)
            made.begin([(bytes(n), bytes(v)) for n, v in event.headers], ended=event.stream_ended is not None)
            return
        stream = self._open.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return
        if isinstance(event, events.DataReceived):
            stream.receive(bytes(event.data), event.flow_controlled_length)
        elif isinstance(event, events.StreamEnded):
            stream.end()
        elif isinstance(event, events.TrailersReceived):
            self.over(stream, ErrorCodes.PROTOCOL_ERROR)  # as everywhere they are not accepted
        elif isinstance(event, events.StreamReset):
            self._reset(stream)

    def _reset(self, stream: Stream) -> None:
        self._open.pop(stream.number)
        stream.lost()
        self._resets += 1
        if self._resets > RESETS:
            self.http.close_connection(ErrorCodes.ENHANCE_YOUR_CALM)
            self._refused()

    def _leaves(self, last: int) -> None:  # noqa: ARG002 - nothing is pushed
        """Let go of a client that will ask for nothing more once all is said that it asked for."""
        self._leaving = True
        if not self._open:
            self._below.close()

    def _refused(self) -> None:
        """End a connection that is not spoken as it should be."""
        self.flush()
        self.lost()
        plane, channel = self._below.plane, self._below.listener.front.bound_grant
        error = InvalidRequestError("what the client sends is not HTTP/2, or too much of it")
        plane.start(plane.recorder.deny(channel, Access("", ""), error, plane.new_request()))
        self._below.close()

    def over(self, stream: Stream, code: ErrorCodes | None = None) -> None:
        """Let go of a stream: reset where it is not complete, or nobody wants the rest of its request (§8.1)."""
        if self._open.pop(stream.number, None) is None:
            return
        if code is not None or not stream.heard:
            with suppress(ProtocolError):  # it has ended, or the connection has
                self.http.reset_stream(stream.number, ErrorCodes.NO_ERROR if code is None else code)
        else:
            self._resets = max(self._resets - 1, 0)
        self.flush()
        self._below.deadline = self._below.plane.now + (STALL if self._open else IDLE)
        self._below.plane.loop.call_soon(stream.lost)  # whoever closes it has something to do yet
        if self._leaving and not self._open:
            self._below.close()

    def _hold(self) -> None:  # a client that takes nothing is not listened to either
        (self._below.hold if self._blocked or self._due else self._below.release)()

    def lost(self) -> None:
        """Take note that the connection has gone."""
        self._ending = True
        streams, self._open = tuple(self._open.values()), {}
        for stream in streams:
            stream.lost()
