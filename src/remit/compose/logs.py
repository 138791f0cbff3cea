"""The log: a file of the state. Workers can open none, so that the authority writes their lines."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from logging.handlers import RotatingFileHandler
from pathlib import Path

from remit.core.legible import escaped
from remit.errors import RemitError
from remit.ports.reports import MAX_LINE, MAX_LINES, LogLine, ReportPort
from remit.stores import private

MOST = 1_024  # lines that wait; what comes on top is counted
PAUSE = 0.1  # seconds between two reports
LOG_SIZE = 4 * 1024 * 1024  # bytes, twice


def log_to(path: Path) -> None:
    """Log to a file: never a secret, and never a caller's words at a level that is on by default."""
    private.make_file(path)
    handler = RotatingFileHandler(path, maxBytes=LOG_SIZE, backupCount=1)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    _log_by(handler)
    logging.getLogger("remit").propagate = sys.stderr.isatty()


@contextmanager
def reported(reports: ReportPort) -> Iterator[None]:
    """Log by an authority's file until the block ends."""
    handler = ReportedLog(reports)
    _log_by(handler)
    try:
        yield
    finally:
        logging.getLogger("remit").removeHandler(handler)


async def write(worker: str, lines: Sequence[LogLine]) -> None:
    """Write what a worker logged, a line a turn of the loop: one that does not show costs most of a millisecond."""
    for line in lines:
        name = line.logger if line.logger.partition(".")[0] == "remit" else "remit"
        text = escaped(line.text[:MAX_LINE]).replace("\n", "\n  ")
        logging.getLogger(name).log(min(line.level, logging.CRITICAL), "%s: %s", worker, text)
        await asyncio.sleep(0)


def _log_by(handler: logging.Handler) -> None:
    logger = logging.getLogger("remit")
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)


class ReportedLog(logging.Handler):
    """Hands lines on to the authority, from any thread, and waits for nothing."""

    def __init__(self, reports: ReportPort) -> None:
        super().__init__()
        self._reports, self._loop = reports, asyncio.get_running_loop()
        self._lines: list[LogLine] = []
        self._lost = 0
        self._sending: asyncio.Task[None] | None = None
        self.setFormatter(logging.Formatter("%(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        if len(self._lines) >= MOST:
            self._lost += 1
            return
        self._lines.append(LogLine(record.levelno, record.name, self.format(record)[:MAX_LINE]))
        with suppress(RuntimeError):  # the loop has ended, and the link with it
            self._loop.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._sending is None:
            self._sending = self._loop.create_task(self._send())

    async def _send(self) -> None:
        while self._lines:
            sent, self._lines = self._lines[:MAX_LINES], self._lines[MAX_LINES:]
            if self._lost:
                sent.append(LogLine(logging.WARNING, "remit", f"{self._lost} lines more were lost"))
                self._lost = 0
            with suppress(RemitError):  # the authority has gone, and this process goes with it
                await self._reports.logged(sent)
            await asyncio.sleep(PAUSE)
        self._sending = None
