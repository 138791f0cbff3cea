"""WebSocket (RFC 6455): a handshake that is checked at both ends, then frames read, searched and written anew. Pure.

No byte passes as it came. A message is searched over its fragments, and is let go, at its end at the latest, as frames
of remit's own; a client's are masked anew. Without extensions an intermediary may do so (§5.4), and none is agreed on.
"""

from __future__ import annotations

import re
from base64 import b64encode
from codecs import IncrementalDecoder, getincrementaldecoder
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import sha1
from itertools import chain

from wsproto.frame_protocol import Frame, FrameProtocol, Opcode, ParseFailed

from remit.errors import InvalidRequestError, UpstreamError
from remit.gateway.framing import Fields
from remit.gateway.patterns import SecretPatterns
from remit.gateway.scrub import TURN, UPLOAD, Meter, Scrubber
from remit.gateway.target import HttpTarget, carries_authority

SWITCHED = b"connection: Upgrade\r\nupgrade: websocket\r\n"
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # §1.3
_KEY = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")  # 16 bytes
_PROTOCOL = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]{1,128}")
_PROTOCOLS = 16
_FRAME = 2_048  # bytes that reading a frame takes as long as


@dataclass(frozen=True, slots=True)
class Opening:
    """The handshake that a client asks for (§4.1)."""

    key: bytes
    protocols: tuple[bytes, ...]

    @property
    def lines(self) -> bytes:
        """The header lines that ask the upstream for it, without extensions."""
        protocols = b"sec-websocket-protocol: %b\r\n" % b", ".join(self.protocols) if self.protocols else b""
        return SWITCHED + b"sec-websocket-version: 13\r\nsec-websocket-key: %b\r\n" % self.key + protocols

    def check(self, fields: Fields) -> None:
        """Raise UpstreamError unless an answer of 101 switches to just this."""
        accept = b64encode(sha1(self.key + _GUID, usedforsecurity=False).digest())
        if not (
            asked(fields)
            and fields.length is None
            and not fields.chunked
            and _all(fields, b"sec-websocket-accept") == [accept]
            and _all(fields, b"sec-websocket-extensions") == []
            and _all(fields, b"sec-websocket-protocol") in ([], *([one] for one in self.protocols))
        ):
            raise UpstreamError("the upstream switched to something else than the WebSocket that was asked for")


def opening(method: str, fields: Fields, target: HttpTarget, *, has_body: bool) -> Opening | None:
    """Return the handshake that a request asks for; None: it asks for none, and an `Upgrade` of it is left out."""
    if not asked(fields):
        return None
    if method != "GET" or has_body:
        raise InvalidRequestError("a WebSocket is opened by a GET without a body")
    if _all(fields, b"sec-websocket-version") != [b"13"]:
        raise InvalidRequestError("the version of WebSocket is 13, in `Sec-WebSocket-Version`")
    keys = _all(fields, b"sec-websocket-key")
    if len(keys) != 1 or not _KEY.fullmatch(keys[0]):
        raise InvalidRequestError("`Sec-WebSocket-Key` is 16 bytes in base64, once")
    listed = b",".join(_all(fields, b"sec-websocket-protocol"))
    protocols = tuple(one.strip(b" \t") for one in listed.split(b",")) if listed else ()
    if (
        len(set(protocols)) != len(protocols)
        or len(protocols) > _PROTOCOLS
        or not all(map(_PROTOCOL.fullmatch, protocols))
    ):
        raise InvalidRequestError(f"`Sec-WebSocket-Protocol` lists up to {_PROTOCOLS} names, each once")
    if any(_says_who(one, target) for one in protocols):
        raise InvalidRequestError(
            "a subprotocol says who asks, which the resource's credential does",
            help="leave out what holds a key, a token or an account",
        )
    return Opening(keys[0], protocols)


def asked(fields: Fields) -> bool:
    """Whether a header section asks for a WebSocket, or says that it is one."""
    return b"upgrade" in fields.nominated and [one.lower() for one in _all(fields, b"upgrade")] == [b"websocket"]


def _all(fields: Fields, name: bytes) -> list[bytes]:
    return [value for key, value in fields.items if key == name]


def _says_who(protocol: bytes, target: HttpTarget) -> bool:
    """Whether a subprotocol carries what some clients, which cannot send headers, say in one."""
    parts = protocol.lower().replace(b"_", b"-").split(b".")
    return any(part in target.arguments or carries_authority(part) for part in parts if part.strip(b"0123456789"))


