"""Credit and turns: no task delays another, and nothing is forgotten."""

from __future__ import annotations

from collections import Counter, deque

from hypothesis import given
from hypothesis import strategies as st

from remit.link.turns import Credit, FairQueue, NamedGrants

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


def test_a_task_with_many_grants_takes_no_name_of_anothers_and_loses_its_least_used() -> None:
    named = NamedGrants(8)
    named.add("theirs", "victim")
    for number in range(20):
        assert number == 0 or named.use(["g_0"])
        named.add(f"g_{number}", "flood")
    assert named.use(["theirs"])
    assert [number for number in range(20) if named.use([f"g_{number}"])] == [0, *range(14, 20)]


def test_a_grant_that_has_ended_gives_up_its_name_first_and_many_tasks_are_bounded_too() -> None:
    named = NamedGrants(4)
    for number in range(4):
        named.add(f"g_{number}", f"task_{number}")
    named.end(frozenset({"g_3", "g_9"}))
    assert named.use(["g_3"])  # it is told that it has ended
    named.add("g_4", "task_4")
    assert not named.use(["g_3"])
    assert named.use(["above", "g_0"])
    for number in range(5, 7):
        named.add(f"g_{number}", f"task_{number}")
    assert [number for number in range(7) if named.use([f"g_{number}"])] == [0, 4, 5, 6]


STEPS_OF_NAMES = st.lists(st.tuples(st.sampled_from(["add", "use", "end"]), st.integers(0, 11)), max_size=200)


@given(STEPS_OF_NAMES, st.integers(1, 6))
def test_who_has_no_more_than_its_share_keeps_its_names(steps: list[tuple[str, int]], most: int) -> None:
    named, ended = NamedGrants(most), set[int]()
    for what, at in steps:
        before = {one for one in range(12) if named.use([f"g_{one}"])}
        if what == "end":
            ended |= {at} & before
            named.end(frozenset({f"g_{at}"}))
        elif what == "add":
            named.add(f"g_{at}", f"task_{at % 3}")
            after = {one for one in range(12) if named.use([f"g_{one}"])}
            assert at in after
            assert len(after) <= most
            for gone in before - after:
                share = Counter(one % 3 for one in {*before, at} - ended)
                assert gone in ended or (not ended & before and share[gone % 3] == max(share.values()))
                ended.discard(gone)
