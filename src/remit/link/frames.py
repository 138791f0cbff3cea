"""The sockets of a link, and what crosses each: frames of a length (4 bytes, big-endian) and a message, both ways."""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from remit.errors import IntegrityError, RemitError

SLICE = 65_536  # bytes that are looked at in one turn of the loop
MUCH = 32  # messages that may be left for the next turn while more is read
MAX_UNREAD = 1 << 26  # bytes that a peer may leave unread: as much as the longest answer of the authority
_LENGTH = struct.Struct(">I")
_LOG = logging.getLogger("remit.link")


class LinkSockets(NamedTuple):
    """One end of a link: one socket for calls and answers, and one for what has ended."""

    calls: socket.socket
    ends: socket.socket


def pair() -> tuple[LinkSockets, LinkSockets]:
    """Return both ends of a new link."""
    calls, ends = socket.socketpair(), socket.socketpair()
    return LinkSockets(calls[0], ends[0]), LinkSockets(calls[1], ends[1])


def frame(data: bytes) -> bytes:
    """Return a message as it is sent."""
    return _LENGTH.pack(len(data)) + data


class FrameReader:
    """Cuts what arrives into frames."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Return the messages that are complete now; IntegrityError for one of more than ``most`` bytes."""
        have: bytes | bytearray = data
        if self._rest:
            self._rest += data
            have = self._rest
        found, at = list[bytes](), 0
        while len(have) - at >= _LENGTH.size:
            (size,) = _LENGTH.unpack_from(have, at)
            if size > self._most:
                raise IntegrityError("a message of the link is too large")
            end = at + _LENGTH.size + size
            if end > len(have):
                break
            found.append(bytes(have[at + _LENGTH.size : end]))
            at = end
        self._rest = bytearray(have[at:]) if at or have is data else self._rest
        return found


class FramedSocket(asyncio.Protocol):
    """One end of one socket of a link, in a loop.

    ``take`` gets each message, in order, as many in one turn of the loop as it has room for. It raises IntegrityError
    for what is not of the protocol: that is logged, and ends the socket, as does a peer that does not read.
    ``ended`` is called once, when the socket has ended, from here or there: EPIPE and ECONNRESET say no more than that.
    """

    def __init__(self, peer: str, most: int, take: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        """``peer`` is at the other end, for the log; ``most`` is in bytes, of one message."""
        self._loop = asyncio.get_running_loop()
        self._peer, self._take, self._ended = peer, take, ended
        self._reader = FrameReader(most)
        self._arrived, self._out = deque[bytes](), list[bytes]()
        self._transport: asyncio.Transport | None = None
        self._slicing = self.lost = False

    async def open(self, sock: socket.socket) -> None:
        """Begin to read; what is said before is lost."""
        sock.setblocking(False)
        await self._loop.create_connection(lambda: self, sock=sock)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a stream socket

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it came about
        self.close()

    def close(self) -> None:
        """End the socket, with all that is not sent yet."""
        if self.lost:
            return
        self.lost = True
        if self._transport is not None:
            self._transport.abort()
        self._arrived.clear()
        self._ended()

    def _break(self, error: RemitError) -> None:
        if not self.lost:
            _LOG.error("the link to %s is cut off: %s", self._peer, error.detail)
        self.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._arrived.extend(self._reader.feed(data))
        except RemitError as error:
            self._break(error)
        if not self._slicing:
            self._slice()

    def _slice(self) -> None:
        """Hand on what has arrived, as much as one turn has room for; nothing is read while much is left."""
        done = 0
        try:
            while self._arrived and done < SLICE:
                data = self._arrived.popleft()
                done += len(data) + 2_048  # a small one costs as well
                self._take(data)
        except RemitError as error:
            self._break(error)
        much = len(self._arrived) > MUCH
        if self._transport is not None and not self.lost and much == self._transport.is_reading():
            (self._transport.pause_reading if much else self._transport.resume_reading)()
        self._slicing = bool(self._arrived)
        if self._slicing:
            self._loop.call_soon(self._slice)

    def say(self, data: bytes) -> None:
        """Send a message with all others of this turn of the loop."""
        if self.lost:
            return
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(data)

    def _flush(self) -> None:
        out, self._out = self._out, []
        self.send(out)

    def send(self, messages: list[bytes]) -> None:
        """Send messages now, in one write."""
        if self.lost or self._transport is None:
            return
        if self._transport.get_write_buffer_size() > MAX_UNREAD:
            self._break(IntegrityError("it does not read what it is told"))
            return
        self._transport.write(b"".join([frame(data) for data in messages]))
