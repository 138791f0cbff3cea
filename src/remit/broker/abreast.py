"""Doing the same for many, some at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")


async def abreast(work: Callable[[S], Awaitable[T]], items: Sequence[S], at_once: int) -> list[T]:
    """Do the same for many, some at a time; one's failure holds up no other, and the first is raised in the end."""
    if len(items) == 1:
        return [await work(items[0])]
    done: list[T | BaseException] = []
    for start in range(0, len(items), at_once):
        done += await asyncio.gather(*map(work, items[start : start + at_once]), return_exceptions=True)
    for failure in done:
        if isinstance(failure, BaseException):
            raise failure
    return [item for item in done if not isinstance(item, BaseException)]
