"""``remit allow``, and what ``remit run`` makes of an accepted file. The launcher stands aside."""

from __future__ import annotations

import io
import json
from pathlib import Path, PurePosixPath

import pytest

from remit.cli.entry import run
from remit.run.named import NamedVariable
from remit.run.sandbox import Bind
from remit.run.spec import LaunchSpec
from tests.cli.test_run import launched, request
from tests.sdk.plane import Served

__all__ = ["launched"]

TEXT = """\
purpose = "sell shoes"
ttl = "2h"
depth = 1
fan_out = 3
resources = ["search:paths=/v1/a"]
bind = ["../shared", "out:rw"]
[env]
SEARCH_KEY = "placeholder:search"
NODE_OPTIONS = "=--enable-source-maps"
"""


@pytest.fixture
def folder(plane: Served, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a project that nobody has accepted."""
    monkeypatch.setenv("HOME", str(plane.directory))
    work = Path.cwd()
    (work / "remit.toml").write_text(TEXT)
    return work


def accept() -> None:
    assert run(["allow", "--yes"]) == 0


def test_a_file_is_shown_with_what_it_means_and_is_accepted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accept()
    told = capsys.readouterr().out
    assert f"--- {folder}/remit.toml (never accepted)" in told
    assert '+resources = ["search:paths=/v1/a"]' in told
    assert "  may use        search:paths=/v1/a\n" in told
    assert f"  can read       {folder.parent}/shared  (outside of the project)\n" in told
    assert f"  can write to   {folder}/out\n" in told
    assert "  has SEARCH_KEY = the placeholder of `search`\n" in told
    assert "  has NODE_OPTIONS = `--enable-source-maps`  (programs know this name" in told


def test_what_has_changed_is_shown_against_what_was_accepted(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    accept()
    (folder / "remit.toml").write_text(TEXT.replace("depth = 1", "depth = 5"))
    capsys.readouterr()
    accept()
    told = capsys.readouterr().out
    assert "-depth = 1\n+depth = 5\n" in told
    assert "\n-purpose" not in told


@pytest.mark.usefixtures("folder")
def test_what_is_accepted_already_is_not_shown_again(capsys: pytest.CaptureFixture[str]) -> None:
    accept()
    capsys.readouterr()
    assert run(["allow"]) == 0
    assert capsys.readouterr().out.startswith("accepted: ")
    assert run(["allow", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["changed"] is False


@pytest.mark.usefixtures("folder")
def test_without_a_terminal_nothing_is_accepted(launched: list[LaunchSpec], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["allow"]) == 1
    assert "there is nobody to ask" in capsys.readouterr().err
    assert run(["run", "--", "true"]) == 1
    assert launched == []


@pytest.mark.attack("LAU-15")
def test_a_run_accepts_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REMIT_GRANT", "grt_1")
    assert run(["allow", "--yes"]) == 1
    assert "a run accepts no project" in capsys.readouterr().err
    assert not (folder.parent / "state/projects").exists()


@pytest.mark.attack("LAU-15")
def test_names_and_texts_that_would_drive_a_terminal_are_written_out(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "remit.toml").write_text('resources = ["a"] # \u202e\u2028+resources = ["b"]\nbind = ["\\u200b"]\n')
    run(["allow", "--yes"])
    told = capsys.readouterr()
    assert "\u202e" not in told.out + told.err
    assert "\u2028" not in told.out + told.err
    (folder / "remit.toml").write_text('resources = ["a"]\n[env]\n"\\u001b[2J" = "=x"\n')
    assert run(["allow", "--yes"]) == 1
    assert "\x1b" not in capsys.readouterr().err


def test_a_place_without_a_file_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "remit.toml").unlink()
    assert run(["allow"]) == 1
    assert "there is no `remit.toml` here" in capsys.readouterr().err


@pytest.mark.parametrize(("said", "accepted"), [("y\n", True), ("n\n", False), ("\n", False), ("", False)])
def test_at_a_terminal_a_human_is_asked(
    folder: Path, monkeypatch: pytest.MonkeyPatch, said: str, *, accepted: bool
) -> None:
    typed = io.StringIO(said)
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", typed)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert (run(["allow"]) == 0) is accepted
    assert (folder.parent / "state/projects").exists() is accepted


@pytest.mark.attack("LAU-15")
def test_a_link_that_is_put_there_while_a_human_reads_is_not_accepted(
    folder: Path, monkeypatch: pytest.MonkeyPatch, launched: list[LaunchSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder.parent / "secret").mkdir()

    def typed() -> str:
        (folder / "out").symlink_to(folder.parent / "secret")
        return "y\n"

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda _: bool(typed()))
    assert run(["allow"]) == 0
    assert f"can write to   {folder}/out" in capsys.readouterr().out
    assert run(["run", "--", "true"]) == 1
    assert "did not when it was accepted" in capsys.readouterr().err
    assert launched == []


def test_what_is_kept_is_readable_by_its_owner_alone(folder: Path) -> None:
    accept()
    [kept] = (folder.parent / "state/projects").iterdir()
    assert [at.stat().st_mode & 0o777 for at in (kept, *kept.parents[:2])] == [0o600, 0o700, 0o700]


def test_a_run_without_options_goes_by_the_file(
    folder: Path, launched: list[LaunchSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    accept()
    assert run(["run", "--", "true"]) == 7
    [spec] = launched
    asked = request(spec)["open"]
    assert (asked["purpose"], asked["ttl"], asked["depth"], asked["fan_out"]) == ("sell shoes", 7_200, 1, 3)
    assert asked["authorization_details"][0]["paths"] == ["/v1/a"]
    assert spec.binds == (
        Bind(PurePosixPath(folder.parent / "shared"), straight=True),
        Bind(PurePosixPath(folder / "out"), writable=True, straight=True),
    )
    assert spec.env == ("NODE_OPTIONS=--enable-source-maps",)
    assert spec.named == (NamedVariable("SEARCH_KEY", "placeholder", "search"),)
    assert f"note: by {folder}/remit.toml" in capsys.readouterr().err


def test_from_a_folder_below_the_file_counts_too(folder: Path, launched: list[LaunchSpec]) -> None:
    accept()
    (folder / "src").mkdir()
    with pytest.MonkeyPatch.context() as at:
        at.chdir(folder / "src")
        assert run(["run", "--", "true"]) == 7
    assert request(launched[0])["open"]["purpose"] == "sell shoes"
    assert launched[0].binds[1].path == PurePosixPath(folder / "out")


@pytest.mark.usefixtures("folder")
def test_options_stand_in_place_of_what_the_file_says(launched: list[LaunchSpec]) -> None:
    accept()
    options = ["-p", "else", "--ttl", "5m", "--depth", "0", "--bind", "/data", "-e", "SEARCH_KEY=x", "-e", "A"]
    assert run(["run", *options, "--", "true"]) == 7
    [spec] = launched
    asked = request(spec)["open"]
    assert (asked["purpose"], asked["ttl"], asked["depth"], asked["fan_out"]) == ("else", 300, 0, 3)
    assert spec.binds == (Bind(PurePosixPath("/data")),)
    assert spec.env == ("NODE_OPTIONS=--enable-source-maps", "SEARCH_KEY=x", "A")
    assert spec.named == ()


def test_a_lease_is_shown_as_handed_out_and_left_to_the_launcher(
    folder: Path, launched: list[LaunchSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "remit.toml").write_text('resources = ["search"]\n[env]\nDATABASE_URL = "lease:search"\n')
    accept()
    assert "DATABASE_URL = a credential for `search`, which the command can hand on" in capsys.readouterr().out
    assert run(["run", "--", "true"]) == 7
    assert launched[0].named == (NamedVariable("DATABASE_URL", "lease", "search"),)


@pytest.mark.usefixtures("folder")
def test_where_options_say_what_is_granted_the_file_is_not_looked_at(launched: list[LaunchSpec]) -> None:
    assert run(["run", "-r", "search", "--", "true"]) == 7
    assert run(["run", "-g", "grt_1", "--", "true"]) == 7
    assert [(spec.binds, spec.named) for spec in launched] == [((), ()), ((), ())]


@pytest.mark.attack("LAU-15")
def test_a_file_that_changed_after_it_was_accepted_is_refused(
    folder: Path, launched: list[LaunchSpec], capsys: pytest.CaptureFixture[str]
) -> None:
    accept()
    (folder / "remit.toml").write_text(TEXT + 'bind = ["/"]\n')
    assert run(["run", "--", "true"]) == 1
    told = capsys.readouterr().err
    assert "has changed since it was accepted" in told
    assert "help: `remit allow` shows it, and asks" in told
    assert launched == []


@pytest.mark.attack("LAU-15")
def test_a_file_planted_below_an_accepted_one_does_not_count(
    folder: Path, launched: list[LaunchSpec], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    accept()
    (folder / "src").mkdir()
    (folder / "src/remit.toml").write_text('resources = ["warehouse"]\n')
    monkeypatch.chdir(folder / "src")
    assert run(["run", "--", "true"]) == 1
    assert f"`{folder}/src/remit.toml` was not accepted" in capsys.readouterr().err
    assert launched == []


def test_a_run_inside_a_run_takes_no_file(
    folder: Path, plane: Served, launched: list[LaunchSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    accept()
    run(["open", "t", "-r", "search", "--depth", "1", "--fan-out", "1"])
    monkeypatch.setenv("REMIT_SOCKET", str(plane.channel("grt_1").socket))
    monkeypatch.setenv("REMIT_GRANT", "grt_1")
    assert run(["run", "--", "true"]) == 7
    assert (request(launched[0]), launched[0].binds, folder.is_dir()) == ({"grant": "grt_1"}, (), True)
