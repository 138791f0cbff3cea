"""The benchmarks measure what they say: a short round of each kind, on real peers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from benchmarks import __main__ as command
from benchmarks import gateway, nginx, ours, runs
from benchmarks.client import closed_loop, cpu_seconds
from benchmarks.figure import figure
from tests.peers import require
from tests.support.postgres_server import PostgresServer

pytestmark = [pytest.mark.live, pytest.mark.slow]
NAMES = [
    "issue_postgres_1",
    "issue_postgres_16",
    "revoke_1000",
    "revoke_under_attack",
    "request_under_attack",
    "edges_killed_under_attack",
    "revoke_under_attack_busy",
    "request_under_attack_busy",
    "edges_killed_under_attack_busy",
    "revoke_tree_10000",
    "end_acknowledged_256",
    "edge_killed",
    "gateway_tasks_10000",
    "gateway_cpu_32",
    "gateway_cpu_256",
    "gateway_added_1",
    "grant_check_depth",
    "delegate_16",
    "exchange_16",
    "introspect_16",
    "sweep_10000",
    "idle_memory",
    "idle_memory_full",
]


def test_there_is_a_figure_for_each_number_to_reach() -> None:
    assert list(command.FIGURES) == NAMES


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["gatewy_cpu_32"]) == 2
    assert "there is no figure gatewy_cpu_32" in capsys.readouterr().err


def test_a_figure_is_a_median_with_its_spread_and_ratio() -> None:
    made = figure("x", "ms", [1.0, 2.0, 4.0], "peer", [8.0, 4.0, 4.0], 30)
    assert (made.value, made.spread, made.peer_value, made.ratio) == (2.0, 1.5, 4.0, 0.5)


def test_an_absent_peer_leaves_its_side_empty() -> None:
    made = figure("x", "ms", [1.0], "peer", [], 1)
    assert (made.peer_value, made.ratio) == (None, None)


def test_a_load_through_the_gateway_is_answered_by_the_upstream_that_wants_the_key() -> None:
    require("nginx")
    require("wrk")
    with gateway.stand() as it:
        through = it.through(4)
        past = nginx.load(f"http://127.0.0.1:{it.upstream.port}/v1/x", it.upstream.pid, connections=1, seconds=1)
    assert through.errors == 0
    assert through.n > 100
    assert through.cpu_us > 0
    assert past.errors == past.n  # without the key the upstream refuses: the other loads had it


def test_issued_credentials_are_roles_of_the_database_and_gone_after_closing() -> None:
    with PostgresServer() as server:
        asyncio.run(ours.table(server, "bench"))
        with ours.running() as house:
            asyncio.run(ours.with_database(house, server, "bench"))
            tasks = ours.opened(house, 2)
            load = asyncio.run(closed_loop(house.control, 2, 0.5, ours.issuing(tasks)))
            made = asyncio.run(ours.logins(server))
            ours.closed(house, tasks)
            left = asyncio.run(ours.logins(server))
    assert load.errors == 0
    assert (made, left) == (load.n, 0)


def test_the_cpu_of_a_process_that_died_meanwhile_is_counted() -> None:
    spent = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {spent!r}]); print(); sys.stdin.read()"
    command = [sys.executable, "-c", parent]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert psutil.Process(process.pid).children() == []
        assert cpu_seconds(process.pid) > 0.2  # the kernel counts in ticks, some in between
        process.terminate()


def test_the_processes_of_a_broker_are_found_and_a_run_asks_through_the_gateway() -> None:
    with runs.honest_upstream() as port, ours.running() as house:
        ours.with_upstream(house, port, ours.SECRET)
        assert ours.processes(house).keys() == {"authority", "edge"}
        with runs.asker(house) as asker:
            first = asker.good(0.0)[0]
    assert 0 < first.ended - first.begun < runs.START


def test_the_results_are_one_json_object_a_line() -> None:
    lines = Path(gateway.__file__).with_name("results.jsonl").read_text(encoding="utf-8").splitlines()
    wanted = {"name", "value", "unit", "spread", "peer", "n", "when"}
    some = {"peer_value", "ratio", "cpu_us", "peer_cpu_us", "cpu_ratio"}
    assert all(wanted <= json.loads(line).keys() <= wanted | some for line in lines)
