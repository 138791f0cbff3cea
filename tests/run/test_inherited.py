from __future__ import annotations

from pathlib import Path

from remit.run.inherited import completed

RUN = {
    "REMIT_GRANT": "grt_1",
    "REMIT_SOCKET": "/run/remit/channel.sock",
    "REMIT_URL_SEARCH": "http://127.0.0.1:8471/search",
}


def process(proc: Path, pid: str, parent: int, variables: dict[str, str], own: str = "") -> None:
    """Have a process in a made-up /proc."""
    for name in filter(None, (pid, own)):
        (proc / name).mkdir()
        (proc / name / "status").write_text(f"Name:\tx\nPid:\t{pid}\nPPid:\t{parent}\n")
        (proc / name / "environ").write_bytes(b"".join(f"{n}={v}".encode() + b"\0" for n, v in variables.items()))


def test_what_a_client_did_not_hand_on_is_read_from_above(tmp_path: Path) -> None:
    process(tmp_path, "2", 0, {"PATH": "/bin", **RUN})
    process(tmp_path, "7", 2, {"PATH": "/usr/bin"})
    process(tmp_path, "9", 7, {"PATH": "/mine"}, own="self")
    assert completed({"PATH": "/mine"}, tmp_path) == RUN


def test_what_names_a_grant_is_left_as_it_is(tmp_path: Path) -> None:
    process(tmp_path, "2", 0, RUN)
    process(tmp_path, "9", 2, {}, own="self")
    assert completed({"REMIT_GRANT": "grt_child"}, tmp_path) == {}


def test_what_names_a_socket_or_a_state_that_is_there_means_these(tmp_path: Path) -> None:
    process(tmp_path, "2", 0, RUN)
    process(tmp_path, "9", 2, {}, own="self")
    assert completed({"REMIT_SOCKET": "/run/other.sock"}, tmp_path) == {}
    assert completed({"REMIT_STATE_DIR": str(tmp_path)}, tmp_path) == {}
    assert completed({"REMIT_STATE_DIR": str(tmp_path / "hidden")}, tmp_path)["REMIT_GRANT"] == "grt_1"


def test_the_nearest_above_counts(tmp_path: Path) -> None:
    process(tmp_path, "2", 0, RUN)
    process(tmp_path, "7", 2, {**RUN, "REMIT_GRANT": "grt_child"})
    process(tmp_path, "9", 7, {}, own="self")
    assert completed({}, tmp_path)["REMIT_GRANT"] == "grt_child"


def test_outside_a_run_there_is_nothing(tmp_path: Path) -> None:
    process(tmp_path, "1", 0, {"REMIT_SOCKET": "/run/user/0/remit/control.sock"})
    process(tmp_path, "9", 1, {}, own="self")
    assert completed({}, tmp_path) == {}
    (tmp_path / "1" / "environ").unlink()  # another user's
    assert completed({}, tmp_path) == {}


def test_a_circle_of_parents_ends(tmp_path: Path) -> None:
    process(tmp_path, "9", 9, {}, own="self")
    assert completed({}, tmp_path) == {}
