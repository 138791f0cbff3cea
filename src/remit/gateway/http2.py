"""HTTP/2 towards clients (RFC 9113): each stream is a connection with one request, which is judged like any other.

A request is written as one of HTTP/1.1 and read by the reader of all others, once nothing in it can become another line
there; its answer is taken apart again. Frames are read a few a turn: a header list of many kilobytes takes some bytes.
Needs the package ``h2``.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from remit.core.scope import Access
from remit.errors import InvalidRequestError
from remit.gateway import framing
from remit.gateway.connection import IDLE, ClientConnection, ClientConnections
from remit.gateway.downstream import STALL, Downstream
from remit.gateway.framing import Body
from remit.gateway.response import chunk

try:
    from h2 import events
    from h2.config import H2Configuration
    from h2.connection import H2Connection
    from h2.errors import ErrorCodes
    from h2.exceptions import ProtocolError
    from h2.settings import SettingCodes, Settings
except ImportError:
    AVAILABLE = False
else:
    AVAILABLE = True

STREAMS = 64  # at a time
RESETS = 100  # streams that a client may take back, more than it lets be answered (CVE-2023-44487)
WINDOW = 65_535  # bytes of a body that come before they are asked for (§6.9.2)
TURN = 32  # frames, or one with headers
_HEADERS = frozenset({1, 9})  # HEADERS, CONTINUATION
_GOAWAY = 7
_PREFACE = 24  # bytes (§3.4)
_FRAME = 9  # bytes of a frame's header
_FULL, _LOW = 65_536, 16_384  # bytes of an answer that wait for the client
_METHOD = re.compile(rb"[A-Z][A-Z-]{0,19}")
_TARGET = re.compile(rb"[\x21-\x7e]+")
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]{1,128}")
_VALUE = re.compile(rb"(?:[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?)?")
_OF_CONNECTIONS = frozenset(b"connection http2-settings keep-alive proxy-connection transfer-encoding upgrade".split())
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
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise InvalidRequestError("a header holds a byte that does not belong there")
        if name in _OF_CONNECTIONS or (name == b"te" and value != b"trailers"):
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
class Stream(asyncio.Transport):
    """One stream, as the transport of a connection with one request."""

    _streams: Streams
    number: int
    client: ClientConnection
    _method: str = "GET"
    _chunked: bool = False
    _early: bytes = b""  # of an answer whose head has not ended
    _reader: Body | None = None  # of the answer's body
    _answering: bool = False  # its head has gone
    out: bytearray = field(default_factory=bytearray)
    complete: bool = False  # nothing is added to ``out`` any more
    said: bool = False  # all has gone
    heard: bool = False  # the request has ended
    _closing: bool = False
    _full: bool = False
    _held: bool = False
    _unacknowledged: int = 0

    def begin(self, headers: list[tuple[bytes, bytes]], *, ended: bool) -> None:
        """Have the request judged."""
        self.client.connection_made(self)
        if self._closing:  # there are too many
            return
        self._method = dict(headers).get(b":method", b"").decode("latin-1")
        try:
            head, self._chunked = request_head(headers, ended=ended)
        except InvalidRequestError as error:
            self.client.refused(error, Access("", ""))
        else:
            self.client.data_received(head)

    def receive(self, data: bytes, size: int) -> None:
        """Take a part of the body, which came in ``size`` bytes of the client's window."""
        if data:
            self.client.data_received(chunk(data, done=False) if self._chunked else data)
        self._unacknowledged += size
        if not self._held:
            self._acknowledge()

    def end(self) -> None:
        """Take the end of the request."""
        self.heard = True
        if self._chunked:
            self.client.data_received(chunk(b"", done=True))

    def _acknowledge(self) -> None:
        size, self._unacknowledged = self._unacknowledged, 0
        if size:
            with suppress(ProtocolError):  # the connection has ended
                self._streams.http.acknowledge_received_data(size, self.number)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        if self._closing:
            return
        if self._answering:
            self._add(bytes(data))
        else:
            self._head(self._early + bytes(data))
        self._streams.send(self)

    def _head(self, data: bytes) -> None:
        while (end := data.find(framing.END)) >= 0 and not self._answering:
            status, fields = framing.response_head(data[:end])
            data = data[end + 4 :]
            self._answering = status.code >= 200  # noqa: PLR2004 - interim answers come before
            self._reader = framing.response_body(status.code, fields, self._method) if self._answering else None
            self.said = self.complete = self._answering and self._reader is None
            named = [item for item in fields.items if item[0] not in _OF_CONNECTIONS]
            coded = [(b":status", b"%d" % status.code), *named]
            self._streams.http.send_headers(self.number, coded, end_stream=self.said)
        if self._answering:
            self._add(data)
        else:
            self._early = data

    def _add(self, data: bytes) -> None:
        reader = self._reader
        if reader is None or reader.done:
            return
        self.out += reader.feed(data)[0]
        while reader.more:
            self.out += reader.feed(b"")[0]
        self.complete = reader.done

    def drained(self) -> None:
        """Take note of how much waits for the client, and be over if that was all."""
        if self.said and self._closing:
            self._streams.over(self)
        elif not self._full and len(self.out) > _FULL:
            self._full = True
            self.client.pause_writing()
        elif self._full and len(self.out) < _LOW:
            self._full = False
            self.client.resume_writing()

    def close(self) -> None:
        """Be over once all that was written has gone."""
        if self._closing:
            return
        self._closing = True
        if self.complete:
            self.drained()
        else:
            self._streams.over(self, ErrorCodes.INTERNAL_ERROR)

    def write_eof(self) -> None:
        self.close()

    def abort(self) -> None:
        self._closing = True
        self._streams.over(self, ErrorCodes.INTERNAL_ERROR if self._answering else ErrorCodes.REFUSED_STREAM)

    def lost(self) -> None:
        """Take note that nothing can be said or heard any more."""
        self._closing = True
        self._acknowledge()  # or the connection would have less and less of a window
        self.client.connection_lost(None)

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return len(self.out)

    def pause_reading(self) -> None:
        self._held = True

    def resume_reading(self) -> None:
        self._held = False
        self._acknowledge()
        self._streams.flush()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._streams.transport.get_extra_info(name, default)


