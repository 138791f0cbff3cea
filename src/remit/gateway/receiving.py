"""What a connection to an upstream hands a response to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from remit.errors import RemitError, UpstreamError
from remit.gateway.answer import Plan


class StaleError(UpstreamError):
    """the upstream closed the connection before it answered"""  # noqa: D400 - the message


class Receiver(Protocol):
    """What takes a response as it arrives."""

    method: str

    def on_head(self, plan: Plan) -> bool:
        """Take the head; it has been searched for the secret. Return whether nothing of the request can be unread."""
        ...

    def on_data(self, payload: bytes, *, done: bool) -> None:
        """Take payload of the body."""
        ...

    def on_end(self) -> None:
        """Take note that the response is complete."""
        ...

    def on_flush(self) -> None:
        """Pass on what has come together."""
        ...

    def on_failure(self, error: RemitError) -> None:
        """Take note that there will be no (more) response."""
        ...

    def later(self, step: Callable[[], None]) -> None:
        """Have a step of reading done in a later turn of the loop."""
        ...

    def on_writable(self, *, writable: bool) -> None:
        """Take note that the upstream takes more request bytes, or takes no more for now."""
        ...
