"""The pools of all tasks: connections to upstreams are apart per credential and task.

What one request left behind on a connection, an unread body or a late answer, can so reach its own task alone.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass, field

from remit.errors import ConflictError
from remit.gateway.quota import DescriptorBudget
from remit.gateway.target import BoundCredential, HttpTarget, fetched, static
from remit.gateway.upstream import Pool
from remit.ports import Clock
from remit.ports.broker import BrokerPort, Use


@dataclass(eq=False, repr=False)
class Pools:
    """One pool for each task and resource, as long as it has connections; one credential for each resource."""

    _broker: BrokerPort
    _tls: ssl.SSLContext
    _clock: Clock
    _quota: DescriptorBudget
    _now: float = 0.0  # of the last sweep, in seconds by a clock that never goes back
    _credentials: dict[str, BoundCredential] = field(default_factory=dict)  # by resource
    _fetching: dict[str, asyncio.Lock] = field(default_factory=dict)  # by resource
    _tasks: dict[str, dict[str, Pool]] = field(default_factory=dict)  # by task, by resource
    _roots: dict[str, str] = field(default_factory=dict)  # root grants of tasks that have had pools

    async def of(self, use: Use, target: HttpTarget) -> Pool:
        """Return the pool of a use's task for a resource with the credential it has now.

        ConflictError when the resource is no longer the one that ``target`` was compiled from: its secret now may be
        sealed for another destination.
        """
        if use.version != target.version:
            raise ConflictError("the resource was changed meanwhile, so the request was not sent", help="try again")
        credential = self._current(target) or await self._fetched(target)
        mine = self._tasks.get(use.task)
        pool = mine.get(target.resource.name) if mine is not None else None
        if pool is not None and pool.credential is credential:
            return pool
        if pool is not None:
            pool.close()
        if mine is None:
            self._roots[use.root] = use.task
            mine = self._tasks[use.task] = {}
        quota = self._quota.of(use.task)
        mine[target.resource.name] = pool = Pool(credential, self._tls, quota, self._now, self._spare)
        return pool

    def _current(self, target: HttpTarget) -> BoundCredential | None:
        """Return the credential that is good now, or None when it is to be asked for."""
        found = self._credentials.get(target.resource.name)
        if found is None or found.target is not target:
            return None
        return found if found.until is None or self._clock() < found.until else None

    async def _fetched(self, target: HttpTarget) -> BoundCredential:
        name, source = target.resource.name, target.source
        async with self._fetching.setdefault(name, asyncio.Lock()):
            found = self._current(target)  # another request has asked meanwhile
            if found is None:
                found = None if source is None else await fetched(target, source, self._clock)
                secret = await self._broker.credential(name, target.version)  # as long as the resource is the same
                self._credentials[name] = found = found or static(target, secret)
            return found

    def forget(self, resources: frozenset[str]) -> None:
        """Forget the credentials of resources that have changed."""
        for name in resources & self._credentials.keys():
            del self._credentials[name]

    def check_current(self, pool: Pool) -> None:
        """Raise ConflictError if the resource or its credential was changed since the pool was taken."""
        if self._current(pool.credential.target) is not pool.credential:
            raise ConflictError("the credential was changed meanwhile, so the request was not sent", help="try again")

    def end(self, grants: frozenset[str]) -> None:
        """Close the pools of tasks whose root grant has ended."""
        for root in grants & self._roots.keys():
            for pool in self._tasks.pop(self._roots.pop(root), {}).values():
                pool.close()

    def sweep(self, now: float) -> None:
        """Close what has been idle for long, and forget pools that have no connection."""
        self._now = now
        for task, mine in tuple(self._tasks.items()):
            for name, pool in tuple(mine.items()):
                pool.sweep(now)
                if pool.empty:
                    del mine[name]
            if not mine:
                del self._tasks[task]

    def _spare(self) -> bool:
        """Close the connection of any task that has been idle longest; return whether there was one.

        Where descriptors are left, it is the task that may have no more, and nobody else's connection is in its way.
        """
        if self._quota.free:
            return False
        idle = [found for mine in self._tasks.values() for pool in mine.values() if (found := pool.oldest) is not None]
        if idle:
            min(idle, key=lambda upstream: upstream.idle_since).abort()
        return bool(idle)

    def close(self) -> None:
        """Close idle connections now, and others when they come back."""
        for mine in self._tasks.values():
            for pool in mine.values():
                pool.close()
