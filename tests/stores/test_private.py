from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from remit.errors import IntegrityError, UnavailableError
from remit.stores import private


def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    theirs = os.stat_result((stat.S_IFREG | 0o600, 0, 0, 1, os.geteuid() + 1, 0, 0, 0, 0, 0))
    with pytest.raises(IntegrityError, match="another user"):
        private.check(tmp_path, theirs, private.FILE)


@pytest.mark.parametrize("umask", [0o000, 0o777])
def test_what_is_made_has_its_mode_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        private.make_directory(tmp_path / "state")
        private.make_file(tmp_path / "state" / "file")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "state" / "file").stat().st_mode) == 0o600


def test_what_is_there_is_kept(tmp_path: Path) -> None:
    private.make_file(tmp_path / "file")
    (tmp_path / "file").write_text("content")
    private.make_file(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "content"


def test_a_lock_is_held_by_one_and_free_after_it(tmp_path: Path) -> None:
    held = private.lock(tmp_path / "lock")
    with pytest.raises(UnavailableError):
        private.lock(tmp_path / "lock")
    os.close(held)
    os.close(private.lock(tmp_path / "lock"))


@pytest.mark.parametrize("put", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_lock_file_is_refused_and_not_waited_for(tmp_path: Path, put: Callable[[Path], None]) -> None:
    put(tmp_path / "lock")
    assert private.holder(tmp_path / "lock") is None
    with pytest.raises(IntegrityError):
        private.lock(tmp_path / "lock")


def test_a_place_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (Path("/proc/x/state"), tmp_path / "file" / "state"):
        with pytest.raises(UnavailableError) as caught:
            private.make_directory(place)
        assert f"`{place}`" in str(caught.value.help)
