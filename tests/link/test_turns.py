"""Credit and turns: no task delays another, and nothing is forgotten."""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from remit.link.turns import Credit, FairQueue

STEPS = st.lists(st.tuples(st.sampled_from(["put", "take", "done"]), st.integers(0, 4)), max_size=200)


@given(STEPS, st.integers(1, 8), st.integers(1, 4))
def test_what_may_go_goes_in_the_order_of_its_task_and_within_credit(
    steps: list[tuple[str, int]], most: int, most_of_task: int
) -> None:
    queue: FairQueue[int] = FairQueue(most, most_of_task)
    waiting: dict[str, deque[int]] = {f"task_{i}": deque() for i in range(5)}
    under_way, number = Counter[str](), 0
    for what, at in steps:
        task = f"task_{at}"
        if what == "put":
            number += 1
            queue.put(task, number)
            waiting[task].append(number)
        elif what == "done" and under_way[task]:
            under_way[task] -= 1
            queue.done(task)
        elif what == "take":
            could = [i for i, items in waiting.items() if items and under_way[i] < most_of_task]
            assert bool(queue) == (bool(could) and under_way.total() < most)
            taken = queue.take()
            assert (taken is not None) == (bool(could) and under_way.total() < most)
            if taken is not None:
                assert waiting[taken[0]].popleft() == taken[1]
                under_way[taken[0]] += 1
    assert sorted(queue.drained()) == sorted(item for items in waiting.values() for item in items)
    assert not queue


def test_a_task_waits_for_one_of_each_other_and_not_for_their_flood() -> None:
    queue: FairQueue[str] = FairQueue(1, 1)
    for i in range(100):
        queue.put("loud", f"loud {i}")
    queue.put("calm", "calm")
    went = []
    for _ in range(3):
        taken = queue.take()
        assert taken is not None
        went.append(taken[1])
        queue.done(taken[0])
    assert went == ["loud 0", "calm", "loud 1"]


def test_credit_is_for_each_task_and_for_all() -> None:
    credit = Credit(3, 2)
    taken = [(credit.take(task), credit.left) for task in "aaab"]
    assert taken == [(True, True), (True, True), (False, True), (True, False)]
    credit.give("a")
    assert (credit.left, credit.take("a")) == (True, True)
