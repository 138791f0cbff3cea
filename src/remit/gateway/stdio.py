"""Sessions of MCP servers that are commands of runs: lines between a client and the server, judged one by one.

Who connects first is the client, then the server; nobody else can. What goes on is written anew from what was judged,
in the order of its side, and no faster than the other one takes it. What is kept of a session is its requests without
an answer: an answer to what was not asked goes nowhere.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Generic

from remit.core.principal import GrantView
from remit.core.scope import Access
from remit.errors import InvalidRequestError, LimitError, RemitError, ScopeError, TooLargeError, UpstreamError
from remit.gateway import canon
from remit.gateway.cutting import shut
from remit.gateway.downstream import document
from remit.gateway.mcp import answers, denials, messages, rules
from remit.gateway.mcp.answers import Relay
from remit.gateway.mcp.messages import Message
from remit.gateway.patterns import LeakError, SecretPatterns
from remit.gateway.pipe import OPENING
from remit.gateway.plane import DataPlane, V
from remit.gateway.quota import TaskQuota
from remit.gateway.response import TaskTurns
from remit.gateway.scrub import TURN, Scrubber, searched
from remit.ports.broker import Use

MOST_ASKED = 262_144  # bytes of a line of the client's, which is judged as a whole
MOST_TOLD = 2_097_152  # bytes of a line of the server's
AT_ONCE = 64  # requests of one side without an answer
MOST_CANCELLED = 1_024  # of one side, without one too: most servers give none then
LEAST = 4_096  # bytes that a line counts for at least in its task's turn
_CANCELLED = "notifications/cancelled"
_log = logging.getLogger("remit.gateway")


@dataclass(slots=True, eq=False, repr=False)
class StdioEnd:
    """One side of a session."""

    _reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    turn: int = 0  # bytes that were read in this turn

    @property
    def transport(self) -> asyncio.Transport:
        return self.writer.transport  # type: ignore[return-value]  # of a stream socket, it reads too

    async def line(self) -> bytes | None:
        """Return the next line, or None for one that was too long; EOFError once there is no more."""
        long = False
        while True:
            try:
                line = await self._reader.readuntil(b"\n")
            except asyncio.LimitOverrunError as error:
                await self._reader.readexactly(error.consumed)
                long = True
            except (asyncio.IncompleteReadError, ConnectionError):  # half a line is none
                raise EOFError from None
            else:
                return None if long else line

    async def tell(self, message: bytes) -> None:
        """Write a message, and wait until this side takes more; one that has gone may still be read from."""
        if not self.transport.is_closing():
            self.writer.write(message + b"\n")
            with suppress(ConnectionError):
                await self.writer.drain()

    def tell_no_more(self) -> None:
        if not self.transport.is_closing():
            self.writer.write_eof()


async def next_line(end: StdioEnd, turns: TaskTurns, task: str) -> bytes | None:
    """Return a side's next line; where many came at once, others get their turns in between."""
    if end.turn >= TURN:
        end.turn = 0
        await turns.wait(task)
    line = await end.line()
    end.turn += max(LEAST, len(line or b""))
    return line


@dataclass(frozen=True, slots=True)
class OpenRequest:
    """A request without an answer. ``use`` is None for what carries no authority."""

    said: Message
    request: str
    use: Use | None


class OpenRequests(dict[str | int | None, V], Generic[V]):
    """Those of one side, by their ids. An id that was cancelled is not used again before its answer has come."""

    def __init__(self) -> None:
        super().__init__()
        self.cancelled = set[str | int | None]()

    def check_room(self, said: Message) -> None:
        """Raise for a request when too many have no answer, or one of its id has none."""
        if not said.asks:
            return
        if said.id in self or said.id in self.cancelled:
            raise InvalidRequestError("the `id` is that of a request without an answer")
        if len(self) >= AT_ONCE:
            raise LimitError("too many requests have no answer yet", retry_after=1)

    def answered(self, said: Message) -> V | None:
        """Return the request that a message answers, which is over; None if nobody waits for that."""
        self.cancelled.discard(said.id)
        return self.pop(said.id, None)

    def cancel(self, named: object) -> V | None:
        """Return a request that its side has cancelled, if there is room to remember that."""
        if not messages.is_id(named) or named not in self or len(self.cancelled) >= MOST_CANCELLED:
            return None
        self.cancelled.add(named)
        return self.pop(named)

    def given_up(self) -> list[V]:
        """Return all, whose answers nobody can tell any more; raise LimitError if that comes again and again."""
        if len(self.cancelled) >= MOST_CANCELLED:
            raise LimitError("too many requests were given up")
        self.cancelled.update(self)
        given_up = list(self.values())
        self.clear()
        return given_up


