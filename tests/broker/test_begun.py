"""Work that begins at once: as far as it goes without waiting before its caller goes on, the rest by itself."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remit.broker.begun import begun, in_time
from remit.errors import UnavailableError


def test_work_goes_at_once_to_where_it_first_waits_and_on_from_there() -> None:
    async def body() -> None:
        seen, gate = [], asyncio.Event()

        async def work() -> int:
            seen.append("begun")
            await gate.wait()
            await asyncio.sleep(0)
            seen.append("done")
            return 7

        going = begun(work())
        assert (seen, going.done()) == (["begun"], False)
        gate.set()
        assert await going == 7
        assert seen == ["begun", "done"]

    asyncio.run(body())


@pytest.mark.parametrize("waits", [False, True])
def test_what_work_raises_is_told_to_whoever_waits(waits: bool) -> None:  # noqa: FBT001 - a test's parameter
    async def body() -> None:
        async def work() -> None:
            if waits:
                await asyncio.sleep(0)
            raise KeyError

        with pytest.raises(KeyError):
            await begun(work())

    asyncio.run(body())


def test_work_that_never_waits_is_done_when_it_has_begun() -> None:
    async def body() -> None:
        async def work() -> int:
            return 7

        going = begun(work())
        assert (going.done(), await going) == (True, 7)

    asyncio.run(body())


def test_work_that_is_cancelled_may_clean_up() -> None:
    async def body() -> None:
        cleaned, never = [], asyncio.Event()

        async def work() -> None:
            try:
                await never.wait()
            finally:
                await asyncio.sleep(0)
                cleaned.append(1)

        going = begun(work())
        await asyncio.sleep(0)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        assert cleaned == [1]

    asyncio.run(body())


def test_work_that_is_cancelled_after_its_time_was_up_is_no_error_of_the_loop() -> None:
    async def body() -> None:
        reported, never = list[object](), asyncio.Event()
        asyncio.get_running_loop().set_exception_handler(lambda _, about: reported.append(about))
        late = list[asyncio.Future[Any]]()
        with pytest.raises(UnavailableError):
            await in_time(never.wait(), 0, late.append)
        [going] = late
        assert not going.done()  # it goes on by itself
        going.cancel()
        await asyncio.wait((going,))
        await asyncio.sleep(0)
        assert (going.cancelled(), reported) == (True, [])

    asyncio.run(body())
