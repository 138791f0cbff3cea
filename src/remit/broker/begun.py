"""How work is waited for: not to its end, not at all, or many side by side."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator, Sequence
from typing import Any, Generic, Protocol, TypeVar

from remit.errors import UnavailableError

S = TypeVar("S")
T = TypeVar("T")

_going = set[asyncio.Future[Any]]()  # a loop alone does not keep them


def begun(work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
    """Run a coroutine to where it first waits, now; the rest is a task of its own. Python 3.12 calls this eager.

    A task that begins a moment later would find others' changes between what its caller saw and what it does.
    """
    answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()
    try:
        first = work.send(None)
    except StopIteration as done:
        answer.set_result(done.value)
    except Exception as error:  # noqa: BLE001 - whoever waits is told
        answer.set_exception(error)
    else:
        return asyncio.ensure_future(_Rest(work, first))
    return answer


Unwaited = Callable[[Coroutine[Any, Any, object]], object]


def unwaited(work: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
    """Begin work that goes on though nobody waits for it, and sees itself to what becomes of it."""
    going = begun(work)
    _going.add(going)
    going.add_done_callback(_over)
    return going


class InTime(Protocol):
    """A deadline around work that goes on after it: ``in_time``."""

    async def __call__(
        self, work: Coroutine[Any, Any, T], seconds: float, late: Callable[[asyncio.Future[T]], object] | None = None, /
    ) -> T: ...


async def in_time(
    work: Coroutine[Any, Any, T], seconds: float, late: Callable[[asyncio.Future[T]], object] | None = None
) -> T:
    """Begin work and wait so long at most; then UnavailableError, once ``late`` was told what goes on by itself."""
    going = unwaited(work)
    if not going.done():
        await asyncio.wait((going,), timeout=seconds)
    if going.done():
        return going.result()
    if late is not None:
        late(going)
    raise UnavailableError("the state does not answer")


async def gather_limited(work: Callable[[S], Awaitable[T]], items: Sequence[S], at_once: int | None = None) -> list[T]:
    """Do the same for many, ``at_once`` at a time; a failure holds up no other, and the first is raised in the end."""
    if len(items) == 1:
        return [await work(items[0])]
    done, step = list[T | BaseException](), at_once or len(items) or 1
    for start in range(0, len(items), step):
        done += await asyncio.gather(*map(work, items[start : start + step]), return_exceptions=True)
    for failure in done:
        if isinstance(failure, BaseException):
            raise failure
    return [item for item in done if not isinstance(item, BaseException)]


def _over(going: asyncio.Future[Any]) -> None:
    _going.discard(going)
    if not going.cancelled():
        going.exception()  # whoever waits is told


class _Rest(Generic[T]):
    """What is left of a coroutine that waits for ``first``."""

    def __init__(self, work: Coroutine[Any, Any, T], first: object) -> None:
        self._work, self._first = work, first

    def __await__(self) -> Generator[Any, Any, T]:
        waiting = self._first
        try:
            while True:
                try:
                    sent = yield waiting
                except BaseException as error:  # noqa: BLE001 - it is the work's to handle
                    waiting = self._work.throw(error)
                else:
                    waiting = self._work.send(sent)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]  # what the work returned