@dataclass(slots=True, eq=False, repr=False)
class StdioRelay:
    """One session under a grant, with the server that a resource is."""

    _plane: DataPlane
    grant: str
    _resource: str
    _quota: TaskQuota
    _expected: int = 0  # connections
    _ends: list[StdioEnd] = field(default_factory=list)  # the client's, then the server's
    _asked: OpenRequests[OpenRequest] = field(default_factory=OpenRequests)  # by the client
    _asks: OpenRequests[OpenRequest] = field(default_factory=OpenRequests)  # by the server
    _relay: Relay = field(init=False)
    _view: GrantView = field(init=False)
    _cut: RemitError | None = None
    _both: asyncio.Event = field(default_factory=asyncio.Event)  # set when the server has connected too

    def accepted(self) -> asyncio.Protocol:
        """Return what reads the next connection."""
        self._expected += 1
        most = MOST_ASKED if self._expected == 1 else MOST_TOLD
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(most), self._connected)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._cut or len(self._ends) > 1:
            writer.transport.abort()
            return
        self._ends.append(StdioEnd(reader, writer))
        if len(self._ends) == 1:
            self._plane.start(self._run())
        else:
            self._both.set()

    async def _run(self) -> None:
        """Pass on what both sides say, until the server says no more or the grant ends."""
        counted = self._quota.take_pipe(self.grant)
        self._plane.in_flight.add(self)
        client = None
        try:
            if not counted:
                raise LimitError("too many connections of the grant are piped", retry_after=1)
            await self._compile()
            await self._connected_both()
            client = self._plane.loop.create_task(self._from_client())
            await self._from_server()
            await self._refuse_all(self._cut or UpstreamError("the server ended before it answered"))
        except RemitError as error:
            self.cut(error)
        finally:
            if client is not None:
                client.cancel()
            self._plane.in_flight.discard(self)
            for pending in (*self._asked.values(), *self._asks.values()):
                self._over(pending, self._cut or UpstreamError())
            for end in self._ends:
                end.writer.close()
            if counted:
                self._quota.give_pipe(self.grant)

    async def _connected_both(self) -> None:
        try:
            async with asyncio.timeout(OPENING):
                await self._both.wait()
        except TimeoutError:
            raise UpstreamError("the server did not connect") from None

    async def _compile(self) -> None:
        self._view = view = await self._plane.routes.live(self.grant)
        resource = await self._plane.broker.resource(self._resource)
        compiled = rules.compile_messages(view.grant.scope, self._resource)
        if not compiled:
            raise ScopeError(f"the grant does not cover `{self._resource}`")
        shows = partial(self._plane.pins.shows, self._resource)
        self._relay = Relay(compiled, resource.kind, self._resource, shows=shows, home=self._plane.problems)

    # -- from the client ------------------------------------------------------------------------------------------

    async def _from_client(self) -> None:
        try:
            with suppress(EOFError):
                while True:
                    await self._said(await self._line(self._ends[0]))
            self._ends[1].tell_no_more()
        except RemitError as error:
            self.cut(error)
        except Exception:
            _log.exception("a session with %s failed", self._resource)
            self.cut(RemitError())
            raise

    async def _said(self, line: bytes | None) -> None:
        """Pass on one message of the client's, or tell it why not."""
        said, request = None, self._plane.new_request()
        try:
            if line is None:
                raise TooLargeError(f"a message has at most {MOST_ASKED} bytes")
            said = await self._worked(line, partial(messages.read, line))
            if said.method is None and said.id not in self._asks:
                return  # it answers nothing
            self._asked.check_room(said)
            passed, use = await self._permitted(line, said, request)
        except RemitError as error:
            await self._refused(said, error, request)
            return
        if said.asks:
            self._asked[said.id] = OpenRequest(said, request, use)
        elif said.method is None:
            self._over(self._asks.answered(said), None)
        elif said.method == _CANCELLED:
            self._cancel(self._asked, said)
        await self._ends[1].tell(passed)

    async def _permitted(self, line: bytes, said: Message, request: str) -> tuple[bytes, Use | None]:
        """Return what goes on of a message of the client's, and its use, if it carries authority."""
        relay = self._relay
        permit = await self._worked(line, partial(rules.judge, relay.rules, said, relay.kind, relay.resource))
        passed = await self._worked(line, partial(canon.json_bytes, permit.body))
        await self._plane.pins.check(self.grant, self._resource, said)
        self._plane.routes.check_suspended(self._view)
        use = None
        if said.method is not None and said.method not in rules.UPKEEP:
            access = Access(self._resource, permit.recorded)
            use = await self._plane.recorder.use(self.grant, access, request, permit.index)
        self._plane.check_live(self.grant)
        return passed, use

    async def _refused(self, said: Message | None, error: RemitError, request: str) -> None:
        """Record a refusal, and tell the client, if it waits for an answer."""
        self._plane.check_live(self.grant)
        action, path = ("message", "") if said is None else (said.method or "answer", rules.path(said))
        told = await self._plane.recorder.deny(self.grant, Access(self._resource, action, path), error, request)
        if said is None or said.asks:
            await self._ends[0].tell(self._denial(said, told, request))

    def _denial(self, said: Message | None, error: RemitError, request: str) -> bytes:
        code = denials.MALFORMED if said is None else denials.REFUSED
        told = denials.denied(said, document(error, request, self._plane.problems), code)
        return answers.written(Message(told, None, None))  # by an id that either side made up

    # -- from the server ------------------------------------------------------------------------------------------

    async def _from_server(self) -> None:
        with suppress(EOFError):
            while True:
                line = await self._line(self._ends[1])
                if line is None:  # to which of its requests it is the answer, nobody knows
                    await self._refuse_all(UpstreamError(f"the server said more than {MOST_TOLD} bytes at once"))
                    continue
                try:
                    said = await self._worked(line, partial(answers.read, line))
                except UpstreamError:  # what else it prints is no message, and goes nowhere
                    continue
                await self._told(line, said)

    async def _told(self, line: bytes, said: Message) -> None:
        """Pass on one message of the server's, or what stands for it."""
        if said.asks:
            await self._asked_back(line, said)
            return
        pending = self._asked.answered(said) if said.method is None else None
        if said.method is None and pending is None:
            return  # it answers nothing
        try:
            passed = await self._reduced(line, said)
        except RemitError as error:
            if pending is not None:
                await self._refuse(pending, error)
            return
        self._over(pending, None)
        if said.method == _CANCELLED:
            self._cancel(self._asks, said)
        if passed:
            await self._ends[0].tell(passed)

    async def _asked_back(self, line: bytes, said: Message) -> None:
        """Pass on a request of the server's, if the grant lets it ask that."""
        request, action = self._plane.new_request(), str(said.method)
        access, use = Access(self._resource, action), None
        try:
            self._asks.check_room(said)
            passed = await self._reduced(line, said)
            index = next((rule.index for rule in self._relay.rules if action in rule.actions), None)
            if index is not None:
                use = await self._plane.recorder.use(self.grant, access, request, index)
            self._plane.check_live(self.grant)
        except RemitError as error:
            self._plane.check_live(self.grant)
            told = await self._plane.recorder.deny(self.grant, access, error, request)
            await self._ends[1].tell(self._denial(said, told, request))
            return
        self._asks[said.id] = OpenRequest(said, request, use)
        await self._ends[0].tell(passed)

    async def _reduced(self, line: bytes, said: Message) -> bytes:
        """Return what goes on of a message of the server's, nothing for none; LeakError if a secret is in it."""
        reduced = partial(_reduced, self._relay, said)
        passed = await self._plane.pins.told(self.grant, self._resource, partial(self._worked, line, reduced))
        reached = {detail.resource for detail in self._view.grant.scope}
        try:
            for patterns in self._plane.pools.patterns(self._quota.task, reached):
                await self._search(patterns, passed)
        except LeakError:
            self._plane.routes.leaked(self.grant, self.grant, self._resource)
            raise
        self._plane.routes.check_suspended(self._view)
        self._plane.check_live(self.grant)
        return passed

    async def _search(self, patterns: SecretPatterns, passed: bytes) -> None:
        scrubber = Scrubber(patterns)
        for _ in () if searched(patterns, passed) else scrubber.steps(passed):
            if scrubber.meter.turn >= TURN:
                scrubber.meter.turn = 0
                await self._plane.turns.wait(self._quota.task)

    # -- both -----------------------------------------------------------------------------------------------------

    async def _line(self, end: StdioEnd) -> bytes | None:
        return await next_line(end, self._plane.turns, self._quota.task)

    async def _worked(self, line: bytes, work: Callable[[], V]) -> V:
        """Return what work on a line makes: beside the loop, if that takes long."""
        return await self._plane.judged(self._quota.task, line, partial(self._plane.check_live, self.grant), work)

    async def _refuse(self, pending: OpenRequest, error: RemitError) -> None:
        """Tell the client why there is no answer to a request of its."""
        self._over(pending, error)
        await self._ends[0].tell(self._denial(pending.said, error, pending.request))

    async def _refuse_all(self, error: RemitError) -> None:
        for pending in self._asked.given_up():
            await self._refuse(pending, error)

    def _cancel(self, waiting: OpenRequests[OpenRequest], said: Message) -> None:
        """Wait for no answer to what its side has cancelled (MCP, cancellation): what that did, nobody learns."""
        pending = waiting.cancel(said.params.get("requestId"))
        if pending is not None and pending.use is not None:
            self._plane.recorder.outcome(pending.use, "unknown", None)

    def _over(self, pending: OpenRequest | None, error: RemitError | None) -> None:
        if pending is not None and pending.use is not None:
            code = None if error is None else error.code
            self._plane.recorder.outcome(pending.use, "done" if error is None else "failed", code)

    def shut(self) -> None:
        """Shut both sides, in another thread: the loop is late."""
        for end in tuple(self._ends):
            shut(end.transport)

    def cut(self, error: RemitError) -> None:
        """Cut both sides at once."""
        self._cut = self._cut or error
        _log.info("the session with %s was cut: %s", self._resource, error.code)
        for end in self._ends:
            end.transport.abort()


def _reduced(relay: Relay, said: Message) -> bytes:
    """Return what a client may hear of a message of the server's, nothing for none; UpstreamError if it cannot."""
    reduced = relay.reduced(said)
    return b"" if reduced is None else answers.written(reduced)
