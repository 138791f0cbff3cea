"""The body of a request on its way: kept until it is for something, then searched and sent on, a piece at a time.

What is to be authorized or signed is read whole before. A client that expects to be told so is told to go on only then.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from remit.errors import TooLargeError
from remit.gateway.authorize import places_in_body
from remit.gateway.downstream import Downstream, ParsedHeaders, misplaced
from remit.gateway.framing import Body
from remit.gateway.patterns import LeakError
from remit.gateway.response import chunk
from remit.gateway.scrub import Scrubber
from remit.gateway.target import HttpTarget
from remit.gateway.upstream import UpstreamConnection
from remit.gateway.websocket import ClientMessages

PIECE = 16_384  # bytes of a body that are read and searched at a time


class Uploading(Protocol):
    """Whose body it is."""

    up: UpstreamConnection | None  # where it goes
    answered: bool  # nobody wants the rest of it

    def check_ended(self) -> None:
        """Raise what the request was ended by, if it was."""


@dataclass(slots=True, eq=False, repr=False)
class Upload:
    """The body of one request."""

    _request: Uploading
    _downstream: Downstream
    _headers: ParsedHeaders
    _body: Body | ClientMessages
    reading: bool = True  # bytes are still to come
    full: bool = False  # the upstream takes no more for now
    _unread: bytes = b""  # to be read in a later turn
    _pending: list[bytes] = field(default_factory=list)  # what came before it could be sent
    _size: int = 0
    _scrubber: Scrubber | None = None  # on its way to the upstream
    _wake: asyncio.Future[None] | None = None
    _told: bool = False  # the client, to go on

    @property
    def busy(self) -> bool:  # of the bytes that came some are to be read in a later turn
        return self.reading and (self._body.more or bool(self._unread))

    @property
    def wants(self) -> bool:  # the bytes are for something
        return self._request.up is not None or self._wake is not None

    def whole(self, body: bytes) -> None:
        """Take a body that is all there."""
        self._pending, self._size, self.reading = [body], len(body), False

    def receive(self, data: bytes) -> bytes:
        """Take bytes, some at a time; return what follows the body."""
        request, up = self._request, self._request.up
        data = self._unread + data if self._unread else data
        try:
            payload, rest = self._body.feed(data[:PIECE])
        except LeakError:  # in a message: another body is searched when it goes on
            assert up is not None  # noqa: S101 - to which a WebSocket is open
            raise misplaced("message", up.pool.credential.target) from None
        self.reading = not (done := self._body.done)
        self._unread = b"" if done else data[PIECE:]
        rest = rest + data[PIECE:] if done else rest
        if up is not None and not request.answered:
            up.send(self._searched(payload, up, done=done))
        elif payload and not request.answered:
            self._pending.append(payload)
            self._size += len(payload)
            self._downstream.hold()
        self.wake()
        if request.up is not None and not self.full:
            self._downstream.release()
        return rest

    def begin(self, up: UpstreamConnection) -> bytes:
        """Return the part that has come, and let the rest come."""
        self._scrubber = self._downstream.listener.placeholders.scrubber(self._headers.fields)
        pending, self._pending = self._pending, []
        first = self._searched(b"".join(pending), up, done=not self.reading)
        if self.reading:
            self._proceed()
        return first

    def _searched(self, payload: bytes, up: UpstreamConnection, *, done: bool) -> bytes:
        """Return what goes to the upstream now; PlaceholderError for what must not."""
        scrubber = self._scrubber
        try:
            safe = payload if scrubber is None else scrubber.feed(payload)
        except LeakError:
            raise misplaced("body", up.pool.credential.target) from None
        if done and scrubber is not None:
            safe += scrubber.end()
        return chunk(safe, done=done) if self._headers.fields.chunked else safe

    def wake(self) -> None:
        """Let what waits for more of it look again."""
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)

    def _proceed(self) -> None:
        if self._headers.expects and not self._told and self._size == 0:
            self._downstream.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self._told = True
        self._downstream.release()

    async def collected(self, target: HttpTarget, task: str) -> tuple[bytes, bool]:
        """Read and search all of it, to be authorized or signed; say whether a placeholder was taken out of it."""
        limit, length = target.max_body, self._headers.fields.length or 0
        while self.reading and max(self._size, length) <= limit:
            self._wake = asyncio.get_running_loop().create_future()
            self._proceed()
            await self._wake
            self._request.check_ended()
        if max(self._size, length) > limit:
            raise TooLargeError(f"a body whose arguments are judged may have {limit} bytes")
        self._wake = None
        self._downstream.release()  # so that it is seen when the client leaves
        came, placeholders = b"".join(self._pending), self._downstream.listener.placeholders
        plane, body = self._downstream.plane, came
        if places := places_in_body(target, self._headers.fields):
            work = partial(placeholders.taken, came, target, places)
            body = await plane.judged(task, came, self._request.check_ended, work)
        if (scrubber := placeholders.scrubber(self._headers.fields)) is not None:
            for at in range(0, len(body), PIECE):  # others get their turns in between
                try:
                    scrubber.feed(body[at : at + PIECE])
                except LeakError:
                    raise misplaced("body", target) from None
                if at + PIECE < len(body):
                    await plane.turns.wait(task)
                    self._request.check_ended()
        return body, body is not came
