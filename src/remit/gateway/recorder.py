"""What goes on record of each request, before it is sent and once it is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from remit.core.scope import Access
from remit.errors import RemitError, UnavailableError
from remit.ports.broker import BrokerPort, Outcome, Use

FLUSH = 0.01  # seconds that outcomes wait for each other
Found = Use | RemitError  # a use that was permitted, or what was said instead
# Asks for a use by callback, without a task; False: nothing is asked, only ``BrokerPort.use`` can.
Ask = Callable[[str, Access, str, int, Callable[[Found], None]], bool]
_log = logging.getLogger("remit.gateway")


@dataclass(eq=False, repr=False)
class Recorder:
    """Uses, denials and outcomes on their way to the broker. What cannot be recorded is not let through."""

    _broker: BrokerPort
    _start: Callable[[Coroutine[None, None, object]], None]
    _ask: Ask | None = None
    _ended: list[Outcome] = field(default_factory=list)
    _flusher: asyncio.TimerHandle | None = None
    _written: bool = True  # as far as was seen; one line in the log says that it is not

    def ask(self, grant_id: str, access: Access, request: str, index: int, then: Callable[[Found], None]) -> None:
        """Have one use permitted, as ``use`` does; ``then`` is called with it, or with what was said instead."""
        if self._ask is None or not self._ask(grant_id, access, request, index, then):
            self._start(self._asked(then, self.use(grant_id, access, request, index)))

    async def _asked(self, then: Callable[[Found], None], use: Coroutine[None, None, Use]) -> None:
        try:
            found: Found = await use
        except RemitError as error:
            found = error
        then(found)

    async def use(self, grant_id: str, access: Access, request: str, index: int) -> Use:
        """Have one use permitted, or raise; UnavailableError for a failure that is not remit's own."""
        try:
            return await self._broker.use(grant_id, access, request, index)
        except RemitError:
            raise
        except Exception as failure:
            raise self._failed(failure) from failure

    async def deny(
        self, grant_id: str | None, access: Access, error: RemitError, request: str, cause: str | None = None
    ) -> RemitError:
        """Record a denial; return what the caller is told: UnavailableError when it could not be recorded."""
        try:
            await self._broker.deny(grant_id, access, error, request, cause)
        except Exception as failure:  # noqa: BLE001 - whatever a store does, the caller gets an answer
            return self._failed(failure)
        self._written = True
        return error

    def outcome(self, use: Use, decision: str, code: str | None, action: str | None = None) -> None:
        """Take note of how a use ended. Outcomes share a commit: each alone would hold up the next request's entry."""
        self._ended.append(Outcome(use, decision, code, action))
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().call_later(FLUSH, self._flush)

    def close(self) -> bool:
        """Record now what waits, if anything does."""
        if self._flusher is None:
            return False
        self._flusher.cancel()
        self._flush()
        return True

    def _flush(self) -> None:
        self._flusher = None
        self._start(self._flushed())

    async def _flushed(self) -> None:
        ended, self._ended = self._ended, []
        try:
            await self._broker.outcomes(ended)
        except Exception as failure:  # noqa: BLE001 - the uses are on record, and nobody waits for this
            self._failed(failure)
        else:
            self._written = True

    def _failed(self, failure: Exception) -> UnavailableError:
        if self._written:
            what, trace = (failure.code, None) if isinstance(failure, RemitError) else (type(failure).__name__, failure)
            _log.error("nothing can be recorded, so requests are refused: %s", what, exc_info=trace)
        self._written = False
        return UnavailableError("nothing can be recorded now, so the request was refused", retry_after=1)
