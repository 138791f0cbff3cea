"""The directory of policies: only what its owner wrote is read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from remit.policies import sets


def problem(directory: Path) -> str:
    texts, problems = sets.read_directory(directory)
    [found] = problems
    assert found.file not in texts
    return str(found)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    made = tmp_path / "policies"
    made.mkdir(mode=0o755)
    return made


def test_cedar_files_are_read_by_name_and_nothing_else_is(home: Path) -> None:
    (home / "b.cedar").write_text("second")
    (home / "a.cedar").write_text("first é")
    (home / "README.md").write_text("not a policy")
    (home / "a.test.toml").write_text("not a policy")
    (home / "below").mkdir()
    (home / "below" / "c.cedar").write_text("not looked into")
    assert sets.read_directory(home) == ({"a.cedar": "first é", "b.cedar": "second"}, ())


def test_a_directory_that_is_not_there_is_a_problem(home: Path) -> None:
    assert problem(home / "none") == f"`{home / 'none'}` cannot be read: No such file or directory"


def test_a_file_in_place_of_the_directory_is_a_problem(home: Path) -> None:
    (home / "a.cedar").touch()
    assert problem(home / "a.cedar") == "this is not a directory"


def test_what_everybody_can_write_is_not_believed(home: Path) -> None:
    (home / "a.cedar").touch()
    (home / "a.cedar").chmod(0o646)
    assert problem(home) == "a.cedar: the file can be written by everybody: chmod go-w"
    home.chmod(0o757)
    assert problem(home) == "the directory can be written by everybody: chmod go-w"


def test_what_a_group_can_write_is_not_believed_unless_the_group_is_roots(home: Path) -> None:
    (home / "a.cedar").write_text("text")
    (home / "a.cedar").chmod(0o664)
    home.chmod(0o775)
    if os.getegid() == 0:
        assert sets.read_directory(home) == ({"a.cedar": "text"}, ())
        os.chown(home / "a.cedar", -1, 4711)
        assert problem(home) == "a.cedar: the file can be written by its group: chmod g-w"
        os.chown(home, -1, 4711)
    assert problem(home) == "the directory can be written by its group: chmod g-w"
    home.chmod(0o755)
    assert problem(home) == "a.cedar: the file can be written by its group: chmod g-w"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_what_somebody_else_owns_is_not_believed(home: Path) -> None:
    (home / "a.cedar").touch()
    os.chown(home / "a.cedar", 4711, 4711)
    assert problem(home) == "a.cedar: the file belongs to somebody else"
    os.chown(home, 4711, 4711)
    assert problem(home) == "the directory belongs to somebody else"


def test_a_link_is_followed_inside_the_directory_alone(home: Path) -> None:
    (home / "real").write_text("inside")
    (home / "a.cedar").symlink_to("real")
    assert sets.read_directory(home) == ({"a.cedar": "inside"}, ())
    (home.parent / "far").write_text("outside")
    (home / "b.cedar").symlink_to("../far")
    assert problem(home) == "b.cedar: this is a link out of the directory"


def test_the_directory_itself_may_be_a_link(home: Path) -> None:
    (home / "a.cedar").write_text("text")
    (home.parent / "current").symlink_to(home)
    assert sets.read_directory(home.parent / "current") == ({"a.cedar": "text"}, ())


def test_a_link_to_nothing_and_links_in_a_circle_are_problems(home: Path) -> None:
    (home / "a.cedar").symlink_to("nowhere")
    assert problem(home) == "a.cedar: it cannot be read: No such file or directory"
    (home / "nowhere").symlink_to("a.cedar")
    assert problem(home).startswith("a.cedar: it cannot be read: ")


def test_what_is_no_regular_file_is_refused_and_not_waited_for(home: Path) -> None:
    os.mkfifo(home / "a.cedar")
    assert problem(home) == "a.cedar: this is not a regular file"


def test_what_is_no_text_is_a_problem(home: Path) -> None:
    (home / "a.cedar").write_bytes(b"\xff")
    assert problem(home) == "a.cedar: this is not UTF-8 text"


def test_every_file_with_a_problem_is_named(home: Path) -> None:
    (home / "a.cedar").write_bytes(b"\xff")
    (home / "b.cedar").write_text("good")
    (home / "c.cedar").write_bytes(b"\xff")
    texts, problems = sets.read_directory(home)
    assert [item.file for item in problems] == ["a.cedar", "c.cedar"]
    assert texts == {"b.cedar": "good"}


def test_sizes_are_bounded(home: Path) -> None:
    (home / "a.cedar").write_bytes(b" " * (sets.MAX_ALL + 1))
    assert problem(home) == "a.cedar: the file has more than 131072 bytes"
    (home / "a.cedar").write_bytes(b" " * sets.MAX_ALL)
    assert sets.read_directory(home)[1] == ()
    (home / "b.cedar").write_bytes(b" ")
    assert problem(home) == "the files have more than 131072 bytes together"


def test_the_number_of_files_is_bounded(home: Path) -> None:
    for number in range(sets.MAX_FILES + 1):
        (home / f"{number}.cedar").touch()
    assert problem(home) == "there are more than 1000 files"
