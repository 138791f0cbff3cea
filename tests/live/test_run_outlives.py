"""Brokers in processes of their own that are killed or stopped, beside runs that go on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.live.terminal import PATIENCE, Terminal, configure

pytestmark = pytest.mark.live
BOUND = "actions=GET,paths=/v1/**,args=any"
ASK = """
import http.client, json, os, socket, sys
def own():
    channel = http.client.HTTPConnection("localhost")
    channel.sock = socket.socket(socket.AF_UNIX)
    channel.sock.connect(os.environ["REMIT_SOCKET"])
    channel.request("GET", "/v1/self")
    return json.load(channel.getresponse()).get("grant")
def gateway():
    web = http.client.HTTPConnection("127.0.0.1", 8471)
    web.request("GET", "/search/v1/x", headers={"authorization": "Bearer " + os.environ["REMIT_KEY_SEARCH"]})
    return web.getresponse().status
print(own(), flush=True)
for _ in sys.stdin:
    print(own(), gateway(), flush=True)
"""


@pytest.fixture
def here(tmp_path: Path) -> Terminal:
    configure(tmp_path, ["[listen]", 'api = "off"', 'gateway = "off"'])
    (tmp_path / "work").mkdir()
    return Terminal(tmp_path, "https://idp.test", work=tmp_path / "work")


def up(here: Terminal, *options: str) -> subprocess.Popen[str]:
    """Start a broker; return it when it serves."""
    process = here.start("up", "--json", *options)
    assert process.stdout is not None
    assert process.stdout.readline()
    return process


def started(here: Terminal, *arguments: str) -> subprocess.Popen[str]:
    """Start a run that says its grant, and says it again for each line that it is told."""
    return here.start("run", *arguments, "--", sys.executable, "-c", ASK, stdin=subprocess.PIPE)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    return process.stderr.readline()


def asked(process: subprocess.Popen[str]) -> str:
    """Have a run ask who it is, and whether it may do something."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["kill -9", "SIGTERM"])
def test_runs_go_on_over_brokers_that_end_in_any_way(here: Terminal, number: signal.Signals) -> None:
    broker = up(here)
    try:
        added = here.run("resource", "add", "search", "http://127.0.0.1:9", "--bound", BOUND)
        assert added[0] == 0, added[2]
        held = here.told("open", "t", "-r", "search", "--ttl", "1h")["grant"]
        with started(here, "-r", "search") as own, started(here, "-g", held) as attached:
            assert own.stdout is not None
            assert attached.stdout is not None
            grants = [own.stdout.readline().strip(), attached.stdout.readline().strip()]
            assert grants[1] == held
            for _ in range(2):
                broker.send_signal(number)
                broker.communicate()
                broker = up(here)
                for process in (own, attached):
                    assert "for 30 seconds" in said(process)
                    assert "this run goes on" in said(process)
            # the gateway of the run is served, and nothing listens where the resource is
            assert [asked(process) for process in (own, attached)] == [f"{grant} 502" for grant in grants]
            for process in (own, attached):
                assert process.communicate(timeout=PATIENCE) == ("", "")
                assert process.returncode == 0
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(here.state / "run" / "control.sock"))) as control:
            rows = control.get("http://remit/v1/tasks").json()["tasks"]
        assert {row["purpose"]: row["closed"] for row in rows} == {"t": False, f"run {Path(sys.executable).name}": True}
    finally:
        broker.terminate()
        broker.communicate()


def test_all_runs_of_a_task_are_at_one_edge_whose_death_another_task_does_not_feel(here: Terminal) -> None:
    broker = up(here, "--edges", "2")
    try:
        added = here.run("resource", "add", "search", "http://127.0.0.1:9", "--bound", BOUND)
        assert added[0] == 0, added[2]
        held = here.told("open", "t", "-r", "search", "--ttl", "1h")["grant"]
        with started(here, "-g", held) as one:
            assert one.stdout is not None
            one.stdout.readline()
            with started(here, "-r", "search") as elsewhere, started(here, "-g", held) as two:
                for process in (elsewhere, two):
                    assert process.stdout is not None
                    process.stdout.readline()
                pids = {each["name"]: each["pid"] for each in here.told("status")["processes"]}
                os.kill(pids["edge"], signal.SIGKILL)
                for process in (one, two):
                    assert "for 30 seconds" in said(process)
                    assert "this run goes on" in said(process)
                assert [asked(process).split()[1] for process in (one, two, elsewhere)] == ["502"] * 3
                assert elsewhere.communicate(timeout=PATIENCE) == ("", "")  # it was told nothing
                two.communicate(timeout=PATIENCE)
            one.communicate(timeout=PATIENCE)
        restarts = {each["name"]: each["restarts"] for each in here.told("status")["processes"]}
        assert (restarts["edge"], restarts["edge.2"]) == (1, 0)
    finally:
        broker.terminate()
        broker.communicate()


def test_a_broker_that_is_told_to_go_down_ends_its_runs_first(here: Terminal) -> None:
    broker = up(here)
    added = here.run("resource", "add", "search", "http://127.0.0.1:9", "--bound", BOUND)
    assert added[0] == 0, added[2]
    held = here.told("open", "t", "-r", "search", "--ttl", "1h")["grant"]
    with started(here, "-r", "search") as process, started(here, "-g", held) as attached:
        for each in (process, attached):
            assert each.stdout is not None
            each.stdout.readline()
        assert here.run("down")[0] == 0
        broker.communicate()
        broker = up(here)
        try:
            for each in (process, attached):  # also one whose grant goes on
                assert said(each) == "remit: this run has no authority any more: the broker has ended this run\n"
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(here.state / "run" / "control.sock"))) as control:
                rows = control.get("http://remit/v1/tasks").json()["tasks"]
            assert {row["purpose"]: row["closed"] for row in rows if row["purpose"] == "t"} == {"t": False}
            assert [row["closed"] for row in rows if row["purpose"] != "t"] == [True]
        finally:
            broker.terminate()
            broker.communicate()
        for each in (process, attached):
            each.communicate(timeout=PATIENCE)
