"""What the gateway puts on record. What cannot be recorded is not let through: the caller is told so at once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Protocol

from remit.broker import Use
from remit.core.scope import Access
from remit.errors import RemitError, UnavailableError

FLUSH = 0.01  # seconds that outcomes wait for each other
_log = logging.getLogger("remit.gateway")


class Recorder(Protocol):
    """What records."""

    async def use(self, grant_id: str, access: Access, request: str, index: int | None = None) -> Use:
        """Permit one use, its audit entry durable and the grant live, or raise."""
        ...

    def ended(self, use: Use, decision: str, code: str | None = None, action: str | None = None) -> None:
        """Take note of how a permitted use ended, for ``flush`` to record."""
        ...

    async def flush(self) -> None:
        """Record all outcomes noted since the last time."""
        ...

    async def deny(
        self, grant_id: str | None, access: Access, error: RemitError, request: str, cause: str | None = None
    ) -> None:
        """Record a denial."""
        ...


class Record:
    """Uses, denials and outcomes on their way to the broker."""

    __slots__ = ("_broker", "_flusher", "_start", "_written")

    def __init__(self, broker: Recorder, start: Callable[[Coroutine[None, None, object]], None]) -> None:
        """Record with ``broker``; ``start`` runs something beside what is read and written."""
        self._broker = broker
        self._start = start
        self._flusher: asyncio.TimerHandle | None = None
        self._written = True  # as far as was seen; one line in the log says that it is not

    async def use(self, grant_id: str, access: Access, request: str, index: int | None) -> Use:
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
        self._broker.ended(use, decision, code, action)
        if self._flusher is None:
            self._flusher = asyncio.get_running_loop().call_later(FLUSH, self._flush)

    def close(self) -> bool:
        """Record now what waits; return whether there was anything."""
        if self._flusher is None:
            return False
        self._flusher.cancel()
        self._flush()
        return True

    def _flush(self) -> None:
        self._flusher = None
        self._start(self._flushed())

    async def _flushed(self) -> None:
        try:
            await self._broker.flush()
        except Exception as failure:  # noqa: BLE001 - the uses are on record, and nobody waits for this
            self._failed(failure)
        else:
            self._written = True

    def _failed(self, failure: Exception) -> UnavailableError:
        if self._written:
            known = isinstance(failure, RemitError)
            what = failure.code if isinstance(failure, RemitError) else type(failure).__name__
            _log.error(
                "nothing can be recorded, so requests are refused: %s", what, exc_info=None if known else failure
            )
        self._written = False
        return UnavailableError("nothing can be recorded now, so the request was refused", retry_after=1)