class Streams:
    """The streams of one connection, ``below``, which tells what it reads and whether it takes more."""

    def __init__(self, below: Downstream, transport: asyncio.Transport, connections: ClientConnections) -> None:
        self.http = H2Connection(H2Configuration(client_side=False, header_encoding=None))
        settings = {SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS, SettingCodes.MAX_HEADER_LIST_SIZE: framing.MAX_HEAD}
        self.http.local_settings = Settings(client=False, initial_values=settings)
        self.http.decoder.max_header_list_size = framing.MAX_HEAD
        self.transport = transport
        self._below, self._connections = below, connections
        self._open: dict[int, Stream] = {}
        self._unread, self._due = b"", False
        self._begun = False
        self._blocked = False
        self._resets = 0
        self._ending = self._leaving = False
        self.http.initiate_connection()
        self.http.increment_flow_control_window((STREAMS - 1) * WINDOW)  # a stream that waits holds up no other
        self.flush()

    @property
    def idle(self) -> bool:
        return not self._open

    def receive(self, data: bytes) -> None:
        if self._ending:
            return
        self._below.deadline = self._below.plane.now + STALL
        self._unread += data
        if not self._due:
            self._read()

    def _read(self) -> None:
        """Read some frames, and others in a later turn."""
        self._due = False
        data, at, budget = self._unread, 0, TURN
        try:
            if not self._begun and len(data) >= _PREFACE:
                self._begun, at = True, _PREFACE
                self.http.receive_data(data[:at])
            while budget > 0 and not self._ending and (size := self._framed(data, at)):
                budget -= TURN if data[at + 3] in _HEADERS else 1
                frame, at = data[at : at + size], at + size
                if frame[3] == _GOAWAY:  # after which ``h2`` would not let its streams end
                    self._leaves()
                    continue
                for event in self.http.receive_data(frame):
                    self._take(event)
            self._unread = data[at:]
            self._due = not self._ending and self._framed(self._unread, 0) > 0
        except ProtocolError:
            self._refused()
        self.flush()
        if self._due:
            self._below.plane.turns.add(self._below.listener.quota.task, self._read)
        self._hold()

    def _framed(self, data: bytes, at: int) -> int:
        """Return the size of what is to be read next, nothing if it is not all there, or raise ProtocolError."""
        if not self._begun or len(data) - at < _FRAME:
            return 0
        size = int.from_bytes(data[at : at + 3])
        if size > self.http.max_inbound_frame_size:
            self.http.close_connection(ErrorCodes.FRAME_SIZE_ERROR)
            raise ProtocolError
        return _FRAME + size if len(data) - at >= _FRAME + size else 0

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            client = ClientConnection(self._below.listener, self._connections)
            self._open[event.stream_id] = made = Stream(self, event.stream_id, client)
            made.begin([(bytes(n), bytes(v)) for n, v in event.headers], ended=event.stream_ended is not None)
            return
        if isinstance(event, events.RemoteSettingsChanged) or (
            isinstance(event, events.WindowUpdated) and not event.stream_id
        ):
            self._send_all()
            return
        stream = self._open.get(getattr(event, "stream_id", None) or 0)
        if stream is None:
            return
        if isinstance(event, events.DataReceived):
            stream.receive(bytes(event.data), event.flow_controlled_length)
        elif isinstance(event, events.StreamEnded):
            stream.end()
        elif isinstance(event, events.WindowUpdated):
            self.send(stream)
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

    def _leaves(self) -> None:
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

    def send(self, stream: Stream) -> None:
        """Send what a stream has and its client takes."""
        while (stream.out or stream.complete) and not (stream.said or self._blocked or self._ending):
            room = min(self.http.local_flow_control_window(stream.number), self.http.max_outbound_frame_size)
            if stream.out and room <= 0:
                break
            piece = bytes(stream.out[:room]) if stream.out else b""
            del stream.out[: len(piece)]
            stream.said = stream.complete and not stream.out
            self.http.send_data(stream.number, piece, end_stream=stream.said)
        self.flush()
        stream.drained()

    def _send_all(self) -> None:
        for stream in tuple(self._open.values()):
            self.send(stream)

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
        if self._leaving:
            self._leaves()

    def flush(self) -> None:
        if data := self.http.data_to_send():
            self._below.write(data)

    def block(self, *, blocked: bool) -> None:
        """Take note of whether the client takes more; where it does not, it is not listened to either."""
        self._blocked = blocked
        self._hold()
        if not blocked:
            self._send_all()

    def _hold(self) -> None:
        (self._below.hold if self._blocked or self._due else self._below.release)()

    def lost(self) -> None:
        """Take note that the connection has gone."""
        self._ending = True
        streams, self._open = tuple(self._open.values()), {}
        for stream in streams:
            stream.lost()
