"""A client's connection: requests are read one by one, in order, each judged on its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from remit.core.scope import Access
from remit.errors import (
    InvalidRequestError,
    MethodError,
    MisdirectedError,
    NotFoundError,
    PlaceholderError,
    RemitError,
    TooLargeError,
    UpstreamError,
)
from remit.gateway import canon, framing, presented, problem
from remit.gateway.exchange import Exchange
from remit.gateway.framing import Fields
from remit.gateway.inject import Placeholders, Shape
from remit.gateway.memory import Memory
from remit.gateway.scrub import UPLOAD, LeakError, Meter, Scrubber

if TYPE_CHECKING:
    from remit.gateway.room import Share
    from remit.gateway.server import Gateway

Verifier = Callable[[Mapping[str, str], str, str], Awaitable[str]]  # headers, method, url -> grant id

HEAD = 30.0  # seconds for a head to arrive
IDLE = 75.0  # seconds between requests
STALL = 600.0  # seconds without a byte in either direction
LINGER = 2.0  # seconds that a client is listened to after its last answer
HOLD = 65_536  # bytes of later requests kept while one is under way
_REFUSED_METHODS = frozenset({"TRACE", "CONNECT", "TRACK"})


@dataclass(frozen=True, slots=True)
class Channel:
    """A run's identity: the grant its listener is bound to, and the placeholder of each resource in it."""

    grant: str
    placeholders: Mapping[str, str]


class Known:
    """A header section that was read and checked; the same bytes are not read again."""

    __slots__ = ("block", "expects", "fields", "named")

    def __init__(self, block: bytes, hosts: frozenset[bytes]) -> None:
        """Read a header section strictly, for a listener that is ``hosts``."""
        self.block = block
        self.fields: Fields = framing.request_fields(block)
        _check_host(self.fields.get(b"host") or b"", hosts)
        named = self.fields.get(b"remit-grant")
        self.named = named.decode() if named is not None else None
        self.expects = self.fields.get(b"expect") is not None


def _check_host(host: bytes, hosts: frozenset[bytes]) -> None:
    if host not in hosts:
        if not host.replace(b".", b"").replace(b":", b"").replace(b"-", b"").strip(b"[]").isalnum():
            raise InvalidRequestError("`Host` is not the name of a host")
        raise MisdirectedError


class Listener:
    """One listening socket and whose it is. ``principal`` is its channel's grant, or None where callers prove one."""

    __slots__ = (
        "_channel",
        "_known",
        "_placeholders",
        "_verify",
        "clients",
        "gateway",
        "hosts",
        "principal",
        "room",
    )

    def __init__(
        self, gateway: Gateway, channel: Channel | None, verify: Verifier | None, hosts: frozenset[bytes], room: Share
    ) -> None:
        """Bind a listener to its identity for good; ``room`` has the descriptors."""
        self.gateway = gateway
        self.hosts = hosts
        self.principal = channel.grant if channel is not None else None
        self._channel = channel
        self._verify = verify
        self._placeholders = Placeholders(channel.placeholders if channel is not None else {})
        self._known: Memory[bytes, Known] = Memory()
        self.room = room
        self.clients: dict[Client, None] = {}  # the longest there first

    def read(self, block: bytes) -> Known:
        """Return a header section, read strictly; the same bytes are read once."""
        known = self._known.get(block)
        if known is None:
            known = Known(block, self.hosts)
            self._known.keep(block, len(block), known)
        return known

    async def grant(self, exchange: Exchange) -> str:
        """Return the grant a request is made under: its channel's, the one it proves, or one inside either by name."""
        if self.principal is not None:
            return self._acting(exchange, self.principal)
        if self._verify is None:
            raise NotFoundError
        headers = {name.decode(): value.decode("latin-1") for name, value in exchange.fields.items}
        path = exchange.raw.partition(b"?")[0].decode("ascii")
        url = f"http://{headers['host']}{path}"  # the host was found to be this listener's
        exchange.grant = await self._verify(headers, exchange.method, url)  # who it was, whatever becomes of it
        return self._acting(exchange, exchange.grant)

    def _acting(self, exchange: Exchange, own: str) -> str:
        named = exchange.named()
        if named is None or named == own:
            return own
        self.gateway.broker.check(own)
        self.gateway.broker.task_of(own).check_acting(named, own)
        return named

    def turn(self, grant: str) -> asyncio.Lock:
        """Return what the requests of a grant's task take turns by, where one at a time is enough."""
        return self.gateway.judging.setdefault(self.gateway.broker.task_of(grant).id, asyncio.Lock())

    def check_placeholders(self, known: Known, target: bytes, shape: Shape) -> None:
        """Raise PlaceholderError if a placeholder, or the caller's own token, stands where it does not belong."""
        shown = self._shown(known)
        if shown is not None:
            presented.check_head(shown, known.block, target)
        if self._channel is not None and self._channel.placeholders:
            self._placeholders.check_fields(known.block, known.fields, shape)
            self._placeholders.check(target)

    def _shown(self, known: Known) -> bytes | None:
        return presented.token(known.fields, proven=self.principal is None)

    def check_body(self, known: Known, body: bytes) -> None:
        """Raise PlaceholderError if a placeholder, or the caller's own token, stands in a body."""
        scrubber = self.body_scrubber(known)
        try:
            if scrubber is not None:
                scrubber.feed(body)
        except LeakError:
            raise PlaceholderError from None

    def body_scrubber(self, known: Known) -> Scrubber | None:
        """Return what looks for placeholders, and for the caller's own token, in a body that streams."""
        shown = self._shown(known)
        if shown is None and not (self._channel and self._channel.placeholders):
            return None
        patterns = self._placeholders.patterns
        if shown is not None:
            patterns = patterns.beside(presented.spellings(shown))
        return Scrubber(patterns, meter=Meter(UPLOAD))


