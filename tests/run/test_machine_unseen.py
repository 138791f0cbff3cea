"""Commands that are there, and lead to what their run does not see."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.run.machine import unseen
from tests.run.rig import House
from tests.run.test_machine import spec


def program(path: Path, text: str = "#!/bin/sh\necho here\n") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


def named(folder: Path, *command: str, path: str = "/usr/bin:/bin") -> tuple[Path, Path] | None:
    environ = {"HOME": str(folder / "home"), "PATH": path}
    return unseen(spec(folder, command=command, environ=environ))


def test_a_link_out_of_the_folder_is_named_with_its_prefix(tmp_path: Path) -> None:
    real = program(tmp_path / "home/.local/share/uv/python-3.12/bin/python3.12")
    (tmp_path / "project/.venv/bin").mkdir(parents=True)
    (tmp_path / "project/.venv/bin/python").symlink_to(real)
    assert named(tmp_path, ".venv/bin/python") == (real, real.parents[1])


def test_a_program_on_the_path_and_outside_is_named_with_its_prefix(tmp_path: Path) -> None:
    real = program(tmp_path / "venv/bin/agent")
    assert named(tmp_path, "agent", path=f"{real.parent}:/usr/bin") == (real, real.parents[1])


@pytest.mark.parametrize("line", ["#!{}", "#!{} -x", "#!/usr/bin/env node"])
def test_the_interpreter_of_a_script_is_named(tmp_path: Path, line: str) -> None:
    node = program(tmp_path / "home/.nvm/node-22/bin/node")
    program(tmp_path / "project/agent", line.format(node) + "\n")
    assert named(tmp_path, "./agent", path=f"{node.parent}:/usr/bin") == (node, node.parents[1])


def test_a_whole_home_is_never_to_be_bound(tmp_path: Path) -> None:
    in_bin, bare = program(tmp_path / "home/bin/agent"), program(tmp_path / "home/agent")
    assert named(tmp_path, str(in_bin)) == (in_bin, in_bin.parent)
    assert named(tmp_path, str(bare)) == (bare, bare)


def test_of_a_command_that_is_nowhere_or_seen_nothing_is_missing(tmp_path: Path) -> None:
    program(tmp_path / "project/agent")
    assert named(tmp_path, "no-such-command") is None
    assert named(tmp_path, "./agent") is None


def test_a_script_that_is_its_own_interpreter_leads_nowhere(tmp_path: Path) -> None:
    program(tmp_path / "project/agent", "#!./agent\n")
    assert named(tmp_path, "./agent") is None


@pytest.mark.live
def test_what_is_advised_is_what_helps(runs: House) -> None:
    real = program(runs.folder / "tools/v1/bin/agent")
    (runs.project / "agent").symlink_to(real)
    done = runs.run(["./agent"])
    assert f"add --bind {real.parents[1]}" in done.stderr
    assert runs.run(["./agent"], binds=[[str(real.parents[1]), False]]).stdout == "here\n"
