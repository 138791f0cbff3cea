from __future__ import annotations

import sys
from pathlib import Path

import pytest

from remit.process import files


@pytest.fixture
def top(tmp_path: Path) -> Path:
    for name in ("a/b/c", "a/d", "e"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a/b/key", "a/b/c/file", "a/d/file", "e/file"):
        (tmp_path / name).touch()
    return tmp_path.resolve()


def test_what_lies_in_another_is_shown_with_it(top: Path) -> None:
    seen = files.view((top / "a/b", top / "a", top / "e/file", top / "absent"), ())
    assert seen == files.View((top / "a", top / "e/file"), (), ())


def test_links_on_the_way_are_shown_too(top: Path) -> None:
    (top / "link").symlink_to("a")
    (top / "again").symlink_to(top / "link/b")
    (top / "a/inside").symlink_to("b")
    seen = files.view((top / "again/c", top / "a/inside"), ())
    assert seen.shown == (top / "a/b",)
    assert seen.links == ((top / "a/inside", "b"), (top / "again", str(top / "link/b")), (top / "link", "a"))


def test_what_is_covered_is_where_it_really_is(top: Path) -> None:
    (top / "link").symlink_to("a/b/key")
    seen = files.view((top / "a", top / "e"), (top / "link", top / "e", top / "absent", top / "a/absent"))
    assert seen == files.View((top / "a",), (), (top / "a/b/key",))


def test_around_what_is_covered_the_rest_is_left(top: Path) -> None:
    seen = files.view((top / "a", top / "e"), (top / "a/b/key",))
    assert set(files.around(seen)) == {top / "e", top / "a/d", top / "a/b/c"}
    assert set(files.around(files.view((top / "a",), ()))) == {top / "a"}
    assert set(files.around(files.view((top,), (top / "a",)))) == {top / "e"}


def test_what_python_imports_is_in_the_list() -> None:
    found = [path.resolve() for path in files.python()]
    assert Path(sys.prefix).resolve() in found
    assert any(Path(files.__file__).resolve().is_relative_to(path) for path in found)


def test_what_a_program_needs_of_the_system_holds_nothing_secret() -> None:
    named = {str(path) for path in files.system()}
    assert {"/usr", "/etc/resolv.conf", "/etc/hosts", "/dev/null"} <= named
    assert named.isdisjoint({"/", "/etc", "/etc/shadow", "/etc/ssl", "/dev", "/home", "/root", "/run", "/proc"})
