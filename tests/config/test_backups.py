"""Backups: sealed, one for each change, and a note of which resource has which key."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.config.backups import Backups, KeptFile
from remit.config.folder import Folder
from remit.errors import IntegrityError
from remit.keys.file import FileSealer

KEY = "sk-real-0123456789abcdef"
FILE = KeptFile(False, "file", f"A={KEY}\n", "A=${A}\n", 0o640)


@pytest.fixture
def here(tmp_path: Path) -> Folder:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/file").write_text("A=${A}\n")
    return Folder(tmp_path / "project")


@pytest.fixture
def backups(tmp_path: Path) -> Backups:
    (tmp_path / "state").mkdir()
    return Backups(tmp_path / "state", FileSealer(b"k" * 32))


def test_a_backup_holds_nothing_that_can_be_read(backups: Backups, here: Folder) -> None:
    path = backups.keep(str(here.path), [FILE])
    backups.note(path, {"openai": KEY})
    assert KEY.encode() not in path.read_bytes()
    assert KEY not in repr(FILE)
    assert path.stat().st_mode & 0o777 == 0o600


def test_changes_are_taken_back_the_newest_first(backups: Backups, here: Folder) -> None:
    backups.keep(str(here.path), [KeptFile(False, "file", "first\n", FILE.before, 0o600)])
    backups.keep(str(here.path), [FILE])
    assert list(backups.undo(here, here)) == [("file", ""), ("file", "")]
    assert (here.path / "file").read_text() == "first\n"
    assert list(backups.undo(here, here)) == []


def test_a_change_of_another_project_is_not_taken_back(backups: Backups, here: Folder) -> None:
    backups.keep(str(here.path.parent), [FILE])
    assert list(backups.undo(here, here)) == []


def test_a_file_of_the_home_is_put_back_there(backups: Backups, here: Folder, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/file").write_text("A=${A}\n")
    backups.keep(str(here.path), [KeptFile(True, "file", FILE.before, FILE.after, 0o600)])
    assert list(backups.undo(here, Folder(tmp_path / "home"))) == [("~/file", "")]
    assert ((tmp_path / "home/file").read_text(), (here.path / "file").read_text()) == (FILE.before, FILE.after)


@pytest.mark.parametrize(("before", "says"), [("old\n", "bring it to what was made"), (None, "remove it yourself")])
def test_a_file_that_has_changed_since_stays_with_its_backup(
    backups: Backups, here: Folder, before: str | None, says: str
) -> None:
    backups.keep(str(here.path), [KeptFile(False, "file", before, "made\n", 0o600)])
    for _ in range(2):
        [(name, why)] = backups.undo(here, here)
        assert (name, says in why) == ("file", True)
    assert (here.path / "file").read_text() == "A=${A}\n"


def test_a_link_that_was_put_in_the_place_of_a_file_is_not_followed(backups: Backups, here: Folder) -> None:
    backups.keep(str(here.path), [FILE])
    (here.path.parent / "other").write_text("A=${A}\n")
    (here.path / "file").unlink()
    (here.path / "file").symlink_to("../other")
    [(_, why)] = backups.undo(here, here)
    assert "it is a link" in why
    assert (here.path.parent / "other").read_text() == "A=${A}\n"


def test_which_resource_has_a_key_is_known_once_it_is_noted(backups: Backups, here: Folder) -> None:
    assert backups.resource_of(KEY) is None
    path = backups.keep(str(here.path), [FILE])
    assert backups.resource_of(KEY) is None
    backups.note(path, {"openai": KEY})
    assert (backups.resource_of(KEY), backups.resource_of(KEY + "x")) == ("openai", None)
    assert [why for _, why in backups.undo(here, here)] == [""]
    assert backups.resource_of(KEY) == "openai"


def test_a_backup_that_was_moved_or_changed_does_not_open(backups: Backups, here: Folder) -> None:
    path = backups.keep(str(here.path), [FILE])
    path.rename(path.with_name(path.name.replace(".1.", ".2.")))
    with pytest.raises(IntegrityError):
        list(backups.undo(here, here))
