"""MCP servers that are commands, spoken to over HTTP: a launcher starts one for each session, outside of any worker.

It has handed over a listening socket, and connects first itself, to be told what to start and what to end. Each further
connection is a server's input and output, behind a line that says for which session. To what sends a request, a session
is an upstream that speaks HTTP: so what is said is judged, reduced and recorded as with any (docs/decisions/0041).
"""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from collections import deque
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from remit.errors import LimitError, RemitError, UpstreamError
from remit.gateway import canon, framing
from remit.gateway.cutting import shut
from remit.gateway.mcp import answers, denials, messages
from remit.gateway.mcp.events import ServerEvent
from remit.gateway.mcp.messages import Message
from remit.gateway.pipe import OPENING
from remit.gateway.plane import DataPlane
from remit.gateway.quota import TaskQuota
from remit.gateway.response import chunk
from remit.gateway.stdio import MOST_TOLD, OpenRequests, StdioEnd, next_line

MOST = 16  # sessions of one launcher
KEPT = 64  # messages of a server's that wait for a stream on which they can go, of `MOST_TOLD` bytes together
UNREAD = 1_048_576  # bytes that a server leaves unread, before it is told no more
UNHEARD = 2 * MOST_TOLD  # bytes that wait on a stream that a client does not read
_EVENTS = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n"
_FIRST = "a server that is a command is spoken to in sessions: begin with `initialize` (2025-11-25)"
_log = logging.getLogger("remit.gateway")


class Asker(Protocol):
    """What reads an answer as one of HTTP/1.1."""

    @property
    def grant(self) -> str | None: ...  # under which it is asked
    def data_received(self, data: bytes) -> None: ...
    def fail(self, error: RemitError) -> None: ...
    def connection_made(self, transport: asyncio.BaseTransport) -> None: ...


class CommandStream(asyncio.Transport):
    """One request of HTTP to a session, and its answer, as the transport of its connection."""

    def __init__(self, launcher: CommandLauncher, resource: str, asker: Asker) -> None:
        super().__init__()
        self._launcher, self.resource, self.asker = launcher, resource, asker
        self.session: CommandSession | None = None
        self.token: object = None  # by which the server tells of the request's progress
        self.lines = b""  # of the head of what answers it
        self._came = bytearray()
        self._begun = self._due = self._held = self._closing = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take a request, which is all there."""
        self._launcher.plane.start(self._asked(bytes(data)))

    async def _asked(self, data: bytes) -> None:
        try:
            await self._launcher.take(self, data)
        except RemitError as error:
            self.asker.fail(error)
        except Exception:  # noqa: BLE001 - it ends this request alone
            _log.exception("a request to %s failed", self.resource)
            self.asker.fail(UpstreamError("the server could not be asked"))

    def answer(self, status: bytes, body: bytes = b"") -> None:
        """Answer at one go."""
        kind = b"content-type: application/json\r\n" if body else b""
        told = (status, kind, self.lines, len(body))
        self._hand(b"HTTP/1.1 %b\r\nconnection: close\r\n%b%bcontent-length: %d\r\n\r\n" % told + body)

    def say(self, line: bytes, *, last: bool = False) -> None:
        """Pass on a message of the server's; the ``last`` one is the answer."""
        if last and not self._begun:
            self.answer(b"200 OK", line)
        else:
            self.begin()
            self._hand(chunk(ServerEvent(line).written, done=last))

    def begin(self) -> None:
        """Be a stream of events."""
        if not self._begun:
            self._begun = True
            self._hand(_EVENTS + self.lines + b"\r\n")

    def _hand(self, data: bytes) -> None:
        self._came += data
        if len(self._came) > UNHEARD:
            self.asker.fail(UpstreamError("the client does not read what the server says"))
        elif not self._due:
            self._due = True
            self._launcher.plane.loop.call_soon(self._on)

    def _on(self) -> None:
        self._due = False
        if self._held or self._closing or not self._came:
            return
        came, self._came = bytes(self._came), bytearray()
        self.asker.data_received(came)

    def pause_reading(self) -> None:
        self._held = True

    def resume_reading(self) -> None:
        self._held = False
        self._hand(b"")

    def get_write_buffer_size(self) -> int:
        return 0

    def is_closing(self) -> bool:
        return self._closing

    def abort(self) -> None:
        self._closing = True
        self._came.clear()
        if self.session is not None:
            self.session.left(self)

    close = abort


