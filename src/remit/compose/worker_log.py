"""The log of a worker: it can open no file of the state, so that the authority writes its lines."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from remit.errors import RemitError
from remit.ports.reports import MAX_LINE, MAX_LINES, LogLine, ReportPort

MOST = 1_024  # lines that wait; what comes on top is counted
PAUSE = 0.1  # seconds between two reports


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