class Client(asyncio.Protocol):
    """One connection from a client."""

    __slots__ = ("_buffer", "_exchange", "_held", "_lingers", "_transport", "deadline", "gateway", "listener")

    def __init__(self, listener: Listener) -> None:
        """Belong to ``listener``."""
        self.listener = listener
        self.gateway = listener.gateway
        self.deadline = self.gateway.now + HEAD
        self._buffer = b""
        self._exchange: Exchange | None = None
        self._held = False
        self._lingers = False
        self._transport: asyncio.Transport | None = None

    # -- asyncio.Protocol ---------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        self._transport = transport  # type: ignore[assignment]  # create_server makes Transports
        if not self.gateway.joined(self):
            self.abort()

    def data_received(self, data: bytes) -> None:
        """Read requests."""
        exchange = self._exchange
        if self._lingers:
            return
        if exchange is None:
            self._buffer = self._buffer + data if self._buffer else data
            self._next()
            return
        self.deadline = self.gateway.now + STALL
        if exchange.reading:
            data = self._body(exchange, data)
        if data:
            self._buffer += data
            if len(self._buffer) > HOLD:
                self.hold()

    def eof_received(self) -> bool:
        """Close when the client does."""
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - however it came about
        """Cut what is under way."""
        self._transport = None
        self.gateway.left(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.cut(UpstreamError("the client went away"))

    def pause_writing(self) -> None:
        """Hold the upstream."""
        if self._exchange is not None:
            self._exchange.client_writable(writable=False)

    def resume_writing(self) -> None:
        """Let the upstream go on."""
        if self._exchange is not None:
            self._exchange.client_writable(writable=True)

    @property
    def idle(self) -> bool:
        """Whether no request is under way."""
        return self._exchange is None

    # -- requests -----------------------------------------------------------------------------------------------

    def _next(self) -> None:
        """Begin the next request if its head is all there."""
        self.deadline = self.gateway.now + (HEAD if self._buffer else IDLE)
        if not self._buffer or self._transport is None or self._transport.is_closing():
            return
        end = self._buffer.find(framing.END)
        try:
            if end < 0 or end > framing.MAX_HEAD:
                self._check_unfinished()
                return
            self._begin(self._buffer[:end], self._buffer[end + 4 :])
        except RemitError as error:
            self._buffer = b""
            self._malformed(error)

    def _malformed(self, error: RemitError) -> None:
        """Refuse what is no request, and go on with nothing that follows it."""
        request = self.gateway.new_request()
        self.refuse(error, request, head=False, keep=False)
        self._linger()
        if self.listener.principal is not None:
            access = Access("http", "", "")
            self.gateway.start(self.gateway.record.deny(self.listener.principal, access, error, request))

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
        line, _, block = head.partition(b"\r\n")
        method, target = framing.request_line(line)
        if method in _REFUSED_METHODS:
            raise MethodError
        known = self.listener.read(block)
        self._buffer = b""
        self.deadline = self.gateway.now + STALL
        self._exchange = exchange = Exchange(self, method, target, known)
        if exchange.reading:
            self._buffer = self._body(exchange, rest) if rest else b""
        else:
            self._buffer = rest
        if self._exchange is exchange:
            self.gateway.run(exchange)

    def _body(self, exchange: Exchange, data: bytes) -> bytes:
        try:
            return exchange.receive(data)
        except RemitError as error:
            exchange.cut(error)
            self._linger()
            return b""

    # -- for the exchange ---------------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send response bytes."""
        if self._transport is not None:
            self.deadline = self.gateway.now + STALL
            self._transport.write(data)

    def refuse(self, error: RemitError, request: str, *, head: bool, keep: bool) -> None:
        """Send a refusal."""
        nonce = (
            self.gateway.nonce() if self.gateway.nonce is not None and error.status == HTTPStatus.UNAUTHORIZED else None
        )
        self.write(problem.response(error, request, self.gateway.problems, head=head, keep=keep, nonce=nonce))

    def hold(self) -> None:
        """Read no more for now."""
        if self._transport is not None and not self._held:
            self._held = True
            self._transport.pause_reading()

    def read_on(self, exchange: Exchange) -> None:
        """Read what is there of a body, in its turn."""
        if self._exchange is exchange and exchange.busy:
            self._buffer = self._body(exchange, b"")

    def release(self) -> None:
        """Read on, once what is there of a body has been read."""
        if self._exchange is not None and self._exchange.busy:
            return
        if self._held and self._transport is not None:
            self._held = False
            if not self._transport.is_closing():
                self._transport.resume_reading()

    def finished(self, exchange: Exchange, *, keep: bool) -> None:
        """Go on to the next request, or close."""
        if self._exchange is not exchange:
            return
        self._exchange = None
        if not keep:
            self._linger() if exchange.reading else self.close()
            return
        self.release()
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
        self.deadline = self.gateway.now + LINGER

    def close(self) -> None:
        """Close once what was written has gone."""
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Cut at once."""
        if self._transport is not None:
            self._transport.abort()

    def expire(self) -> None:
        """End what took too long."""
        if self._exchange is not None:
            self._exchange.cut(UpstreamError("nothing moved for too long"))
        self.close() if not self._lingers else self.abort()

    def end(self, error: RemitError) -> None:
        """The channel's grant has ended."""
        if self._exchange is not None:
            self._exchange.cut(error)
        self.close()


__all__ = ["Channel", "Client", "Known", "Listener", "Verifier", "canon"]
