"""One figure: what was measured, against whom, and how it is written down."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

RESULTS = Path(__file__).with_name("results.jsonl")


@dataclass(frozen=True, slots=True)
class Figure:
    """A median of rounds. ``spread`` is (largest - smallest) / median; ``ratio`` is ours over the peer's."""

    name: str
    value: float
    unit: str
    spread: float
    peer: str
    peer_value: float | None
    ratio: float | None
    n: int
    when: str


def figure(name: str, unit: str, ours: Sequence[float], peer: str, theirs: Sequence[float], n: int) -> Figure:
    """Make a figure of interleaved rounds; ``theirs`` may be empty when the peer is absent."""
    value = statistics.median(ours)
    other = statistics.median(theirs) if theirs else None
    spread = (max(ours) - min(ours)) / value if value else 0.0
    ratio = value / other if other else None
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Figure(
        name=name,
        value=_short(value),
        unit=unit,
        spread=_short(spread),
        peer=peer,
        peer_value=None if other is None else _short(other),
        ratio=None if ratio is None else _short(ratio),
        n=n,
        when=when,
    )


def record(made: Figure) -> None:
    """Append a figure to the results."""
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(made)) + "\n")


def _short(value: float) -> float:
    return float(f"{value:.4g}")
