"""What a run may neither see nor change, though it lies inside what the run may write."""

from __future__ import annotations

import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

import remit
from tests.broker.world import OPERATOR
from tests.run.rig import House, house

pytestmark = pytest.mark.live
KEK = "kek-canary"


@pytest.fixture
def runs() -> Iterator[House]:
    with house() as built:
        yield built


def own_source(place: Path) -> dict[str, str]:
    """Put a copy of remit somewhere; return the operator's environment that runs it from there."""
    skip = shutil.ignore_patterns("__pycache__")
    shutil.copytree(Path(remit.__file__).parent, place / "remit", ignore=skip)
    return {"PYTHONPATH": str(place), "PYTHONDONTWRITEBYTECODE": "1"}


def state(place: Path) -> str:
    """Make a state folder with a key in it."""
    place.mkdir(parents=True)
    (place / "kek").write_text(KEK)
    return str(place)


LEVELS = ["a", "a/b", "a/b/src", "a/b/src/remit", "a/b/src/remit/run"]


@pytest.mark.attack("LAU-05")
@pytest.mark.parametrize("level", LEVELS)
def test_no_folder_on_the_way_to_remits_own_source_can_be_moved(runs: House, level: str) -> None:
    environ = own_source(runs.project / "a/b/src")
    done = runs.run(["sh", "-c", f"mv {level} {level}.moved; mkdir -p {level}; true"], environ=environ)
    assert done.returncode == 0, done.stderr
    assert not (runs.project / f"{level}.moved").exists()
    assert (runs.project / "a/b/src/remit/__init__.py").read_text()


@pytest.mark.attack("LAU-05")
@pytest.mark.parametrize("level", LEVELS[:2])
def test_the_folders_on_the_way_stay_writable(runs: House, level: str) -> None:
    environ = own_source(runs.project / "a/b/src")
    assert runs.run(["sh", "-c", f"echo made > {level}/note"], environ=environ).returncode == 0
    assert (runs.project / level / "note").read_text() == "made\n"


@pytest.mark.attack("LAU-05")
def test_no_module_can_be_left_beside_remits_own_source(runs: House) -> None:
    environ = own_source(runs.project / "src")
    done = runs.run(["sh", "-c", "echo 'raise SystemExit' > src/uvloop.py"], environ=environ)
    assert done.returncode != 0
    assert not (runs.project / "src/uvloop.py").exists()


@pytest.mark.attack("LAU-05")
def test_a_folder_that_python_imports_from_is_read_only(runs: House) -> None:
    (runs.project / "more").mkdir()
    done = runs.run(["touch", "more/httpx.py"], environ={"PYTHONPATH": str(runs.project / "more")})
    assert done.returncode != 0
    assert not (runs.project / "more/httpx.py").exists()


@pytest.mark.attack("LAU-05")
@pytest.mark.parametrize("named", ["{}", ":/nowhere", "/nowhere:."])
def test_a_run_in_a_folder_that_remit_imports_from_is_refused(runs: House, named: str) -> None:
    done = runs.run(["true"], environ={"PYTHONPATH": named.format(runs.project)})
    assert (done.returncode, "PYTHONPATH" in done.stderr) == (3, True)


@pytest.mark.attack("LAU-05")
@pytest.mark.parametrize("below", [".", "remit", "remit/run"])
def test_a_run_in_remits_own_source_is_refused(runs: House, below: str) -> None:
    environ = own_source(runs.project)
    done = runs.run(["true"], environ=environ, cwd=runs.project / below)
    assert (done.returncode, "another folder" in done.stderr) == (3, True)


@pytest.mark.attack("LAU-05")
def test_a_link_to_remits_own_source_that_the_run_could_replace_is_refused(runs: House) -> None:
    own_source(runs.folder / "elsewhere")
    (runs.project / "src").symlink_to(runs.folder / "elsewhere")
    done = runs.run(["true"], environ={"PYTHONPATH": str(runs.project / "src")})
    assert (done.returncode, str(runs.project / "src") in done.stderr) == (3, True)


