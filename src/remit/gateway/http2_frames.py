"""HTTP/2 (RFC 9113) as it is towards clients and upstreams: frames are read a few a turn, and written as windows allow.

A stream is the transport of one request in HTTP/1.1, so that what reads, judges, searches and cuts that does so here.
Needs the package ``h2``.
"""

from __future__ import annotations

import asyncio
import logging
import re
from abc import ABC, abstractmethod
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from remit.gateway.framing import MAX_HEAD, Body

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

logging.getLogger("hpack").setLevel(logging.INFO)  # what it says of less are header fields
STREAMS = 64  # of one connection at a time
WINDOW = 65_535  # bytes of a body that come before they are asked for (§6.9.2)
TURN = 32  # frames, or one with headers
NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9a-z]{1,128}")
OF_CONNECTIONS = frozenset(b"connection http2-settings keep-alive proxy-connection transfer-encoding upgrade".split())
_PREFACE = 24  # bytes (§3.4)
_FRAME = 9  # bytes of a frame's header
_SETTINGS, _GOAWAY = 4, 7
_HEADERS = frozenset({1, 5, 9})  # HEADERS, PUSH_PROMISE, CONTINUATION
_SETTING = 6  # bytes
_KNOWN = frozenset({1, 2, 3, 4, 5, 6})  # settings
_DEAR = 512  # bytes of settings that are read as long as a frame
_TABLE = 4_096  # bytes of the table of headers (RFC 7541), whatever the peer would keep
_RESIZED = 64  # times that the peer may resize it before the next head
_FULL, _LOW = 65_536, 16_384  # bytes of a body that wait for the peer
P = TypeVar("P", bound=asyncio.Protocol)


