"""The authority's end of a link: it serves one worker, within what that worker's role may say and its credit.

    end = await serve(theirs, roles.EDGE, broker, (broker, pending, runs), clock, stuck=kill, ended=forget)

``stuck(end)`` is called when the worker has not acted on an end in time, ``ended(end)`` once, when the link is gone.
Either is to kill the worker, and when its process has ended, to say so: ``end.gone()``. Until then nothing that it held
is closed.

Nothing that a worker sends is believed: what is no message of the protocol, or beyond its credit, ends its link.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Protocol

from remit.core.lease import Lease
from remit.errors import ConflictError, IntegrityError, LimitError, NotFoundError, RemitError
from remit.link import messages, roles
from remit.link.answering import Answering
from remit.link.frames import FramedSocket, LinkSockets
from remit.link.messages import (
    MAX_CALL,
    Acted,
    Answer,
    Batch,
    Call,
    Leave,
    Method,
    Noticed,
    Permits,
    Permitted,
    Refusal,
    from_worker,
    method,
)
from remit.link.roles import Cost, WorkerRole
from remit.link.turns import Credit, NamedGrants
from remit.link.values import Failure, encode, failure
from remit.ports import Clock
from remit.ports.broker import BrokerPort, GrantLine, Notice, Outcome, Use, UseRequest

NAMED = 16_384  # grants that a worker may name; what hangs below them is not counted
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


class AuthorityEnd:
    """Serves one worker."""

    def __init__(
        self,
        role: WorkerRole,
        broker: LinkedBroker,
        ports: Sequence[object],
        clock: Clock,
        stuck: Callable[[AuthorityEnd], None],
        ended: Callable[[AuthorityEnd], None],
    ) -> None:
        self.role = role
        self._loop = asyncio.get_running_loop()
        self._broker, self._answering, self._stuck, self._ended = broker, Answering(ports, clock), stuck, ended
        peer = f"a worker of the role {role.name}"
        self._calls = FramedSocket(peer, MAX_CALL, self._take, self.close)
        self._ends = _EndsEnd(peer, self.close)
        self._held: set[str] = set()  # grants under which a use was permitted here
        # it tells of what ends from this call on
        self._feed = broker.listen(lambda: stuck(self), lambda ended: not self._held.isdisjoint(ended))
        self.lost = self._batching = False
        self._over = asyncio.Event()
        self._credit = {
            Cost.LOOK: Credit(messages.MAX_LOOKS, messages.MAX_LOOKS_OF_TASK),
            Cost.VERB: Credit(messages.MAX_CALLS, messages.MAX_CALLS_OF_TASK),
            Cost.WAIT: Credit(messages.MAX_WAITS, messages.MAX_WAITS_OF_TASK),
        }
        self._named = NamedGrants(NAMED)  # that were told to this worker
        self._open: dict[str, Use] = {}  # uses that were permitted and have no outcome, by request
        self._resources: dict[object, int] = {}  # for which a use was permitted here: the newest version of each
        self._stories: set[asyncio.Task[None]] = set()
        self._waits: set[asyncio.Task[None]] = set()

    async def start(self, sockets: LinkSockets) -> None:
        await self._ends.socket.open(sockets.ends)
        await self._calls.open(sockets.calls)
        self._waits.add(self._loop.create_task(self._tell_ends()))

    def close(self) -> None:
        """End the link. How permitted uses ended that have no outcome is recorded as unknown."""
        if self.lost:
            return
        self.lost = True
        self._calls.close()
        self._ends.socket.close()
        for waiting in self._waits:
            waiting.cancel()
        if not self._batching:
            self._start(self._unknown())
        self._over.set()
        self._ended(self)

    async def leave(self, seconds: float) -> None:
        """Have the worker end what it serves, and record how that went; what it does not say in time is unknown."""
        self._say(Leave())
        with suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
        self.close()
        if self._stories:
            await asyncio.wait(self._stories, timeout=seconds)

    def gone(self) -> None:
        """Take note that the worker's process has ended: until then an end is not known to be one for it."""
        self.close()
        self._feed.close()

    async def _tell_ends(self) -> None:
        """Tell of what ends and changes, one notice after the other; what comes meanwhile is one."""
        while not self.lost:
            notice = await self._feed.next()
            self._named.end(notice.grants)
            await self._ends.told(notice)
            self._held -= notice.grants

    async def _unknown(self) -> None:
        lost, self._open = list(self._open.values()), {}
        try:
            await self._broker.outcomes([Outcome(use, "unknown") for use in lost])
        except RemitError as error:
            _LOG.error("how %d uses ended is not on record: %s", len(lost), error.detail)

    def _start(self, story: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(story)
        self._stories.add(task)
        task.add_done_callback(self._stories.discard)
        return task

    # -- what the worker says -----------------------------------------------------------------------------------

    def _take(self, data: bytes) -> None:
        message = from_worker(data)
        if isinstance(message, Batch):
            many = len(message.uses) > messages.MAX_USES or len(message.ended) > messages.MAX_ENDED
            if self._batching or many or not self.role.uses:
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
            if call.method in {
                "access_token",
                "credential",
            }:  # one that was put since, for the next use that is permitted
                version = arguments["version"]
                if not isinstance(version, int) or version > self._resources.get(arguments["name"], -1):
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
            self._named.add(grant, self._task_of(grant))

    def _may_name(self, grant_id: str, task: str | None = None) -> bool:
        line = self._broker.line(grant_id)
        here = line is not None and task in {None, line.task}
        return line is not None and here and self._named.use(line.lineage)

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
                self._resources[each.resource] = max(each.version, self._resources.get(each.resource, 0))
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
        self._calls.say(encode(message))


def _permit(found: Use | RemitError) -> Permitted | Failure:
    return failure(found) if isinstance(found, RemitError) else Permitted(found.task, found.root, found.version)


class _EndsEnd:
    """The socket on which a worker is told of ends, ahead of all that is queued for it."""

    def __init__(self, peer: str, ended: Callable[[], None]) -> None:
        self.socket = FramedSocket(peer, MAX_CALL, self._take, ended)
        self._number = 0
        self._acted: asyncio.Future[None] | None = None

    async def told(self, notice: Notice) -> None:
        """Tell of what has ended; return when it has been acted on."""
        self._number += 1
        self._acted = asyncio.get_running_loop().create_future()
        self.socket.send([encode(Noticed(self._number, notice))])
        await self._acted

    def _take(self, data: bytes) -> None:
        message = from_worker(data)
        if not isinstance(message, Acted) or message.number != self._number or self._acted is None:
            raise IntegrityError("it has acted on what it was not told")
        if not self._acted.done():
            self._acted.set_result(None)


async def serve(
    sockets: LinkSockets,
    role: WorkerRole,
    broker: LinkedBroker,
    ports: Sequence[object],
    clock: Clock,
    *,
    stuck: Callable[[AuthorityEnd], None],
    ended: Callable[[AuthorityEnd], None],
) -> AuthorityEnd:
    """Serve one worker; ``ports`` implement the protocols, the broker among them."""
    end = AuthorityEnd(role, broker, ports, clock, stuck, ended)
    await end.start(sockets)
    return end
