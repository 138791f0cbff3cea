"""The benchmarks measure what they say: a short round of each kind, on real peers."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import psutil
import pytest

from benchmarks import __main__ as command
from benchmarks import (
    attack,
    bad_tokens,
    control,
    credentials,
    gateway,
    identity,
    mcp_calls,
    nginx,
    ours,
    planes,
    proxies,
    runs,
)
from benchmarks import figure as figures
from benchmarks.client import closed_loop, cpu_seconds
from benchmarks.figure import figure
from tests.peers import require
from tests.support.postgres_server import PostgresServer

pytestmark = [pytest.mark.live, pytest.mark.slow]
NAMES = [
    "issue_postgres_1",
    "issue_postgres_16",
    "issue_postgres_1_4096",
    "issue_postgres_16_4096",
    "revoke_1000",
    "revoke_under_attack",
    "request_under_attack",
    "edges_killed_under_attack",
    "revoke_under_attack_busy",
    "request_under_attack_busy",
    "edges_killed_under_attack_busy",
    "revoke_under_bad_tokens",
    "revoke_tree_10000",
    "end_acknowledged_256",
    "edge_killed",
    "run_true",
    "gateway_tasks_10000",
    "gateway_cpu_32",
    "gateway_cpu_256",
    "proxied_mitmproxy",
    "proxied_mitmproxy_h2",
    "proxied_envoy",
    "proxied_envoy_h2",
    "gateway_added_1",
    "mcp_call",
    "grant_check_depth",
    "delegate_16",
    "exchange_16",
    "introspect_16",
    "sweep_10000",
    "idle_memory",
    "idle_memory_full",
]
# A short round of each figure that needs no OpenBao, which only `make bench` installs, and of the others where it is.
SHORT: dict[ModuleType, dict[str, float]] = {
    credentials: {"ROUNDS": 1, "SECONDS": 0.3, "THOUSAND": 20, "SOME": 5, "REVOKED": 1},
    control: {"ROUNDS": 1, "SECONDS": 0.3, "PROOFS": 2, "CALLS": 100, "SWEEPS": 2, "MANY": 20, "FEW": 2, "IDLE": 0.1},
    identity: {"ROUNDS": 1, "SECONDS": 0.3, "TOKENS": 2},
    planes: {"TREES": 1, "WIDE": 3, "WIDER": 2, "CONNECTIONS": 8, "USED": 3, "ROUNDS": 1, "DEATHS": 1, "RUNS": 2}
    | {"MANY": 20, "FEW": 2, "SECONDS": 0.5, "LOOKS": 2},
    gateway: {"ROUNDS": 1, "SECONDS": 1},
    proxies: {"ROUNDS": 1, "SECONDS": 1},
    mcp_calls: {"ROUNDS": 1, "SECONDS": 1},
    attack: {"ROUNDS": 1, "ENDS": 3, "HOSTILE_RUNS": 1, "HANGING": 1},
    bad_tokens: {"ROUNDS": 1, "ENDS": 3},
}
WITH_OPENBAO = [
    *("issue_postgres_1", "issue_postgres_16_4096", "revoke_1000", "delegate_16", "exchange_16", "introspect_16"),
    *("idle_memory", "idle_memory_full"),
]
SHOWN = [
    *("revoke_under_attack", "revoke_under_bad_tokens", "revoke_tree_10000", "end_acknowledged_256", "edge_killed"),
    *("run_true", "gateway_tasks_10000", "gateway_cpu_32", "gateway_added_1", "grant_check_depth", "sweep_10000"),
    *(["proxied_mitmproxy", "proxied_mitmproxy_h2"] if proxies.MITMDUMP.exists() else []),
    *(["mcp_call"] if mcp_calls.FASTMCP.exists() else []),
    *(["proxied_envoy"] if Path(sys.executable).with_name("envoy").exists() else []),
    *(WITH_OPENBAO if Path(sys.executable).with_name("bao").exists() else []),
]


def test_there_is_a_figure_for_each_number_to_reach() -> None:
    assert list(command.FIGURES) == NAMES


@pytest.mark.parametrize("name", SHOWN)
def test_a_figure_can_be_measured(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if name in command.NEEDS_DEBIAN:
        require("nginx")
        require("wrk")
        require("h2load")
    for module, constants in SHORT.items():
        for constant, value in constants.items():
            monkeypatch.setattr(module, constant, value)
    monkeypatch.setattr(figures, "RESULTS", tmp_path / "results.jsonl")
    assert command.main([name]) == 0
    made = json.loads(figures.RESULTS.read_text(encoding="utf-8"))
    assert made["name"] == name
    assert made["n"] > 0


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["gatewy_cpu_32"]) == 2
    assert "there is no figure gatewy_cpu_32" in capsys.readouterr().err


def test_a_figure_is_a_median_with_its_spread_and_ratio() -> None:
    made = figure("x", "ms", [1.0, 2.0, 4.0], "peer", [8.0, 4.0, 4.0], 30)
    assert (made.value, made.spread, made.peer_value, made.ratio) == (2.0, 1.5, 4.0, 0.5)


def test_ratios_are_of_sides_that_were_measured_in_the_same_round() -> None:
    made = figure("x", "/s", [1.0, 10.0], "peer", [2.0, 20.0], 2, ([30.0, 300.0], [10.0, 100.0]))
    assert (made.ratio, made.ratio_spread, made.cpu_ratio, made.cpu_spread) == (0.5, 0.0, 3.0, 0.0)
    assert made.spread > 1  # others used the machine in one of them


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
    some = {
        "peer_value",
        "ratio",
        "ratio_spread",
        "cpu_us",
        "peer_cpu_us",
        "cpu_ratio",
        "cpu_spread",
        "seconds",
        "load",
    }
    assert all(wanted <= json.loads(line).keys() <= wanted | some for line in lines)
