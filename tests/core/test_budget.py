"""Budgets along a lineage: what is taken below is taken above."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.core import scope
from remit.core.budget import Key, counters, debit
from remit.core.grant import GrantContext
from remit.core.request import Bounds, GrantRequest
from remit.core.task import Subject, Task, nothing, open_task
from remit.errors import BudgetError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def detail(uses: int | None, resource: str = "s") -> dict[str, object]:
    raw: dict[str, object] = {"type": "http", "resource": resource, "actions": ["GET"], "paths": ["/**"]}
    return {**raw, "uses": uses} if uses is not None else raw


def tree(*levels: list[dict[str, object]]) -> Task:
    """Return a task whose grants g0, g1, … hang below each other."""
    wanted = [GrantRequest(scope.parse(level), Bounds(depth=9 - i, fan_out=9)) for i, level in enumerate(levels)]
    root = GrantRequest(wanted[0].scope, Bounds(timedelta(hours=1), depth=9, fan_out=9))
    task = nothing("t").apply(
        open_task("t", "g0", Subject("h", "a"), replace(root, purpose="why"), GrantContext(), NOW)
    )
    for index, child in enumerate(wanted[1:]):
        task = task.apply(task.delegate(f"g{index}", f"g{index + 1}", child, GrantContext(), NOW))
    return task


def test_a_use_debits_every_counter_up_to_the_root() -> None:
    line = tree([detail(None, "x"), detail(5)], [detail(3)], [detail(2)]).lineage("g2")
    assert list(counters(line, 0)) == [
        (("g2", 0), 2),
        (("g1", 0), 3),
        (("g0", 1), 5),
    ]


def test_a_detail_without_a_limit_debits_nothing() -> None:
    assert counters(tree([detail(None)]).lineage("g0"), 0) == ()


@given(st.lists(st.sampled_from(["g0", "g1", "g2"]), max_size=12))
def test_no_counter_ever_passes_its_limit(order: list[str]) -> None:
    task = tree([detail(5)], [detail(3)], [detail(2)])
    spent: dict[Key, int] = {}
    for grant in order:
        try:
            spent.update(debit(spent, counters(task.lineage(grant), 0)))
        except BudgetError:
            continue
    limits = {("g0", 0): 5, ("g1", 0): 3, ("g2", 0): 2}
    assert all(spent.get(key, 0) <= limit for key, limit in limits.items())
    assert spent.get(("g0", 0), 0) >= max(spent.get(("g1", 0), 0), spent.get(("g2", 0), 0))


def test_a_refused_use_debits_nothing() -> None:
    task = tree([detail(1)], [detail(1)])
    spent: dict[Key, int] = {("g0", 0): 1}
    with pytest.raises(BudgetError, match="uses is used up") as refusal:
        debit(spent, counters(task.lineage("g1"), 0))
    assert refusal.value.help
    assert spent == {("g0", 0): 1}


def test_what_a_human_approved_beyond_the_parent_has_a_budget_of_its_own() -> None:
    task = tree([detail(5)])
    beyond = GrantRequest(scope.parse([detail(9), detail(2, "mail")]), Bounds(depth=1, fan_out=1))
    task = task.apply(task.delegate("g0", "g1", beyond, GrantContext(approval="apr_1"), NOW))
    below = GrantRequest(scope.parse([detail(1, "mail")]))
    task = task.apply(task.delegate("g1", "g2", below, GrantContext(), NOW))
    assert [key for key, _ in counters(task.lineage("g1"), 0)] == [("g1", 0)]
    assert [key for key, _ in counters(task.lineage("g1"), 1)] == [("g1", 1)]
    assert [key for key, _ in counters(task.lineage("g2"), 0)] == [("g2", 0), ("g1", 1)]
