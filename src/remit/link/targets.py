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
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

from remit.errors import EngineError, IntegrityError, RemitError, UnavailableError
from remit.link.frames import FramedSocket, LinkSockets
from remit.link.messages import (
    MAX_CALL,
    MAX_CALLS,
    SMALL,
    Answer,
    Call,
    Cancel,
    Method,
    Refusal,
    RemotePort,
    answer_from_worker,
    call_or_cancel,
    few,
    method,
)
from remit.link.values import encode, failure, raised, read
from remit.ports.connections import ProviderPort
from remit.ports.reports import ReportPort
from remit.ports.targets import DocumentPort, EnginePort, TargetsPort

MAX_DOCUMENT = 1 << 21  # bytes of an answer that is a document; any other is no longer than a call
DOCUMENTS = frozenset({"fetch", "bundle"})
_PEER = "targets"
PATIENCE = 15.0  # seconds, for a document: who fetches one gives up earlier
_GONE = "the part of remit that reaches targets is gone, and comes back in a moment"
_LOG = logging.getLogger("remit.link")


class _AskingEnd:
    """Sends calls, and takes their answers."""

    def __init__(self, ended: Callable[[], None], *, believed: bool) -> None:
        self.socket = FramedSocket(_PEER, MAX_DOCUMENT, self._take, self._over)
        self._ended, self._believed, self._numbers = ended, believed, itertools.count(1)
        self._unanswered: dict[int, asyncio.Future[object]] = {}

    async def call(self, asked: Method, arguments: Mapping[str, object]) -> object:
        number = next(self._numbers)
        sent = asked.call(number, arguments, believed=self._believed)
        if self.socket.lost:
            raise UnavailableError(_GONE, retry_after=1)
        answer = self._unanswered[number] = asyncio.get_running_loop().create_future()
        self.socket.say(sent)
        try:
            return read(asked.returns, await answer)
        except asyncio.CancelledError:
            self.socket.say(encode(Cancel(number)))
            raise

    def _take(self, data: bytes) -> None:
        message = answer_from_worker(data)
        if message.number not in self._unanswered:
            raise IntegrityError("it has answered what was not asked")
        answer = self._unanswered.pop(message.number)
        if answer.done():  # nobody waits any more
            return
        if isinstance(message, Refusal):
            answer.set_exception(raised(message.failure))
        else:
            answer.set_result(message.value)

    def _over(self) -> None:
        for answer in self._unanswered.values():
            if not answer.done():
                answer.set_exception(UnavailableError(_GONE, retry_after=1))
        self._ended()


class _AnsweringEnd:
    """Takes calls of the methods of ``protocols``, and has ``port`` answer them.

    Of who is not ``believed`` it takes MAX_CALLS at a time, with no more items than a worker's have.
    """

    def __init__(self, port: object, protocols: tuple[type, ...], ended: Callable[[], None], *, believed: bool) -> None:
        self.socket = FramedSocket(_PEER, MAX_CALL, self._take, self._over)
        self._port, self._believed, self._ended = port, believed, ended
        self._methods = {name for protocol in protocols for name in vars(protocol) if name[0] != "_"}
        self._stories: dict[int, asyncio.Task[None]] = {}

    def _take(self, data: bytes) -> None:
        message = call_or_cancel(data, believed=self._believed)
        if isinstance(message, Cancel):
            if message.number in self._stories:
                self._stories[message.number].cancel()
            return
        many = not self._believed and len(self._stories) >= MAX_CALLS
        if many or message.number in self._stories or message.method not in self._methods:
            raise IntegrityError("it may not call that now")
        story = self._stories[message.number] = asyncio.get_running_loop().create_task(self._answer(message))
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
        self.socket.say(_bounded(message))

    def _over(self) -> None:
        for story in tuple(self._stories.values()):
            story.cancel()
        self._ended()


def _bounded(message: Answer | Refusal) -> bytes:
    """Return an answer as it is sent; one that would not be taken is told as an error."""
    sent = encode(message)
    if isinstance(message, Refusal):
        fits = len(sent) <= SMALL
    else:
        fits = isinstance(message.value, bytes) or (len(sent) <= MAX_CALL and few(message.value))
    return sent if fits else encode(Refusal(message.number, failure(EngineError("the answer is too large"))))


class TargetsLink:
    """The authority's end: it asks whichever worker is there, by ``targets``, and hears its word on itself."""

    def __init__(self, begin: Callable[[], Awaitable[None]] | None = None) -> None:
        """``begin`` has a worker connected, or raises; it is awaited by whoever finds none."""
        self._asking: _AskingEnd | None = None
        self._begin = begin
        self.targets = cast("TargetsPort", RemotePort(self.call))

    async def connect(self, sockets: LinkSockets, reports: ReportPort, ended: Callable[[], None]) -> None:
        """Ask this worker from now on, and no other; ``ended`` is called once, when it or its link is gone.

        Its word on itself goes to ``reports``.
        """
        self.close()

        def over() -> None:
            heard.socket.close()
            ended()

        asking = _AskingEnd(over, believed=True)
        heard = _AnsweringEnd(reports, (ReportPort,), asking.socket.close, believed=False)
        await asking.socket.open(sockets.calls)
        self._asking = asking
        await heard.socket.open(sockets.ends)

    def close(self) -> None:
        """End the link, and with it the worker."""
        if self._asking is not None:
            self._asking.socket.close()

    async def call(self, asked: Method, arguments: Mapping[str, object]) -> object:
        """Have the worker do what a method says."""
        if self._begin is not None and (self._asking is None or self._asking.socket.lost):
            await self._begin()
        if self._asking is None:
            raise UnavailableError(_GONE, retry_after=1)
        if asked.name not in DOCUMENTS:
            return await self._asking.call(asked, arguments)
        try:
            async with asyncio.timeout(PATIENCE):
                return await self._asking.call(asked, arguments)
        except TimeoutError as error:
            raise UnavailableError(_GONE, retry_after=1) from error


class TargetsWorker:
    """The worker's end. What is under way when it is ``over`` is cancelled."""

    def __init__(self, answering: _AnsweringEnd, asking: _AskingEnd, over: asyncio.Event) -> None:
        self._ends, self.over = (answering, asking), over
        self.reports = cast("ReportPort", RemotePort(asking.call))

    def close(self) -> None:
        for end in self._ends:
            end.socket.close()


async def answer(sockets: LinkSockets, targets: TargetsPort) -> TargetsWorker:
    """Answer the authority from now on."""
    over = asyncio.Event()
    answering = _AnsweringEnd(targets, (EnginePort, DocumentPort, ProviderPort), over.set, believed=True)
    asking = _AskingEnd(over.set, believed=False)
    await answering.socket.open(sockets.calls)
    await asking.socket.open(sockets.ends)
    return TargetsWorker(answering, asking, over)
