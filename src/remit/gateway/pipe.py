"""A database port of a run, piped to the resource's configured address and nowhere else, and cut when its grant ends.

The credential is not here: a lease carries it, and the database checks it. The pipe only says who may reach the port.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from remit.core.scope import Access
from remit.errors import LimitError, NotFoundError, RemitError, ScopeError, UpstreamError
from remit.gateway.plane import DataPlane
from remit.gateway.quota import TaskQuota
from remit.ports.broker import Use
from remit.ports.kind import PortAccess

CONNECT = 10.0  # seconds
_log = logging.getLogger("remit.gateway")


@dataclass(slots=True, eq=False, repr=False)
class PipeEnd(asyncio.Protocol):
    """One side of a pipe. What it reads, the other side writes, no faster than that takes it."""

    _pipe: DatabasePipe
    _early: bytes = b""
    other: PipeEnd | None = None
    ended: bool = False
    transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
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

    def join(self, other: PipeEnd) -> None:
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
        if self.other is not None and self.other.transport is not None:
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        if self.other is not None and self.other.transport is not None and not self.other.transport.is_closing():
            self.other.transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the other side too: at once after an error, else when it has written what it was given."""
        self.transport = None
        self._pipe.lost(self, broken=exc is not None)


@dataclass(slots=True, eq=False, repr=False)
class DatabasePipe:
    """One connection through a database port."""

    _plane: DataPlane
    grant: str
    _resource: str
    _quota: TaskQuota
    _use: Use | None = None
    _begins: bool = False
    _counted: bool = False  # among its grant's pipes
    _piped: bool = False
    _cut: bool = False
    near: PipeEnd = field(init=False)  # inside the run
    _far: PipeEnd = field(init=False)  # at the database

    def __post_init__(self) -> None:
        self.near, self._far = PipeEnd(self), PipeEnd(self)

    def connected(self, end: PipeEnd) -> None:
        if end is self.near and end.transport is not None:
            end.transport.pause_reading()
            self._counted = self._begins = self._quota.take_pipe(self.grant)
            if not self._counted:
                end.transport.abort()
            self._plane.start(self._run())

    async def _run(self) -> None:
        request, access = self._plane.new_request(), Access(self._resource, "connect")
        try:
            if not self._counted:
                raise LimitError("too many connections to databases are open", retry_after=1)
            index = await self._index()
            self._use = await self._plane.recorder.use(self.grant, access, request, index)
            self._plane.in_flight.add(self)
            await self._connect()
        except RemitError as error:
            self.cut(error)
            if self._use is None:
                await self._plane.recorder.deny(self.grant, access, error, request)
            else:
                self._outcome("failed", error.code)
        finally:
            self._begins = False
            self._uncount()

    async def _index(self) -> int:
        for index, detail in enumerate((await self._plane.routes.live(self.grant)).grant.scope):
            if detail.resource == self._resource and isinstance(self._plane.kinds[detail.type].access, PortAccess):
                return index
        raise ScopeError(f"the grant does not cover `{self._resource}`")

    async def _connect(self) -> None:
        near, far = self.near, self._far
        resource = await self._plane.broker.resource(self._resource)
        access = self._plane.kinds[resource.kind].access
        if not isinstance(access, PortAccess):
            raise NotFoundError
        host, port = access.address(resource)
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

    def lost(self, end: PipeEnd, *, broken: bool) -> None:
        self._uncount()
        other = self._far if end is self.near else self.near
        if other.transport is not None:
            other.transport.abort() if broken else other.transport.close()
        elif self._piped:
            self._piped = False
            self._outcome("done", None)

    def _uncount(self) -> None:
        """Give the descriptors back once neither side has one, nor is to get one."""
        if self._counted and not self._begins and self.near.transport is None and self._far.transport is None:
            self._counted = False
            self._quota.give_pipe(self.grant)

    def _outcome(self, decision: str, code: str | None) -> None:
        self._plane.in_flight.discard(self)
        use, self._use = self._use, None
        if use is not None:
            self._plane.recorder.outcome(use, decision, code)

    def cut(self, error: RemitError) -> None:
        """Cut both sides at once, and one that is not there yet as soon as it is."""
        self._cut = True
        _log.info("a connection to %s was cut: %s", self._resource, error.code)
        for end in (self.near, self._far):
            if end.transport is not None:
                end.transport.abort()
