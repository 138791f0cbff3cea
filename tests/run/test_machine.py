from __future__ import annotations

from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from remit.errors import InvalidRequestError, UnavailableError
from remit.run import machine
from remit.run.sandbox import Bind
from remit.run.spec import LaunchSpec


def spec(folder: Path, **more: object) -> LaunchSpec:
    """Return a launch in a project of some folder."""
    (folder / "project").mkdir(exist_ok=True)
    plain = LaunchSpec(
        ("true",), folder / "runtime/control.sock", {}, folder / "project", {"HOME": str(folder / "home")}
    )
    return replace(plain, **more)  # type: ignore[arg-type]  # fields by name


def test_a_machine_without_a_filter_says_so(tmp_path: Path) -> None:
    assert "riscv64" in "".join(machine.gaps(spec(tmp_path), "riscv64"))


@pytest.mark.parametrize("kind", ["x86_64", "aarch64"])
def test_a_machine_with_a_filter_says_nothing(tmp_path: Path, kind: str) -> None:
    assert machine.gaps(spec(tmp_path), kind) == []


@pytest.mark.parametrize("within", ["user.slice/run.scope", "user.slice", ""])
def test_what_a_machine_bounds_of_a_run_is_what_its_control_groups_and_its_kernel_say(
    tmp_path: Path, within: str
) -> None:
    proc, groups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "sys/kernel").mkdir(parents=True)
    (groups / "user.slice/run.scope").mkdir(parents=True)
    (groups / "other.slice").mkdir()
    (groups / "other.slice/memory.max").write_text("4096\n")
    assert len(machine.unbounded(proc, groups)) == 2
    (proc / "self/cgroup").write_text("4:memory:/old\n0::/user.slice/run.scope\n")
    (proc / "sys/kernel/sched_autogroup_enabled").write_text("0\n")
    (groups / "user.slice/run.scope/memory.max").write_text("max\n")
    assert ["autogroup" in lack for lack in machine.unbounded(proc, groups)] == [True, False]
    (proc / "sys/kernel/sched_autogroup_enabled").write_text("1\n")
    [lack] = machine.unbounded(proc, groups)
    assert "memory" in lack
    (groups / within / "memory.max").write_text("8589934592\n")
    assert machine.unbounded(proc, groups) == []


def test_every_link_on_the_way_to_what_is_remits_is_a_sign(tmp_path: Path) -> None:
    (tmp_path / "real/state").mkdir(parents=True)
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to(tmp_path / "real")
    (tmp_path / "real/kek").symlink_to("../elsewhere")
    found = machine.view(spec(tmp_path, apart=(tmp_path / "one/state/../kek",)))
    assert {tmp_path / "one", tmp_path / "two", tmp_path / "real/kek"} <= set(map(Path, found.signs))
    assert tmp_path / "elsewhere" in map(Path, found.apart)


def test_a_hidden_folder_that_nobody_would_see_is_not_made(tmp_path: Path) -> None:
    machine.view(spec(tmp_path, hidden=(tmp_path / "absent",)))
    assert not (tmp_path / "absent").exists()


def test_a_hidden_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    told = spec(tmp_path, hidden=(tmp_path / "project/file/remit",))
    (tmp_path / "project/file").write_text("in the way")
    with pytest.raises(UnavailableError, match="cannot be made"):
        machine.view(told)


def test_a_path_that_is_not_there_is_named_and_cannot_be_bound(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequestError, match="mistyped") as raised:
        machine.view(spec(tmp_path, binds=(Bind(PurePosixPath(tmp_path / "mistyped")),)))
    assert "--bind" in str(raised.value.help)


def test_a_bind_that_no_link_may_lead_to_is_refused_once_one_does(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "secret")
    named = Bind(PurePosixPath(tmp_path / "out"), writable=True)
    assert machine.view(spec(tmp_path, binds=(named,))).binds[0].path == tmp_path / "secret"
    with pytest.raises(InvalidRequestError, match=r"`.*/out` leads to `.*/secret`"):
        machine.view(spec(tmp_path, binds=(replace(named, straight=True),)))


@pytest.mark.attack("LAU-15")
def test_a_bind_that_no_link_may_lead_to_stays_what_was_named_if_one_comes_after_the_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, resolve = tmp_path / "out", Path.resolve
    out.mkdir()

    def looked_at(path: Path, *, strict: bool = False) -> Path:
        found = resolve(path, strict)
        if path == out and not out.is_symlink():
            out.rmdir()
            out.symlink_to(tmp_path / "secret")
        return found

    (tmp_path / "secret").mkdir()
    monkeypatch.setattr(Path, "resolve", looked_at)
    named = Bind(PurePosixPath(out), writable=True, straight=True)
    assert machine.view(spec(tmp_path, binds=(named,))).binds[0].path == out


def test_more_credential_files_than_can_be_covered_are_refused(tmp_path: Path) -> None:
    (tmp_path / "runtime").mkdir()
    many = tuple(tmp_path / f".env.{number}" for number in range(machine.MAX_MASKED + 1))
    with pytest.raises(InvalidRequestError, match=str(len(many))), machine.started(spec(tmp_path, masked=many)):
        pass
