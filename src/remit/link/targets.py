"""The link to the process that reaches targets: the authority calls, and the worker answers.

Example::

    ours, theirs = pair()  # of sockets, as every worker has them
    link = TargetsLink(begin)  # in the authority, as long as it lives; ``link.targets`` is its ``TargetsPort``
    await link.connect(ours, reports, ended)  # again for each worker that takes the place of one that died
    worker = await answer(theirs, targets)  # in the worker; ``worker.reports`` is its word on itself
    await worker.over.wait()

While there is no worker, and none is begun, every call raises UnavailableError; so does what waits when it dies. A call
that nobody waits for any more is cancelled over there. Each call is answered once; what is no answer to one, or too
long, ends the link. The authority bounds what it asks by itself (``broker.engines``), so there is no credit for that.
The second socket goes the other way, for reports alone.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import TypeVar, cast

import msgspec

from remit.errors import EngineError, IntegrityError, RemitError, UnavailableError
from remit.link.messages import (
    MAX_CALL,
    MAX_CALLS,
    SMALL,
    Answer,
    Call,
    FrameReader,
    Method,
    Refusal,
    answer_from_worker,
    few,
    frame,
    method,
)
from remit.link.values import failure, raised, read
from remit.link.worker import LinkSockets
from remit.ports.reports import ReportPort
from remit.ports.targets import DocumentPort, EnginePort, TargetsPort

End = TypeVar("End", bound=asyncio.BaseProtocol)

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


_to_answer: msgspec.msgpack.Decoder[Call | Cancel] = msgspec.msgpack.Decoder(Call | Cancel)
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


class _AskingEnd(_Framed):
    """Sends calls, and takes their answers."""

    def __init__(self, ended: Callable[[], None]) -> None:
        super().__init__(MAX_DOCUMENT)
        self._ended, self._numbers = ended, itertools.count(1)
        self._unanswered: dict[int, asyncio.Future[object]] = {}
        self.port = _RemotePort(self)

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
        message = answer_from_worker(data) if len(data) <= MAX_CALL else _document.decode(data)
        if message.number not in self._unanswered:
            raise IntegrityError("it has answered what was not asked")
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


class _AnsweringEnd(_Framed):
    """Takes calls of the methods of ``protocols``, ``most`` at a time, and has ``port`` answer them."""

    def __init__(self, port: object, protocols: tuple[type, ...], most: int, ended: Callable[[], None]) -> None:
        super().__init__(MAX_CALL)
        self._port, self._most, self._ended = port, most, ended
        self._methods = {name for protocol in protocols for name in vars(protocol) if name[0] != "_"}
        self._stories: dict[int, asyncio.Task[None]] = {}

    def take(self, data: bytes) -> None:
        message = _to_answer.decode(data)
        if isinstance(message, Cancel):
            if message.number in self._stories:
                self._stories[message.number].cancel()
            return
        if len(self._stories) >= self._most or message.number in self._stories or message.method not in self._methods:
            raise IntegrityError("it may not call that now")
        story = self._stories[message.number] = self._loop.create_task(self._answer(message))
        story.add_done_callback(lambda _: self._stories.pop(message.number, None))

    async def _answer(self, call: Call) -> None:
        try:
            asked = method(call.method)
            does = getattr(self._port, asked.name)
            value = asked.answer(await does(**asked.arguments(call.arguments)))
            message: Answer | Refusal = Answer(call.number, value)
        except RemitError as error:
            message = Refusal(call.number, failure(error))
        except asyncio.CancelledError:
            message = Refusal(call.number, failure(RemitError()))
        except Exception as error:  # noqa: BLE001 - its words may be a driver's, with what is secret in them
            _LOG.error("a call of %s failed: %s", call.method, type(error).__name__)
            message = Refusal(call.number, failure(RemitError()))
        self.say(_bounded(message))

    def close(self) -> None:
        if self.lost:
            return
        super().close()
        for story in tuple(self._stories.values()):
            story.cancel()
        self._ended()


def _bounded(message: Answer | Refusal) -> bytes:
    """Return an answer as it is sent; one that would not be taken is told as an error."""
    sent = frame(message)
    if isinstance(message, Refusal):
        fits = len(sent) <= SMALL
    else:
        fits = isinstance(message.value, bytes) or (len(sent) <= MAX_CALL and few(message.value))
    return sent if fits else frame(Refusal(message.number, failure(EngineError("the answer is too large"))))


class _RemotePort:
    def __init__(self, end: _Asked) -> None:
        self._end = end

    def __getattr__(self, name: str) -> Callable[..., Coroutine[None, None, object]]:
        asked = method(name)

        async def called(*args: object, **named: object) -> object:
            return await self._end.call(asked, args, named)

        setattr(self, name, called)
        return called


class TargetsLink:
    """The authority's end: it asks whichever worker is there, by ``targets``, and hears its word on itself."""

    def __init__(self, begin: Callable[[], Awaitable[None]] | None = None) -> None:
        """``begin`` has a worker connected, or raises; it is awaited by whoever finds none."""
        self._asking: _AskingEnd | None = None
        self._begin = begin
        self.targets = cast("TargetsPort", _RemotePort(self))

    async def connect(self, sockets: LinkSockets, reports: ReportPort, ended: Callable[[], None]) -> None:
        """Ask this worker from now on, and no other; ``ended`` is called once, when it or its link is gone.

        Its word on itself goes to ``reports``.
        """
        self.close()
        heard: list[_AnsweringEnd] = []

        def over() -> None:
            for end in heard:
                end.close()
            ended()

        self._asking = asking = await _opened(sockets.calls, lambda: _AskingEnd(over))
        heard.append(
            await _opened(sockets.ends, lambda: _AnsweringEnd(reports, (ReportPort,), MAX_CALLS, asking.close))
        )

    def close(self) -> None:
        """End the link, and with it the worker."""
        if self._asking is not None:
            self._asking.close()

    async def call(self, asked: Method, args: tuple[object, ...], named: dict[str, object]) -> object:
        """Have the worker do what a method says."""
        if self._begin is not None and (self._asking is None or self._asking.lost):
            await self._begin()
        if self._asking is None:
            raise UnavailableError(_GONE, retry_after=1)
        if asked.name not in DOCUMENTS:
            return await self._asking.call(asked, args, named)
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._asking.call(asked, args, named)
        except TimeoutError as error:
            raise UnavailableError(_GONE, retry_after=1) from error


_Asked = _AskingEnd | TargetsLink


class TargetsWorker:
    """The worker's end. What is under way when it is ``over`` is cancelled."""

    def __init__(self, answering: _AnsweringEnd, asking: _AskingEnd, over: asyncio.Event) -> None:
        self._ends, self.over = (answering, asking), over
        self.reports = cast("ReportPort", asking.port)

    def close(self) -> None:
        for end in self._ends:
            end.close()


async def answer(sockets: LinkSockets, targets: TargetsPort) -> TargetsWorker:
    """Answer the authority from now on."""
    over = asyncio.Event()
    protocols, most = (EnginePort, DocumentPort), sys.maxsize  # the authority is believed
    answering = await _opened(sockets.calls, lambda: _AnsweringEnd(targets, protocols, most, over.set))
    return TargetsWorker(answering, await _opened(sockets.ends, lambda: _AskingEnd(over.set)), over)


async def _opened(sock: socket.socket, end: Callable[[], End]) -> End:
    sock.setblocking(False)
    _, made = await asyncio.get_running_loop().create_connection(end, sock=sock)
    return made
