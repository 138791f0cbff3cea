"""A request's body as it goes on to the upstream while it comes: searched, and framed as the client framed it. Pure."""

from __future__ import annotations

from remit.errors import PlaceholderError
from remit.gateway.scrub import LeakError, Scrubber


class Upload:
    """One body. ``take`` raises PlaceholderError where something of ours stands in it."""

    __slots__ = ("_chunked", "_scrubber")

    def __init__(self, scrubber: Scrubber | None, *, chunked: bool) -> None:
        """Begin a body in which ``scrubber`` looks; None: there is nothing to look for."""
        self._scrubber = scrubber
        self._chunked = chunked

    def take(self, payload: bytes) -> bytes:
        """Take payload; return bytes for the upstream."""
        if self._scrubber is None:
            return self._framed(payload)
        try:
            return self._framed(self._scrubber.feed(payload))
        except LeakError:
            raise PlaceholderError from None

    def end(self) -> bytes:
        """Return what is still due."""
        held = self._framed(self._scrubber.end()) if self._scrubber is not None else b""
        return held + b"0\r\n\r\n" if self._chunked else held

    def _framed(self, payload: bytes) -> bytes:
        if not self._chunked:
            return payload
        return b"%x\r\n%b\r\n" % (len(payload), payload) if payload else b""
