"""``python -m benchmarks [NAME...]``: measure, print a table, append to ``results.jsonl``."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import asdict
from functools import partial

from benchmarks import attack, control, credentials, gateway, identity, nginx, planes
from benchmarks.figure import Figure, record
from remit.compose import kinds

FIGURES: dict[str, Callable[[], Figure]] = {
    "issue_postgres_1": credentials.issue_postgres_1,
    "issue_postgres_16": credentials.issue_postgres_16,
    "revoke_1000": credentials.revoke_1000,
    "revoke_under_attack": attack.revoke_under_attack,
    "request_under_attack": attack.request_under_attack,
    "edges_killed_under_attack": attack.edges_killed_under_attack,
    "revoke_under_attack_busy": partial(attack.revoke_under_attack, busy=True),
    "request_under_attack_busy": partial(attack.request_under_attack, busy=True),
    "edges_killed_under_attack_busy": partial(attack.edges_killed_under_attack, busy=True),
    "revoke_tree_10000": planes.revoke_tree_10000,
    "end_acknowledged_256": planes.end_acknowledged_256,
    "edge_killed": planes.edge_killed,
    "gateway_tasks_10000": planes.gateway_tasks_10000,
    "gateway_cpu_32": gateway.gateway_cpu_32,
    "gateway_cpu_256": gateway.gateway_cpu_256,
    "gateway_added_1": gateway.gateway_added_1,
    "grant_check_depth": control.grant_check_depth,
    "delegate_16": control.delegate_16,
    "exchange_16": identity.exchange_16,
    "introspect_16": identity.introspect_16,
    "sweep_10000": control.sweep_10000,
    "idle_memory": control.idle_memory,
    "idle_memory_full": control.idle_memory_full,
}
NEEDS_DEBIAN = {"gateway_cpu_32", "gateway_cpu_256", "gateway_added_1"}


def main(names: list[str]) -> int:
    """Measure the named figures, or all; 1 when one could not be measured."""
    kinds.known()
    unknown = [name for name in names if name not in FIGURES]
    if unknown:
        print(f"there is no figure {', '.join(unknown)}; there are {', '.join(FIGURES)}", file=sys.stderr)
        return 2
    absent = nginx.absent()
    made, failed = [], False
    for name in names or FIGURES:
        if absent and name in NEEDS_DEBIAN:
            print(f"{name}: left out, as {' and '.join(absent)} are not installed (apt-get)", file=sys.stderr)
            continue
        print(f"{name} ...", file=sys.stderr, flush=True)
        try:
            figure = FIGURES[name]()
        except Exception as error:  # noqa: BLE001 - one that fails must not lose the others
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
            continue
        record(figure)
        made.append(figure)
    _table(made)
    return 1 if failed else 0


def _table(figures: list[Figure]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table()
    columns = (
        "name",
        "value",
        "unit",
        "spread",
        "peer",
        "peer_value",
        "ratio",
        "cpu_us",
        "peer_cpu_us",
        "cpu_ratio",
        "n",
    )
    for name in columns:
        table.add_column(name, justify="left" if name in {"name", "unit", "peer"} else "right")
    for figure in figures:
        row = asdict(figure)
        table.add_row(*("-" if row[name] is None else str(row[name]) for name in columns))
    Console(width=180).print(table)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
