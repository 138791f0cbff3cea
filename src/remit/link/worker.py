"""The worker's end of a link.

``connect`` gives one object on which the methods of all protocols are called, and begins to hear of ends::

    ours, theirs = pair()  # ``link.frames``; before the fork; a worker keeps one end, the authority the other
    link = await connect(ours, hears, ended)  # in the worker; ``hears``: what ended, see ``link.ends.Hears``
    broker = cast(BrokerPort, link.authority)  # so are Pending, RunPort and the rest: one object for all
    link.close()

When the authority has died, or the link, every call raises UnavailableError and ``ended`` is called, once.
What is called in one turn of the loop goes out in one write. Calls wait here for their credit, by turns over tasks.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from remit.core.audit import LOUD, Flood
from remit.core.principal import GrantView
from remit.core.scope import Access
from remit.errors import RemitError, UnavailableError
from remit.link import messages, roles
from remit.link.ends import EndsReader, Hears
from remit.link.frames import FramedSocket, LinkSockets
from remit.link.messages import (
    MAX_ANSWER,
    MAX_ENDED,
    MAX_USES,
    Answer,
    Batch,
    EndedUse,
    Method,
    Permits,
    Refusal,
    RemotePort,
    from_authority,
    method,
)
from remit.link.roles import Cost
from remit.link.turns import FairQueue
from remit.link.values import Failure, encode, raised, read
from remit.ports.broker import Outcome, Use, UseRequest

KNOWN = 16_384  # grants of which it is known here whose task they are of
_GONE = "the part of remit that decides is gone, so nothing can be done now"


@dataclass(frozen=True, slots=True, eq=False)
class _Asked:
    """A use that waits to be permitted; ``then`` is called with it, or with what was said instead."""

    use: UseRequest
    then: Callable[[Use | RemitError], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Sent:
    """A call that waits for its answer, or yet for its turn; ``data`` is what goes out then."""

    task: str
    cost: Cost
    data: bytes
    number: int
    answer: asyncio.Future[object]


class WorkerEnd:
    """Sends what a worker asks for, within its credit, and takes the answers."""

    def __init__(self, ended: Callable[[], None], now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """``ended`` is called once: when the link is gone, or the authority asks us to leave, which ``close`` does."""
        self.authority: Any = RemotePort(self.call, use=self.use, outcomes=self.outcomes, deny=self.deny)
        self._loop = asyncio.get_running_loop()
        self._ended_callback, self._now = ended, now
        self._calls = FramedSocket("the authority", MAX_ANSWER, self._take, self.close)
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Sent] = {}
        self._queues: dict[Cost, FairQueue[_Sent]] = {
            Cost.LOOK: FairQueue(messages.MAX_LOOKS, messages.MAX_LOOKS_OF_TASK),
            Cost.VERB: FairQueue(messages.MAX_CALLS, messages.MAX_CALLS_OF_TASK),
            Cost.WAIT: FairQueue(messages.MAX_WAITS, messages.MAX_WAITS_OF_TASK),
        }
        self._uses: FairQueue[_Asked] = FairQueue(MAX_USES, messages.MAX_USES_OF_TASK)
        self._outcomes: list[EndedUse] = []
        self._recorded: list[asyncio.Future[None]] = []  # who waits for these outcomes
        self._batch: tuple[list[tuple[str, _Asked]], list[asyncio.Future[None]]] | None = None  # under way
        self._scheduled = self._lost = self._told = False
        self._tasks: dict[str, str] = {}  # grant -> task, of those that the authority has told of
        self._denials = Flood()
        self._ends: EndsReader | None = None

    async def start(self, sockets: LinkSockets, hears: Hears) -> None:
        """Begin to speak, and to hear of ends, in a thread."""
        await self._calls.open(sockets.calls)
        self._ends = EndsReader(sockets.ends, self._loop, hears, self.close)
        self._ends.start()

    def close(self) -> None:
        """End the link: whatever waits is told so."""
        if self._lost:
            return
        self._lost = True
        self._calls.close()
        if self._ends is not None:
            self._ends.stop()
        asked = [each for _, each in self._batch[0]] if self._batch else []
        recorded = [*self._recorded, *(self._batch[1] if self._batch else [])]
        gone = UnavailableError(_GONE, retry_after=1)
        for each in (*asked, *self._uses.drained()):
            each.then(gone)
        waiting: list[asyncio.Future[Any]] = [*recorded, *(sent.answer for sent in self._waiting.values())]
        for answer in waiting:
            _fail(answer, gone)
        self._waiting.clear()
        self._tell_ended()

    def _tell_ended(self) -> None:
        if not self._told:
            self._told = True
            self._ended_callback()

    # -- what is asked ------------------------------------------------------------------------------------------

    async def call(self, asked: Method, arguments: Mapping[str, object]) -> object:
        """Have the authority do what a method says."""
        number, task = next(self._numbers), roles.task_named(arguments, self.task_of)
        data, cost = asked.call(number, arguments), roles.cost(asked.name)
        sent = _Sent(task, cost, data, number, self._future())
        self._waiting[number] = sent
        self._queues[cost].put(task, sent)
        self._soon()
        answer = read(asked.returns, await sent.answer)
        if isinstance(answer, GrantView):
            if len(self._tasks) >= KNOWN:
                self._tasks.clear()
            self._tasks[answer.id] = answer.task
        return answer

    def task_of(self, grant_id: str) -> str:
        """Return the task of a grant, as far as it is known here."""
        return self._tasks.get(grant_id, "")

    async def use(self, grant_id: str, access: Access, request: str, index: int) -> Use:
        """See ``BrokerPort.use``."""
        task = self._tasks.get(grant_id) or (await self.authority.grant(grant_id)).task
        answer: asyncio.Future[Use] = self._future()

        def then(found: Use | RemitError) -> None:
            if isinstance(found, RemitError):
                _fail(answer, found)
            elif answer.done():  # nobody waits for it any more
                self._outcomes.append(EndedUse(request, "unknown", None, None))
            else:
                answer.set_result(found)

        self._put(task, UseRequest(grant_id, access.resource, access.action, request, index), then)
        return await answer

    def ask(
        self, grant_id: str, access: Access, request: str, index: int, then: Callable[[Use | RemitError], None]
    ) -> bool:
        """Ask for what ``use`` returns or raises, without a task: ``then`` is called with it, in a later turn.

        False: nothing is asked, as ``use`` has to find out first whose task it is, or the link has ended.
        """
        task = self._tasks.get(grant_id)
        if task is None or self._lost:
            return False
        self._put(task, UseRequest(grant_id, access.resource, access.action, request, index), then)
        return True

    def _put(self, task: str, use: UseRequest, then: Callable[[Use | RemitError], None]) -> None:
        self._uses.put(task, _Asked(use, then))
        self._batch_soon()

    async def outcomes(self, ended: Sequence[Outcome]) -> None:
        """See ``BrokerPort.outcomes``: they ride in the next batch."""
        self._outcomes += [EndedUse(each.use.request, each.decision, each.code, each.action) for each in ended]
        answer: asyncio.Future[None] = self._future()
        self._recorded.append(answer)
        self._batch_soon()
        await answer

    async def deny(
        self,
        grant_id: str | None,
        access: Access,
        error: RemitError,
        request: str | None = None,
        cause: str | None = None,
    ) -> None:
        """See ``BrokerPort.deny``: a flood is counted before it is sent."""
        count = self._denials.told((grant_id, error.code), self._now())
        if count is None:
            return
        times = count - max(LOUD, count // 2) if count > LOUD else 1  # since one was last sent
        asked = method("deny")
        await self.call(asked, asked.bound((grant_id, access, error, request, cause, times), {}))

    def _future(self) -> asyncio.Future[Any]:
        if self._lost:
            raise UnavailableError(_GONE, retry_after=1)
        return self._loop.create_future()

    def _batch_soon(self) -> None:
        if self._batch is None:  # else the next goes when this one is answered
            self._soon()

    def _soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        out = []
        if self._batch is None and (self._outcomes or self._uses):
            out.append(self._next_batch())
        for queue in self._queues.values():
            while (taken := queue.take()) is not None:
                out.append(taken[1].data)
        if out:
            self._calls.send(out)

    def _next_batch(self) -> bytes:
        asked = []
        while (taken := self._uses.take()) is not None:
            asked.append(taken)
        ended, self._outcomes = self._outcomes[:MAX_ENDED], self._outcomes[MAX_ENDED:]
        batch = Batch([each.use for _, each in asked], ended)
        self._batch = asked, [] if self._outcomes else self._recorded  # who waits does so for the last of them
        self._recorded = self._recorded if self._outcomes else []
        return encode(batch)

    # -- what is answered ---------------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        message = from_authority(data)
        if isinstance(message, Permits):
            self._permitted(message)
            if self._outcomes or self._uses:
                self._soon()
        elif isinstance(message, messages.Leave):
            self._tell_ended()
        elif isinstance(message, Answer | Refusal):
            sent = self._waiting.pop(message.number, None)
            if sent is None:
                return
            queue = self._queues[sent.cost]
            queue.done(sent.task)
            if queue:
                self._soon()
            if sent.answer.done():
                return
            if isinstance(message, Answer):
                sent.answer.set_result(message.value)
            else:
                sent.answer.set_exception(raised(message.failure))

    def _permitted(self, permits: Permits) -> None:
        asked, recorded = self._batch or ([], [])
        self._batch = None
        for (task, each), found in zip(asked, permits.uses, strict=True):
            self._uses.done(task)
            if isinstance(found, Failure):
                each.then(raised(found))
            else:
                use = each.use
                permitted = (found.task, found.root, use.grant, use.resource, use.index, found.version)
                each.then(Use(use.request, *permitted))
        for answer in recorded:
            if permits.lost is not None:
                _fail(answer, raised(permits.lost))
            elif not answer.done():
                answer.set_result(None)


def _fail(answer: asyncio.Future[Any], error: RemitError) -> None:
    if not answer.done():
        answer.set_exception(error)


async def connect(sockets: LinkSockets, hears: Hears, ended: Callable[[], None]) -> WorkerEnd:
    """Begin to speak with the authority; ``ended`` is called when it, or the link, is gone."""
    end = WorkerEnd(ended)
    await end.start(sockets, hears)
    return end
