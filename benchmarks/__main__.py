"""``python -m benchmarks [NAME...]``: say the plan, measure, print a table, append to ``results.jsonl``."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import NamedTuple

from benchmarks import attack, bad_tokens, control, credentials, gateway, identity, mcp_calls, planes, proxies
from benchmarks.figure import Figure, record
from remit.compose import kinds


class Planned(NamedTuple):
    """A figure to measure, and about how many seconds that takes on a calm machine of two cores."""

    measure: Callable[[], Figure]
    seconds: int


FIGURES: dict[str, Planned] = {
    "issue_postgres_1": Planned(credentials.issue_postgres_1, 30),
    "issue_postgres_16": Planned(credentials.issue_postgres_16, 35),
    "issue_postgres_1_4096": Planned(credentials.issue_postgres_1_4096, 30),
    "issue_postgres_16_4096": Planned(credentials.issue_postgres_16_4096, 35),
    "revoke_1000": Planned(credentials.revoke_1000, 40),
    "revoke_under_attack": Planned(attack.revoke_under_attack, 50),
    "request_under_attack": Planned(attack.request_under_attack, 0),  # measured with the one before
    "edges_killed_under_attack": Planned(attack.edges_killed_under_attack, 0),
    "revoke_under_attack_busy": Planned(partial(attack.revoke_under_attack, busy=True), 60),
    "request_under_attack_busy": Planned(partial(attack.request_under_attack, busy=True), 0),
    "edges_killed_under_attack_busy": Planned(partial(attack.edges_killed_under_attack, busy=True), 0),
    "revoke_under_bad_tokens": Planned(bad_tokens.revoke_under_bad_tokens, 30),
    "revoke_tree_10000": Planned(planes.revoke_tree_10000, 35),
    "end_acknowledged_256": Planned(planes.end_acknowledged_256, 15),
    "edge_killed": Planned(planes.edge_killed, 15),
    "run_true": Planned(planes.run_true, 10),
    "gateway_tasks_10000": Planned(planes.gateway_tasks_10000, 30),
    "gateway_cpu_32": Planned(gateway.gateway_cpu_32, 35),
    "gateway_cpu_256": Planned(gateway.gateway_cpu_256, 35),
    "proxied_mitmproxy": Planned(proxies.proxied_mitmproxy, 30),
    "proxied_mitmproxy_h2": Planned(proxies.proxied_mitmproxy_h2, 30),
    "proxied_envoy": Planned(proxies.proxied_envoy, 30),
    "proxied_envoy_h2": Planned(proxies.proxied_envoy_h2, 30),
    "gateway_added_1": Planned(gateway.gateway_added_1, 35),
    "mcp_call": Planned(mcp_calls.mcp_call, 45),
    "grant_check_depth": Planned(control.grant_check_depth, 5),
    "delegate_16": Planned(control.delegate_16, 30),
    "exchange_16": Planned(identity.exchange_16, 30),
    "introspect_16": Planned(identity.introspect_16, 25),
    "sweep_10000": Planned(control.sweep_10000, 10),
    "idle_memory": Planned(control.idle_memory, 10),
    "idle_memory_full": Planned(control.idle_memory_full, 15),
}
NEEDS_DEBIAN = {name for name in FIGURES if name.startswith(("gateway_cpu", "gateway_added", "proxied"))}


def main(names: list[str]) -> int:
    """Measure the named figures, or all; 1 when one could not be measured."""
    kinds.known()
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        print(f"there is no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}", file=sys.stderr)
        return 2
    wanted, absent = names or list(FIGURES), proxies.absent()
    if absent and NEEDS_DEBIAN & set(wanted):
        left = ", ".join(name for name in wanted if name in NEEDS_DEBIAN)
        print(f"left out, as {' and '.join(absent)} are not installed (apt-get): {left}", file=sys.stderr)
        wanted = [name for name in wanted if name not in NEEDS_DEBIAN]
    made = [found for found in _each(wanted) if found is not None]
    _table(made)
    return 0 if len(made) == len(wanted) else 1


def _each(names: Sequence[str]) -> Iterator[Figure | None]:
    """Measure one figure after the other; None for one that could not be, which must not lose the others."""
    with _progress(sum(FIGURES[name].seconds for name in names)) as begin:
        for number, name in enumerate(names, 1):
            begin(f"{number}/{len(names)} {name}", FIGURES[name].seconds)
            started = time.monotonic()
            try:
                found = FIGURES[name].measure()
            except Exception as error:  # noqa: BLE001 - as above
                print(f"{name}: {error}", file=sys.stderr)
                yield None
                continue
            found = replace(found, seconds=round(time.monotonic() - started, 1), load=round(os.getloadavg()[0], 1))
            record(found)
            yield found


@contextmanager
def _progress(seconds: int) -> Iterator[Callable[[str, int], None]]:
    """Show what is measured, and how much of the plan is left: yield what to call before each figure."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    console.print(f"about {max(1, round(seconds / 60))} min on a calm machine")
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.0f}%"), TimeElapsedColumn()
    with Progress(*columns, console=console) as shown:
        bar, under_way = shown.add_task("", total=max(1, seconds)), 0

        def begin(what: str, planned: int) -> None:
            nonlocal under_way
            shown.update(bar, description=what, advance=under_way)
            under_way = planned
            if not console.is_terminal:
                console.print(what)

        yield begin
        shown.update(bar, description="", advance=under_way)


def _table(figures: list[Figure]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(
        caption="± is (largest - smallest) / median of the rounds; CPU is of all processes, in µs an operation"
    )
    for name in ("figure", "peer"):
        table.add_column(name)
    for name in ("value", "of peer", "ratio", "CPU", "of peer", "ratio", "n", "s"):
        table.add_column(name, justify="right")
    for each in figures:
        table.add_row(
            each.name,
            each.peer,
            f"{_cell(each.value, each.spread)} {each.unit}",
            _cell(each.peer_value),
            _cell(each.ratio, each.ratio_spread),
            _cell(each.cpu_us),
            _cell(each.peer_cpu_us),
            _cell(each.cpu_ratio, each.cpu_spread),
            str(each.n),
            _cell(each.seconds),
        )
    Console(width=220).print(table)


def _cell(value: float | None, spread: float | None = None) -> str:
    if value is None:
        return "-"
    return f"{value:g}" if spread is None else f"{value:g} ±{spread:.0%}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
