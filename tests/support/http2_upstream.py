"""An upstream that speaks HTTP/2 and nothing older, and says in it also what it should not."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import ssl
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self, cast

from h2 import events
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings

from tests.support.upstream import KEEP_BODY, Seen, Upstream, _written

_NO_APPLICATION_PROTOCOL = bytes([21, 3, 3, 0, 2, 2, 120])  # an alert, fatal (RFC 7301 §3.2)
_OF_CONNECTIONS = {"connection", "transfer-encoding"}


def frame(kind: int, flags: int, stream: int, data: bytes = b"") -> bytes:
    return len(data).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + data


@dataclass(eq=False)
class Spoken(asyncio.Protocol):
    """One connection. ``resets`` are the streams that the other side has cut, ``raw`` what it has sent."""

    upstream: Http2Upstream
    number: int
    resets: dict[int, int] = field(default_factory=dict)
    raw: bytearray = field(default_factory=bytearray)
    transport: asyncio.Transport | None = None
    lost: bool = False
    heads: dict[int, list[tuple[str, str]]] = field(default_factory=dict)
    bodies: dict[int, bytearray] = field(default_factory=dict)
    sizes: dict[int, int] = field(default_factory=dict)
    digests: dict[int, hashlib._Hash] = field(default_factory=dict)
    moved: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        config = H2Configuration(client_side=False, header_encoding="latin-1")
        config.validate_outbound_headers = config.normalize_outbound_headers = False
        self.http = H2Connection(config)
        most = {SettingCodes.MAX_CONCURRENT_STREAMS: self.upstream.streams}
        self.http.local_settings = Settings(client=False, initial_values=most)
        self.tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.upstream.spoken.append(self)
        session: ssl.SSLObject = transport.get_extra_info("ssl_object")
        if session.selected_alpn_protocol() != "h2":
            transport.close()
        elif self.upstream.greeting is not None:
            self.say(self.upstream.greeting)
        else:
            self.http.initiate_connection()
            self.flush()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it came about
        self.lost = True
        self.moved.set()
        for task in self.tasks:
            task.cancel()

    def say(self, data: bytes) -> None:
        """Send bytes as they are."""
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write(data)

    def flush(self) -> None:
        self.say(self.http.data_to_send())

    def data_received(self, data: bytes) -> None:
        self.raw += data
        if self.upstream.greeting is not None:
            return
        try:
            for event in self.http.receive_data(data):
                self._take(event)
        except ProtocolError as error:
            self.upstream.wrong.append(error)
        self.flush()
        self.moved.set()

    def _take(self, event: events.Event) -> None:
        if isinstance(event, events.RequestReceived):
            self.heads[event.stream_id] = [(str(name), str(value)) for name, value in event.headers]
            self.bodies[event.stream_id], self.sizes[event.stream_id] = bytearray(), 0
            self.digests[event.stream_id] = hashlib.sha256()
            if dict(self.heads[event.stream_id])[":path"] in self.upstream.early:
                self._answer(event.stream_id)
        elif isinstance(event, events.DataReceived):
            data, body = event.data, self.bodies[event.stream_id]
            self.sizes[event.stream_id] += len(data)
            self.digests[event.stream_id].update(data)
            body += data[: KEEP_BODY - len(body)]
            if self.upstream.reads:
                self.http.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, events.StreamEnded):
            if dict(self.heads[event.stream_id])[":path"] not in self.upstream.early:
                self._answer(event.stream_id)
        elif isinstance(event, events.StreamReset):
            self.resets[event.stream_id] = int(event.error_code)
        elif isinstance(event, events.ConnectionTerminated):
            self.upstream.gone = int(event.error_code or 0)

    def _answer(self, stream: int) -> None:
        headers = {name: value for name, value in self.heads[stream] if not name.startswith(":")}
        pseudo = {name: value for name, value in self.heads[stream] if name.startswith(":")}
        raw = "\r\n".join(f"{name}: {value}" for name, value in self.heads[stream]).encode("latin-1")
        size, digest, body = self.sizes[stream], self.digests[stream].hexdigest(), bytes(self.bodies[stream])
        seen = Seen(pseudo[":method"], pseudo[":path"], {**headers, **pseudo}, raw, size, digest, body, self.number)
        self.upstream.seen.append(seen)
        self.upstream.arrived.set()
        path = seen.target.partition("?")[0]
        act = self.upstream.acts.get(path, _forever if path == "/forever" else _usual)
        task = asyncio.get_running_loop().create_task(act(self, stream, seen))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def head(self, stream: int, *headers: tuple[str | bytes, str | bytes], ended: bool = False) -> None:
        self.http.send_headers(stream, list(headers), end_stream=ended)
        self.flush()

    async def data(self, stream: int, data: bytes, *, ended: bool = True) -> None:
        """Send a body as far as windows allow it, and wait for them."""
        while data or ended:
            if self.lost or stream in self.resets:
                return
            room = min(self.http.local_flow_control_window(stream), self.http.max_outbound_frame_size)
            if data and not room:
                self.moved.clear()
                await self.moved.wait()
                continue
            last = ended and len(data) <= room
            self.http.send_data(stream, data[:room], end_stream=last)
            self.flush()
            data = data[room:]
            if last:
                return


Act = Callable[[Spoken, int, Seen], Coroutine[None, None, None]]


async def _usual(spoken: Spoken, stream: int, seen: Seen) -> None:
    """Answer as the upstream of HTTP/1.1 does."""
    kind, _, rest = seen.target.partition("?")[0].strip("/").partition("/")
    if kind == "hold":
        await spoken.upstream.held.wait()
    secret = seen.headers.get("authorization", "").removeprefix("Bearer ")
    head, _, body = _written(seen, kind, rest, secret).partition(b"\r\n\r\n")
    line, *lines = head.decode("latin-1").split("\r\n")
    fields = [(name.lower(), value.strip()) for name, _, value in (text.partition(":") for text in lines)]
    named = [field for field in fields if field[0] not in _OF_CONNECTIONS]
    bodiless = seen.method == "HEAD" or not body
    spoken.head(stream, (":status", line.split(" ")[1]), *named, ended=bodiless)
    if not bodiless:
        await spoken.data(stream, body)


async def _forever(spoken: Spoken, stream: int, _: Seen) -> None:
    spoken.head(stream, (":status", "200"), ("content-type", "text/event-stream"))
    while not spoken.lost and stream not in spoken.resets:
        await spoken.data(stream, b"data: tick\n\n", ended=False)
        await asyncio.sleep(0.005)
    spoken.upstream.cut.set()


class Http2Upstream(Upstream):
    """Takes ``h2`` alone: another offer is refused by an alert, or silently if it is ``shy``.

    ``acts`` are answers by path; those of ``early`` come before the request's body. ``greeting`` is all that is said.
    """

    def __init__(
        self,
        tls: ssl.SSLContext,
        acts: Mapping[str, Act] | None = None,
        *,
        shy: bool = False,
        streams: int = 128,
        early: frozenset[str] = frozenset(),
        greeting: bytes | None = None,
    ) -> None:
        super().__init__(tls)
        tls.set_alpn_protocols(["h2"])
        self.context, self.acts, self.shy, self.streams = tls, dict(acts or {}), shy, streams
        self.early, self.greeting = early, greeting
        self.reads = True
        self.spoken: list[Spoken] = []
        self.offered: list[bytes] = []
        self.wrong: list[ProtocolError] = []
        self.gone: int | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None

    async def __aenter__(self) -> Self:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._listener.setblocking(False)
        self.port = self._listener.getsockname()[1]
        self._start(self._accept(self._listener))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for spoken in self.spoken:
            if spoken.transport is not None:
                spoken.transport.abort()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        # or a later collection closes what has its number then
        while not all(spoken.lost for spoken in self.spoken):  # noqa: ASYNC110 - in the turns that follow
            await asyncio.sleep(0)
        assert self._listener is not None
        self._listener.close()

    def _start(self, story: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(story)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            sock, _ = await loop.sock_accept(listener)
            self._start(self._secured(sock))

    async def _secured(self, sock: socket.socket) -> None:
        """Look at what is offered, without taking it."""
        loop, hello = asyncio.get_running_loop(), b""
        while len(hello) < 5 or len(hello) < 5 + int.from_bytes(hello[3:5]):
            readable = asyncio.Event()
            loop.add_reader(sock, readable.set)
            try:
                await readable.wait()
            finally:
                loop.remove_reader(sock)
            if not (hello := sock.recv(65_536, socket.MSG_PEEK)):
                sock.close()
                return
        offered = next((one for one in (b"\x02h2", b"\x08http/1.1") if one in hello), b"")
        self.offered.append(offered)
        if offered != b"\x02h2" and not self.shy:
            sock.recv(len(hello))
            sock.send(_NO_APPLICATION_PROTOCOL)
            sock.close()
            return
        self.connections += 1
        number = self.connections
        with suppress(OSError):
            await loop.connect_accepted_socket(lambda: Spoken(self, number), sock, ssl=self.context)
