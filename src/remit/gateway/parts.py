"""The parts of a request that is for several servers: what would be each one's client, and takes its answer."""

from __future__ import annotations

import asyncio
import re
from typing import Protocol

from remit.errors import RemitError, UpstreamError
from remit.gateway import framing
from remit.gateway.downstream import Downstream, RequestHead
from remit.gateway.exchange import HttpExchange
from remit.gateway.framing import Body, Fields
from remit.gateway.mcp.events import MOST, EventReader, ServerEvent
from remit.gateway.mcp.merging import ServerAnswer

EVENTS = b"text/event-stream"
_SESSION = re.compile(rb"(?<=\r\n)mcp-session-id: [^\r\n]*\r\n", re.IGNORECASE)


class Whole(Protocol):
    """What the parts are of."""

    def streams(self) -> None: ...  # a part answers in a stream of events
    def said(self, part: ReadPart, event: ServerEvent) -> None: ...  # in that stream
    def part_over(self, part: ServerPart, *, keep: bool) -> None: ...  # it is answered, or will not be


class ServerPart(Downstream):
    """One server's part of a request; ``grant`` was proven by the whole of it."""

    __slots__ = ("_client", "_grant", "exchange", "whole")
    exchange: HttpExchange

    def __init__(self, whole: Whole, client: Downstream, grant: str) -> None:
        super().__init__(client.listener)
        self.whole, self._client, self._grant = whole, client, grant

    @property
    def idle(self) -> bool:
        return False

    @property
    def pipelined(self) -> bool:
        return False

    async def proven(self, head: RequestHead) -> str:  # noqa: ARG002 - its proof is used up
        return self._grant

    def begin(self, head: RequestHead, body: bytes | None) -> None:
        self.exchange = HttpExchange(self, head)
        if body is not None and (upload := self.exchange.upload) is not None:
            upload.whole(body)
        self.exchange.begin()

    def finished(self, exchange: object, *, keep: bool) -> None:  # noqa: ARG002 - there is one
        self.whole.part_over(self, keep=keep)

    def shut(self) -> None:
        self._client.shut()


class PassedPart(ServerPart):
    """The only part: its answer is the answer, in the session that the client knows."""

    __slots__ = ("_begun",)

    def __init__(self, whole: Whole, client: Downstream, grant: str) -> None:
        super().__init__(whole, client, grant)
        self._begun = False

    def write(self, data: bytes) -> None:
        if not self._begun:
            self._begun = True
            head, end, rest = data.partition(framing.END)
            data = _SESSION.sub(b"", head + end) + rest
        self._client.write(data)

    def close(self) -> None:
        self._client.close()

    def abort(self) -> None:
        self._client.abort()


class ReadPart(ServerPart):
    """A part whose answer is read here: event by event where it ``lasts``, else when it is whole."""

    __slots__ = ("_body", "_fields", "_head", "_lasts", "_pieces", "_reader", "_room", "over", "status")

    def __init__(self, whole: Whole, client: Downstream, grant: str, room: list[int], *, lasts: bool) -> None:
        """``room`` is for bytes of all parts together."""
        super().__init__(whole, client, grant)
        self._lasts, self._room = lasts, room
        self.over = asyncio.Event()
        self.status = 0
        self._fields: Fields | None = None
        self._body: Body | None = None
        self._head = b""
        self._pieces: list[bytes] = []
        self._reader = EventReader()

    @property
    def streams(self) -> bool:
        return self._fields is not None and (self._fields.get(b"content-type") or b"").startswith(EVENTS)

    @property
    def lasting(self) -> bool:
        """Whether it is a stream that goes on, or was."""
        return self._lasts and self.streams

    @property
    def answer(self) -> ServerAnswer:
        session = None if self._fields is None else self._fields.get(b"mcp-session-id")
        handle = None if session is None else session.decode("latin-1")
        return ServerAnswer(self.status, self.streams, b"".join(self._pieces), handle)

    def write(self, data: bytes) -> None:
        if self.over.is_set():
            return
        if self._fields is None:
            self._head += data
            head, end, data = self._head.partition(framing.END)
            if not end:
                return
            status, self._fields = framing.response_head(head)
            self.status = status.code
            self._body = framing.response_body(status.code, self._fields, self.exchange.method)
            if self.lasting:
                self.whole.streams()
        while self._body is not None and (data or self._body.more):
            payload, _ = self._body.feed(data)
            data = b""
            self._take(payload)

    def _take(self, payload: bytes) -> None:
        try:
            if self.lasting:
                for event in self._reader.feed(payload):
                    self.whole.said(self, event)
                return
            self._room[0] -= len(payload)
            if self._room[0] < 0:
                raise UpstreamError(f"what the servers answer has more than {MOST:,} bytes together")
            self._pieces.append(payload)
        except RemitError as error:
            self._body = None
            self.plane.loop.call_soon(self.exchange.cut, error)

    def finished(self, exchange: object, *, keep: bool) -> None:
        self.over.set()
        super().finished(exchange, keep=keep)

    def close(self) -> None:
        self.finished(None, keep=False)

    abort = close
