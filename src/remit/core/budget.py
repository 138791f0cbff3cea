"""Budgets: uses of a detail, debited along the whole lineage in one step, so that delegating multiplies nothing.

A counter belongs to one detail of one grant and counts its own uses and those of all below it. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from remit.core.grant import Grant
from remit.errors import ASK, BudgetError

Key = tuple[str, int]  # grant id, index of the detail
Counter = tuple[Key, int]  # with its limit in uses


def counters(line: Sequence[Grant], index: int) -> tuple[Counter, ...]:
    """Return the counters that one use of a detail debits: its own and those that cover it, up ``line`` to the root."""
    found = []
    for grant in line:
        limit = grant.scope[index].number("uses")
        if limit is not None:
            found.append(((grant.id, index), limit))
        if grant.covers:
            index = grant.covers[index]
            if index < 0:  # covered by an approval, which is a root of its own
                break
    return tuple(found)


def debit(spent: Mapping[Key, int], chain: tuple[Counter, ...]) -> dict[Key, int]:
    """Return the new values of the counters after one use, or raise BudgetError and change none."""
    after = {}
    for key, limit in chain:
        after[key] = spent.get(key, 0) + 1
        if after[key] > limit:
            raise BudgetError(f"the budget of {limit} uses is used up", help=ASK)
    return after