@pytest.mark.attack("LAU-07")
@pytest.mark.parametrize("level", ["var", "var/lib", "var/lib/remit"])
def test_no_folder_on_the_way_to_the_state_can_be_moved(runs: House, level: str) -> None:
    hidden = [state(runs.project / "var/lib/remit")]
    first = runs.run(["sh", "-c", f"mv {level} {level}.moved; mkdir -p {level}; true"], hidden=hidden)
    second = runs.run(["sh", "-c", "find . -name kek -exec cat {} +"], hidden=hidden)
    assert (first.returncode, second.stdout) == (0, "")
    assert (runs.project / "var/lib/remit/kek").read_text() == KEK


@pytest.mark.attack("LAU-07")
def test_no_folder_can_be_moved_in_namespaces_of_the_runs_own_either(runs: House) -> None:
    hidden = [state(runs.project / "var/lib/remit")]
    steps = "umount -l var/lib/remit; umount -l var/lib; umount -l var; mv var moved; find . -name kek"
    assert runs.run(["unshare", "-Urm", "sh", "-c", steps], hidden=hidden).stdout == ""
    assert not (runs.project / "moved").exists()


@pytest.mark.attack("LAU-07")
@pytest.mark.parametrize("writable", [True, False])
def test_a_link_to_what_is_around_the_state_does_not_show_it(runs: House, writable: bool) -> None:  # noqa: FBT001 - a case
    hidden = [state(runs.folder / "around/remit")]
    (runs.folder / "around/data").write_text("data")
    link = runs.folder / "link"
    link.symlink_to("around")
    done = runs.run(["sh", "-c", f"cat {link}/data {link}/remit/kek"], hidden=hidden, binds=[[str(link), writable]])
    assert done.stdout == "data"


@pytest.mark.attack("LAU-07")
def test_a_link_to_the_state_itself_is_refused(runs: House) -> None:
    hidden = [state(runs.folder / "around/remit")]
    (runs.folder / "link").symlink_to("around/remit")
    done = runs.run(["true"], hidden=hidden, binds=[[str(runs.folder / "link"), False]])
    assert (done.returncode, "belongs to remit" in done.stderr) == (3, True)


@pytest.mark.attack("LAU-07")
def test_a_state_that_is_found_by_a_link_in_the_working_directory_is_refused(runs: House) -> None:
    state(runs.folder / "around/remit")
    (runs.project / "var").symlink_to(runs.folder / "around")
    done = runs.run(["true"], hidden=[str(runs.project / "var/remit")])
    assert (done.returncode, str(runs.project / "var") in done.stderr) == (3, True)


@pytest.mark.attack("LAU-07")
def test_a_hidden_folder_that_is_not_there_yet_cannot_be_made_by_a_run(runs: House) -> None:
    absent = runs.project / "etc/remit"
    done = runs.run(
        ["sh", "-c", "mkdir -p etc/remit; echo x > etc/remit/config.toml; mv etc etc2"], hidden=[str(absent)]
    )
    assert done.returncode != 0
    assert list(absent.iterdir()) == []
    assert stat.S_IMODE(absent.stat().st_mode) == 0o700


@pytest.mark.attack("LAU-07")
@pytest.mark.parametrize("writable", [True, False])
def test_a_key_or_witness_in_what_a_run_sees_is_refused(runs: House, writable: bool) -> None:  # noqa: FBT001 - a parameter of the case
    apart = [str(runs.folder / "keys/witness")]
    (runs.folder / "keys").mkdir()
    done = runs.run(["true"], apart=apart, binds=[[str(runs.folder / "keys"), writable]])
    assert (done.returncode, "keep key, witness and policies in folders that no run sees" in done.stderr) == (3, True)
    assert not runs.call(_tasks(runs))


@pytest.mark.attack("LAU-07")
def test_a_key_outside_what_a_run_sees_is_no_hindrance(runs: House) -> None:
    assert runs.run(["true"], apart=[str(runs.folder / "keys/kek")]).returncode == 0


async def _tasks(runs: House) -> bool:
    return bool(await runs.broker.tasks(OPERATOR))


@pytest.mark.attack("LAU-03")
def test_credentials_that_a_link_leads_to_are_empty(runs: House) -> None:
    (runs.project / "keys/deep").mkdir(parents=True)
    (runs.project / "keys/deep/prod").write_text(KEK)
    (runs.project / ".env").symlink_to("keys/deep/prod")
    done = runs.run(["sh", "-c", "mv keys moved; cat .env keys/deep/prod"])
    assert (done.stdout, (runs.project / "moved").exists()) == ("", False)
    assert f"{runs.project}/keys/deep/prod holds credentials" in done.stderr
