"""Ports that count their calls, and a broker that dies before the one that is named."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

from remit.ports import Store


class Died(BaseException):  # no Exception: nothing may catch it
    """The process died."""


class Fuse:
    """Counts port calls; from the ``at``-th on, each of them kills."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.calls: list[str] = []

    def burn(self, call: str) -> None:
        """Count one call, or die."""
        if self.at is not None and len(self.calls) >= self.at:
            raise Died(call)
        self.calls.append(call)

    async def gate(self, verb: str, moment: str) -> None:
        """Stand where the network to a target is."""
        self.burn(f"target {verb} {moment}")


class _MortalStore:
    def __init__(self, inner: Store, fuse: Fuse) -> None:
        self._inner = inner
        self._fuse = fuse

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        method = getattr(self._inner, name)

        async def call(*args: object) -> object:
            self._fuse.burn(f"store {name}")
            return await method(*args)

        return call


def mortal(inner: Store, fuse: Fuse) -> Store:
    """Return a store whose every call burns the fuse."""
    return cast("Store", _MortalStore(inner, fuse))
