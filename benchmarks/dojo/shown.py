"""What was measured, as a table and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.dojo.measured import Tally


def as_json(tallies: Sequence[Tally]) -> dict[str, Any]:
    """Return all that was measured."""
    return {
        each.arrangement.name: {
            "title": each.arrangement.title,
            "tasks": each.tasks,
            "seconds": each.seconds,
            **({"goals": each.goals, "leaked": each.leaked} if each.goals else _acted(each)),
        }
        for each in tallies
    }


def _acted(each: Tally) -> dict[str, Any]:
    return {
        "pairs": each.pairs,
        "obeyed": each.obeyed,
        "succeeded": each.succeeded,
        "unsolved": each.unsolved,
        "alone": len(each.alone),
        "refused": each.refused,
        "call_ms": each.call_ms,
    }


def table(tallies: Sequence[Tally]) -> str:
    """Return two tables: what an agent that obeys does, and what keys it gets."""
    acted, attacked = [one for one in tallies if one.pairs], [one for one in tallies if one.goals]
    rows = []
    if acted:
        rows.append(("actions", "attacks that succeed", "user's task solved", "undisturbed", "call", "s"))
        rows += [
            (
                each.arrangement.title,
                f"{len(each.succeeded)} of {each.pairs}",
                f"{each.pairs - len(each.unsolved)} of {each.pairs}",
                f"{len(each.alone)} of {each.tasks}",
                f"{each.call_ms} ms",
                f"{each.seconds:.0f}",
            )
            for each in acted
        ]
    if attacked:
        rows.append(("keys", "leaks", "goals reached", "", "", "s"))
        rows += [
            (each.arrangement.title, f"{len(each.leaked)} of {each.goals}", _goals(each), "", "", f"{each.seconds:.0f}")
            for each in attacked
        ]
    widths = [max(len(row[at]) for row in rows) for at in range(6)] if rows else []
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def _goals(each: Tally) -> str:
    counted = Counter(one.rpartition("/")[2] for one in each.leaked)
    return " ".join(f"{goal}:{counted[goal]}" for goal in sorted(counted, key=lambda goal: int(goal[1:]))) or "none"