@dataclass(slots=True, eq=False, repr=False)
class StreamTransport(asyncio.Transport, Generic[P]):
    """One stream, as the transport of ``protocol``."""

    streams: Multiplexing[Any]
    number: int
    protocol: P
    reader: Body | None = None  # of the body that is written
    out: bytearray = field(default_factory=bytearray)
    complete: bool = False  # nothing is added to ``out`` any more
    said: bool = False  # all has gone
    heard: bool = False  # the peer has said all
    _closing: bool = False
    _full: bool = False
    _held: bool = False
    _unacknowledged: int = 0  # bytes of the peer's window

    def _add(self, data: bytes) -> None:
        """Take bytes of the body as HTTP/1.1 frames it."""
        reader = self.reader
        if reader is None or reader.done:
            return
        self.out += reader.feed(data)[0]
        while reader.more:
            self.out += reader.feed(b"")[0]
        self.complete = reader.done

    def drained(self) -> None:
        """Take note of how much waits for the peer."""
        if not self._full and len(self.out) > _FULL:
            self._full = True
            self.protocol.pause_writing()
        elif self._full and len(self.out) < _LOW:
            self._full = False
            self.protocol.resume_writing()

    def _acknowledge(self) -> None:
        size, self._unacknowledged = self._unacknowledged, 0
        if size:
            with suppress(ProtocolError):  # the connection has ended
                self.streams.http.acknowledge_received_data(size, self.number)

    def is_closing(self) -> bool:
        return self._closing

    def can_write_eof(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return len(self.out)

    def pause_reading(self) -> None:
        self._held = True

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.streams.transport.get_extra_info(name, default)


S = TypeVar("S", bound=StreamTransport[Any])


class Multiplexing(ABC, Generic[S]):
    """One connection and its streams."""

    transport: asyncio.Transport

    def __init__(self, *, client: bool) -> None:
        settings = {SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEAD}
        settings |= {SettingCodes.ENABLE_PUSH: 0} if client else {SettingCodes.MAX_CONCURRENT_STREAMS: STREAMS}
        self.http = H2Connection(H2Configuration(client_side=client, header_encoding=None))
        self.http.local_settings = Settings(client=client, initial_values=settings)
        self.http.decoder.max_header_list_size = MAX_HEAD
        self._open: dict[int, S] = {}
        self._unread, self._due = b"", False
        self._preface = 0 if client else _PREFACE  # bytes that are to come before frames
        self._block = 0  # bytes of the headers that are under way
        self._blocked = False
        self._ending = False

    @abstractmethod
    def _write(self, data: bytes) -> None: ...
    @abstractmethod
    def _take(self, event: events.Event) -> None: ...
    @abstractmethod
    def _leaves(self, last: int) -> None: ...  # the peer will look at no stream after that
    @abstractmethod
    def _refused(self) -> None: ...  # the connection is not spoken as it should be
    @abstractmethod
    def _later(self) -> None: ...  # have ``_read`` go on in a later turn
    @abstractmethod
    def _hold(self) -> None: ...  # read on, or do not

    def _begin(self) -> None:
        self.http.initiate_connection()
        self.http.increment_flow_control_window((STREAMS - 1) * WINDOW)  # a stream that waits holds up no other
        self.flush()

    def receive(self, data: bytes) -> None:
        if self._ending:
            return
        self._unread += data
        if not self._due:
            self._read()

    def _read(self) -> None:
        """Read some frames, and others in a later turn."""
        self._due = False
        data, at, budget = self._unread, 0, TURN
        try:
            if self._preface and len(data) >= self._preface:
                at, self._preface = self._preface, 0
                self.http.receive_data(data[:at])
            while budget > 0 and not self._ending and (size := self._framed(data, at)):
                frame, at = data[at : at + size], at + size
                budget -= self._one(frame)
            self._unread = data[at:]
            self._due = not self._ending and self._framed(self._unread, 0) > 0
        except ProtocolError:
            self._refused()
        self.flush()
        if self._due:
            self._later()
        self._hold()

    def _framed(self, data: bytes, at: int) -> int:
        """Return the size of what is to be read next, nothing if it is not all there, or raise ProtocolError."""
        if self._preface or len(data) - at < _FRAME:
            return 0
        size = int.from_bytes(data[at : at + 3])
        if size > self.http.max_inbound_frame_size:
            self._end(ErrorCodes.FRAME_SIZE_ERROR)
        return _FRAME + size if len(data) - at >= _FRAME + size else 0

    def _one(self, frame: bytes) -> int:
        """Read a frame; return how many usual ones it takes as long as."""
        kind, cost = frame[3], 1
        if kind == _GOAWAY:  # after which ``h2`` would not let its streams end
            if len(frame) < _FRAME + 8:
                self._end(ErrorCodes.FRAME_SIZE_ERROR)
            self._leaves(int.from_bytes(frame[_FRAME : _FRAME + 4]) & 0x7FFF_FFFF)
            return cost
        if kind in _HEADERS:
            cost = TURN
            self._block = len(frame) + (self._block if kind == 9 else 0)  # noqa: PLR2004 - CONTINUATION
            if self._block > MAX_HEAD:  # it is decoded at one go
                self._end(ErrorCodes.ENHANCE_YOUR_CALM)
        elif kind == _SETTINGS:
            cost += len(frame) // _DEAR
            frame = _known_settings(frame)
        for event in self.http.receive_data(frame):
            self._event(event)
        return cost

    def _event(self, event: events.Event) -> None:
        if isinstance(event, events.RemoteSettingsChanged):
            self._bounded()
            self._send_all()
        if not isinstance(event, events.WindowUpdated):
            self._take(event)
        elif not event.stream_id:
            self._send_all()
        elif (stream := self._open.get(event.stream_id)) is not None:
            self.send(stream)

    def _bounded(self) -> None:
        """Keep a table of headers no larger than is good for both."""
        encoder = self.http.encoder
        encoder.header_table_size = min(encoder.header_table_size, _TABLE)
        if len(encoder.table_size_changes) > _RESIZED:
            self._end(ErrorCodes.ENHANCE_YOUR_CALM)

    def _end(self, code: ErrorCodes) -> None:
        self.http.close_connection(code)
        raise ProtocolError

    def send(self, stream: S) -> None:
        """Send what a stream has and its peer takes."""
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

    def flush(self) -> None:
        if data := self.http.data_to_send():
            self._write(data)

    def block(self, *, blocked: bool) -> None:
        """Take note of whether the peer takes more."""
        self._blocked = blocked
        self._hold()
        if not blocked:
            self._send_all()


def _known_settings(frame: bytes) -> bytes:
    """Leave out what means nothing to ``h2`` (§6.5.2), which would keep it."""
    data = frame[_FRAME:]
    if len(data) % _SETTING:
        return frame  # which is refused
    settings = [data[at : at + _SETTING] for at in range(0, len(data), _SETTING)]
    kept = b"".join(one for one in settings if int.from_bytes(one[:2]) in _KNOWN)
    return len(kept).to_bytes(3) + frame[3:_FRAME] + kept
