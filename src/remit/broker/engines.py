"""Engines as the broker has them: by values, wherever they run, and no call without an end.

Rules:

- A call of an engine has a deadline, and whatever it raises is an EngineError without a driver's words.
- An engine that is not known there any more is configured anew, once, and asked again: nothing has been done.
- A resource has ``AT_ONCE`` calls under way at most, those that end something apart from the others: a target that
  hangs delays its own leases alone, and those that are issued there delay no end.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import TypeVar, cast

from remit.core.secret import Secret
from remit.core.task import Plan
from remit.errors import EngineError, RemitError, UnknownEngineError
from remit.ports import Finding, Issued, Resource
from remit.ports.kind import LeaseRequest
from remit.ports.targets import EngineKey, EnginePort, EngineTraits

T = TypeVar("T")

ISSUE_WINDOW = timedelta(seconds=10)  # an issue has no effect later than this after its plan
REVOKE_WINDOW = timedelta(seconds=15)
AT_ONCE = 64  # calls of one resource's engine
PORTION = 131_072  # bytes of plans in one call
PLAN = 128  # bytes that a plan takes beside its texts

Bounded = Callable[[Awaitable[object], float], Awaitable[object]]  # a deadline in seconds around an engine call


class ResourceEngine:
    """The engine of a resource as it is configured: ``ports.Engine``, with what ``traits`` says besides."""

    def __init__(
        self,
        port: EnginePort,
        key: EngineKey,
        resource: Resource,
        secret: Secret | None,
        plan: Callable[[LeaseRequest], Plan],
        bounded: Bounded,
    ) -> None:
        """Name an engine; it is configured when it is first used. ``plan`` is its kind's, for this resource."""
        self._port, self._key, self._bounded = port, key, bounded
        self._resource, self._secret, self.plan = resource, secret, plan
        self._traits: EngineTraits | None = None
        self._closed = False
        self._giving, self._ending = asyncio.Semaphore(AT_ONCE), asyncio.Semaphore(AT_ONCE)

    async def traits(self) -> EngineTraits:
        """Return what the engine can do; it is configured by then. InvalidRequestError where it could never work."""
        if self._traits is None:
            configured = self._port.configure(self._key, self._resource, self._secret)
            self._traits = await self._in_time(configured, ISSUE_WINDOW)
        return self._traits

    async def issue(self, plan: Plan, expires_at: datetime) -> Issued:
        return await self._give(self._port.issue_credential, plan, expires_at)

    async def renew(self, plan: Plan, receipt: Mapping[str, str] | None, expires_at: datetime) -> None:
        await self._give(self._port.renew_credential, plan, receipt, expires_at)

    async def inspect(self) -> Sequence[Finding]:
        return await self._give(self._port.inspect_target)

    async def revoke(self, plan: Plan, receipt: Mapping[str, str] | None) -> None:
        await self._end(self._port.revoke_credential, plan, receipt)

    async def revoke_many(self, plans: Sequence[Plan]) -> frozenset[str]:
        """End many credentials, as many at a time as go into one call; return the names of those that are useless."""
        done = [await self._end(self._port.revoke_credentials, some) for some in _portions(plans)]
        return frozenset[str]().union(*done)

    async def clean(self, plans: Sequence[Plan]) -> frozenset[str]:
        done = [await self._end(self._port.clean_credentials, some) for some in _portions(plans)]
        return frozenset[str]().union(*done)

    async def close(self) -> None:
        """Let go of the engine; whoever still waits for it is not kept from an answer, and it is not made anew."""
        self._closed = True
        with suppress(RemitError):  # a target that is gone must not keep its resource from being changed
            await self._in_time(self._port.close_engine(self._key), REVOKE_WINDOW)

    async def _give(self, method: Callable[..., Awaitable[T]], *arguments: object) -> T:
        return await self._in_time(self._asked(self._giving, method, *arguments), ISSUE_WINDOW)

    async def _end(self, method: Callable[..., Awaitable[T]], *arguments: object) -> T:
        return await self._in_time(self._asked(self._ending, method, *arguments), REVOKE_WINDOW)

    async def _asked(self, room: asyncio.Semaphore, method: Callable[..., Awaitable[T]], *arguments: object) -> T:
        async with room:
            try:
                return await method(self._key, *arguments)
            except UnknownEngineError:
                if self._closed:
                    raise
                await self._port.configure(self._key, self._resource, self._secret)
                return await method(self._key, *arguments)

    async def _in_time(self, call: Awaitable[T], window: timedelta) -> T:
        try:
            return cast("T", await self._bounded(call, window.total_seconds()))
        except RemitError:
            raise
        except TimeoutError as error:
            raise EngineError("the target did not answer in time") from error
        except Exception as error:
            raise EngineError from error


def _portions(plans: Sequence[Plan]) -> Iterator[Sequence[Plan]]:
    """Yield plans in portions that fit into a call each, or of one plan."""
    some, size = list[Plan](), 0
    for plan in plans:
        own = PLAN + sum(len(text.encode()) for text in (plan.name, plan.detail.json, *plan.undo, *plan.undo.values()))
        if some and size + own > PORTION:
            yield some
            some, size = [], 0
        some.append(plan)
        size += own
    if some:
        yield some
