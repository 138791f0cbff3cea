"""Connections of clients: requests are read one by one, in order, each judged on its own."""

from __future__ import annotations

import asyncio
import re

from remit.core.scope import ENDPOINT, Access
from remit.errors import InvalidRequestError, RemitError, TokenError, TooLargeError, UpstreamError
from remit.gateway import framing
from remit.gateway.downstream import HEAD, LINGER, STALL, Downstream, GatewayListener, RequestHead
from remit.gateway.exchange import HttpExchange
from remit.gateway.fronts.path import PathFront
from remit.gateway.many import ManyExchange
from remit.gateway.quota import MAX_CALLERS, MAX_CLIENTS
from remit.gateway.upload import Upload

IDLE = 75.0  # seconds between requests
_MANY = re.compile(rb"(?:/@grt_[A-Za-z0-9_-]{1,64})?/%b(?:[/?]|\Z)" % ENDPOINT.encode())
HOLD = 65_536  # bytes of later requests kept while one is under way


class ClientConnections:
    """The connections of all listeners, each within its listener's number and its task's descriptors."""

    def __init__(self) -> None:
        self.all: set[ClientConnection] = set()

    def admit(self, client: ClientConnection) -> bool:
        """Take note of a connection; return False if its listener has too many, and all of them in use."""
        listener = client.listener
        most = MAX_CLIENTS if listener.front.bound_grant is not None else MAX_CALLERS
        if len(listener.clients) >= most or not listener.quota.take():
            idle = next((other for other in listener.clients if other.idle), None)
            if idle is None:
                return False
            self._forget(idle)  # the place that it had is the new one's
            idle.abort()
        listener.clients[client] = None
        self.all.add(client)
        return True

    def move(self, client: ClientConnection, listener: GatewayListener) -> None:
        """Count a connection among those of another listener from now on."""
        if client in self.all:
            del client.listener.clients[client]
            client.listener = listener
            listener.clients[client] = None

    def left(self, client: ClientConnection) -> None:
        if client in self.all:
            self._forget(client)
            client.listener.quota.give()

    def _forget(self, client: Downstream) -> None:
        self.all.discard(client)
        del client.listener.clients[client]

    def sweep(self, now: float) -> None:
        for client in [client for client in self.all if client.deadline < now]:
            client.expire()

    def lapse(self, time: float) -> None:
        """Close what stays open by tokens that have ended at a time, in seconds since the epoch."""
        for client in [client for client in self.all if client.lapsed(time)]:
            client.end(TokenError("it has expired", help="connect again with a new token"))

    def end(self, error: RemitError, grants: frozenset[str] | None = None) -> None:
        """Close the connections of channels that have ended, or all."""
        for client in [one for one in self.all if grants is None or one.listener.front.bound_grant in grants]:
            client.end(error)


