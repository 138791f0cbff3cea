"""A response as it goes on to the client: its head filtered and searched, its body scrubbed and framed anew. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

from remit.errors import UpstreamError
from remit.gateway.framing import Fields, Status
from remit.gateway.scrub import SLICE, Inflated, Meter, Scrubber, SecretPatterns, is_compressed

_DROPPED = frozenset(
    {
        b"alt-svc",  # it would send the client round the gateway
        b"connection",
        b"content-length",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-connection",
        b"proxy-status",  # only remit says what remit did
        b"remit-dropped",
        b"set-cookie",  # cookies are never sent on, so none are handed out
        b"set-cookie2",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_LINES = (b"text/event-stream", b"application/x-ndjson", b"application/jsonl", b"application/json-seq")
_IDENTITY = frozenset({b"", b"identity"})
_INFLATED = frozenset({b"gzip", b"x-gzip", b"deflate"})


class Plan:
    """How responses with one head go on. Made once for equal heads; the caller has searched the raw head already."""

    __slots__ = ("_fields", "_tasks", "chunked", "has_body", "inflate", "lines", "status")

    def __init__(self, status: Status, fields: Fields, *, has_body: bool) -> None:
        """Decide the framing, or raise UpstreamError for an encoding that cannot be looked into."""
        coding = (fields.get(b"content-encoding") or b"").lower()
        if has_body and coding not in _IDENTITY | _INFLATED:
            raise UpstreamError("the upstream answered in an encoding that remit did not ask for and cannot look into")
        self.status = status.code
        self.has_body = has_body
        self.inflate = has_body and coding in _INFLATED
        self.lines = (fields.get(b"content-type") or b"").startswith(_LINES)
        self.chunked = has_body and (self.inflate or fields.length is None)
        self._fields = fields
        head = _head(status, fields, decoded=self.inflate, chunked=self.chunked)
        self._tasks = (head + b"connection: close\r\n\r\n", head + b"\r\n")

    def of(self, fields: Fields) -> bool:
        """Whether this is the plan of a head."""
        return self._fields is fields

    def head(self, *, keep: bool) -> bytes:
        """Return the head for the client."""
        return self._tasks[keep]


class Answer:
    """The body of one response on its way. ``feed`` and ``more`` raise LeakError or UpstreamError.

    What inflates is taken in turns of ``SLICE`` bytes: while ``busy``, ``more`` is due in a later turn of the loop.
    """

    __slots__ = ("_body", "_done", "_meter", "_patterns", "_plan", "_steps")

    def __init__(self, patterns: SecretPatterns, plan: Plan) -> None:
        """Begin a body."""
        self._patterns = patterns
        self._plan = plan
        self._body: Inflated | Scrubber | None = None
        self._meter: Meter
        self._steps: Iterator[bytes] | None = None
        self._done = False

    @property
    def busy(self) -> bool:
        """Whether there is more to look through before anything else is to be fed."""
        return self._steps is not None

    def feed(self, payload: bytes, *, done: bool) -> bytes:
        """Take payload of the upstream's body; return bytes for the client. ``done``: there is no more."""
        if done and self._body is None and not self._plan.inflate and not is_compressed(payload):
            self._patterns.check(payload)  # a body that is all there, as most are
            return self._framed(payload, done=True)
        body = self._body or self._begun()
        self._meter.fed += len(payload)
        steps = body.feed(payload) if isinstance(body, Inflated) else body.steps(payload)
        self._steps = steps if self._steps is None else chain(self._steps, steps)
        self._done = done
        return self.more()

    def more(self) -> bytes:
        """Return what another turn makes of what was fed, for the client."""
        assert self._steps is not None  # noqa: S101 - ``busy`` says so
        assert self._body is not None  # noqa: S101 - so it has begun
        self._meter.turn = 0
        released = []
        for piece in self._steps:
            released.append(piece)
            if self._meter.turn >= SLICE:
                return self._framed(b"".join(released), done=False)
        self._steps = None
        if self._done:
            released.append(self._body.end())
        return self._framed(b"".join(released), done=self._done)

    def _begun(self) -> Inflated | Scrubber:
        self._meter = Meter()
        layer = Inflated if self._plan.inflate else Scrubber
        self._body = layer(self._patterns, lines=self._plan.lines, meter=self._meter)
        return self._body

    def _framed(self, released: bytes, *, done: bool) -> bytes:
        if not self._plan.chunked:
            return released
        framed = b"%x\r\n%b\r\n" % (len(released), released) if released else b""
        return framed + b"0\r\n\r\n" if done else framed


def _head(status: Status, fields: Fields, *, decoded: bool, chunked: bool) -> bytes:
    dropped = _DROPPED | fields.nominated | ({b"content-encoding"} if decoded else set())
    lines = [b"HTTP/1.1 %d %b\r\n" % (status.code, status.reason)]
    lines += [b"%b: %b\r\n" % (name, value) for name, value in fields.items if name not in dropped]
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif fields.length is not None and status.code != 204:  # noqa: PLR2004 - RFC 9110 §8.6: none on 204
        lines.append(b"content-length: %d\r\n" % fields.length)
    return b"".join(lines)
