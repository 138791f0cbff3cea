from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from remit.process import kernel
from tests.process.rig import SECONDS, Rig, lives_on

ENDS = pytest.mark.parametrize("walls", ["namespaces", "none"])


@pytest.fixture
def rig() -> Iterator[Rig]:
    with Rig() as made:
        yield made


def _descriptors(pid: int) -> dict[int, str]:
    folder = Path(f"/proc/{pid}/fd")
    return {int(each.name): os.readlink(each) for each in folder.iterdir()}  # noqa: PTH115 - as it is written


def test_the_authority_starts_workers_by_their_roles(rig: Rig) -> None:
    assert [rig.start(role) for role in ("edge", "edge", "targets")] == ["edge", "edge.2", "targets"]
    assert rig.run("edge.2", "found = context.name") == "edge.2"
    assert rig.state() == {
        "supervisor": [rig.process.pid, 0, []],
        **{name: [rig.pids[name], 0, []] for name in ("authority", "edge", "edge.2", "targets")},
    }


def test_what_cannot_be_started_is_an_error(rig: Rig) -> None:
    assert rig.ask("start", "nobody") == {"error": "there is no such role"}
    assert [rig.start("edge") for _ in range(2)] == ["edge", "edge.2"]
    assert rig.ask("start", "edge") == {"error": "no such listener"}
    assert rig.start("targets") == "targets"


@ENDS
def test_a_worker_that_dies_is_started_again_with_the_same_listeners(walls: str) -> None:
    with Rig(walls) as rig:
        rig.start("edge")
        port = "found = context.listeners['tcp'].getsockname()"
        before, pid = rig.run("edge", port), rig.pids["edge"]
        os.kill(pid, signal.SIGKILL)
        rig.wait("started", "edge")
        assert ["ended", "edge", pid, -signal.SIGKILL] in rig.happened
        assert rig.run("edge", port) == before
        assert rig.state()["edge"][1] == 1
        socket.create_connection(tuple(before), SECONDS).close()


@ENDS
def test_a_kill_is_answered_when_the_worker_is_reaped(walls: str) -> None:
    with Rig(walls) as rig:
        rig.start("edge")
        pid = rig.pids["edge"]
        rig.ask("kill", "edge", 1)
        assert not psutil.pid_exists(pid)
        assert ["ended", "edge", pid, -signal.SIGKILL] in rig.happened
        rig.wait("started", "edge")
        assert rig.run("edge", "found = 1") == 1


def test_a_worker_can_be_killed_for_good(rig: Rig) -> None:
    rig.start("edge")
    rig.ask("kill", "edge", 0)
    assert "edge" not in rig.state()
    assert rig.start("edge") == "edge"


def test_one_that_is_about_to_be_started_again_can_be_ended_for_good(rig: Rig) -> None:
    rig.start("crashing")
    while "crashing" in rig.state():
        rig.ask("kill", "crashing", 0)
    assert rig.start("crashing") == "crashing"


def test_two_workers_that_die_at_once_are_both_started_again(rig: Rig) -> None:
    for role in ("edge", "targets"):
        rig.start(role)
    for name in ("edge", "targets"):
        os.kill(rig.pids[name], signal.SIGKILL)
    for name in ("edge", "targets"):
        rig.wait("started", name)
        assert rig.run(name, "found = 1") == 1


def test_one_that_dies_again_and_again_is_waited_for_ever_longer(rig: Rig) -> None:
    rig.start("crashing")
    for _ in range(3):
        rig.wait("started", "crashing")
    assert 2 <= rig.state()["crashing"][1] <= 4


@ENDS
def test_when_the_authority_dies_all_die_before_the_next_one_starts(walls: str) -> None:
    with Rig(walls) as rig:
        rig.ask("ready")
        for role in ("edge", "targets"):
            rig.start(role)
        before = dict(rig.pids)
        os.kill(before["authority"], signal.SIGKILL)
        rig.pids["authority"] = rig.wait("authority")[1]
        assert not [pid for pid in before.values() if psutil.pid_exists(pid)]
        assert rig.state() == {"supervisor": [rig.process.pid, 0, []], "authority": [rig.pids["authority"], 1, []]}
        assert rig.start("edge") == "edge"
        assert rig.run("edge", "found = 1") == 1


@ENDS
def test_when_the_supervisor_is_killed_everybody_dies(walls: str) -> None:
    with Rig(walls) as rig:
        for role in ("edge", "targets"):
            assert rig.run(rig.start(role), "found = 1") == 1  # one that is stopped before it runs would not hear of it
        family = rig.family()
        assert len(family) == 3
        for process in family:
            process.suspend()  # also who does not look at its links
        rig.process.kill()
        assert [process for process in family if lives_on(process)] == []


