"""What a worker logs is in the authority's file, as much of it as there is room for."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from remit.compose.logs import MOST, ReportedLog
from remit.errors import RemitError
from remit.ports.reports import MAX_LINE, MAX_LINES, LogLine


class Reports:
    """An authority that takes lines."""

    def __init__(self, last: str) -> None:
        self.lines: list[LogLine] = []
        self.sizes: list[int] = []
        self.last, self.there = last, asyncio.Event()

    async def started(self) -> None: ...
    async def failed(self, error: RemitError) -> None: ...

    async def logged(self, lines: Sequence[LogLine]) -> None:
        self.lines += lines
        self.sizes.append(len(lines))
        if any(line.text == self.last for line in lines):
            self.there.set()


def logged(count: int, text: str = "line {}") -> Reports:
    """Log lines at once, and return what came of them once the last has arrived."""
    reports = Reports(text.format(min(count, MOST) - 1)[:MAX_LINE])

    async def scene() -> None:
        handler = ReportedLog(reports)
        for number in range(count):
            about = {"name": "remit.test", "levelno": logging.WARNING, "msg": text.format(number)}
            handler.handle(logging.makeLogRecord(about))
        await reports.there.wait()

    asyncio.run(asyncio.wait_for(scene(), 20))
    return reports


def test_lines_arrive_in_their_order_with_level_and_logger() -> None:
    reports = logged(3)
    assert reports.lines == [LogLine(logging.WARNING, "remit.test", f"line {number}") for number in range(3)]


def test_a_line_is_cut_where_it_would_be_too_long() -> None:
    assert len(logged(1, "x" * (2 * MAX_LINE)).lines[0].text) == MAX_LINE


def test_a_flood_goes_in_reports_of_a_bounded_size_and_what_is_lost_is_counted() -> None:
    reports = logged(MOST + 5)
    assert max(reports.sizes) <= MAX_LINES + 1
    assert [line.text for line in reports.lines if "lost" in line.text] == ["5 lines more were lost"]
    assert len(reports.lines) == MOST + 1
