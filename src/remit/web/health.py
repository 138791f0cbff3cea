"""``GET /healthz``: whether the process that decides answers. It tells anybody, and nothing else."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

from remit.errors import RemitError, UnavailableError
from remit.web import wire

PATIENCE = 2.0  # seconds for the authority to answer
FRESH = 1.0  # seconds for which an answer is that of all who ask: a stranger has the authority asked no more often


class Health:
    """Asks the authority for something cheap; ``seconds`` is a clock that only goes forward."""

    def __init__(self, ask: Callable[[], Awaitable[object]], seconds: Callable[[], float] = time.monotonic) -> None:
        self._ask, self._seconds = ask, seconds
        self._asked: tuple[float, asyncio.Future[bool]] | None = None

    async def healthz(self, _request: Request) -> Response:
        """Answer 200 when the authority does, else 503."""
        if self._asked is None or (self._asked[1].done() and self._seconds() - self._asked[0] >= FRESH):
            self._asked = self._seconds(), asyncio.ensure_future(self._answers())
        if not await asyncio.shield(self._asked[1]):
            raise UnavailableError("the authority does not answer")
        return wire.answer({"status": "ok"})

    async def _answers(self) -> bool:
        with suppress(RemitError, TimeoutError):
            async with asyncio.timeout(PATIENCE):
                await self._ask()
            return True
        return False
