"""A request's body on its way to the upstream: searched for placeholders, and framed anew. Pure."""

from __future__ import annotations

from remit.errors import PlaceholderError
from remit.gateway.framing import BODILESS, Body, Fields
from remit.gateway.scrub import LeakError, Scrubber

CLOSE = b"connection: close\r\n"  # what is left of a body must not be read as a request


class Outgoing:
    """One body that streams. ``feed`` raises PlaceholderError."""

    __slots__ = ("_chunked", "_scrubber")

    def __init__(self, scrubber: Scrubber | None, *, chunked: bool) -> None:
        """Begin a body; ``scrubber`` looks for placeholders."""
        self._scrubber = scrubber
        self._chunked = chunked

    def feed(self, payload: bytes, *, done: bool) -> bytes:
        """Take payload from the client; return bytes for the upstream. ``done``: there is no more."""
        scrubber = self._scrubber
        try:
            safe = payload if scrubber is None else scrubber.feed(payload)
        except LeakError:
            raise PlaceholderError from None
        if done and scrubber is not None:
            safe += scrubber.end()
        if not self._chunked:
            return safe
        return (b"%x\r\n%b\r\n" % (len(safe), safe) if safe else b"") + (b"0\r\n\r\n" if done else b"")


def framing(method: str, fields: Fields, streams: Body | None, anew: bytes | None, *, keep: bool) -> bytes:
    """Return the lines that frame a request, and end its head.

    ``streams`` reads its body, if it has one, and ``anew`` is one that is written anew; ``keep`` says whether the
    upstream is trusted to read all of a body before it takes another request.
    """
    if streams is None:
        return b"\r\n" if method in BODILESS else b"content-length: 0\r\n\r\n"
    close = b"" if keep else CLOSE
    if anew is None and fields.chunked:
        return close + b"transfer-encoding: chunked\r\n\r\n"
    return close + b"content-length: %d\r\n\r\n" % (len(anew) if anew is not None else fields.length or 0)
