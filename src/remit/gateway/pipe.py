"""Pipes: two connections whose bytes are passed on, under a grant, and cut when it ends; those of databases.

A database port of a run leads to the resource's configured address and nowhere else. The credential is not here: a
lease carries it, and the database checks it. What opens a connection is read in the language of its kind
(``PortSession``), and only logins of active leases of the grant, or of one below it, are let through; what would cancel
a session, only for a session of the same grant. After that bytes are passed on unread.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from remit.core.scope import Access, Detail
from remit.errors import DeniedError, LimitError, NotFoundError, RemitError, ScopeError, UpstreamError
from remit.gateway.cutting import shut
from remit.gateway.plane import DataPlane
from remit.gateway.quota import TaskQuota
from remit.ports.broker import Use
from remit.ports.kind import PortAccess, PortSession, TlsStart

OPENING = 10.0  # seconds until a client has said who it is
CONNECT = 10.0  # seconds
_log = logging.getLogger("remit.gateway")


@dataclass(slots=True, eq=False, repr=False)
class PipeEnd(asyncio.Protocol):
    """One side of a pipe. What it reads, the other side writes, no faster than that takes it."""

    _pipe: Pipe
    _early: bytes = b""
    _came: asyncio.Event = field(default_factory=asyncio.Event)
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
            self._came.set()
            if self.transport is not None:
                self.transport.pause_reading()
        elif self.other.transport is not None:
            self.other.transport.write(self._pipe.passed(self, data))

    async def early(self) -> bytes:
        """Return what has come, once something has, before there is another side; nothing when nothing will."""
        if not self._early and self.open and self.transport is not None:
            self._came.clear()
            self.transport.resume_reading()
            await self._came.wait()
        data, self._early = self._early, b""
        return data

    @property
    def open(self) -> bool:
        """Whether more may come."""
        return self.transport is not None and not self.ended and not self.transport.is_closing()

    def tell(self, data: bytes) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def join(self, other: PipeEnd) -> None:
        self.other = other
        if self._early and other.transport is not None:
            other.transport.write(self._pipe.passed(self, self._early))
        self._early = b""

    def eof_received(self) -> bool:
        """Pass on that this side says no more; when neither does, or cannot say so, both are done."""
        self.ended = True
        self._came.set()
        other = self.other
        if other is None or other.transport is None or self.transport is None:
            return False
        if not (self.transport.can_write_eof() and other.transport.can_write_eof()):  # TLS
            other.transport.close()
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
        self._came.set()
        self._pipe.lost(self, broken=exc is not None)


@dataclass(slots=True, eq=False, repr=False)
class Pipe(ABC):
    """One connection of a run to a resource, passed on."""

    _plane: DataPlane
    grant: str
    _resource: str
    _quota: TaskQuota
    _use: Use | None = None
    _begins: bool = False
    _counted: bool = False  # among its grant's pipes
    _piped: bool = False
    _cut: RemitError | None = None
    near: PipeEnd = field(init=False)  # inside the run
    _far: PipeEnd = field(init=False)  # at the resource
    _request: str = field(init=False)

    def __post_init__(self) -> None:
        self.near, self._far = PipeEnd(self), PipeEnd(self)
        self._request = self._plane.new_request()

    def connected(self, end: PipeEnd) -> None:
        if end is self.near and end.transport is not None:
            end.transport.pause_reading()
            self._counted = self._begins = self._quota.take_pipe(self.grant)
            if not self._counted:
                self._refuse(_full())
            self._plane.start(self._run())

    async def _run(self) -> None:
        self._plane.in_flight.add(self)
        try:
            if not self._counted:
                raise _full()
            await self._open()
        except RemitError as error:
            if self._use is None:
                self._refuse(await self._plane.recorder.deny(self.grant, self._access, error, self._request))
            else:
                self._refuse(error)
                self._outcome("failed", (self._cut or error).code)
        finally:
            self._begins = False
            if not self._piped:
                self._plane.in_flight.discard(self)
            self._uncount()

    @property
    def _access(self) -> Access:
        """What is asked for."""
        return Access(self._resource, "connect")

    @abstractmethod
    async def _open(self) -> None: ...  # have the use permitted, connect, and join both sides

    @abstractmethod
    def _refuse(self, error: RemitError) -> None: ...  # tell the client why, and end both sides

    @abstractmethod
    def passed(self, end: PipeEnd, data: bytes) -> bytes: ...  # what the other side is to get of what one has read

    def _told(self) -> str | None:
        """Return what is on record of how it went, beside the end."""
        return None

    async def _index(self, covers: Callable[[Detail], bool]) -> int:
        """Return which detail of the grant covers the use."""
        for index, detail in enumerate((await self._plane.routes.live(self.grant)).grant.scope):
            if detail.resource == self._resource and covers(detail):
                return index
        raise ScopeError(f"the grant does not cover `{self._resource}`")

    def _join(self, first: bytes) -> None:
        """Pass on from now on, if both sides are there and the grant is; ``first`` is what the far one gets first."""
        self._plane.check_live(self.grant)
        near, far = self.near, self._far
        if near.transport is None or far.transport is None or self._cut:  # it left, or was cut, meanwhile
            self.cut(self._cut or UpstreamError())
            self._outcome("failed", None)
            return
        far.transport.write(first)
        self._piped = True
        far.join(near)
        near.join(far)
        near.transport.resume_reading()

    def lost(self, end: PipeEnd, *, broken: bool) -> None:
        self._uncount()
        other = self._far if end is self.near else self.near
        if other.transport is not None:
            other.transport.abort() if broken else other.transport.close()
        elif self._piped:
            self._piped = False
            self._outcome("done", None) if self._cut is None else self._outcome("failed", self._cut.code)

    def _uncount(self) -> None:
        """Give the descriptors back once neither side has one, nor is to get one."""
        if self._counted and not self._begins and self.near.transport is None and self._far.transport is None:
            self._counted = False
            self._quota.give_pipe(self.grant)

    def _outcome(self, decision: str, code: str | None) -> None:
        self._plane.in_flight.discard(self)
        use, self._use = self._use, None
        if use is not None:
            self._plane.recorder.outcome(use, decision, code, self._told())

    def shut(self) -> None:
        """Shut both sides, in another thread: the loop is late."""
        shut(self.near.transport)
        shut(self._far.transport)

    def cut(self, error: RemitError) -> None:
        """Cut both sides at once, and one that is not there yet as soon as it is."""
        self._cut = self._cut or error
        _log.info("a connection to %s was cut: %s", self._resource, error.code)
        for end in (self.near, self._far):
            if end.transport is not None:
                end.transport.abort()


def _full() -> LimitError:
    return LimitError("too many connections of the grant are piped", retry_after=1)


@dataclass(slots=True, eq=False, repr=False)
class DatabasePipe(Pipe):
    """One connection through a database port."""

    _session: PortSession | None = None

    async def _open(self) -> None:
        index = await self._index(lambda detail: isinstance(self._plane.kinds[detail.type].access, PortAccess))
        resource = await self._plane.broker.resource(self._resource)
        access = self._plane.kinds[resource.kind].access
        if not isinstance(access, PortAccess):
            raise NotFoundError
        self._session = session = access.session(resource)
        if await self._opened(session):
            await self._check(session)
            self._use = await self._plane.recorder.use(self.grant, self._access, self._request, index)
            await self._connect(session, *access.address(resource))

    async def _opened(self, session: PortSession) -> bool:
        """Read how the client opens; False when it has left, or has taken too long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(OPENING):
                while self.near.open:
                    self.near.tell(session.heard(await self.near.early()))
                    if session.login is not None or session.cancels is not None:
                        return True
        if self.near.transport is not None:
            self.near.transport.abort()
        return False

    async def _check(self, session: PortSession) -> None:
        if session.login is not None:
            await self._plane.broker.admit(self.grant, self._resource, session.login)
            return
        pipes = [moving for moving in self._plane.in_flight if isinstance(moving, DatabasePipe)]
        if not any(pipe.serves(self.grant, self._resource, session.cancels) for pipe in pipes):
            raise DeniedError("what was to be cancelled is no session of this run")

    def serves(self, grant: str, resource: str, key: bytes | None) -> bool:
        """Whether this is a session of a grant on a resource that is known there by ``key``."""
        mine = self._session is not None and self._session.key is not None and self._session.key == key
        return mine and (grant, resource) == (self.grant, self._resource)

    async def _connect(self, session: PortSession, host: str, port: int) -> None:
        try:
            async with asyncio.timeout(CONNECT):
                await asyncio.get_running_loop().create_connection(lambda: self._far, host, port)
                if session.tls is not None:
                    await self._encrypt(session.tls)
        except (OSError, TimeoutError) as error:
            raise UpstreamError("the database could not be reached") from error
        self._join(session.first)

    async def _encrypt(self, tls: TlsStart) -> None:
        """Go on in TLS at the database's side, its certificate verified."""
        far = self._far
        plain, loop = far.transport, asyncio.get_running_loop()
        assert plain is not None  # noqa: S101 - it was connected just now
        plain.write(tls.ask)
        if await far.early() != tls.granted:  # more than that could only be somebody else's
            raise UpstreamError("the database does not speak TLS")
        far.transport = None
        try:
            made = await loop.start_tls(plain, far, self._plane.pools.offers.nothing, server_hostname=tls.name)
        except BaseException:
            plain.abort()
            raise
        if made is None or made.is_closing():
            raise UpstreamError("the database could not be reached")
        far.transport = made

    def passed(self, end: PipeEnd, data: bytes) -> bytes:
        return data if end is self.near or self._session is None else self._session.answered(data)

    def _refuse(self, error: RemitError) -> None:
        if self._session is None or self._cut or self.near.transport is None:
            self.cut(error)
            return
        self.near.tell(self._session.refusal(error))
        self.near.transport.close()
        if self._far.transport is not None:
            self._far.transport.abort()
