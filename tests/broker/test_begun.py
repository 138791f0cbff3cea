"""Work that begins at once: as far as it goes without waiting before its caller goes on, the rest by itself."""

from __future__ import annotations

import asyncio

import pytest

from remit.broker.begun import begun


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
