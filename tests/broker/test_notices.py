"""Edges are told of ends and changes; an end waits for them, but not for one that hangs."""

from __future__ import annotations

import asyncio

import pytest

from remit.broker import notices as broker_notices
from remit.broker.notices import Feed, Notices
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


def test_that_runs_have_ended_is_said_before_anybody_goes_on() -> None:
    async def scene() -> None:
        notices = Notices()
        told = notices.listen()
        first = asyncio.ensure_future(anext(told))
        await asyncio.sleep(0)
        over = asyncio.ensure_future(notices.runs_ended())
        assert await first == Notice(runs=True)
        assert not over.done()
        following = asyncio.ensure_future(anext(told))
        await asyncio.wait_for(over, 5)
        following.cancel()

    asyncio.run(scene())


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


def test_an_edge_that_acts_on_each_notice_is_not_stuck_however_many_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_notices, "WAIT", 0.2)

    async def scene() -> None:
        notices, stuck, rounds = Notices(), list[int](), list[Notice]()
        feed = notices.feed(lambda: stuck.append(1))

        async def edge() -> None:
            while True:
                rounds.append(await feed.next())
                notices.tell(grants=frozenset({"grt_more"}))  # before it has acted on this one
                await asyncio.sleep(0.001)

        notices.tell(grants=ENDED)
        acting = asyncio.create_task(edge())
        assert await notices.acted_on()
        assert (stuck, len(rounds)) == ([], 2)  # asking for the second says that the first was acted on
        assert await notices.acted_on()
        acting.cancel()
        assert stuck == []

    asyncio.run(scene())


def test_an_end_waits_for_no_edge_that_holds_nothing_under_it_and_the_edge_is_told_all_the_same() -> None:
    async def scene() -> None:
        notices, stuck = Notices(), list[int]()
        feed = notices.feed(lambda: stuck.append(1), lambda grants: "grt_2" in grants)
        notices.tell(grants=ENDED)
        assert feed.acted.is_set()
        assert await notices.acted_on()
        assert (stuck, await feed.next()) == ([], Notice(ENDED))
        for held in ({"grants": frozenset({"grt_2"})}, {"resources": CHANGED}):
            notices.tell(**held)
            assert not feed.acted.is_set()
            feed.acted.set()

    asyncio.run(scene())


def test_an_edge_that_is_stuck_is_said_to_be_and_an_end_waits_until_it_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_notices, "WAIT", 0.01)

    async def scene() -> None:
        notices, feeds = Notices(), list[Feed]()

        def end_it() -> None:
            asyncio.get_running_loop().call_later(0.01, feeds[0].close)

        feeds.append(notices.feed(end_it))
        notices.tell(grants=ENDED)
        assert await notices.acted_on()
        notices.tell(grants=frozenset({"grt_2"}))
        assert (await feeds[0].next()).grants == ENDED  # who is gone is told nothing more
        feeds[0].close()
        assert await notices.acted_on()

    asyncio.run(scene())


def test_of_an_edge_that_is_not_gone_in_time_nobody_knows_what_it_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(broker_notices, "WAIT", 0.01)
    monkeypatch.setattr(broker_notices, "GONE", 0.01)

    async def scene() -> None:
        notices, stuck = Notices(), list[int]()
        notices.feed(lambda: stuck.append(1))
        notices.tell(grants=ENDED)
        assert not await notices.acted_on()
        assert stuck == [1]

    asyncio.run(scene())