class ClientConnection(Downstream):
    """One connection from a client."""

    __slots__ = ("_buffer", "_connections", "_due", "_exchange")

    def __init__(self, listener: GatewayListener, connections: ClientConnections) -> None:
        super().__init__(listener)
        self._connections = connections
        self._buffer = b""
        self._due = False  # a turn in which more of a body is read
        self._exchange: HttpExchange | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # create_server makes Transports
        if not self._connections.admit(self):
            self.abort()

    def data_received(self, data: bytes) -> None:
        exchange = self._exchange
        if self._lingers:
            return
        if exchange is None:
            self._buffer = self._buffer + data if self._buffer else data
            self._next()
            return
        self.deadline = self.plane.now + STALL
        if exchange.reading:
            data = self._body(exchange, data)
        if data:
            self._buffer += data
            if len(self._buffer) > HOLD:
                self.hold()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it came about
        self._transport = None
        self._connections.left(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.left()

    def pause_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.client_writable(writable=False)

    def resume_writing(self) -> None:
        if self._exchange is not None:
            self._exchange.client_writable(writable=True)

    @property
    def idle(self) -> bool:
        return self._exchange is None

    @property
    def pipelined(self) -> bool:
        return bool(self._buffer)

    def _next(self) -> None:
        """Begin the next request if its head is all there."""
        self.deadline = self.plane.now + (HEAD if self._buffer else IDLE)
        if not self._buffer or self._transport is None or self._transport.is_closing():
            return
        end = self._buffer.find(framing.END)
        try:
            if end < 0 or end > framing.MAX_HEAD:
                self._check_unfinished()
                return
            self._begin(self._buffer[:end], self._buffer[end + 4 :])
        except RemitError as error:
            self.refused(error, Access("", ""))

    def refused(self, error: RemitError, access: Access) -> None:
        """Refuse what is no request for a resource, and go on with nothing that follows it."""
        self._buffer = b""
        request, channel = self.plane.new_request(), self.listener.front.bound_grant
        self.refuse(error, request, None, (None, None), keep=False)
        self._linger()
        if channel is not None:
            self.plane.start(self.plane.recorder.deny(channel, access, error, request))

    def _check_unfinished(self) -> None:
        line = self._buffer.find(b"\r\n")
        if len(self._buffer) > framing.MAX_HEAD:
            raise InvalidRequestError("the head has no end") if line < 0 else TooLargeError("the head is too large")
        if line < 0 and len(self._buffer) > framing.MAX_TARGET + 64:
            raise InvalidRequestError("the request line has no end")
        if line < 0 and b"\n" in self._buffer:
            raise InvalidRequestError("a line ends without CR")
        if line >= 0:
            framing.request_line(self._buffer[:line])

    def _begin(self, head: bytes, rest: bytes) -> None:
        known, discovery = self.listener.read(head), self.listener.front.discovery
        if discovery and (told := discovery.answer(known.method, known.target, known.headers.fields)):
            self.write(told)
            self._linger()
            return
        self._buffer = b""
        self.deadline = self.plane.now + STALL
        self._exchange = exchange = (ManyExchange if self._is_for_many(known) else HttpExchange)(self, known)
        if exchange.reading:
            self._buffer = self._body(exchange, rest) if rest else b""
        else:
            self._buffer = rest
        if self._exchange is exchange:
            exchange.begin()

    def _is_for_many(self, head: RequestHead) -> bool:
        return isinstance(self.listener.front, PathFront) and _MANY.match(head.target) is not None

    def _body(self, exchange: HttpExchange, data: bytes) -> bytes:
        upload = exchange.upload
        assert upload is not None  # noqa: S101 - there is a body
        try:
            rest = upload.receive(data)
        except RemitError as error:
            exchange.cut(error)
            self._linger()
            return b""
        if upload.busy:
            self.hold()
            self._go_on(upload)
        return rest

    def _go_on(self, upload: Upload) -> None:
        """Have what came of a body read on in a later turn, as soon as it is for something."""
        if upload.wants and not self._due:
            self._due = True
            self.plane.turns.add(self.listener.quota.task, self._read_on)

    def _read_on(self) -> None:
        self._due = False
        exchange = self._exchange
        if exchange is not None and (upload := exchange.upload) is not None and upload.busy and upload.wants:
            self._buffer = self._body(exchange, b"")

    def release(self) -> None:
        upload = None if self._exchange is None else self._exchange.upload
        if upload is None or not upload.busy:
            super().release()
        else:
            self._go_on(upload)

    def finished(self, exchange: object, *, keep: bool) -> None:
        mine = self._exchange
        if mine is None or mine is not exchange:
            return
        self._exchange = None
        if not keep:
            self._linger() if mine.reading else self.close()
            return
        super().release()
        self._next()

    def _linger(self) -> None:
        """Say no more, and read what still comes without looking, so that the answer is not lost to a reset."""
        if self._transport is None or self._transport.is_closing() or self._lingers:
            return
        self._lingers = True
        self._buffer = b""
        self.release()
        if self._transport.can_write_eof():
            self._transport.write_eof()
        self.deadline = self.plane.now + LINGER

    def lapsed(self, time: float) -> bool:
        """Whether a bearer's token has ended that keeps something open by which more comes, as by no answer."""
        exchange = self._exchange
        if exchange is None or self.until is None or time < self.until:
            return False
        return exchange.opening is not None or (exchange.talk is not None and exchange.method == "GET")

    def expire(self) -> None:
        if self._lingers:  # no request is under way
            self.abort()
        else:
            self.end(UpstreamError("nothing moved for too long"))

    def end(self, error: RemitError) -> None:
        if self._exchange is not None:
            self._exchange.cut(error)
        self.close()
