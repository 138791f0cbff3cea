"""The file of ends: written in place, widened when it is full, and never read as less than was written."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from remit.errors import IntegrityError, UnavailableError
from remit.keys.file import FileSealer
from remit.ports import NotedEnd
from remit.stores.ends import ROOM, SIZE, EndsFile
from remit.stores.tags import Tags

TAGS = Tags(FileSealer(b"k" * 32).mac)
ONE, OTHER = NotedEnd("task_1", ("grt_a", "grt_b")), NotedEnd("task_2", (), ("lse_c",))
EVERYTHING = [NotedEnd()]


def opened(tmp_path: Path, tags: Tags = TAGS) -> EndsFile:
    return EndsFile(tmp_path / "ends", tags)


def written(tmp_path: Path, *rounds: Sequence[NotedEnd]) -> Path:
    """Write so often, and close."""
    file = opened(tmp_path)
    for ends in rounds:
        file.write(ends)
    file.close()
    return tmp_path / "ends"


def read(tmp_path: Path, tags: Tags = TAGS) -> list[NotedEnd]:
    file = opened(tmp_path, tags)
    found = list(file.read())
    file.close()
    return found


def test_a_new_file_has_all_its_room_is_private_and_says_nothing(tmp_path: Path) -> None:
    path = written(tmp_path)
    found = path.stat()
    assert (found.st_size, found.st_mode & 0o777) == (SIZE, 0o600)
    assert found.st_blocks * 512 >= SIZE
    assert read(tmp_path) == []
    assert [each.name for each in tmp_path.iterdir()] == ["ends"]


@pytest.mark.parametrize("rounds", range(1, 6))
def test_what_was_written_last_is_read_however_often_it_was_written_and_by_whom(tmp_path: Path, rounds: int) -> None:
    for number in range(rounds):
        written(tmp_path, [ONE, NotedEnd(f"task_{number}")])
    assert read(tmp_path) == [ONE, NotedEnd(f"task_{rounds - 1}")]
    assert (tmp_path / "ends").stat().st_size == SIZE
    written(tmp_path, [])
    assert read(tmp_path) == []


@pytest.mark.parametrize("cut", [0, 1, 20, 30, 60])
@pytest.mark.parametrize("times", [1, 2])
def test_a_write_that_is_cut_off_leaves_the_one_before(tmp_path: Path, cut: int, times: int) -> None:
    path = written(tmp_path, *[[ONE]] * times)
    before = path.read_bytes()
    after = written(tmp_path, [ONE, OTHER]).read_bytes()
    at = 0 if times % 2 else SIZE // 2
    assert before[:at] + before[at + SIZE // 2 :] == after[:at] + after[at + SIZE // 2 :]
    path.write_bytes(before[:at] + after[at : at + cut] + before[at + cut :])
    assert read(tmp_path) == [ONE]


@pytest.mark.parametrize("content", [b"", b"\0" * SIZE, b"x" * SIZE, b"\xff" * SIZE])
def test_a_file_that_does_not_verify_means_everything(tmp_path: Path, content: bytes) -> None:
    written(tmp_path, [ONE]).write_bytes(content)
    assert read(tmp_path) == EVERYTHING
    written(tmp_path, [ONE])
    assert read(tmp_path) == [ONE]


def test_a_file_under_another_key_or_that_somebody_changed_means_everything(tmp_path: Path) -> None:
    path = written(tmp_path, [ONE], [ONE, OTHER])
    assert read(tmp_path, Tags(FileSealer(b"z" * 32).mac)) == EVERYTHING
    path.write_bytes(path.read_bytes().replace(b"grt_a", b"grt_z"))
    assert read(tmp_path) == EVERYTHING


def test_what_is_too_much_is_widened_first_in_the_task_that_has_most(tmp_path: Path) -> None:
    large = NotedEnd("task_large", tuple(f"grt_{number:022}" for number in range(ROOM // 27)))
    small = [NotedEnd(f"task_{number}", ("grt_a",)) for number in range(100)]
    written(tmp_path, [*small, large])
    assert sorted(read(tmp_path), key=lambda end: end.task) == sorted(
        [*small, NotedEnd("task_large")], key=lambda end: end.task
    )


def test_more_tasks_than_fit_are_everything(tmp_path: Path) -> None:
    fits = [NotedEnd(f"task_{number:022}") for number in range(ROOM // 64)]
    written(tmp_path, fits)
    assert sorted(read(tmp_path), key=lambda end: end.task) == fits
    written(tmp_path, fits * 2)
    assert read(tmp_path) == EVERYTHING


@pytest.mark.parametrize("count", [1, 2, 3, 50])
def test_what_just_fits_is_not_widened(tmp_path: Path, count: int) -> None:
    frame = len('{"task":"","grants":[""],"leases":[]}') + 1  # and a comma, or the bracket that ends it
    left = (ROOM - 1 - frame * count) // count
    ends = [NotedEnd(f"{number:03}", ("x" * (left - 3),)) for number in range(count)]
    written(tmp_path, ends)
    assert sorted(read(tmp_path), key=lambda end: end.task) == ends


def test_a_disk_that_fails_says_so_and_does_not_lose_what_was_noted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = opened(tmp_path)
    file.write([ONE])

    def fails(_handle: int) -> None:
        raise OSError(errno.EIO, "the disk")

    monkeypatch.setattr(os, "fdatasync", fails)
    for _ in range(3):  # each goes to the half that is not relied on
        with pytest.raises(UnavailableError):
            file.write([OTHER])
    monkeypatch.undo()
    path = tmp_path / "ends"
    torn = bytearray(path.read_bytes())
    torn[0 : SIZE // 2] = bytes(SIZE // 2)
    path.write_bytes(torn)
    assert list(file.read()) == [ONE]
    file.close()


def test_a_disk_without_room_for_the_file_is_tried_again_at_each_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_handle: int) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "fsync", full)
    file = opened(tmp_path)
    assert list(file.read()) == []
    with pytest.raises(UnavailableError):
        file.write([ONE])
    monkeypatch.undo()
    file.write([ONE])
    assert list(file.read()) == [ONE]
    file.close()


def test_a_file_that_others_may_open_is_refused(tmp_path: Path) -> None:
    written(tmp_path, [ONE]).chmod(0o644)
    with pytest.raises(IntegrityError, match="others may open"):
        opened(tmp_path)
