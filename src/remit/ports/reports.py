"""What a worker tells the authority of itself; which worker it is, the link says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from remit.errors import RemitError

MAX_LINE = 4_096  # characters
MAX_LINES = 64  # in one report


class LogLine(Struct, frozen=True):
    """A line of a worker's log; ``level`` is one of ``logging``."""

    level: int
    logger: str
    text: str


class ReportPort(Protocol):
    """A worker's word on itself. It is believed about nothing else."""

    async def started(self) -> None:
        """Say that all that the worker was given to serve is served."""

    async def failed(self, error: RemitError) -> None:
        """Say why the worker cannot serve: a start ends with that."""

    async def logged(self, lines: Sequence[LogLine]) -> None:
        """Write to the log; a line longer than MAX_LINE is cut there."""
