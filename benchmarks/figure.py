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
    """A median of rounds. ``spread`` is (largest - smallest) / median; ``ratio`` is ours over the peer's.

    ``cpu_us`` is the CPU of an operation in all processes of a side together, where the value is a rate.
    """

    name: str
    value: float
    unit: str
    spread: float
    peer: str
    peer_value: float | None
    ratio: float | None
    n: int
    when: str
    cpu_us: float | None = None
    peer_cpu_us: float | None = None
    cpu_ratio: float | None = None


def figure(
    name: str,
    unit: str,
    ours: Sequence[float],
    peer: str,
    theirs: Sequence[float],
    n: int,
    cpu: tuple[Sequence[float], Sequence[float]] = ((), ()),
) -> Figure:
    """Make a figure of interleaved rounds; ``theirs`` may be empty when the peer is absent.

    ``cpu`` are the microseconds an operation of both sides, for a rate.
    """
    value = statistics.median(ours)
    other = statistics.median(theirs) if theirs else None
    spread = (max(ours) - min(ours)) / value if value else 0.0
    ratio = value / other if other else None
    used, by_peer = (statistics.median(side) if side else None for side in cpu)
    when = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    return Figure(
        name=name,
        value=_short(value) or 0.0,
        unit=unit,
        spread=_short(spread) or 0.0,
        peer=peer,
        peer_value=_short(other),
        ratio=_short(ratio),
        n=n,
        when=when,
        cpu_us=_short(used),
        peer_cpu_us=_short(by_peer),
        cpu_ratio=None if used is None or not by_peer else _short(used / by_peer),
    )


def record(made: Figure) -> None:
    """Append a figure to the results."""
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps({name: value for name, value in asdict(made).items() if value is not None}) + "\n")


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.4g}")
