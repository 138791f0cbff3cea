"""What all connections of a gateway share: what is on record, what is in flight, whose turn it is."""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol
from weakref import WeakValueDictionary

from remit.core.scope import Access
from remit.errors import RemitError, RevokedError, UnavailableError
from remit.gateway.pools import Pools
from remit.gateway.response import TaskTurns
from remit.gateway.routes import Routes
from remit.ports import NewId
from remit.ports.broker import BrokerPort, Outcome, Use
from remit.ports.kind import Kind

FLUSH = 0.01  # seconds that outcomes wait for each other
_log = logging.getLogger("remit.gateway")


class Moving(Protocol):
    """Something that moves under a grant and can be cut."""

    @property
    def grant(self) -> str | None:
        """The grant, if it is known yet."""

    def cut(self, error: RemitError) -> None:
        """End it at once."""


class InFlight:
    """What moves under each grant."""

    def __init__(self) -> None:
        self._by_grant: dict[str | None, set[Moving]] = {}

    def add(self, moving: Moving) -> None:
        """Take note that something moves."""
        mine = self._by_grant.get(moving.grant)
        if mine is None:
            mine = self._by_grant[moving.grant] = set()
        mine.add(moving)

    def discard(self, moving: Moving) -> None:
        """Take note that it has come to its end."""
        mine = self._by_grant.get(moving.grant)
        if mine is not None:
            mine.discard(moving)

    def cut(self, grants: Iterable[str | None] | None = None) -> None:
        """Cut what moves under grants that have ended, or under all."""
        for grant in tuple(self._by_grant) if grants is None else grants:
            for moving in tuple(self._by_grant.pop(grant, ())):
                moving.cut(RevokedError())


@dataclass(eq=False, repr=False)
class Recorder:
    """Uses, denials and outcomes on their way to the broker. What cannot be recorded is not let through."""

    _broker: BrokerPort
    _start: Callable[[Coroutine[None, None, object]], None]
    _ended: list[Outcome] = field(default_factory=list)
    _flusher: asyncio.TimerHandle | None = None
    _written: bool = True  # as far as was seen; one line in the log says that it is not

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
        ended, self._ended = self._ended, []
        try:
            await self._broker.outcomes(ended)
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


@dataclass(eq=False, repr=False)
class DataPlane:
    """The shared parts. ``now`` is the time of the last sweep, in seconds by a clock that never goes back."""

    broker: BrokerPort
    kinds: Mapping[str, Kind]
    routes: Routes
    pools: Pools
    new_id: NewId
    problems: str
    nonce: Callable[[], str] | None
    now: float = 0.0
    loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.get_running_loop)
    tasks: set[asyncio.Task[object]] = field(default_factory=set)
    in_flight: InFlight = field(default_factory=InFlight)
    # by task: what its bodies take turns by, of which one at a time is authorized
    authorizing: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def __post_init__(self) -> None:
        self.recorder = Recorder(self.broker, self.start)
        self.turns = TaskTurns(self.loop)
        self.new_request = map((self.new_id("req") + ".{:x}").format, itertools.count()).__next__  # unique, not secret

    def start(self, story: Coroutine[None, None, object]) -> None:
        """Run something beside what is read and written."""
        task = self.loop.create_task(story)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