@dataclass(slots=True, eq=False, repr=False)
class CommandSession:
    """One session, with a server of its own."""

    grant: str
    key: str  # its name; a client has it sealed
    _launcher: CommandLauncher
    _end: StdioEnd
    _asked: OpenRequests[CommandStream | None] = field(default_factory=OpenRequests)  # None: nobody waits any more
    _first: CommandStream | None = None  # on which the client learns of the session, until it has
    _listener: CommandStream | None = None  # of what the server says by itself
    _waiting: deque[bytes] = field(default_factory=partial(deque[bytes], maxlen=KEPT))
    _cut: RemitError | None = None

    async def run(self) -> None:
        """Pass on what the server says, until it says no more or is cut."""
        plane, task = self._launcher.plane, self._launcher.task
        try:
            with suppress(EOFError):
                while True:
                    line = await next_line(self._end, plane.turns, task)
                    if line is None:  # to which of its requests it is the answer, nobody knows
                        error = UpstreamError(f"the server said more than {MOST_TOLD} bytes at once")
                        self._fail_all(self._asked.given_up(), error)
                        continue
                    check = partial(plane.check_live, self.grant)
                    with suppress(UpstreamError):  # what else it prints is no message, and goes nowhere
                        self._told(await plane.judged(task, line, check, partial(answers.read, line)), line.strip())
        except RemitError as error:
            self.cut(error)
        finally:
            self._launcher.ended(self)
            self._end.writer.close()
            self._fail_all(self._asked.values(), self._cut or UpstreamError("the server ended before it answered"))
            if self._listener is not None:
                self._listener.asker.fail(self._cut or UpstreamError("the server has ended"))

    def _told(self, said: Message, line: bytes) -> None:
        if said.method is None:
            if (stream := self._asked.answered(said)) is not None:
                self._first = None if self._first is stream else self._first
                stream.say(line, last=True)
        elif (stream := self._stream_for(said)) is not None:
            stream.say(line)
        else:
            self._waiting.append(line)
            while sum(map(len, self._waiting)) > MOST_TOLD:
                self._waiting.popleft()

    def _stream_for(self, said: Message) -> CommandStream | None:
        """Return where a message goes that is no answer: what a server asks mostly belongs to what it is asked."""
        streams = [stream for stream in self._asked.values() if stream is not None]
        token = said.params.get("progressToken")
        for stream in streams:
            if token is not None and stream.token == token:
                return stream
        last = streams[-1] if streams else None
        return (last or self._listener) if said.asks else (self._listener or last)

    def said(self, stream: CommandStream, said: Message, line: bytes) -> None:
        """Pass on a message of the client's, whose answer goes to ``stream``."""
        if self._cut is not None or self._end.transport.is_closing():
            raise UpstreamError("the server has ended")
        if self._end.transport.get_write_buffer_size() > UNREAD:
            raise LimitError("the server does not read what it is told", retry_after=1)
        if said.asks:
            self._asked.check_room(said)
            stream.session, stream.token = self, said.meta.get("progressToken")
            self._asked[said.id] = stream
        elif said.method == "notifications/cancelled":
            self._fail_all(
                [self._asked.cancel(said.params.get("requestId"))], UpstreamError("the request was cancelled")
            )
        self._end.writer.write(line + b"\n")
        if not said.asks:
            stream.answer(b"202 Accepted")

    def begin(self, stream: CommandStream, said: Message, line: bytes) -> None:
        """Pass on the client's first message: nobody knows the session whose answer is not waited for."""
        self._first = stream
        stream.lines = b"mcp-session-id: %b\r\n" % self.key.encode()
        self.said(stream, said, line)

    def listen(self, stream: CommandStream) -> None:
        """Have a stream of what the server says by itself."""
        if self._listener is not None:
            stream.answer(b"409 Conflict")
            return
        self._listener, stream.session = stream, self
        stream.begin()
        while self._waiting:
            stream.say(self._waiting.popleft())

    def left(self, stream: CommandStream) -> None:
        """Take note that nobody waits for an answer any more."""
        if self._listener is stream:
            self._listener = None
        if self._first is stream:
            self.cut(UpstreamError("the client went away"))
        for id_, waiting in self._asked.items():
            if waiting is stream:
                self._asked[id_] = None

    def _fail_all(self, asked: Collection[CommandStream | None], error: RemitError) -> None:
        for stream in tuple(asked):
            if stream is not None:
                stream.asker.fail(error)

    @property
    def idle(self) -> bool:
        return self._listener is None and not any(self._asked.values())

    def cut(self, error: RemitError) -> None:
        self._cut = self._cut or error
        self._end.transport.abort()

    def shut(self) -> None:
        """Shut the connection, in another thread: the loop is late."""
        shut(self._end.transport)


