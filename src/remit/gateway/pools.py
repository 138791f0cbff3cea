"""The pools of all tasks: connections to upstreams are apart per credential and task.

What one request left behind on a connection, an unread body or a late answer, can so reach its own task alone.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Protocol

from remit.broker import Use
from remit.core.secret import Secret
from remit.core.task import Task
from remit.errors import ConflictError
from remit.gateway.inject import Recipe, Shape
from remit.gateway.pool import Pool
from remit.gateway.room import Room
from remit.ports import Resource


class Owner(Protocol):
    """What the pools ask of the broker."""

    def task_of(self, grant_id: str) -> Task:
        """Return the task of a grant."""
        ...

    def resource(self, name: str) -> Resource:
        """Return a configured resource."""
        ...

    def secret_of(self, name: str) -> Secret:
        """Return the static secret of a resource for which ``use`` was permitted."""
        ...


class Pools:
    """One pool for each task and resource, as long as it has connections; one recipe for each resource."""

    __slots__ = ("_broker", "_clock", "_recipes", "_room", "_roots", "_tasks", "_tls")

    def __init__(self, broker: Owner, tls: ssl.SSLContext, clock: Callable[[], float], room: Room) -> None:
        """Start empty. ``clock`` counts seconds and never goes back; ``room`` has the descriptors."""
        self._broker = broker
        self._tls = tls
        self._clock = clock
        self._room = room
        self._recipes: dict[str, Recipe] = {}
        self._tasks: dict[str, dict[str, Pool]] = {}  # by task, by resource
        self._roots: dict[str, str] = {}  # root grants of tasks that have had pools

    def of(self, use: Use, shape: Shape) -> Pool:
        """Return the pool of a use's task for a resource with the secret it has now.

        ConflictError when the resource is no longer the one that ``shape`` was compiled from: its secret now may be
        sealed for another destination.
        """
        recipe = self._recipe(shape)
        mine = self._tasks.get(use.task)
        pool = mine.get(shape.resource.name) if mine is not None else None
        if pool is not None and pool.recipe is recipe:
            return pool
        if pool is not None:
            pool.close()
        if mine is None:
            self._roots[self._broker.task_of(use.grant.id).head.root] = use.task
            mine = self._tasks[use.task] = {}
        mine[shape.resource.name] = pool = Pool(recipe, self._tls, self._clock, self._room.of(use.task), self._spare)
        return pool

    def _recipe(self, shape: Shape) -> Recipe:
        resource = shape.resource
        if self._broker.resource(resource.name) is not resource:
            raise ConflictError("the resource was changed meanwhile, so the request was not sent", help="try again")
        secret = self._broker.secret_of(resource.name) if resource.secret is not None else None
        recipe = self._recipes.get(resource.name)
        if recipe is None or recipe.shape is not shape or recipe.secret is not secret:
            self._recipes[resource.name] = recipe = Recipe(shape, secret)
        return recipe

    def check_current(self, pool: Pool) -> None:
        """Raise ConflictError if the resource or its secret was changed since the pool was taken."""
        if self._recipe(pool.recipe.shape) is not pool.recipe:
            raise ConflictError("the credential was changed meanwhile, so the request was not sent", help="try again")

    def end(self, grants: frozenset[str]) -> None:
        """Close the pools of tasks whose root grant has ended."""
        for root in grants & self._roots.keys():
            for pool in self._tasks.pop(self._roots.pop(root), {}).values():
                pool.close()

    def sweep(self) -> None:
        """Close what has been idle for long, and forget pools that have no connection."""
        for task, mine in tuple(self._tasks.items()):
            for name, pool in tuple(mine.items()):
                pool.sweep()
                if pool.empty:
                    del mine[name]
            if not mine:
                del self._tasks[task]

    def _spare(self) -> bool:
        """Close the connection of any task that has been idle longest; return whether there was one.

        Where descriptors are left, it is the task that may have no more, and nobody else's connection is in its way.
        """
        if self._room.free:
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
