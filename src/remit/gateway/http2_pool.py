"""The connections of HTTP/2 of one pool: streams of those that have room, and another connection where none has."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from remit.errors import UpstreamError
from remit.gateway.dialling import CONNECT
from remit.gateway.http2_upstream import UpstreamStreams


@dataclass(slots=True, eq=False, repr=False)
class SharedConnections:
    """``make`` is counted at once, and ``dial`` waited for by all who want a stream."""

    _make: Callable[[], UpstreamStreams]
    _dial: Callable[[UpstreamStreams], Awaitable[None]]
    _all: list[UpstreamStreams] = field(default_factory=list)
    _opening: asyncio.Task[None] | None = None

    @property
    def free(self) -> UpstreamStreams | None:
        """One on which a stream can be opened now."""
        return next((one for one in self._all if one.room), None) if self._all else None

    async def connect(self) -> UpstreamStreams:
        """Return one as soon as there is one, or raise UpstreamError."""
        while (found := self.free) is None:
            if self._opening is None:
                self._opening = asyncio.get_running_loop().create_task(self._open(self._make()))
            opening = self._opening
            await asyncio.wait({opening})
            if self._opening is opening:
                self._opening = None
            opening.result()
        return found

    async def _open(self, made: UpstreamStreams) -> None:
        try:
            await self._dial(made)
            async with asyncio.timeout(CONNECT):
                await made.begun.wait()
        except BaseException as error:
            made.abort()
            if isinstance(error, TimeoutError):
                raise UpstreamError("the upstream did not begin HTTP/2 in time") from error
            raise
        if not made.room:
            made.abort()
            raise UpstreamError("the upstream does not speak HTTP/2 as it should, or takes no requests")
        self._all.append(made)

    def gone(self, one: UpstreamStreams) -> None:
        if one in self._all:
            self._all.remove(one)
