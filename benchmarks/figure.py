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
    """Medians of rounds. A spread is (largest - smallest) / median of its value.

    ``ratio`` is ours over the peer's, round by round where both were measured in each. ``cpu_us`` is the CPU of an
    operation in all processes of a side together: it holds where others use the machine, too, and a rate does not.
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
    ratio_spread: float | None = None
    cpu_us: float | None = None
    peer_cpu_us: float | None = None
    cpu_ratio: float | None = None
    cpu_spread: float | None = None  # of cpu_ratio
    seconds: float | None = None  # that measuring it took
    load: float | None = None  # average of the machine's last minute at its end: what else ran


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
    ratios, cpu_ratios = _ratios(ours, theirs), _ratios(*cpu)
    return Figure(
        name=name,
        value=_median(ours) or 0.0,
        unit=unit,
        spread=_spread(ours) or 0.0,
        peer=peer,
        peer_value=_median(theirs),
        ratio=_median(ratios),
        n=n,
        when=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        ratio_spread=_spread(ratios) if len(ratios) > 1 else None,
        cpu_us=_median(cpu[0]),
        peer_cpu_us=_median(cpu[1]),
        cpu_ratio=_median(cpu_ratios),
        cpu_spread=_spread(cpu_ratios) if len(cpu_ratios) > 1 else None,
    )


def record(made: Figure) -> None:
    """Append a figure to the results."""
    with RESULTS.open("a", encoding="utf-8") as file:
        file.write(json.dumps({name: value for name, value in asdict(made).items() if value is not None}) + "\n")


def _ratios(ours: Sequence[float], theirs: Sequence[float]) -> Sequence[float]:
    if not ours or not theirs or not all(theirs):
        return ()
    if len(ours) == len(theirs):
        return [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return [statistics.median(ours) / statistics.median(theirs)]


def _median(values: Sequence[float]) -> float | None:
    return _short(statistics.median(values)) if values else None


def _spread(values: Sequence[float]) -> float | None:
    middle = statistics.median(values) if values else 0.0
    return _short((max(values) - min(values)) / middle) if middle else None


def _short(value: float) -> float:
    return float(f"{value:.4g}")
