"""Files of a folder that somebody else filled: nothing in it leads a reader or a writer anywhere else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remit.config.folder import MAX_FILE, Folder
from remit.errors import ConflictError, InvalidRequestError

SECRET = "the text of another file"


@pytest.fixture
def here(tmp_path: Path) -> Folder:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_text(SECRET)
    (tmp_path / "project/below").mkdir(parents=True)
    return Folder(tmp_path / "project")


def lead(here: Folder, how: str) -> str:
    """Put at a name something that leads elsewhere, or is no file; return the name."""
    path, outside = here.path / "file", here.path.parent / "outside"
    match how:
        case "link":
            path.symlink_to(outside / "file")
        case "hard link":
            path.hardlink_to(outside / "file")
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "folder above":
            (here.path / "way").symlink_to(outside)
            return "way/file"
        case "huge":
            path.write_bytes(b"")
            os.truncate(path, MAX_FILE + 1)
        case "bytes":
            path.write_bytes(b"\xff")
    return path.name


@pytest.mark.attack("LAU-17")
@pytest.mark.parametrize("how", ["link", "hard link", "pipe", "folder", "folder above", "huge", "bytes"])
def test_what_is_no_plain_file_of_the_folder_is_neither_read_nor_written(here: Folder, how: str) -> None:
    name = lead(here, how)
    with pytest.raises(InvalidRequestError) as refused:
        here.read(name)
    assert SECRET not in str(refused.value)
    for was in (None, SECRET):
        with pytest.raises((InvalidRequestError, ConflictError, OSError)):
            here.replace(name, was, "new", 0o600)
    assert (here.path.parent / "outside/file").read_text() == SECRET
    assert Folder(here.path.parent / "outside").names() == ["file"]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to somebody else")
def test_a_file_of_somebody_else_is_not_read(here: Folder) -> None:
    (here.path / "file").write_text("x")
    os.chown(here.path / "file", 65_534, 65_534)
    with pytest.raises(InvalidRequestError, match="somebody else"):
        here.read("file")


def test_a_file_is_replaced_at_once_and_keeps_its_mode(here: Folder) -> None:
    path = here.path / "below/file"
    path.write_text("a\r\n")
    path.chmod(0o640)
    before = path.stat().st_ino
    found = here.read("below/file")
    assert found is not None
    here.replace("below/file", found.text, "b", found.mode)
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("b", 0o640)
    assert path.stat().st_ino != before
    assert Folder(path.parent).names() == ["file"]


def test_a_file_that_is_not_what_it_was_stays(here: Folder) -> None:
    (here.path / "file").write_text("theirs")
    for was in ("mine", None):
        with pytest.raises(ConflictError, match="has changed meanwhile"):
            here.replace("file", was, "new", 0o600)
    with pytest.raises(ConflictError):
        here.replace("gone", "mine", "new", 0o600)
    assert (here.path / "file").read_text() == "theirs"
    assert here.names() == ["below", "file"]


def test_a_file_is_made_and_taken_away(here: Folder) -> None:
    here.replace("new", None, "text", 0o644)
    assert here.read("new") is not None
    here.replace("new", "text", None, 0o644)
    assert here.read("new") is None
    assert here.read("no/such/way") is None


def test_what_a_crash_left_beside_a_file_is_taken_away(here: Folder) -> None:
    (here.path / ".file.remit~").write_text("half")
    here.replace("file", None, "text", 0o600)
    assert here.names() == ["below", "file"]
