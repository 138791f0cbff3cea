"""The authority's end of a link: it serves one worker, within what that worker's role may say and its credit.

    end = await serve(theirs, roles.EDGE, broker, (broker, pending, runs), stuck=kill, ended=forget)

``stuck(end)`` is called when the worker has not acted on an end in time, ``ended(end)`` once, when the link is gone.
Either is to kill the worker, and when its process has ended, to say so: ``end.gone()``. Until then nothing that it held
is closed.

Nothing that a worker sends is believed: what is no message of the protocol, or beyond its credit, ends its link.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from typing import Protocol

from remit.core.lease import Lease
from remit.errors import ConflictError, IntegrityError, LimitError, NotFoundError, RemitError
from remit.link import messages, roles
from remit.link.answering import Answering
from remit.link.messages import (
    MAX_CALL,
    Acted,
    Answer,
    Batch,
    Call,
    FrameReader,
    Method,
    Noticed,
    Permits,
    Permitted,
    Refusal,
    frame,
    from_worker,
    method,
)
from remit.link.roles import Cost, WorkerRole
from remit.link.turns import Credit
from remit.link.values import Failure, failure
from remit.link.worker import LinkSockets
from remit.ports.broker import BrokerPort, GrantLine, Notice, Outcome, Use, UseRequest

SLICE = 65_536  # bytes that are looked at in one turn of the loop
NAMED = 16_384  # grants that a worker may name, the newest; what hangs below them is not counted
_TOO_MANY = "this task has too much under way"
_LOG = logging.getLogger("remit.link")


class LinkedBroker(BrokerPort, Protocol):
    """The broker, as the authority's ends of links need it."""

    async def uses(self, asked: Sequence[UseRequest], ended: Sequence[Outcome] = ()) -> Sequence[Use | RemitError]:
        """Permitted many uses, each by itself, and record how earlier ones ended, all in one commit."""

    def line(self, grant_id: str) -> GrantLine | None:
        """Return where a grant hangs, live or ended; None: nobody knows it."""

    def listen(self, stuck: Callable[[], None], holds: Callable[[frozenset[str]], bool]) -> NoticeFeed:
        """Begin to tell a worker of ends; ``stuck`` is called when it has not acted in time on one of what it holds."""


class NoticeFeed(Protocol):
    """What one worker is told."""

    async def next(self) -> Notice:
        """Return what came since, once something has; asking says that all before was acted on."""

    def close(self) -> None:
        """Tell it no more."""


