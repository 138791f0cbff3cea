"""Connections of a run to a host that the gateway does not look into: TLS of the client's own, passed on unread.

No credential is put in, and none is kept out of what comes back. The name is resolved once, what it leads to is looked
at and connected to, and the ClientHello has to be for the same host. Bytes are counted.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field

from remit.core.orders import HOSTS
from remit.core.scope import Access, Detail
from remit.errors import DeniedError, InvalidRequestError, NotFoundError, RemitError, UpstreamError
from remit.gateway import client_hello
from remit.gateway.dialling import Dialled, dial
from remit.gateway.downstream import response
from remit.gateway.pipe import OPENING, Pipe, PipeEnd
from remit.ports.kind import TunnelAccess

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_ACCESS_DENIED, _INTERNAL_ERROR = 49, 80  # RFC 8446 §6.2


@dataclass(slots=True, eq=False, repr=False)
class TunnelPipe(Pipe):
    """One connection to a host, asked for by a ``CONNECT``, or by the server name of TLS that has begun."""

    host: str = field(kw_only=True)
    asks: bool = field(kw_only=True)  # in HTTP, which is to be answered before TLS begins
    _sent: int = 0  # bytes
    _received: int = 0

    @property
    def _access(self) -> Access:
        return Access(self._resource, f"connect {self.host}")

    async def _open(self) -> None:
        index = await self._index(self._covers)
        resource = await self._plane.broker.resource(self._resource)
        access = self._plane.kinds[resource.kind].access
        if not isinstance(access, TunnelAccess):
            raise NotFoundError
        self._use = await self._plane.recorder.use(self.grant, self._access, self._request, index)
        place = Dialled(self._resource, *access.place(resource, self.host))
        await dial(self._plane.pools.lookup, place, lambda: self._far)
        if self.asks and not self._cut:
            self.near.tell(ESTABLISHED)
            self.asks = False
        hello = await self._hello()
        self._sent += len(hello)
        self._join(hello)

    def _covers(self, detail: Detail) -> bool:
        access = self._plane.kinds[detail.type].access
        return isinstance(access, TunnelAccess) and HOSTS.le((self.host,), detail.get(access.field))

    async def _hello(self) -> bytes:
        """Return what the client has sent once that is a ClientHello for the host."""
        data, name = b"", None
        with suppress(TimeoutError):
            async with asyncio.timeout(OPENING):
                while name is None and self.near.open:
                    data += await self.near.early()
                    name = client_hello.server_name(data)
        if name is None:
            raise InvalidRequestError("the client did not begin TLS")
        if name != self.host:
            raise DeniedError("the server name of TLS is another host than was asked for")
        return data

    def passed(self, end: PipeEnd, data: bytes) -> bytes:
        if end is self.near:
            self._sent += len(data)
        else:
            self._received += len(data)
        return data

    def _told(self) -> str:
        return f"{self._sent} bytes out, {self._received} in"

    def _refuse(self, error: RemitError) -> None:
        near = self.near.transport
        if self._cut or near is None:
            self.cut(error)
            return
        if self.asks:
            self.near.tell(response(error, self._request, self._plane.problems, head=False, keep=False))
        else:
            alert = _INTERNAL_ERROR if isinstance(error, UpstreamError) else _ACCESS_DENIED
            self.near.tell(bytes([21, 3, 3, 0, 2, 2, alert]))  # fatal
        near.close()
        if self._far.transport is not None:
            self._far.transport.abort()
