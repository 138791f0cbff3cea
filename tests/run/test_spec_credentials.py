from __future__ import annotations

from pathlib import Path

import pytest

from remit.run import spec


@pytest.mark.parametrize("name", [".env", ".env.local", ".env.production", ".netrc", ".npmrc", ".git-credentials"])
def test_a_file_that_holds_credentials_by_custom_is_found(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("KEY=1")
    assert list(spec.credentials_in_project(tmp_path)) == [tmp_path / name]


@pytest.mark.parametrize("name", [".env.example", ".env.sample", "env", "readme.md", ".environment"])
def test_a_template_is_not(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("KEY=")
    assert list(spec.credentials_in_project(tmp_path)) == []


def test_a_folder_or_a_link_to_nothing_of_that_name_is_not(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    (tmp_path / ".netrc").symlink_to(tmp_path / "elsewhere")
    assert list(spec.credentials_in_project(tmp_path)) == []


def test_for_a_link_the_file_is_found_that_it_leads_to(tmp_path: Path) -> None:
    (tmp_path / "keys.txt").write_text("KEY=1")
    (tmp_path / ".env").symlink_to("keys.txt")
    assert list(spec.credentials_in_project(tmp_path)) == [tmp_path / "keys.txt"]


def test_what_is_in_a_home_is_found_where_custom_has_it(tmp_path: Path) -> None:
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/credentials").write_text("key")
    (tmp_path / ".aws/config").write_text("region")
    assert list(spec.credentials_in_home(tmp_path)) == [tmp_path / ".aws/credentials"]