class AuthorityEnd(asyncio.Protocol):
    """Serves one worker."""

    def __init__(
        self,
        role: WorkerRole,
        broker: LinkedBroker,
        ports: Sequence[object],
        stuck: Callable[[AuthorityEnd], None],
        ended: Callable[[AuthorityEnd], None],
    ) -> None:
        self.role = role
        self._loop = asyncio.get_running_loop()
        self._broker, self._answering, self._stuck, self._ended = broker, Answering(ports), stuck, ended
        self._transport: asyncio.Transport | None = None
        self._ends = _EndsEnd(self)
        self._held: set[str] = set()  # grants under which a use was permitted here
        # it tells of what ends from this call on
        self._feed = broker.listen(lambda: stuck(self), lambda ended: not self._held.isdisjoint(ended))
        self._cut = FrameReader(MAX_CALL)
        self._frames: deque[bytes] = deque()
        self._slicing = self.lost = self._batching = False
        self._out: list[bytes] = []
        self._credit = {
            Cost.LOOK: Credit(messages.MAX_LOOKS, messages.MAX_LOOKS_OF_TASK),
            Cost.VERB: Credit(messages.MAX_CALLS, messages.MAX_CALLS_OF_TASK),
            Cost.WAIT: Credit(messages.MAX_WAITS, messages.MAX_WAITS_OF_TASK),
        }
        self._named: dict[str, None] = {}  # grants that were told to this worker, the oldest first
        self._open: dict[str, Use] = {}  # uses that were permitted and have no outcome, by request
        self._resources: set[str] = set()  # for which a use was permitted here
        self._stories: set[asyncio.Task[None]] = set()
        self._waits: set[asyncio.Task[None]] = set()

    async def start(self, sockets: LinkSockets) -> None:
        for sock in sockets:
            sock.setblocking(False)
        await self._loop.create_connection(lambda: self._ends, sock=sockets.ends)
        await self._loop.create_connection(lambda: self, sock=sockets.calls)
        self._waits.add(self._loop.create_task(self._ends.tell(self._feed)))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a stream socket

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it came about
        self.close()

    def close(self) -> None:
        """End the link. How permitted uses ended that have no outcome is recorded as unknown."""
        if self.lost:
            return
        self.lost = True
        for transport in (self._transport, self._ends.transport):
            if transport is not None:
                transport.abort()
        for waiting in self._waits:
            waiting.cancel()
        self._frames.clear()
        if not self._batching:
            self._start(self._unknown())
        self._ended(self)

    def gone(self) -> None:
        """Take note that the worker's process has ended: until then an end is not known to be one for it."""
        self.close()
        self._feed.close()

    def cut(self, grants: frozenset[str]) -> None:
        """Take note that the worker has cut what moved under grants."""
        self._held -= grants

    async def _unknown(self) -> None:
        lost, self._open = list(self._open.values()), {}
        try:
            await self._broker.outcomes([Outcome(use, "unknown") for use in lost])
        except RemitError as error:
            _LOG.error("how %d uses ended is not on record: %s", len(lost), error.detail)

    def broken(self, error: RemitError) -> None:
        """End the link of a worker that does not keep to the protocol."""
        if not self.lost:
            _LOG.error("a worker of the role %s is cut off: %s", self.role.name, error.detail)
        self.close()

    def _start(self, story: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(story)
        self._stories.add(task)
        task.add_done_callback(self._stories.discard)
        return task

    # -- what the worker says -----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        try:
            self._frames.extend(self._cut.feed(data))
        except RemitError as error:
            self.broken(error)
        if not self._slicing:
            self._slice()

    def _slice(self) -> None:
        """Take what was read, as much as one turn of the loop has room for; nothing is read while some is left."""
        done = 0
        try:
            while self._frames and done < SLICE:
                data = self._frames.popleft()
                done += len(data) + 2_048  # a small one costs as well
                self._take(from_worker(data))
        except RemitError as error:
            self.broken(error)
        left = bool(self._frames)
        if left != self._slicing and self._transport is not None and not self.lost:
            (self._transport.pause_reading if left else self._transport.resume_reading)()
        self._slicing = left
        if left:
            self._loop.call_soon(self._slice)

    def _take(self, message: messages.FromWorker) -> None:
        if isinstance(message, Batch):
            many = len(message.uses) > messages.MAX_USES or len(message.ended) > messages.MAX_ENDED
            if self._batching or many or "use" not in self.role.methods:
                raise IntegrityError("it may have no such batch of uses")
            self._batching = True
            self._start(self._permit(message))
        elif isinstance(message, Call):
            credit = self._credit[roles.cost(message.method)]
            if not credit.left:
                raise IntegrityError("it has too many calls unanswered")
            self._begin(message, credit)
        else:
            raise IntegrityError("there is no such message here")

    def _begin(self, call: Call, credit: Credit) -> None:
        """Begin what was asked for. Whoever exceeds the credit of a task is told so, and nobody else."""
        try:
            asked = method(call.method)
            roles.check_method(self.role, call.method)
            arguments = asked.arguments(call.arguments)
            roles.check(self.role, arguments, self._may_name)
            if call.method == "credential" and arguments["name"] not in self._resources:
                raise NotFoundError
        except RemitError as error:
            self._say(Refusal(call.number, failure(error)))
            return
        task = roles.task_named(arguments, self._task_of)
        if not credit.take(task):
            self._say(Refusal(call.number, failure(LimitError(_TOO_MANY, retry_after=1))))
            return
        story = self._start(self._answer(call.number, asked, arguments, lambda: credit.give(task)))
        if credit is self._credit[Cost.WAIT]:
            self._waits.add(story)
            story.add_done_callback(self._waits.discard)

    async def _answer(
        self, number: int, asked: Method, arguments: Mapping[str, object], over: Callable[[], None]
    ) -> None:
        try:
            message: object = Answer(number, asked.answer(await self._done(asked.name, arguments)))
        except RemitError as error:
            message = Refusal(number, failure(error))
        except Exception:  # noqa: BLE001 - logged, and the worker learns nothing of it
            _LOG.exception("a call of %s failed", asked.name)
            message = Refusal(number, failure(RemitError()))
        finally:
            over()
        self._say(message)

    async def _done(self, name: str, arguments: Mapping[str, object]) -> object:
        answer = await self._answering.answer(name, arguments)
        if isinstance(answer, Lease) and not self._may_name(answer.grant):
            raise NotFoundError
        if name in roles.TELLING:
            self._tell(answer)
        return answer

    def _tell(self, answer: object) -> None:
        """Take note of a grant that the worker was told of, and may name from now on."""
        grant = roles.told(answer)
        if grant is not None:
            self._named.pop(grant, None)
            self._named[grant] = None
            if len(self._named) > NAMED:
                del self._named[next(iter(self._named))]

    def _may_name(self, grant_id: str) -> bool:
        line = self._broker.line(grant_id)
        return line is not None and not self._named.keys().isdisjoint(line.lineage)

    def _task_of(self, grant_id: str) -> str:
        line = self._broker.line(grant_id)
        return "" if line is None else line.task

    # -- uses ---------------------------------------------------------------------------------------------------

    async def _permit(self, batch: Batch) -> None:
        """Have a batch permitted, each use by itself, and the outcomes of earlier ones recorded with it."""
        ended = [
            Outcome(use, each.decision, each.code, each.action)
            for each in batch.ended
            if (use := self._open.pop(each.request, None)) is not None
        ]
        refused = self._refused(batch.uses)
        asked = [use for use, error in zip(batch.uses, refused, strict=True) if error is None]
        lost: RemitError | None = None
        answers: Iterator[Use | RemitError]
        try:
            answers = iter(await self._broker.uses(asked, ended))
        except RemitError as error:
            lost, answers = error, itertools.repeat(error)
        except Exception:  # noqa: BLE001 - logged, and the worker learns nothing of it
            _LOG.exception("a batch of uses failed")
            answers = itertools.repeat(lost := RemitError())
        if lost is not None:
            self._open.update((outcome.use.request, outcome.use) for outcome in ended)
        found = [next(answers) if error is None else error for error in refused]
        for each in found:
            if isinstance(each, Use):
                self._open[each.request] = each
                self._resources.add(each.resource)
                self._held.add(each.grant)
        self._batching = False
        if self.lost:
            await self._unknown()
        else:
            self._say(Permits([_permit(each) for each in found], None if lost is None else failure(lost)))

    def _refused(self, uses: Sequence[UseRequest]) -> list[RemitError | None]:
        """Say for each use of a batch why it is not even looked at, if it is not."""
        grants = {use.grant for use in uses}
        of = {grant: self._task_of(grant) for grant in grants if self._may_name(grant)}
        tasks, seen, found = Counter[str](), set(self._open), list[RemitError | None]()
        for use in uses:
            task = of.get(use.grant)
            if task is None:
                found.append(NotFoundError())
                continue
            tasks[task] += 1
            if use.request in seen:
                found.append(ConflictError("a request has an id that another has"))
            elif tasks[task] > messages.MAX_USES_OF_TASK:
                found.append(LimitError(_TOO_MANY, retry_after=1))
            else:
                found.append(None)
            seen.add(use.request)
        return found

    # -- what is answered ---------------------------------------------------------------------------------------

    def _say(self, message: object) -> None:
        """Send a message with all others of this turn of the loop."""
        if self.lost:
            return
        if not self._out:
            self._loop.call_soon(self._write)
        self._out.append(frame(message))

    def _write(self) -> None:
        out, self._out = self._out, []
        if not self.lost and self._transport is not None:
            self._transport.write(b"".join(out))


def _permit(found: Use | RemitError) -> Permitted | Failure:
    return failure(found) if isinstance(found, RemitError) else Permitted(found.task, found.root, found.version)


class _EndsEnd(asyncio.Protocol):
    """The socket on which a worker is told of ends, ahead of all that is queued for it."""

    def __init__(self, end: AuthorityEnd) -> None:
        self._end = end
        self._frames = FrameReader(MAX_CALL)
        self._number = 0
        self._acted: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # of a stream socket

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it came about
        self._end.close()

    async def tell(self, feed: NoticeFeed) -> None:
        """Tell of what ends and changes, one notice after the other; what comes meanwhile is one."""
        while not self._end.lost:
            notice = await feed.next()
            self._number += 1
            self._acted = asyncio.get_running_loop().create_future()
            assert self.transport is not None  # noqa: S101 - there is one before anything is told
            self.transport.write(frame(Noticed(self._number, notice)))
            await self._acted
            self._end.cut(notice.grants)

    def data_received(self, data: bytes) -> None:
        try:
            for each in self._frames.feed(data):
                message = from_worker(each)
                if not isinstance(message, Acted) or message.number != self._number or self._acted is None:
                    raise IntegrityError("it has acted on what it was not told")
                if not self._acted.done():
                    self._acted.set_result(None)
        except RemitError as error:
            self._end.broken(error)


async def serve(
    sockets: LinkSockets,
    role: WorkerRole,
    broker: LinkedBroker,
    ports: Sequence[object],
    *,
    stuck: Callable[[AuthorityEnd], None],
    ended: Callable[[AuthorityEnd], None],
) -> AuthorityEnd:
    """Serve one worker; ``ports`` implement the protocols, the broker among them."""
    end = AuthorityEnd(role, broker, ports, stuck, ended)
    await end.start(sockets)
    return end
