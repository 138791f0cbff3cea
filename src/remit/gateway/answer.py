"""A response as it goes on to the client: its head filtered and searched, its body scrubbed and framed anew. Pure."""

from __future__ import annotations

from remit.errors import UpstreamError
from remit.gateway.framing import Fields, Status
from remit.gateway.scrub import Inflated, Needles, Scrubber, is_compressed

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

    __slots__ = ("_fields", "_heads", "chunked", "has_body", "inflate", "lines", "status")

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
        self._heads = (head + b"connection: close\r\n\r\n", head + b"\r\n")

    def of(self, fields: Fields) -> bool:
        """Whether this is the plan of a head."""
        return self._fields is fields

    def head(self, *, keep: bool) -> bytes:
        """Return the head for the client."""
        return self._heads[keep]


class Answer:
    """The body of one response on its way. ``feed`` raises LeakError or UpstreamError."""

    __slots__ = ("_begun", "_inflated", "_needles", "_plan", "_scrubber")

    def __init__(self, needles: Needles, plan: Plan) -> None:
        """Begin a body."""
        self._needles = needles
        self._plan = plan
        self._begun = False
        self._inflated: Inflated | None = None
        self._scrubber: Scrubber | None = None

    def feed(self, payload: bytes, *, done: bool) -> bytes:
        """Take payload of the upstream's body; return bytes for the client. ``done``: there is no more."""
        released = self._whole(payload) if done and not self._begun else self._part(payload, done=done)
        if not self._plan.chunked:
            return released
        framed = b"%x\r\n%b\r\n" % (len(released), released) if released else b""
        return framed + b"0\r\n\r\n" if done else framed

    def _whole(self, payload: bytes) -> bytes:
        """Take a body that is all there, as most are."""
        if self._plan.inflate or is_compressed(payload):
            return self._part(payload, done=True)
        self._needles.check(payload)
        return payload

    def _part(self, payload: bytes, *, done: bool) -> bytes:
        if not self._begun:
            self._begun = True
            if self._plan.inflate:
                self._inflated = Inflated(self._needles, lines=self._plan.lines)
            else:
                self._scrubber = Scrubber(self._needles, lines=self._plan.lines)
        if self._inflated is not None:
            released = b"".join(self._inflated.feed(payload))
            return released + self._inflated.end() if done else released
        assert self._scrubber is not None  # noqa: S101 - it is one or the other
        released = self._scrubber.feed(payload)
        return released + self._scrubber.end() if done else released


def _head(status: Status, fields: Fields, *, decoded: bool, chunked: bool) -> bytes:
    dropped = _DROPPED | fields.nominated | ({b"content-encoding"} if decoded else set())
    lines = [b"HTTP/1.1 %d %b\r\n" % (status.code, status.reason)]
    lines += [b"%b: %b\r\n" % (name, value) for name, value in fields.items if name not in dropped]
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif fields.length is not None and status.code != 204:  # noqa: PLR2004 - RFC 9110 §8.6: none on 204
        lines.append(b"content-length: %d\r\n" % fields.length)
    return b"".join(lines)
