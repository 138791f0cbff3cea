"""What looking at a task costs that has as many grants as one may have."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from remit.core.request import Bounds, GrantRequest
from tests.broker.world import OPERATOR, SEARCH, World, details, run
from tests.support.measured import best

NARROW = GrantRequest(details(SEARCH), Bounds(depth=1, fan_out=1))
LARGEST = 20_000  # grants of a task


@pytest.mark.attack("DOS-09")
def test_the_last_page_of_a_large_task_holds_the_loop_for_no_longer_than_others() -> None:
    async def body() -> None:
        world = World()
        broker = await world.ready()
        root = await world.opened(broker)
        child = (await broker.delegate(OPERATOR, root.id, NARROW)).grant
        task = broker._tasks.task_of(root.id)
        many = {f"grt_{number:032x}": child for number in range(LARGEST)}
        grants = {root.id: root} | {name: replace(grant, id=name) for name, grant in many.items()}
        broker._tasks._put(replace(task, grants=grants, children={root.id: tuple(many)}), (), ())
        first = await broker.task(OPERATOR, task.head.id, limit=2)
        assert first.next == next(reversed(many))
        last = next(iter(many))

        def cost() -> float:
            asked, before = broker.task(OPERATOR, task.head.id, after=last), time.thread_time()
            with pytest.raises(StopIteration) as answered:
                asked.send(None)  # at one go
            assert list(answered.value.value.grants) == []
            return time.thread_time() - before

        assert best(cost, 0.005) <= 0.005

    run(body())
