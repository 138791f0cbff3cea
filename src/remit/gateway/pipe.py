"""A database port of a run, piped to the resource's configured address and nowhere else, and cut when its grant ends.

The credential is not here: a lease carries it, and the database checks it. The pipe only says who may reach the port.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from remit.broker import Use
from remit.core.scope import Access
from remit.errors import LimitError, NotFoundError, RemitError, ScopeError, UpstreamError
from remit.gateway.destination import read_database

if TYPE_CHECKING:
    from remit.gateway.room import Share
    from remit.gateway.server import Gateway

CONNECT = 10.0  # seconds
_log = logging.getLogger("remit.gateway")


class End(asyncio.Protocol):
    """One side of a pipe. What it reads, the other side writes, no faster than that takes it."""

    __slots__ = ("_early", "_pipe", "ended", "other", "transport")

    def __init__(self, pipe: Pipe) -> None:
        """Belong to ``pipe``."""
        self._pipe = pipe
        self._early = b""
        self.other: End | None = None
        self.ended = False
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Hold until the other side is there."""
        self.transport = transport  # type: ignore[assignment]  # streams have Transports
        self._pipe.connected(self)

    def data_received(self, data: bytes) -> None:
        """Pass on; keep what comes before there is another side (uvloop starts to read after ``connection_made``)."""
        if self.other is None:
            self._early += data
            if self.transport is not None:
                self.transport.pause_reading()
        elif self.other.transport is not None:
            self.other.transport.write(data)

    def join(self, other: End) -> None:
        """Pass on to ``other`` from now on, first what came before."""
        self.other = other
        if self._early and other.transport is not None:
            other.transport.write(self._early)
        self._early = b""

    def eof_received(self) -> bool:
        """Pass on that this side says no more; when neither does, both are done."""
        self.ended = True
        other = self.other
        if other is None or other.transport is None:
            return False
        other.transport.write_eof()
        if other.ended:
            other.transport.close()
        return not other.ended

    def pause_writing(self) -> None:
        """Hold the other side."""
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """Let the other side go on."""
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side too: at once after an error, else when it has written what it was given."""
        self.transport = None
        self._pipe.lost(self, broken=exc is not None)


class Pipe:
    """One connection through a database port."""

    __slots__ = ("_begins", "_counted", "_cut", "_ends", "_gateway", "_piped", "_resource", "_room", "_use", "grant")

    def __init__(self, gateway: Gateway, grant: str, resource: str, room: Share) -> None:
        """Pipe to ``resource`` under ``grant``; ``room`` has the descriptors."""
        self._gateway = gateway
        self._room = room
        self._resource = resource
        self._use: Use | None = None
        self._begins = False
        self._counted = False  # among its grant's pipes
        self._piped = False
        self._cut = False
        self.grant: str | None = grant
        self._ends = (End(self), End(self))  # inside the run, at the database

    @property
    def near(self) -> End:
        """The side inside the run."""
        return self._ends[0]

    def connected(self, end: End) -> None:
        """Begin when the side inside the run is there."""
        if end is self.near and end.transport is not None:
            end.transport.pause_reading()
            self._counted = self._room.take_pipe(self.grant or "")
            if self._counted:
                self._begins = True
            else:
                end.transport.abort()
            self._gateway.start(self._run())

    async def _run(self) -> None:
        try:
            await self._begun()
        finally:
            self._begins = False
            self._uncount()

    async def _begun(self) -> None:
        request = self._gateway.new_request()
        grant = self.grant or ""
        access = Access("postgres", self._resource, "connect")
        try:
            if not self._counted:
                raise LimitError("too many connections to databases are open", retry_after=1)
            index = self._index(grant)
            self._use = await self._gateway.record.use(grant, access, request, index)
        except RemitError as error:
            self.cut(error)
            await self._gateway.record.deny(grant, access, error, request)
            return
        self._gateway.moving(self)
        try:
            await self._connect()
        except RemitError as error:
            self.cut(error)
            self._outcome("failed", error.code)

    def _index(self, grant: str) -> int:
        for index, detail in enumerate(self._gateway.live(grant).scope):
            if detail.resource == self._resource and detail.type == "postgres":
                return index
        raise ScopeError(f"the grant does not cover `{self._resource}`")

    async def _connect(self) -> None:
        near, far = self._ends
        resource = self._gateway.broker.resource(self._resource)
        if resource.kind != "postgres":
            raise NotFoundError
        host, port = read_database(resource.destination)
        try:
            async with asyncio.timeout(CONNECT):
                await asyncio.get_running_loop().create_connection(lambda: far, host, port)
        except (OSError, TimeoutError) as error:
            raise UpstreamError("the database could not be reached") from error
        if near.transport is None or self._cut:  # it left, or was cut, meanwhile
            self.cut(UpstreamError())
            self._outcome("failed", None)
            return
        far.join(near)
        near.join(far)
        self._piped = True
        near.transport.resume_reading()

    def lost(self, end: End, *, broken: bool) -> None:
        """Take note that one side is gone."""
        self._uncount()
        other = self._ends[1] if end is self.near else self.near
        if other.transport is not None:
            other.transport.abort() if broken else other.transport.close()
        elif self._piped:
            self._piped = False
            self._gateway.moved(self)
            self._outcome("done", None)

    def _uncount(self) -> None:
        """Give the descriptors back once neither side has one, nor is to get one."""
        if self._counted and not self._begins and all(end.transport is None for end in self._ends):
            self._counted = False
            self._room.give_pipe(self.grant or "")

    def _outcome(self, decision: str, code: str | None) -> None:
        self._gateway.moved(self)
        use, self._use = self._use, None
        if use is not None:
            self._gateway.record.outcome(use, decision, code)

    def cut(self, error: RemitError) -> None:
        """Cut both sides at once, and one that is not there yet as soon as it is."""
        self._cut = True
        _log.info("a connection to %s was cut: %s", self._resource, error.code)
        for end in self._ends:
            if end.transport is not None:
                end.transport.abort()
