"""A response as it goes on to the client: its head filtered and searched, its body scrubbed and framed anew. Pure."""

from __future__ import annotations

from remit.errors import UpstreamError
from remit.gateway.framing import Fields, Status
from remit.gateway.scrub import Inflated, Needles, Scrubber

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


class Answer:
    """One response on its way. ``head`` first, then what ``feed`` returns; both raise LeakError or UpstreamError."""

    __slots__ = ("_chunked", "_inflated", "_scrubber", "head")

    def __init__(self, needles: Needles, status: Status, fields: Fields, *, has_body: bool, keep: bool) -> None:
        """Decide the framing and write the head; the caller has searched the raw head already."""
        coding = (fields.get(b"content-encoding") or b"").lower()
        if has_body and coding not in _IDENTITY | _INFLATED:
            raise UpstreamError("the upstream answered in an encoding that remit did not ask for and cannot look into")
        inflate = has_body and coding in _INFLATED
        lines = (fields.get(b"content-type") or b"").startswith(_LINES)
        self._inflated = Inflated(needles, lines=lines) if inflate else None
        self._scrubber = Scrubber(needles, lines=lines)
        self._chunked = has_body and (inflate or fields.length is None)
        self.head = _head(status, fields, decoded=inflate, chunked=self._chunked, keep=keep)

    def feed(self, payload: bytes, *, done: bool) -> bytes:
        """Take payload of the upstream's body; return bytes for the client. ``done``: there is no more."""
        if self._inflated is None:
            released = self._scrubber.feed(payload)
            if done:
                released += self._scrubber.end()
        else:
            released = b"".join(self._inflated.feed(payload))
            if done:
                released += self._inflated.end()
        if not self._chunked:
            return released
        framed = b"%x\r\n%b\r\n" % (len(released), released) if released else b""
        return framed + b"0\r\n\r\n" if done else framed


def _head(status: Status, fields: Fields, *, decoded: bool, chunked: bool, keep: bool) -> bytes:
    dropped = _DROPPED | fields.nominated | ({b"content-encoding"} if decoded else set())
    lines = [b"HTTP/1.1 %d %b\r\n" % (status.code, status.reason)]
    lines += [b"%b: %b\r\n" % (name, value) for name, value in fields.items if name not in dropped]
    if chunked:
        lines.append(b"transfer-encoding: chunked\r\n")
    elif fields.length is not None and status.code != 204:  # noqa: PLR2004 - RFC 9110 §8.6: none on 204
        lines.append(b"content-length: %d\r\n" % fields.length)
    if not keep:
        lines.append(b"connection: close\r\n")
    return b"".join(lines) + b"\r\n"
