"""Serving one application on many listeners inside a running loop; each listener brings its own authentication.

uvicorn's httptools protocol does HTTP/1.1; what it leaves open is closed here: the size of a head, the time a request
may take to arrive, whose process is at the other end of a unix socket, and who has to leave when too many have come.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from remit.ports import Closing, Quota, Start
from remit.process.descent import peer
from remit.web.authentication import ListenerAuth
from remit.web.tls import Handshakes, presented

MAX_HEAD = 98_304  # bytes: a token, a proof, and what else a client sends
MAX_HEADERS = 128  # fields of a head
MAX_PIPELINED = 4  # requests that wait behind the one which is being answered
MAX_CONNECTIONS = 128  # of one listener
MAX_TASKS = 1_024  # requests under way, with those whose clients have gone
HEAD = 5.0  # seconds for a head to arrive
BODY = 10.0  # seconds for the rest of a request to arrive
IDLE = 75  # seconds between two requests
BACKLOG = 128
# Whoever has bound a unix socket takes its name away, or keeps it for the next broker: not the loop, as since 3.13.
_KEPT: Mapping[str, Any] = {"cleanup_socket": False} if sys.version_info >= (3, 13) else {}

Admits = Callable[[int, int], bool]  # the pid and uid of a process


@dataclass(slots=True)
class Listener:
    """One listening socket being served."""

    server: Closing
    state: ServerState = field(repr=False)

    @property
    def asked(self) -> bool:
        """Whether somebody is connected who has not been answered."""
        cycles = [getattr(connection, "cycle", None) for connection in self.state.connections]
        return any(cycle is None or not cycle.response_complete for cycle in cycles)

    def close(self) -> None:
        """Stop accepting, and cut the connections there are."""
        self.server.close()
        for connection in list(self.state.connections):
            connection.transport.abort()

    def cut_certified(self) -> None:
        """Cut the connections whose clients presented a certificate: in a new handshake it is looked at again."""
        for connection in list(self.state.connections):
            if getattr(connection, "app_state", {}).get("certificates"):
                connection.transport.abort()


async def serve(
    app: ASGIApp,
    sock: socket.socket,
    listener: ListenerAuth,
    *,
    admits: Admits | None = None,
    start: Start | None = None,
    tls: ssl.SSLContext | None = None,
    share: Quota | None = None,
) -> Listener:
    """Serve ``app`` on a listening socket, where whoever connects is who ``listener`` says, counted in ``share``.

    ``admits`` says whether a peer on a unix socket (SO_PEERCRED) is let in; None: all who can reach it are. ``start``
    accepts in the place of the loop, which may do so only on a socket that nobody else holds. With ``tls`` the client's
    certificates are in the state of each request (``certificates_of``).

    Keep what is returned: uvloop closes a unix listener that nobody refers to.
    """
    config = Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        log_level=logging.ERROR,  # it warns of whatever anybody sends
        access_log=False,
        proxy_headers=False,
        server_header=False,
        date_header=False,
        timeout_keep_alive=IDLE,
        limit_concurrency=MAX_TASKS,
    )
    config.load()
    state, loop = ServerState(), asyncio.get_running_loop()
    waiting: dict[Connection, None] = {}
    connected = partial(Connection, config, state, {"listener": listener}, admits, waiting, share)
    if start is not None:
        return Listener(await start(connected, sock), state)
    if sock.family == socket.AF_UNIX:
        return Listener(await loop.create_unix_server(connected, sock=sock, backlog=BACKLOG, **_KEPT), state)
    if tls is not None:
        return Listener(Handshakes(sock, connected, tls), state)
    return Listener(await loop.create_server(connected, sock=sock, backlog=BACKLOG), state)


class Connection(HttpToolsProtocol):
    """A connection of bounded patience, which makes room for others while no whole request of its own is under way."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        about: dict[str, object],
        admits: Admits | None,
        waiting: dict[Connection, None],
        share: Quota | None,
    ) -> None:
        # ``waiting``: the listener's connections that wait for their client, the longest first
        super().__init__(config, state, about)
        self.access_log = False
        self._admits, self._share = admits, share
        self._counted = False  # in its share
        self._waiting = waiting
        self._whole = False  # whether the last request has wholly arrived
        self._head = 0  # bytes fed since the last whole head
        self._in_head = True
        self._deadline: asyncio.TimerHandle | None = None
        self._gone: Callable[[], object] = bool  # what to tell of the connection's end

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        self.transport = transport
        sock = transport.get_extra_info("socket")
        if self._admits is not None and not self._admits(*peer(sock)):
            transport.abort()
            return
        room = len(self.connections) < MAX_CONNECTIONS or self._make_room()  # descriptors are for all listeners
        self._counted = room and (self._share is None or self._share.take())
        if not self._counted:
            transport.abort()
            return
        if sock.family != socket.AF_UNIX:  # send head and body at once: asyncio sets it not where no protocol is named
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        certificates = presented(transport.get_extra_info("ssl_object"))
        self.app_state = {**self.app_state, "certificates": certificates, "idles": self._idles}
        super().connection_made(transport)
        self._waiting[self] = None
        self._expect(HEAD)

    def _make_room(self) -> bool:
        """Cut the connection that waits longest for its client: it is nobody's who is being answered."""
        longest = next(iter(self._waiting), None)
        if longest is None:
            return False
        del self._waiting[longest]
        self.connections.discard(longest)
        longest.transport.abort()
        return True

    def data_received(self, data: bytes) -> None:
        if self._in_head and self._head > MAX_HEAD:
            self.send_400_response("Request header too large.")
            return
        self._head += len(data) if self._in_head else 0
        super().data_received(data)

    def on_message_begin(self) -> None:
        if len(self.pipeline) >= MAX_PIPELINED:
            self.transport.abort()
            raise ValueError  # a bad request
        super().on_message_begin()
        self._in_head, self._whole = True, False
        self._expect(HEAD)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) >= MAX_HEADERS:
            raise ValueError  # a bad request
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._head = False, 0
        self._relax()
        self._expect(BODY)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self._in_head = self._whole = True  # the rest is the application's time
        self._relax()
        self._answer()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.transport.is_closing():
            self._waiting[self] = None  # that the client asked ahead keeps no place for it

    def pause_writing(self) -> None:
        super().pause_writing()
        self._waiting.setdefault(self)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._whole:
            self._answer()

    def _idles(self, gone: Callable[[], object]) -> None:
        """Make room for others while an answer waits for something that is not ours to do (``idles``)."""
        self._gone = gone
        if not self.transport.is_closing():
            self._waiting.setdefault(self)

    def _answer(self) -> None:
        """Wait for the client no longer, if an answer is under way that it reads."""
        if not (self.cycle.response_complete or self.pipeline or self.flow.write_paused):
            self._waiting.pop(self, None)

    def connection_lost(self, exc: Exception | None) -> None:
        self._relax()
        self._waiting.pop(self, None)
        if self._counted and self._share is not None:
            self._share.give()
        self._gone()
        super().connection_lost(exc)

    def _expect(self, seconds: float) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(seconds, self.transport.abort)

    def _relax(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
