"""Edges are told of ends and changes; an end waits for them, but not for one that hangs."""

from __future__ import annotations

import asyncio

from remit.broker.notices import Notices
from remit.ports.broker import Notice

ENDED, CHANGED = frozenset({"grt_1"}), frozenset({"search"})


def test_an_edge_is_told_at_once_what_came_together() -> None:
    async def scene() -> Notice:
        notices = Notices()
        told = notices.listen()
        notices.tell(grants=ENDED)
        notices.tell(resources=CHANGED)
        return await anext(told)

    assert asyncio.run(scene()) == Notice(ENDED, CHANGED)


def test_asking_for_the_next_notice_says_that_the_last_was_acted_on() -> None:
    async def scene() -> None:
        notices = Notices()
        told = notices.listen()
        notices.tell(grants=ENDED)
        waiting = asyncio.create_task(notices.acted_on())
        assert (await anext(told)).grants == ENDED
        assert not waiting.done()
        following = asyncio.ensure_future(anext(told))
        await asyncio.wait_for(waiting, 5)
        following.cancel()

    asyncio.run(scene())


def test_an_edge_that_hangs_holds_up_no_end_for_good_and_gathers_nothing() -> None:
    async def scene() -> None:
        notices = Notices()
        told = notices.listen()
        for _ in range(2):
            notices.tell(grants=ENDED)
            await asyncio.wait_for(notices.acted_on(), 5)
        await told.aclose()  # type: ignore[attr-defined]  # what streams is a generator
        left = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait_for(asyncio.gather(*left, return_exceptions=True), 5)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scene())


def test_an_edge_that_was_told_more_meanwhile_has_not_acted_on_it_yet() -> None:
    async def scene() -> None:
        notices = Notices()
        told = notices.listen()
        notices.tell(grants=ENDED)
        assert (await anext(told)).grants == ENDED
        notices.tell(resources=frozenset({"search"}))
        waiting = asyncio.create_task(notices.acted_on())
        assert (await anext(told)).resources == {"search"}
        assert not waiting.done()
        following = asyncio.ensure_future(anext(told))
        await asyncio.wait_for(waiting, 5)
        following.cancel()

    asyncio.run(scene())
