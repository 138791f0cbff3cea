"""Connections to upstreams: dialled where configuration says and nowhere else.

TLS is always verified. A connection carries one request at a time, and is used again only where nothing is left on it
for another to meet: not after a body that may be unread, an answer that bytes may follow, or anything unexpected.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from remit.errors import RemitError, UpstreamError
from remit.gateway import framing
from remit.gateway.cutting import shut
from remit.gateway.dialling import AlpnError, Dialled, Lookup, Offers, dial, look_up, take_descriptor
from remit.gateway.framing import Body, Chunked, Fields, Status, UntilClose, bodiless, response_body
from remit.gateway.http2_pool import SharedConnections
from remit.gateway.http2_upstream import AnswerReader, UpstreamStreams
from remit.gateway.quota import TaskQuota
from remit.gateway.response import Delivery, ResponsePlan, TaskTurns
from remit.gateway.target import BoundCredential
from remit.gateway.websocket import Opening

IDLE = 30.0  # seconds an unused connection is kept
MAX_CONNECTIONS = 1_024  # of one pool
MAX_INTERIM = 16  # interim answers to one request
_KNOWN_HEADS, _KNOWN_SIZE = 128, 2_048


class StaleError(UpstreamError):
    """the upstream closed the connection before it answered"""  # noqa: D400 - the message


class ResponseReceiver(Protocol):
    """What takes a response as it arrives: a head, payload, then its end or a failure."""

    method: str
    grant: str | None
    opening: Opening | None  # of the WebSocket that was asked for

    def on_head(self, plan: ResponsePlan, whole: bytes | None) -> tuple[Delivery | None, bool]:
        """Take a searched head; return what takes its body, and whether nothing of the request can be unread.

        ``whole`` is all of the body, where it came with the head; None for what takes it: it is taken.
        """

    def on_switch(self, plan: ResponsePlan) -> Delivery: ...  # take a searched head behind which ``opening`` begins
    def on_end(self) -> None: ...  # the response is complete
    def on_failure(self, error: RemitError) -> None: ...  # there will be no (more) response
    def on_writable(self, *, writable: bool) -> None: ...  # whether the upstream takes more request bytes for now


@dataclass(slots=True, eq=False, repr=False)
class ResponseHead:
    """A head that was searched and read."""

    status: Status
    fields: Fields
    plan: ResponsePlan | None = None  # how a response with it goes on that has a body


@dataclass(slots=True, eq=False, repr=False)
class UpstreamConnection(AnswerReader):
    """One connection to an upstream, or a stream of one."""

    pool: Pool
    fresh: bool = True
    grant: str | None = None  # under which is asked what is asked on it
    idle_since: float = 0.0
    _transport: asyncio.Transport | None = None
    _receiver: ResponseReceiver | None = None
    _delivery: Delivery | None = None
    _buffer: bytes = b""
    _body: Body | None = None
    _fields: Fields | None = None
    _interim: int = 0
    _reusable: bool = True
    _paused: bool = False
    _held: bool = False  # by the receiver
    _untold: bool = False  # TLS does not say what is spoken
    _taken: bool = False  # for one of HTTP/1.1, which the upstream may not speak

    @property
    def repeatable(self) -> bool:
        """Whether what is asked may be asked once more, on another connection, if this one ends without an answer."""
        return self._taken or not self.fresh

    def begin(self, receiver: ResponseReceiver, head: bytes) -> None:
        """Send a request's head (and what is there of its body), and hand its response to ``receiver``."""
        self._receiver, self.grant = receiver, receiver.grant
        self.resume()
        self.send(head)

    def send(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def pause(self) -> None:
        self._held = True
        if self._transport is not None and not self._paused:
            self._paused = True
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on, once what is there has been read."""
        self._held = False
        if self._body is not None and self._body.more:
            return
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            self._transport.resume_reading()

    @property
    def usable(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def shut(self) -> None:
        shut(self._transport)

    def abort(self) -> None:
        self._receiver = None
        if self._transport is not None:
            self._transport.abort()
        self.pool.gone(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # create_connection makes a Transport
        session = transport.get_extra_info("ssl_object")
        self._untold = session is not None and session.selected_alpn_protocol() is None

    def data_received(self, data: bytes) -> None:
        receiver = self._receiver
        if receiver is None:  # nobody asked: the connection is not to be trusted
            self.abort()
            return
        try:
            if self._fields is None:
                self._head(data, receiver)
            else:
                self._take(data, receiver)
            if self._receiver is receiver and self._delivery is not None:  # its response goes on
                self._delivery.flush()
        except RemitError as error:
            self.fail(error)

    def connection_lost(self, exc: Exception | None) -> None:
        """End a body that ends with its connection; anything else that is under way has failed."""
        self.pool.gone(self)
        receiver = self._receiver
        if receiver is None:
            return
        if isinstance(self._body, UntilClose) and self._delivery is not None and exc is None:
            try:
                self._delivery.take(b"", done=True)
                self._release(receiver, b"")
            except RemitError as error:
                self.fail(error)
        elif self.fresh and self._untold and self._fields is None and self.pool.suspect():
            self._taken = True
            self.fail(StaleError())
        elif self._fields is None and not self._buffer:
            self.fail(StaleError())
        else:
            self.fail(UpstreamError("the upstream broke off its answer"))

    def pause_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.on_writable(writable=False)

    def resume_writing(self) -> None:
        if self._receiver is not None:
            self._receiver.on_writable(writable=True)

    def _head(self, data: bytes, receiver: ResponseReceiver) -> None:
        self._buffer = data = self._buffer + data if self._buffer else data
        while 0 <= (end := data.find(framing.END)) <= framing.MAX_HEAD:
            head = self.pool.read_head(data[:end])
            data = data[end + 4 :]
            if head.status.code >= 200:  # noqa: PLR2004 - interim responses stay here; their heads were searched
                self._buffer = b""
                self._final(head, data, receiver)
                return
            if head.status.code == 101 and receiver.opening is not None:  # noqa: PLR2004 - Switching Protocols
                self._switched(receiver.opening, head, data, receiver)
                return
            self._interim += 1
            if head.status.code == 101:  # noqa: PLR2004
                raise UpstreamError("the upstream changed the protocol unasked")
            if self._interim > MAX_INTERIM:
                raise UpstreamError("the upstream gave too many interim answers")
        if len(data) > framing.MAX_HEAD:
            raise UpstreamError("the upstream's head is too large")
        self._buffer = data

    def _final(self, head: ResponseHead, rest: bytes, receiver: ResponseReceiver) -> None:
        status, fields = head.status, head.fields
        self._fields = fields
        self._body = response_body(status.code, fields, receiver.method)
        ends = not self._interim and not bodiless(status.code, receiver.method)  # or bytes may follow that should not
        if self._body is None:
            plan, whole = ResponsePlan(status, fields, has_body=False), None
        else:
            plan = head.plan = head.plan or ResponsePlan(status, fields, has_body=True)
            whole = rest if len(rest) == fields.length else None
        self._delivery, read = receiver.on_head(plan, whole)
        sent = self._transport is not None and not self._transport.get_write_buffer_size()
        self._reusable = fields.keep and status.minor == 1 and ends and read and sent
        if self._body is None or self._delivery is None:
            self._release(receiver, rest if self._body is None else b"")
        elif rest:
            self._take(rest, receiver)

    def _switched(self, opening: Opening, head: ResponseHead, rest: bytes, receiver: ResponseReceiver) -> None:
        """Take what comes from now on as frames of a WebSocket."""
        opening.check(head.fields)
        self._fields, self._body, self._buffer, self._reusable = head.fields, UntilClose(), b"", False
        self._delivery = receiver.on_switch(ResponsePlan(head.status, head.fields, has_body=False))
        if rest:
            self._take(rest, receiver)

    def _take(self, data: bytes, receiver: ResponseReceiver) -> None:
        body, delivery = self._body, self._delivery
        if body is None or delivery is None:
            return
        try:
            payload, rest = body.feed(data)
        except RemitError as error:
            raise UpstreamError("the upstream's body is malformed") from error
        if body.done and isinstance(body, Chunked) and body.trailer:
            self.pool.credential.patterns.check(body.trailer)
        delivery.take(payload, done=body.done)
        if body.done:
            self._release(receiver, rest)
        elif body.more:
            held = self._held
            self.pause()
            self._held = held
            delivery.later(partial(self._read_on, receiver))

    def _read_on(self, receiver: ResponseReceiver) -> None:
        if self._receiver is not receiver or self._body is None or not self._body.more:
            return
        self.data_received(b"")
        if not self._held:
            self.resume()

    def _release(self, receiver: ResponseReceiver, rest: bytes) -> None:
        """The response is complete: keep the connection for the next request if nothing is odd about it."""
        clean = self._reusable and not rest and not isinstance(self._body, UntilClose)
        self._receiver = self._delivery = self._body = self._fields = None
        self.fresh = False
        receiver.on_end()
        if clean:
            self.resume()
            self.pool.put(self)
        else:
            self.abort()

    def fail(self, error: RemitError) -> None:
        receiver = self._receiver
        self.abort()
        if receiver is not None:
            receiver.on_failure(error)


@dataclass(slots=True, eq=False, repr=False)
class Pool:
    """The connections of one task to one resource with one credential."""

    credential: BoundCredential
    _offers: Offers
    _quota: TaskQuota
    _now: float  # of the last sweep
    _spare: Callable[[], bool]  # gives a descriptor back that nobody is using
    _turns: TaskTurns
    _lookup: Lookup = look_up
    _open: Callable[[Pool], UpstreamConnection] | None = None  # a connection to what is dialled nowhere
    idle: list[UpstreamConnection | UpstreamStreams] = field(default_factory=list)  # the longest idle first
    all: set[UpstreamConnection | UpstreamStreams] = field(default_factory=set)  # also those on the way
    _shared: SharedConnections = field(init=False)
    _suspected: bool = False  # the upstream, of speaking HTTP/2 alone, which is once enough
    _known: dict[bytes, ResponseHead] = field(default_factory=dict)
    _closed: bool = False

    def __post_init__(self) -> None:
        self._shared = SharedConnections(self._make_shared, self._dial_shared)

    def read_head(self, head: bytes) -> ResponseHead:
        """Search and read a response's head; a head seen before has been searched and read before."""
        read = self._known.get(head)
        if read is None:
            self.credential.patterns.check(head)
            read = ResponseHead(*framing.response_head(head))
            if len(self._known) >= _KNOWN_HEADS:
                self._known.clear()
            if len(head) <= _KNOWN_SIZE:
                self._known[head] = read
        return read

    def take(self) -> UpstreamConnection | None:
        """Return an idle connection, or a stream of a shared one, or None when one has to be opened."""
        if (shared := self._shared.free) is not None:
            return self._stream(shared, fresh=False)
        while self.idle:
            upstream = self.idle.pop()
            if isinstance(upstream, UpstreamConnection) and upstream.usable:
                return upstream
        return None

    async def connect(self) -> UpstreamConnection:
        """Open a connection to the configured host, its certificate verified for the configured name."""
        if self._open is not None:
            return self._open(self)
        place, tls = self._place, self.credential.target.destination.tls
        if tls and self._offers.alone(place):
            with suppress(AlpnError):  # it has changed
                return self._stream(await self._shared.connect(), fresh=True)
        upstream = UpstreamConnection(self)
        self._count(upstream)
        try:
            await dial(self._lookup, place, lambda: upstream, self._offers.http1 if tls else None)
        except AlpnError:
            try:  # so that there is one all the time, or the pool would be forgotten
                return self._stream(await self._shared.connect(), fresh=True)
            finally:
                self.gone(upstream)
        except BaseException:
            self.gone(upstream)
            raise
        return upstream

    @property
    def _place(self) -> Dialled:
        target = self.credential.target
        return Dialled(target.resource.name, target.destination.host, target.destination.port, target.private)

    def _count(self, upstream: UpstreamConnection | UpstreamStreams) -> None:
        take_descriptor(self._quota, self._spare, room=len(self.all) < MAX_CONNECTIONS)
        self.all.add(upstream)

    def _make_shared(self) -> UpstreamStreams:
        shared = UpstreamStreams(self, self._turns, self._quota.task)
        self._count(shared)
        return shared

    async def _dial_shared(self, shared: UpstreamStreams) -> None:
        place, tls = self._place, self._offers.newer
        self._offers.note(place, alone=True)
        try:
            await dial(self._lookup, place, lambda: shared, tls)
            if not shared.spoken:
                raise AlpnError
        except UpstreamError:
            self._offers.note(place, alone=False)
            raise

    def _stream(self, shared: UpstreamStreams, *, fresh: bool) -> UpstreamConnection:
        if shared in self.idle:
            self.idle.remove(shared)
        upstream = UpstreamConnection(self, fresh)
        shared.open(upstream)
        return upstream

    def suspect(self) -> bool:
        """Have HTTP/2 offered first, once: an upstream that says nothing in TLS has not answered in HTTP/1.1."""
        before, self._suspected = self._suspected, True
        if not before:
            self._offers.note(self._place, alone=True)
        return not before

    def put(self, upstream: UpstreamConnection | UpstreamStreams) -> None:
        if self._closed:
            upstream.abort()
            return
        upstream.idle_since = self._now
        self.idle.append(upstream)

    def gone(self, upstream: UpstreamConnection | UpstreamStreams) -> None:
        if isinstance(upstream, UpstreamStreams):
            self._shared.gone(upstream)
        if upstream in self.all:
            self.all.discard(upstream)
            self._quota.give(1)
        if upstream in self.idle:
            self.idle.remove(upstream)

    def sweep(self, now: float) -> None:
        self._now = now
        for upstream in [idle for idle in self.idle if idle.idle_since < now - IDLE]:
            upstream.abort()

    def close(self) -> None:
        """Close idle connections now, and others when they come back."""
        self._closed = True
        for upstream in tuple(self.idle):
            upstream.abort()
