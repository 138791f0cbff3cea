"""Judging bodies that take long beside the loop, one at a time for each task."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from remit.gateway import canon
from remit.gateway.inject import Shape
from remit.gateway.judge import Asked, Judged, judge
from remit.gateway.match import Matcher

_JUDGES = ThreadPoolExecutor(1, "judge")  # one: what is judged meets the loop at Python's lock


async def judged(
    matcher: Matcher, shape: Shape, asked: Asked, turn: asyncio.Lock, check_ended: Callable[[], None]
) -> Judged | None:
    """Judge a body that was read, at once or in its task's turn. Raises what ``judge`` does, and ``check_ended``."""
    if not canon.heavy(asked.body or b""):
        return judge(matcher, shape, asked)
    async with turn:
        check_ended()
        return await asyncio.get_running_loop().run_in_executor(_JUDGES, judge, matcher, shape, asked)
