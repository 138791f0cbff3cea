"""How a broker is, as its operator sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.compose import doctor, status
from remit.compose.doctor import CheckResult
from remit.config.settings import Places, read
from remit.process.orders import ProcessesState, ProcessState

LACK = "no fresh /proc can be mounted: workers have none"


def state(restarts: int, *lacks: str) -> ProcessesState:
    own = ProcessState("supervisor", 7, 1.5, 0, ())
    return ProcessesState((own, ProcessState("edge", None, 2.0, restarts, ("namespaces", "seccomp"))), lacks)


def test_processes_are_told_with_instants_and_walls() -> None:
    assert status.described(state(2, LACK)) == {
        "supervised": True,
        "processes": [
            {"name": "supervisor", "pid": 7, "since": "1970-01-01T00:00:01.500Z", "restarts": 0, "walls": []},
            {
                "name": "edge",
                "pid": None,
                "since": "1970-01-01T00:00:02.000Z",
                "restarts": 2,
                "walls": ["namespaces", "seccomp"],
            },
        ],
        "lacks": [LACK],
    }


def test_a_broker_in_one_process_says_so() -> None:
    assert status.described(None) == {"supervised": False, "processes": [], "lacks": []}


def test_where_nothing_listens_over_tcp_no_address_is_told(tmp_path: Path) -> None:
    made = read(Places(tmp_path / "config.toml", tmp_path, tmp_path / "run"), {})
    assert set(status.addresses(made, tcp=True).values()) > {None}
    told = status.addresses(made, tcp=False)
    assert told == {"control": str(made.places.control), "api": None, "gateway": None, "tls": None}


@pytest.mark.parametrize(
    ("found", "findings"),
    [
        (state(2), [("processes", "good", "supervisor, edge")]),
        (state(3), [("processes", "warning", "`edge` died, and was started again, 3 times")]),
        (state(0, LACK), [("kernel", "warning", LACK), ("processes", "good", "supervisor, edge")]),
        (None, []),
    ],
    ids=["good", "dies", "lacks", "alone"],
)
def test_the_doctor_says_who_dies_and_what_the_kernel_lacks(
    found: ProcessesState | None, findings: list[tuple[str, str, str]]
) -> None:
    told = doctor.supervised(status.described(found))
    assert [(one.name, one.level, one.text) for one in told] == findings


def test_the_doctor_leaves_it_to_say_that_there_is_no_broker(tmp_path: Path) -> None:
    made = read(Places(tmp_path / "config.toml", tmp_path, tmp_path / "run"), {})
    assert list[CheckResult](doctor.processes(made)) == []
