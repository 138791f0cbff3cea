"""Serving the Workload API, and SDS, on the listeners of runs, with bounds on what a run can make the broker hold."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from remit.core.principal import Holder
from remit.errors import UnavailableError
from remit.kinds.spiffe.svids import Known, Pulse, Svids
from remit.ports import Closing, Quota, Start
from remit.ports.broker import Notice
from remit.ports.kind import SocketContext

if TYPE_CHECKING:
    from grpclib.protocol import H2Protocol

MAX_CONNECTIONS = 16  # of one run
MAX_CALLS = 32  # at a time on one connection
MAX_REQUEST = 65_536  # bytes of one call
WINDOW = 65_535  # bytes, HTTP/2's smallest
MAX_FRAME = 16_384  # bytes: what every HTTP/2 peer has to expect, and we offer no more (RFC 9113 §4.2)

_PREFACE, _LENGTH, _HEADER = 24, 3, 9  # bytes, RFC 9113 §3.4 and §4.1


class WorkloadApi:
    """The Workload API of one broker: a listener for each run."""

    def __init__(self, lent: SocketContext) -> None:
        """Serve SVIDs, and the bundles of all trust domains that are known; UnavailableError without the extra."""
        if not all(map(find_spec, ("grpclib", "spiffe"))):
            raise UnavailableError(
                "the Workload API is not installed", help="in a clone of remit: pip install '.[spiffe]'"
            )
        self._broker, self._known, self._clock = lent.broker, Known(lent.trust), lent.clock
        self._pulse = Pulse()

    def noticed(self, notice: Notice) -> None:
        """Have every stream look again at what it may send, where a grant has ended or a key has changed."""
        if notice.grants or notice.trust is not None:
            self._pulse.beat()

    async def serve(
        self, sock: socket.socket, holder: Holder, start: Start | None = None, share: Quota | None = None
    ) -> Callable[[], None]:
        """Serve ``holder`` on a listening unix socket; return what ends that."""
        # `spiffe` brings grpc and pydantic, 15 MB that brokers without runs need not have
        await asyncio.to_thread(import_module, "remit.kinds.spiffe.secrets")
        from grpclib.config import Configuration
        from grpclib.server import Server

        from remit.kinds.spiffe.calls import WorkloadService
        from remit.kinds.spiffe.secrets import SecretService

        svids = Svids(self._broker, holder, self._known, self._clock)
        service = WorkloadService(self._broker, svids, self._known, self._pulse, self._clock)
        logging.getLogger("grpclib.server").setLevel(logging.CRITICAL)  # a traceback for whatever a run sends
        config = Configuration(http2_connection_window_size=WINDOW, http2_stream_window_size=WINDOW)
        secrets = SecretService(svids, self._known, self._pulse, self._clock)
        calls, connections = Server([service, secrets], config=config), set[Bounded]()

        def accepted() -> Bounded:
            return Bounded(calls._protocol_factory(), connections, share)  # noqa: SLF001 - we accept in its place

        if start is not None:
            server: Closing = await start(accepted, sock)
        else:
            server = await asyncio.get_running_loop().create_unix_server(accepted, sock=sock)

        def close() -> None:
            server.close()
            for connection in tuple(connections):
                connection.cut()

        return close


class Frames:
    """The lengths of the frames of one connection: ``h2`` looks at one only when it has kept the whole frame."""

    def __init__(self) -> None:
        self._rest, self._header = _PREFACE, b""

    def fit(self, data: bytes) -> bool:
        """Whether no frame is longer than MAX_FRAME, so far."""
        at = 0
        while at < len(data):
            if self._rest:
                passed = min(self._rest, len(data) - at)
                self._rest -= passed
            else:
                passed = min(_HEADER - len(self._header), len(data) - at)
                self._header += data[at : at + passed]
                if len(self._header) == _HEADER:
                    self._rest, self._header = int.from_bytes(self._header[:_LENGTH], "big"), b""
            at += passed
            if self._rest > MAX_FRAME:
                return False
        return True


class Bounded(asyncio.Protocol):
    """A connection that holds no more than a few small calls: they are read whole before they are looked at."""

    def __init__(self, inner: H2Protocol, others: set[Bounded], share: Quota | None = None) -> None:
        self._inner, self._others, self._frames, self._share = inner, others, Frames(), share
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a stream socket, it is one of a stream
        if len(self._others) >= MAX_CONNECTIONS or (self._share is not None and not self._share.take()):
            self.cut()
            return
        from h2.events import UnknownFrameReceived

        self._others.add(self)
        self._inner.connection_made(transport)
        self._inner.processor.processors[UnknownFrameReceived] = lambda _: None  # RFC 9113 §5.5: to be ignored

    def data_received(self, data: bytes) -> None:
        if self not in self._others:
            return
        if not self._frames.fit(data):
            self.cut()
            return
        try:
            self._inner.data_received(data)
        except Exception:  # noqa: BLE001 - whatever a run sends, it is its own connection that ends
            self.cut()
            return
        calls = self._inner.processor.streams
        if len(calls) > MAX_CALLS or any(call.data_received > MAX_REQUEST for call in calls.values()):
            self.cut()

    def pause_writing(self) -> None:
        """Wait with what is to be written, and take nothing until then: a PING asks for an answer as well."""
        self._inner.pause_writing()
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        self._inner.resume_writing()
        if self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self in self._others:
            self._others.discard(self)
            if self._share is not None:
                self._share.give()
            self._inner.connection_lost(exc)

    def cut(self) -> None:
        """End the connection at once."""
        if self._transport is not None:
            self._transport.abort()
