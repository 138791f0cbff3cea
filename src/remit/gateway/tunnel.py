"""Connections to a run's proxy: a `CONNECT`, or a server name, makes one a connection for a host, in TLS.

That of a resource is served here; for a host that is not looked into it is passed on.
"""

from __future__ import annotations

import asyncio
import re
import ssl
from contextlib import suppress
from typing import cast

from remit.core.scope import Access
from remit.errors import InvalidRequestError
from remit.gateway import client_hello
from remit.gateway.connection import ClientConnection, ClientConnections
from remit.gateway.downstream import HEAD, GatewayListener
from remit.gateway.framing import MAX_HEAD
from remit.gateway.fronts.proxy import HTTPS, authority, unreached
from remit.gateway.http2 import Streams
from remit.gateway.intercept import Interception
from remit.gateway.tunnel_pipe import ESTABLISHED, TunnelPipe

_CONNECT = re.compile(rb"CONNECT ([\x21-\x7e]+) HTTP/1\.[01]")  # Python before 3.12 speaks HTTP/1.0 to proxies
_MORE = 3  # descriptors that TLS counts for, beside the connection's: it keeps a quarter of a megabyte for each


class ProxyConnection(ClientConnection):
    """One connection to a run's proxy; ``by_name``: it begins in TLS, whose server name says the host."""

    __slots__ = ("_by_name", "_counted", "_interception", "_securing", "_streams")

    def __init__(
        self, listener: GatewayListener, connections: ClientConnections, interception: Interception, *, by_name: bool
    ) -> None:
        super().__init__(listener, connections)
        self._interception: Interception | None = interception  # None: it is a connection for one host
        self._by_name, self._securing = by_name, False
        self._counted = False
        self._streams: Streams | None = None  # of HTTP/2

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._counted = self.listener.quota.take(_MORE)
        super().connection_made(transport)
        if not self._counted:
            self.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        if self._streams is not None:
            self._streams.lost()
        if self._counted:
            self._counted = False
            self.listener.quota.give(_MORE)

    def data_received(self, data: bytes) -> None:
        if self._securing:
            self._buffer += data
        elif self._by_name and self._interception is not None:
            self._buffer += data
            self._named(self._interception)
        elif self._streams is not None:
            self._streams.receive(data)
        else:
            super().data_received(data)

    @property
    def idle(self) -> bool:
        return super().idle and (self._streams is None or self._streams.idle)

    def pause_writing(self) -> None:
        if self._streams is None:
            super().pause_writing()
        else:
            self._streams.block(blocked=True)

    def resume_writing(self) -> None:
        if self._streams is None:
            super().resume_writing()
        else:
            self._streams.block(blocked=False)

    def _check_unfinished(self) -> None:
        if self._interception is None or not self._buffer.startswith(b"CONNECT ") or len(self._buffer) > MAX_HEAD:
            super()._check_unfinished()

    def _begin(self, head: bytes, rest: bytes) -> None:
        wanted = _CONNECT.fullmatch(head.partition(b"\r\n")[0])  # its fields mean nothing: none of it goes on
        if wanted is None or self._interception is None:
            super()._begin(head, rest)
            return
        host, port = authority(wanted[1])
        if rest:
            raise InvalidRequestError("something follows a `CONNECT` before its answer")
        self._buffer = b""
        passes = self._interception.passes(host)
        if port != HTTPS or (passes is None and host not in self._interception.hosts):
            self.refused(unreached(host), Access("", "CONNECT", f"{host}:{port}"))
        elif passes is not None:
            self._pass_on(passes, host)
        else:
            self.write(ESTABLISHED)
            self._secure(self._interception, host)

    def _named(self, interception: Interception) -> None:
        """Pass TLS on that names a host which is not looked into; whatever else it is, TLS itself answers it."""
        host: str | None = ""
        if interception.passed:
            with suppress(InvalidRequestError):
                host = client_hello.server_name(self._buffer)
        if host is None:  # more is to come
            return
        passes = interception.passes(host)
        if passes is None:
            self._secure(interception, None)
        else:
            self._pass_on(passes, host)

    def _pass_on(self, resource: str, host: str) -> None:
        """Have this connection be one to the host itself, which is permitted, counted and cut on its own."""
        transport, grant = self._transport, self.listener.front.bound_grant
        assert transport is not None  # noqa: S101 - it was read from
        assert grant is not None  # noqa: S101 - a proxy is a run's
        pipe = TunnelPipe(self.plane, grant, resource, self.listener.quota, host=host, asks=not self._by_name)
        self.connection_lost(None)
        pipe.near.data_received(self._buffer)
        transport.set_protocol(pipe.near)
        pipe.near.connection_made(transport)

    def _secure(self, interception: Interception, host: str | None) -> None:
        """Go on in TLS, for a host or for the one that its server name says."""
        assert self._transport is not None  # noqa: S101 - it was read from
        self._interception, self._securing = None, True
        self.deadline = self.plane.now + HEAD
        self._transport.pause_reading()
        self.plane.start(self._secured(self._transport, interception, host))
        self.plane.loop.call_soon(self.plane.loop.call_soon, self._feed, self._transport)  # once that has begun

    def _feed(self, plain: asyncio.Transport) -> None:
        """Give TLS what was read before it began."""
        tls = cast("asyncio.BufferedProtocol", plain.get_protocol())  # uvloop's is one in all but name
        while self._buffer and self._securing and not plain.is_closing():
            room = memoryview(tls.get_buffer(len(self._buffer)))
            size = min(len(room), len(self._buffer))
            room[:size] = self._buffer[:size]
            self._buffer = self._buffer[size:]
            tls.buffer_updated(size)

    async def _secured(self, plain: asyncio.Transport, interception: Interception, host: str | None) -> None:
        context = interception.by_name if host is None else interception.context(host)
        try:
            made = await self.plane.loop.start_tls(plain, self, context, server_side=True, ssl_handshake_timeout=HEAD)
        except OSError as error:  # also of ``ssl``
            plain.abort()
            self.connection_lost(error)
            return
        self._securing = False
        if made is None or made.is_closing() or self._transport is None:
            plain.abort()
            self.connection_lost(None)
            return
        self._transport = made
        session: ssl.SSLObject = made.get_extra_info("ssl_object")
        self._connections.move(self, interception.listener(host or interception.host_of(session)))
        if session.selected_alpn_protocol() == "h2":
            self._streams = Streams(self, made, self._connections)
            self._streams.receive(self._buffer)
        else:
            self._next()
