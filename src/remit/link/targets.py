"""The link to the process that reaches targets: the authority calls, and the worker answers.

Example::

    ours, theirs = socket.socketpair()  # before the fork
    link = TargetsLink()  # in the authority, as long as it lives; ``link.targets`` is its ``TargetsPort``
    await link.connect(ours, ended)  # again for each worker that takes the place of one that died
    await serve_targets(theirs, targets)  # in the worker: until the link ends

While there is no worker, every call raises UnavailableError; so does what waits when it dies. A call that nobody waits
for any more is cancelled over there. Each call is answered once; what is no answer to one, or too long, ends the link.
The authority bounds what it asks by itself (``broker.engines``), so there is no credit here.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
from collections.abc import Callable, Coroutine
from typing import cast

import msgspec

from remit.errors import IntegrityError, RemitError, UnavailableError
from remit.link.messages import (
    MAX_ANSWER,
    MAX_CALL,
    Answer,
    Call,
    FrameReader,
    Method,
    Refusal,
    frame,
    from_authority,
    method,
)
from remit.link.values import failure, raised, read
from remit.ports.targets import TargetsPort

MAX_DOCUMENT = 1 << 21  # bytes of an answer that is a document; any other is no longer than a call
DOCUMENTS = frozenset({"fetch", "bundle"})
PATIENCE = 15.0  # seconds, for a document: who fetches one gives up earlier
_GONE = "the part of remit that reaches targets is gone, and comes back in a moment"
_LOG = logging.getLogger("remit.link")


class Cancel(msgspec.Struct, frozen=True, tag=4, array_like=True, gc=False):
    """Nobody waits any more for the answer to a call."""

    number: int


class DocumentAnswer(msgspec.Struct, frozen=True, tag=1, array_like=True, gc=False):
    """An answer that may be long: it holds nothing that would take long to decode."""

    number: int
    value: bytes


_to_targets: msgspec.msgpack.Decoder[Call | Cancel] = msgspec.msgpack.Decoder(Call | Cancel)
_document: msgspec.msgpack.Decoder[DocumentAnswer] = msgspec.msgpack.Decoder(DocumentAnswer)


class _Framed(asyncio.Protocol):
    """One end: frames that are written together are sent together."""

    def __init__(self, most: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._frames, self._out = FrameReader(most), list[bytes]()
        self._transport: asyncio.Transport | None = None
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a stream socket

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it came about
        self.close()

    def data_received(self, data: bytes) -> None:
        try:
            for each in self._frames.feed(data):
                self.take(each)
        except (RemitError, msgspec.MsgspecError, ValueError) as error:
            _LOG.error("the link to targets is cut off: %s", error)
            self.close()

    def say(self, sent: bytes) -> None:
        if self.lost:
            return
        if not self._out:
            self._loop.call_soon(self._write)
        self._out.append(sent)

    def _write(self) -> None:
        out, self._out = self._out, []
        if self._transport is not None and not self.lost:
            self._transport.write(b"".join(out))

    def close(self) -> None:
        """End the link."""
        self.lost = True
        if self._transport is not None:
            self._transport.abort()

    def take(self, data: bytes) -> None:
        """Act on a message."""
        raise NotImplementedError


class _AuthorityEnd(_Framed):
    def __init__(self, ended: Callable[[], None]) -> None:
        super().__init__(MAX_DOCUMENT)
        self._ended, self._numbers = ended, itertools.count(1)
        self._unanswered: dict[int, asyncio.Future[object]] = {}

    async def call(self, asked: Method, args: tuple[object, ...], named: dict[str, object]) -> object:
        number = next(self._numbers)
        sent = asked.call(number, asked.bound(args, named))
        if self.lost:
            raise UnavailableError(_GONE, retry_after=1)
        answer = self._unanswered[number] = self._loop.create_future()
        self.say(sent)
        try:
            return read(asked.returns, await answer)
        except asyncio.CancelledError:
            self.say(frame(Cancel(number)))
            raise

    def take(self, data: bytes) -> None:
        message = from_authority(data) if len(data) <= MAX_CALL else _document.decode(data)
        if not isinstance(message, Answer | Refusal | DocumentAnswer) or message.number not in self._unanswered:
            raise IntegrityError("it has said what is no answer")
        answer = self._unanswered.pop(message.number)
        if answer.done():  # nobody waits any more
            return
        if isinstance(message, Refusal):
            answer.set_exception(raised(message.failure))
        else:
            answer.set_result(message.value)

    def close(self) -> None:
        if self.lost:
            return
        super().close()
        for answer in self._unanswered.values():
            if not answer.done():
                answer.set_exception(UnavailableError(_GONE, retry_after=1))
        self._ended()


class TargetsLink:
    """Asks whichever worker is there; ``targets`` is what it is asked by."""

    def __init__(self) -> None:
        self._end: _AuthorityEnd | None = None
        self.targets = cast("TargetsPort", _RemoteTargets(self))

    async def connect(self, sock: socket.socket, ended: Callable[[], None]) -> None:
        """Ask this worker from now on, and no other; ``ended`` is called once, when it or its link is gone."""
        self.close()
        sock.setblocking(False)
        _, self._end = await asyncio.get_running_loop().create_connection(lambda: _AuthorityEnd(ended), sock=sock)

    def close(self) -> None:
        """End the link, and with it the worker."""
        if self._end is not None:
            self._end.close()

    async def call(self, asked: Method, args: tuple[object, ...], named: dict[str, object]) -> object:
        """Have the worker do what a method says."""
        if self._end is None:
            raise UnavailableError(_GONE, retry_after=1)
        if asked.name not in DOCUMENTS:
            return await self._end.call(asked, args, named)
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._end.call(asked, args, named)
        except TimeoutError as error:
            raise UnavailableError(_GONE, retry_after=1) from error


class _RemoteTargets:
    def __init__(self, link: TargetsLink) -> None:
        self._link = link

    def __getattr__(self, name: str) -> Callable[..., Coroutine[None, None, object]]:
        asked = method(name)

        async def called(*args: object, **named: object) -> object:
            return await self._link.call(asked, args, named)

        setattr(self, name, called)
        return called


class _WorkerEnd(_Framed):
    def __init__(self, targets: TargetsPort) -> None:
        super().__init__(MAX_ANSWER)
        self._targets = targets
        self._stories: dict[int, asyncio.Task[None]] = {}
        self.over = asyncio.Event()

    def take(self, data: bytes) -> None:
        message = _to_targets.decode(data)
        if isinstance(message, Call):
            story = self._stories[message.number] = self._loop.create_task(self._answer(message))
            story.add_done_callback(lambda _: self._stories.pop(message.number, None))
        elif message.number in self._stories:
            self._stories[message.number].cancel()

    async def _answer(self, call: Call) -> None:
        try:
            asked = method(call.method)
            does = getattr(self._targets, asked.name)
            message: object = Answer(call.number, asked.answer(await does(**asked.arguments(call.arguments))))
        except RemitError as error:
            message = Refusal(call.number, failure(error))
        except asyncio.CancelledError:
            message = Refusal(call.number, failure(RemitError()))
        except Exception as error:  # noqa: BLE001 - its words may be a driver's, with what is secret in them
            _LOG.error("a call of %s failed: %s", call.method, type(error).__name__)
            message = Refusal(call.number, failure(RemitError()))
        self.say(frame(message))

    def close(self) -> None:
        super().close()
        for story in tuple(self._stories.values()):
            story.cancel()
        self.over.set()


async def serve_targets(sock: socket.socket, targets: TargetsPort) -> None:
    """Answer the authority until the link ends: what is under way then is cancelled."""
    sock.setblocking(False)
    _, end = await asyncio.get_running_loop().create_connection(lambda: _WorkerEnd(targets), sock=sock)
    try:
        await end.over.wait()
    finally:
        end.close()