@dataclass(slots=True, eq=False, repr=False)
class CommandLauncher:
    """A launcher that starts servers for the grants of its run's task."""

    plane: DataPlane
    task: str
    serves: Collection[str]  # the resources whose servers it starts
    grant: str | None = field(default=None, init=False)
    _quota: TaskQuota
    _sessions: dict[str, CommandSession] = field(default_factory=dict)
    _wanted: dict[str, asyncio.Future[StdioEnd]] = field(default_factory=dict)
    _told: asyncio.StreamWriter | None = None  # what is to start, and to end

    def accepted(self) -> asyncio.Protocol:
        """Return what reads the next connection."""
        return asyncio.StreamReaderProtocol(asyncio.StreamReader(MOST_TOLD), self._connected)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.plane.start(self._led(reader, writer) if self._told is None else self._begun(StdioEnd(reader, writer)))
        self._told = self._told or writer

    async def _led(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Have servers started by this launcher until it has gone."""
        mine = self.plane.pools.launchers.setdefault(self.task, [])
        mine.append(self)
        self.plane.in_flight.add(self)
        with suppress(ConnectionError):
            await reader.read(1)  # it says nothing
        self.plane.in_flight.discard(self)
        mine.remove(self)
        if not mine:
            self.plane.pools.launchers.pop(self.task, None)
        for session in tuple(self._sessions.values()):
            session.cut(UpstreamError("what started the server has gone"))
        writer.close()

    async def _begun(self, end: StdioEnd) -> None:
        """Take the connection of a server that was asked for."""
        key = b""
        with suppress(EOFError, TimeoutError):
            async with asyncio.timeout(OPENING):
                key = await end.line() or b""
        wanted = self._wanted.pop(key.decode("latin-1").strip(), None)
        if wanted is None or wanted.done():
            end.transport.abort()
        else:
            wanted.set_result(end)

    def open(self, resource: str, asker: Asker) -> None:
        """Be the connection of one request to a server."""
        asker.connection_made(CommandStream(self, resource, asker))

    async def take(self, stream: CommandStream, data: bytes) -> None:
        """Take a request of HTTP, which remit wrote."""
        head, _, body = data.partition(framing.END)
        method, *lines = head.split(b"\r\n")
        fields = dict(line.split(b": ", 1) for line in lines)
        named, method = fields.get(b"mcp-session-id", b"").decode("latin-1"), method.partition(b" ")[0]
        said = await self._read(stream, body) if method == b"POST" else None
        session = self._sessions.get(named)
        if named and session is None:
            stream.answer(b"404 Not Found")
        elif session is None and said is not None and said.method == "initialize":
            session = await self._started(stream)
            if stream.is_closing():  # nobody would learn of it
                session.cut(UpstreamError("the client went away"))
                return
            session.begin(stream, said, body)
        elif session is None:
            code = denials.UNKNOWN_METHOD if said is not None and said.method == "server/discover" else denials.REFUSED
            error = {"jsonrpc": "2.0", "id": None, "error": {"code": code, "message": _FIRST}}
            stream.answer(b"400 Bad Request", canon.json_bytes(error))
        elif method == b"DELETE":
            session.cut(UpstreamError("the session was ended"))
            stream.answer(b"200 OK")
        elif said is None:
            session.listen(stream)
        else:
            self._sessions[named] = self._sessions.pop(named)
            session.said(stream, said, body)

    async def _read(self, stream: CommandStream, body: bytes) -> Message:
        """Read a message once more: it was judged, and is written as it goes on."""
        check = partial(self.plane.check_live, stream.asker.grant or "")
        return await self.plane.judged(self.task, body, check, partial(messages.read, body))

    async def _started(self, stream: CommandStream) -> CommandSession:
        """Have a server started for a session of a grant."""
        grant = stream.asker.grant
        if len(self._sessions) + len(self._wanted) >= MOST:
            self._spare()
        if grant is None or self._told is None or len(self._sessions) + len(self._wanted) >= MOST:
            raise LimitError(f"{MOST} sessions with servers are open in this task", help="end one: `DELETE`")
        if not self._quota.take_pipe(grant):
            raise LimitError("too many connections of the grant are piped", retry_after=1)
        key = secrets.token_urlsafe(18)
        self._wanted[key] = wanted = self.plane.loop.create_future()
        try:
            self._tell({"start": stream.resource, "as": key})
            async with asyncio.timeout(OPENING):
                end = await wanted
        except BaseException as error:
            self._quota.give_pipe(grant)
            self._tell({"end": key})  # it may be on its way
            if isinstance(error, TimeoutError):
                raise UpstreamError("the server was not started in time") from None
            raise
        finally:
            self._wanted.pop(key, None)
        self._sessions[key] = session = CommandSession(grant, key, self, end)
        self.plane.in_flight.add(session)
        self.plane.start(session.run())
        try:
            self.plane.check_live(grant)  # what was cut at its end had no session yet
        except RemitError as error:
            session.cut(error)
            raise
        return session

    def _spare(self) -> None:
        """End the session that was not used for the longest: many clients leave without a word."""
        idle = next((session for session in self._sessions.values() if session.idle), None)
        if idle is not None:
            del self._sessions[idle.key]
            idle.cut(UpstreamError("others were begun since"))

    def ended(self, session: CommandSession) -> None:
        """Have the server of a session ended that is over."""
        self._sessions.pop(session.key, None)
        self.plane.in_flight.discard(session)
        self._quota.give_pipe(session.grant)
        self._tell({"end": session.key})

    def cut(self, error: RemitError) -> None:  # noqa: ARG002 - it is no request
        """Start nothing any more, as the gateway closes."""
        if self._told is not None:
            self._told.transport.abort()

    def shut(self) -> None:
        """It is under no grant that could end."""

    def _tell(self, what: object) -> None:
        if self._told is not None and not self._told.transport.is_closing():
            self._told.write(json.dumps(what).encode() + b"\n")