def test_an_authority_that_ends_by_itself_ends_all(rig: Rig) -> None:
    rig.start("edge")
    family = rig.family()
    rig.say("exit", 3)
    assert rig.process.wait(SECONDS) == 3
    assert [process for process in family if process.is_running()] == []


def test_an_authority_that_crashes_before_it_served_is_not_started_again(rig: Rig) -> None:
    rig.say("raise")
    assert rig.process.wait(SECONDS) == 70


def test_an_authority_that_crashes_later_is_started_again(rig: Rig) -> None:
    rig.ask("ready")
    rig.say("raise")
    assert rig.wait("authority")[1] != rig.pids["authority"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_stop_it_lets_the_authority_end(rig: Rig, number: int) -> None:
    rig.start("edge")
    rig.process.send_signal(number)
    assert rig.process.wait(SECONDS) == 0
    assert [event for event in rig.happened if event[0] == "ended"] == []


def test_nobody_is_started_again_for_an_authority_that_is_about_to_end(rig: Rig) -> None:
    rig.ask("ready")
    rig.start("edge")
    rig.ask("ending")
    os.kill(rig.pids["edge"], signal.SIGKILL)
    rig.wait("ended", "edge")
    assert rig.state()["edge"] == [None, 1, []]
    rig.say("raise")
    assert rig.process.wait(SECONDS) == 70


def test_told_twice_it_kills_an_authority_that_does_not_end() -> None:
    with Rig(stubborn=True) as rig:
        rig.process.send_signal(signal.SIGTERM)
        rig.wait("stop")
        rig.process.send_signal(signal.SIGTERM)
        assert rig.process.wait(SECONDS) == 128 + signal.SIGKILL


def test_a_hangup_is_told_to_the_authority(rig: Rig) -> None:
    rig.process.send_signal(signal.SIGHUP)
    assert rig.wait("reload")
    assert rig.start("edge") == "edge"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_terminals_signals_are_for_the_supervisor_alone(rig: Rig, number: int) -> None:
    rig.start("edge")
    for name in ("authority", "edge"):
        os.kill(rig.pids[name], number)
    assert rig.run("edge", "found = 1") == 1


def test_each_has_short_turns_at_a_core(rig: Rig) -> None:
    rig.start("edge")
    asked = "kernel.syscall('sched_getattr', 0, data, 48, 0); found = struct.unpack('=IIQiIQQQ', data.raw)[5]"
    found = rig.run(
        "edge",
        f"import ctypes, struct; from remit.process import kernel; data = ctypes.create_string_buffer(48); {asked}",
    )
    before = tuple(map(int, os.uname().release.split(".")[:2])) < (6, 12)  # there a turn is as the kernel has it
    assert found == (0 if before else kernel.TURN)


def test_each_has_the_descriptors_that_are_its_own(rig: Rig) -> None:
    for role in ("edge", "edge", "targets"):
        rig.start(role)
        assert rig.run(rig.state().popitem()[0], "found = 1") == 1  # it runs: what is not its own is closed
    descriptors = {name: _descriptors(pid) for name, pid in rig.pids.items()}
    links = {name: {n: where for n, where in each.items() if n > 2} for name, each in descriptors.items()}
    assert {name: len(links[name]) for name in ("edge", "edge.2", "targets")} == {"edge": 3, "edge.2": 3, "targets": 2}
    seen = [where for name in ("edge", "edge.2", "targets") for where in links[name].values()]
    assert len(set(seen)) == len(seen) == 8
    assert set(seen).isdisjoint(links["authority"].values())
    assert {descriptors[name][0] for name in ("edge", "targets", "authority")} == {"/dev/null"}


def test_nothing_is_left_of_many_deaths(rig: Rig) -> None:
    rig.start("edge")
    rig.state()  # what was to be closed after the start is closed
    before = len(_descriptors(rig.process.pid))
    for _ in range(5):
        rig.ask("kill", "edge", 0)
        rig.start("edge")
    rig.state()
    assert len(_descriptors(rig.process.pid)) == before
    assert [child.status() for child in rig.family()].count(psutil.STATUS_ZOMBIE) == 0
    assert len(rig.family()) == 2


def test_an_authority_that_reads_nothing_is_killed() -> None:
    with Rig() as rig:
        rig.ask("ready")
        rig.start("edge")
        os.kill(rig.pids["authority"], signal.SIGSTOP)
        while psutil.pid_exists(rig.pids["authority"]):
            rig.process.send_signal(signal.SIGHUP)
        assert rig.wait("authority")