@dataclass(slots=True, eq=False, repr=False)
class MessageStream:
    """One direction. ``steps`` and ``end`` are those of a Scrubber.

    ``closed``: it has said that it says no more; ``size`` is of its messages, in bytes.
    """

    _patterns: SecretPatterns | None
    _malformed: InvalidRequestError | UpstreamError
    _reader: FrameProtocol
    _writer: FrameProtocol
    meter: Meter
    closed: bool = False
    size: int = 0
    _scrubber: Scrubber | None = None  # of the message that has begun
    _text: IncrementalDecoder | None = None  # of that, if it is text

    def steps(self, data: bytes) -> Iterator[bytes]:
        """Take bytes of frames; yield frames that are safe to let go, and nothing after some steps."""
        if self.closed:
            return
        self._reader.receive_bytes(data)
        try:
            for frame in self._reader.received_frames():
                self.meter.turn += _FRAME
                yield from self._one(frame)
        except ParseFailed as error:
            raise self._malformed from error

    def end(self) -> bytes:
        """Return what is left at the end: nothing of a message that breaks off."""
        return b""

    def _one(self, frame: Frame) -> Iterator[bytes]:
        payload = frame.payload
        if isinstance(payload, tuple):  # of `Close` alone
            self.closed = True
            yield self._checked(payload[1].encode(), self._writer.close(*payload))
        elif frame.opcode.iscontrol():
            said = bytes(payload) if isinstance(payload, bytearray | bytes) else b""
            write = self._writer.ping if frame.opcode is Opcode.PING else self._writer.pong
            yield self._checked(said, write(said))
        else:
            yield from self._data(payload, done=frame.message_finished)

    def _checked(self, said: bytes, written: bytes | bytearray) -> bytes:
        if self._patterns is not None:
            self._patterns.check(said)
        return bytes(written)

    def _data(self, payload: bytes | bytearray | str, *, done: bool) -> Iterator[bytes]:
        raw = payload.encode() if isinstance(payload, str) else bytes(payload)
        self.size += len(raw)
        if self._patterns is None:
            yield bytes(self._writer.send_data(payload, done))
            return
        if self._scrubber is None:
            self._scrubber = Scrubber(self._patterns, meter=self.meter)
            self._text = getincrementaldecoder("utf-8")() if isinstance(payload, str) else None
        safe = []
        for piece in self._scrubber.steps(raw):
            safe.append(piece)
            yield b""
        if done:
            safe.append(self._scrubber.end())
            self._scrubber = None
        fragment = b"".join(safe)
        if fragment or done:
            yield bytes(self._writer.send_data(self._text.decode(fragment, done) if self._text else fragment, done))


@dataclass(slots=True, eq=False, repr=False)
class ClientMessages:
    """What a client says, as the body of a request that is fed and goes on; for what the upstream says no less."""

    stream: MessageStream
    _steps: Iterator[bytes] | None = None

    @property
    def done(self) -> bool:
        return self.stream.closed and not self.more

    @property
    def more(self) -> bool:
        return self._steps is not None

    def feed(self, data: bytes) -> tuple[bytes, bytes]:
        """Take bytes of frames; return frames for the upstream, and nothing; LeakError, InvalidRequestError."""
        steps = self.stream.steps(data)
        self._steps = steps if self._steps is None else chain(self._steps, steps)
        self.stream.meter.turn = 0
        safe = []
        for piece in self._steps:
            safe.append(piece)
            if self.stream.meter.turn >= TURN:
                return b"".join(safe), b""
        self._steps = None
        return b"".join(safe), b""


@dataclass(slots=True, eq=False, repr=False)
class WebSocket:
    """Both directions of one that is open. ``shown`` is what a client may not send on, if anything."""

    secrets: SecretPatterns
    shown: SecretPatterns | None
    sent: ClientMessages = field(init=False)
    heard: MessageStream = field(init=False)

    def __post_init__(self) -> None:
        malformed = InvalidRequestError("what the client sends is not WebSocket")
        near, far = FrameProtocol(client=False, extensions=[]), FrameProtocol(client=True, extensions=[])
        self.sent = ClientMessages(MessageStream(self.shown, malformed, near, far, Meter(UPLOAD)))
        near, far = FrameProtocol(client=False, extensions=[]), FrameProtocol(client=True, extensions=[])
        odd = UpstreamError("what the upstream sends is not WebSocket")
        self.heard = MessageStream(self.secrets, odd, far, near, Meter())

    @property
    def closed(self) -> bool:
        """Whether both sides have said that they say no more."""
        return self.sent.stream.closed and self.heard.closed

    def told(self) -> str:
        """Return what is on record of it."""
        return f"101, {self.sent.stream.size} bytes out, {self.heard.size} in"
