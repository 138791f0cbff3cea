from __future__ import annotations

import json
from pathlib import Path

import pytest

from remit.cli.entry import run
from remit.core.scope import Access
from remit.core.secret import Secret
from remit.errors import PlaceholderError, ScopeError
from tests.broker.world import OPERATOR
from tests.cli.test_render import Terminal
from tests.sdk.plane import Served, served

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def log(plane: Served, capsys: Capture) -> Path:
    """Write a log with a few entries to a file, and return its path."""
    run(["open", "draft über", "-r", "warehouse"])
    run(["issue", "-g", "grt_1", "warehouse"])
    run(["open", "wide", "-r", "search:paths=/admin"])
    capsys.readouterr()
    assert run(["audit", "tail", "--all", "--json"]) == 0
    path = plane.directory / "work" / "log.jsonl"
    path.write_text(capsys.readouterr().out, "utf-8")
    return path


def checkpoint(plane: Served) -> Path:
    path = plane.directory / "work" / "kept.checkpoint"
    path.write_text(plane.call(plane.broker.checkpoint()).text, "utf-8")
    return path


@pytest.mark.usefixtures("log")
def test_the_log_of_a_broker_is_verified_with_its_key(plane: Served, capsys: Capture) -> None:
    assert run(["audit", "verify", "--key", plane.vkey, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["verified"], told["signed"], told["checkpoints"]) == (True, True, 1)


def test_a_log_is_verified_without_a_broker(plane: Served, log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = checkpoint(plane)
    monkeypatch.setenv("REMIT_SOCKET", "/nowhere")
    assert run(["audit", "verify", str(log), "-c", str(kept), "--key", plane.vkey]) == 0


def test_a_log_without_a_checkpoint_is_consistent_with_itself_only(plane: Served, log: Path, capsys: Capture) -> None:
    assert run(["audit", "verify", str(log), "--key", plane.vkey, "--json"]) == 1
    told = capsys.readouterr()
    shown = json.loads(told.out)
    assert (shown["verified"], shown["signed"], shown["signed_entries"], shown["checkpoints"]) == (False, False, 0, 0)
    assert "consistent with themselves only" in told.err


def test_a_tampered_log_is_not_verified_for_want_of_a_checkpoint(plane: Served, log: Path, capsys: Capture) -> None:
    changed(log, '"allow"', '"deny"')
    assert run(["audit", "verify", str(log), "--key", plane.vkey, "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["verified"] is False


def test_a_checkpoint_without_a_key_shows_no_signature(plane: Served, log: Path, capsys: Capture) -> None:
    kept = checkpoint(plane)
    assert run(["audit", "verify", str(log), "-c", str(kept), "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["signed"] is False
    assert "no signature was checked" in told.err


def test_self_consistency_can_be_accepted_and_is_not_called_verified(log: Path, capsys: Capture) -> None:
    assert run(["audit", "verify", str(log), "--self-consistent", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verified"] is False


def test_entries_after_the_newest_checkpoint_are_not_verified(plane: Served, log: Path, capsys: Capture) -> None:
    kept, size = checkpoint(plane), len(log.read_text("utf-8").splitlines())
    run(["open", "later", "-r", "search"])
    capsys.readouterr()
    run(["audit", "tail", "--all", "--json"])
    log.write_text(capsys.readouterr().out, "utf-8")
    assert run(["audit", "verify", str(log), "-c", str(kept), "--key", plane.vkey, "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["signed_entries"] == size
    assert f"covers the first {size} only" in told.err


def test_an_entry_without_its_end_of_line_is_an_entry(plane: Served, log: Path) -> None:
    kept = checkpoint(plane)
    log.write_text(log.read_text("utf-8") + "{", "utf-8")
    assert run(["audit", "verify", str(log), "-c", str(kept), "--key", plane.vkey]) == 1


def test_two_entries_that_changed_places_are_found(plane: Served, log: Path, capsys: Capture) -> None:
    kept = checkpoint(plane)
    first, second, *rest = log.read_text("utf-8").splitlines()
    log.write_text("\n".join([second, first, *rest]) + "\n", "utf-8")
    assert run(["audit", "verify", str(log), "-c", str(kept), "--key", plane.vkey]) == 1
    assert "error: audit entry 0" in capsys.readouterr().err


def test_the_log_of_another_broker_is_not_what_a_checkpoint_signed(
    plane: Served, log: Path, tmp_path: Path, capsys: Capture
) -> None:
    kept = checkpoint(plane)
    (tmp_path / "other").mkdir()
    with served(tmp_path / "other") as other:
        other.call(
            other.broker.put_resource(
                OPERATOR, other.broker._registry.resource("search"), Secret("sk-other-0123456789ab")
            )
        )
        found = other.call(other.broker.entries(0, 1_000))
        lines = [entry.leaf.decode() for entry in found]
    lines += log.read_text("utf-8").splitlines()[len(lines) :]
    log.write_text("\n".join(lines) + "\n", "utf-8")
    assert run(["audit", "verify", str(log), "-c", str(kept), "--key", plane.vkey]) == 1
    assert "are not those a checkpoint was kept of" in capsys.readouterr().err


def test_the_verifier_key_is_printed(plane: Served, capsys: Capture) -> None:
    assert run(["audit", "key"]) == 1
    state = plane.directory / "state"
    state.mkdir()
    (state / "audit.vkey").write_text(plane.vkey + "\n", "ascii")
    capsys.readouterr()
    assert run(["audit", "key"]) == 0
    assert capsys.readouterr().out == plane.vkey + "\n"


def test_a_checkpoint_is_printed_as_it_was_signed(plane: Served, log: Path, capsys: Capture) -> None:
    assert run(["audit", "checkpoint"]) == 0
    kept = log.with_name("printed")
    kept.write_text(capsys.readouterr().out, "utf-8")
    assert run(["audit", "verify", str(log), "-c", str(kept), "--key", plane.vkey]) == 0


@pytest.mark.usefixtures("log")
def test_the_key_beside_the_state_is_found(plane: Served, capsys: Capture) -> None:
    state = plane.directory / "state"
    state.mkdir()
    (state / "audit.vkey").write_text(plane.vkey + "\n", "ascii")
    assert run(["audit", "verify", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["signed"] is True


def changed(log: Path, old: str, new: str) -> None:
    text = log.read_text("utf-8")
    assert old in text
    log.write_text(text.replace(old, new, 1), "utf-8")


def test_one_changed_letter_is_found(plane: Served, log: Path, capsys: Capture) -> None:
    kept = checkpoint(plane)
    changed(log, "warehouse", "warehousf")
    assert run(["audit", "verify", str(log), "-c", str(kept), "--key", plane.vkey]) == 1
    assert "are not those a checkpoint was kept of" in capsys.readouterr().err


def test_a_line_taken_out_is_found(log: Path, capsys: Capture) -> None:
    lines = log.read_text("utf-8").splitlines()
    log.write_text("\n".join([*lines[:2], *lines[3:]]) + "\n", "utf-8")
    assert run(["audit", "verify", str(log)]) == 1
    assert "error: audit entry 2 is missing" in capsys.readouterr().err


def test_a_tail_cut_off_is_found_by_a_checkpoint(plane: Served, log: Path, capsys: Capture) -> None:
    kept = checkpoint(plane)
    lines = log.read_text("utf-8").splitlines()
    log.write_text("\n".join(lines[:-1]) + "\n", "utf-8")
    assert run(["audit", "verify", str(log), "-c", str(kept), "--key", plane.vkey]) == 1
    assert "rolled back or cut" in capsys.readouterr().err


def test_a_checkpoint_of_another_key_is_refused(plane: Served, log: Path, tmp_path: Path, capsys: Capture) -> None:
    other = Served(tmp_path / "other")
    other.loop.close()
    assert run(["audit", "verify", str(log), "-c", str(checkpoint(plane)), "--key", other.vkey]) == 1
    assert "not signed by a known key" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "x\ny\nz\n", "x\n1\n*\n"])
def test_what_is_no_checkpoint_is_one_clear_error(log: Path, tmp_path: Path, text: str, capsys: Capture) -> None:
    odd = tmp_path / "odd"
    odd.write_text(text, "utf-8")
    assert run(["audit", "verify", str(log), "-c", str(odd)]) == 1
    assert capsys.readouterr().err == "error: this is not a checkpoint\n"


def test_a_file_that_is_not_there_is_one_clear_error(capsys: Capture) -> None:
    assert run(["audit", "verify", "/nowhere.jsonl"]) == 1
    assert capsys.readouterr().err == "error: `/nowhere.jsonl` cannot be read: No such file or directory\n"


def test_an_entry_is_proven_against_the_signed_checkpoint(plane: Served, log: Path, capsys: Capture) -> None:
    size = len(log.read_text("utf-8").splitlines())
    for seq in range(size):
        assert run(["audit", "prove", str(seq), "--key", plane.vkey]) == 0
    assert run(["audit", "prove", str(size)]) == 1
    assert f"no entry {size}" in capsys.readouterr().err


@pytest.mark.usefixtures("log")
def test_a_proof_can_be_kept(plane: Served, capsys: Capture) -> None:
    assert run(["audit", "prove", "1", "--key", plane.vkey, "--json"]) == 0
    kept = json.loads(capsys.readouterr().out)
    assert kept["entry"]["seq"] == 1
    assert kept["checkpoint"].startswith("remit.test/audit\n")


@pytest.mark.usefixtures("log")
def test_a_proof_whose_signature_nobody_checked_is_none(capsys: Capture) -> None:
    assert run(["audit", "prove", "1", "--json"]) == 1
    told = capsys.readouterr()
    assert json.loads(told.out)["signed"] is False
    assert "no signature was checked" in told.err


@pytest.mark.usefixtures("log")
def test_following_shows_what_comes(plane: Served, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    rounds = []

    def pause() -> None:
        rounds.append(1)
        if len(rounds) > 1:
            raise KeyboardInterrupt
        [task] = list(plane.broker._tasks)
        plane.call(plane.broker.close(OPERATOR, task.id))

    monkeypatch.setattr("remit.cli.audit.pause", pause)
    assert run(["audit", "tail", "-n", "1", "--follow"]) == 130
    assert "task.close" in capsys.readouterr().out


@pytest.mark.usefixtures("log")
def test_on_a_terminal_the_entries_have_a_header(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    assert run(["audit", "tail", "-n", "1"]) == 0
    header, entry = terminal.getvalue().splitlines()
    assert header.split()[:4] == ["#", "at", "event", "result"]
    assert header.index("event") == entry.index(" task.open") + 1


def shown(capsys: Capture, *options: str) -> list[str]:
    """Return what the last entries say besides their number and time."""
    capsys.readouterr()
    assert run(["audit", "tail", *options]) == 0
    return [" ".join(line.split()[2:]) for line in capsys.readouterr().out.splitlines()]


@pytest.mark.usefixtures("log")
def test_entries_are_filtered_from_the_end_of_the_log(plane: Served, capsys: Capture, world_path: str) -> None:
    denied = f"resource.use deny grt_1 search GET {world_path} scope"
    assert shown(capsys, "-n", "1") == [denied]
    assert shown(capsys, "--path", "/admin/**") == [denied]
    assert shown(capsys, "--path", "/v1/**") == []
    assert shown(capsys, "--decision", "deny", "--resource", "search") == [denied]
    assert shown(capsys, "--resource", "warehouse", "-n", "1") == shown(capsys, "--resource", "warehouse")[-1:]
    [task] = list(plane.broker._tasks)
    whole = shown(capsys, "--task", task.id)
    assert whole == shown(capsys, "--task", task.id.removeprefix("task_"), "--all")
    assert 0 < len(whole) < len(shown(capsys, "--all"))
    assert shown(capsys, "--since", "1h") == shown(capsys, "--since", "2020-01-01") == shown(capsys)
    assert shown(capsys, "--since", "2099-01-01T00:00Z") == []


@pytest.fixture
def world_path(plane: Served, log: Path) -> str:
    """Have the gateway refuse a request; return its path."""
    assert log.exists()
    plane.call(plane.broker.deny("grt_1", Access("search", "GET", "/admin/keys"), ScopeError(), "req_1"))
    return "/admin/keys"


@pytest.mark.usefixtures("plane")
@pytest.mark.parametrize("wrong", [["--decision", "maybe"], ["--since", "soon"], ["--path", "v1"]])
def test_a_filter_that_cannot_be_is_refused(wrong: list[str], capsys: Capture) -> None:
    assert run(["audit", "tail", *wrong]) in {1, 2}
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.usefixtures("world_path")
def test_at_80_columns_no_word_of_an_entry_is_cut(monkeypatch: pytest.MonkeyPatch, plane: Served) -> None:
    long = f"grt_{'x' * 60}"
    plane.call(plane.broker.deny(long, Access("search", "GET", "/admin/" + "y" * 60), ScopeError(), "req_2"))
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    assert run(["audit", "tail"]) == 0
    told = terminal.getvalue()
    assert max(map(len, told.splitlines())) <= 80
    assert {long, "/admin/" + "y" * 60} <= set(told.split())


def test_the_path_of_a_placeholder_is_not_in_the_log(plane: Served, capsys: Capture) -> None:
    run(["open", "draft", "-r", "search"])
    plane.call(plane.broker.deny("grt_1", Access("search", "GET", "/v1/key"), PlaceholderError(), "req_1"))
    assert shown(capsys, "-n", "1") == ["resource.use deny grt_1 search GET placeholder"]
