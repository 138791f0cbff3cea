"""A run that works in a folder moves what the sandbox of the next one is about to bind."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from remit.errors import UnavailableError
from remit.process.files import inside
from remit.run import machine, mounted
from remit.run.mounted import Mount
from remit.run.sandbox import Bind
from tests.run.test_machine import spec


def swapped(folder: Path, to: str) -> None:
    folder.rename(folder.with_name("moved"))
    folder.symlink_to(to)


def repository(project: Path) -> None:
    swapped(project / "new/.git", "../../home")


def folder_around(project: Path) -> None:
    swapped(project / "new", "../home")


def project_itself(project: Path) -> None:
    swapped(project, "home")


@pytest.mark.parametrize("move", [repository, folder_around, project_itself])
def test_what_is_moved_before_it_is_bound_is_in_no_run(
    tmp_path: Path, move: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    told = spec(tmp_path)
    (told.cwd / "new/.git").mkdir(parents=True)
    (tmp_path / "runtime").mkdir()
    for name in ("hooks", ".git/hooks"):  # else bubblewrap misses them, and refuses by itself
        (tmp_path / "home" / name).mkdir(parents=True)
    (tmp_path / "home/new/.git/hooks").mkdir(parents=True)
    begin = machine._popen

    def moving(command: object, *rest: object) -> subprocess.Popen[bytes]:
        move(told.cwd)
        return begin(command, *rest)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(machine, "_popen", moving)
    with pytest.raises(UnavailableError, match="moved"), machine.started(told):
        pass


@pytest.mark.parametrize("writable", [True, False])
def test_what_was_bound_by_name_is_not_followed_elsewhere_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, writable: bool
) -> None:
    shared = tmp_path / "shared/data"
    shared.mkdir(parents=True)
    (tmp_path / "home").mkdir(exist_ok=True)
    told = spec(tmp_path, binds=(Bind(PurePosixPath(shared), writable=writable),))
    (tmp_path / "runtime").mkdir()
    begin = machine._popen

    def moving(command: object, *rest: object) -> subprocess.Popen[bytes]:
        swapped(shared, "../home")
        return begin(command, *rest)  # type: ignore[arg-type]  # as they came

    monkeypatch.setattr(machine, "_popen", moving)
    with pytest.raises(UnavailableError, match="moved"), machine.started(told):
        pass


def test_a_run_in_which_nothing_moves_starts(tmp_path: Path) -> None:
    told = spec(tmp_path)
    (told.cwd / "sp ace\\134/.git").mkdir(parents=True)
    (tmp_path / "runtime").mkdir()
    with machine.started(told) as inner:
        made = {mount.place for mount in mounted.mounts(inner.pid)}
    assert told.cwd / "sp ace\\134/.git/hooks" in made


def test_a_folder_of_hooks_is_made_where_no_link_leads(tmp_path: Path) -> None:
    (tmp_path / "home/modules/one").mkdir(parents=True)
    told = spec(tmp_path)
    (told.cwd / "linked").mkdir()
    (told.cwd / "linked/.git").symlink_to(tmp_path / "home")
    (told.cwd / "own/.git/modules").mkdir(parents=True)
    (told.cwd / "own/.git/modules/far").symlink_to(tmp_path / "home")
    seen = machine.view(told)
    assert told.cwd / "own/.git/hooks" in seen.kept
    assert not list((tmp_path / "home").rglob("hooks"))
    assert not any(inside(Path(path), (tmp_path / "home",)) for path in seen.kept)


ROOT = Mount("8:1", Path("/"), Path("/"), writable=True)
OPTIONS = ("--bind", "/job", "/job", "--ro-bind", "/usr", "/usr", "--ro-bind", "/run/blank", "/job/.env")


@pytest.mark.parametrize(
    ("mount", "is_strange"),
    [
        (Mount("8:1", Path("/job"), Path("/job"), writable=True), False),
        (Mount("8:1", Path("/usr"), Path("/usr"), writable=False), False),
        (Mount("8:1", Path("/usr"), Path("/usr"), writable=True), True),
        (Mount("8:1", Path("/home"), Path("/job"), writable=True), True),
        (Mount("8:1", Path("/home"), Path("/home"), writable=False), True),
        (Mount("8:1", Path("/run/blank"), Path("/job/.env"), writable=False), False),
        (Mount("8:1", Path("/run/blank"), Path("/job/.env"), writable=True), True),
        (Mount("8:1", Path("/job/a"), Path("/job/a"), writable=True), False),
        (Mount("8:1", Path("/job/a"), Path("/job/b"), writable=True), True),
        (Mount("0:9", Path("/"), Path("/home"), writable=True), False),  # made for the run
    ],
)
def test_each_mount_of_this_machine_is_one_that_was_asked_for(mount: Mount, *, is_strange: bool) -> None:
    assert list(mounted.strange([mount], [ROOT], OPTIONS)) == ([mount.place] if is_strange else [])
