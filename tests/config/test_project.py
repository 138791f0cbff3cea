from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest

from remit.config import project
from remit.config.project import MAX_FILE, FoundProject, kept
from remit.errors import InvalidRequestError

TEXT = """\
purpose = "sell shoes"
ttl = "8h"
depth = 1
fan_out = 3
resources = ["openai", "search:paths=/v1/search,actions=GET"]
bind = ["../shared", "out:rw"]
[env]
OPENAI_BASE_URL = "url:openai/v1"
LOG_LEVEL = "=debug"
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Return a home with a project in it."""
    folder = tmp_path / "home" / "shop"
    (folder / "src").mkdir(parents=True, mode=0o755)
    (folder / "remit.toml").write_text(TEXT)
    (folder / "remit.toml").chmod(0o644)
    return tmp_path / "home"


def found(home: Path, at: str = "shop") -> FoundProject:
    there = project.find(home / at, home, home / "state")
    assert there is not None
    return there


def keep(home: Path) -> Path:
    """Accept the file as it is."""
    now = found(home)
    place = kept(home / "state", now.path)
    place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    place.write_bytes(msgspec.json.encode(now.record(now.read().binds(now.path.parent))))
    place.chmod(0o600)
    return place


def refused(home: Path, text: str) -> InvalidRequestError:
    (home / "shop/remit.toml").write_text(text)
    with pytest.raises(InvalidRequestError) as refusal:
        found(home).read()
    return refusal.value


def test_a_file_is_read_with_all_its_settings(home: Path) -> None:
    read = found(home).read()
    assert (read.purpose, read.ttl, read.depth, read.fan_out) == ("sell shoes", "8h", 1, 3)
    assert read.resources == ("openai", "search:paths=/v1/search,actions=GET")
    assert [(each.name, each.source, each.of, each.path) for each in read.variables] == [
        ("OPENAI_BASE_URL", "url", "openai", "/v1"),
        ("LOG_LEVEL", "", "debug", ""),
    ]
    binds = read.binds(home / "shop")
    assert [(bind.path, bind.writable) for bind in binds] == [
        (home / "shared", False),
        (home / "shop/out", True),
    ]


def test_the_nearest_file_is_taken_and_none_above_the_home(home: Path, tmp_path: Path) -> None:
    assert found(home, "shop/src").path == home / "shop/remit.toml"
    (tmp_path / "remit.toml").write_text(TEXT)
    (home / "shop/remit.toml").unlink()
    assert project.find(home / "shop/src", home, home / "state") is None
    (home / "remit.toml").write_text(TEXT)
    assert found(home, "shop/src").path == home / "remit.toml"


def test_outside_of_the_home_it_is_looked_for_up_to_the_root(home: Path, tmp_path: Path) -> None:
    (tmp_path / "remit.toml").write_text(TEXT)
    (tmp_path / "else/where").mkdir(parents=True)
    there = project.find(tmp_path / "else/where", home, home / "state")
    assert there is not None
    assert there.path == tmp_path / "remit.toml"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('resources = ["a"]\nttl = "soon"\n', "remit.toml:2: `ttl` must be"),
        ('resources = ["a"]\ndepth = "1"\n', "remit.toml:2: `depth` must be a whole number"),
        ('resources = ["a"]\ndepth = true\n', "remit.toml:2: `depth` must be a whole number"),
        ('resources = ["a"]\nfan_out = -1\n', "remit.toml:2: `fan_out` must not be negative"),
        ('egress = ["Registry.example"]\n', "remit.toml:1: `egress` must hold hosts"),
        ('egress = ["127.0.0.1"]\n', "remit.toml:1: `egress` must hold hosts"),
        ('resources = ["a"]\negress = ["*.com"]\n', "remit.toml:2: `egress` must hold hosts"),
        ("resources = []\n", "remit.toml:1: `resources` must list 1 to 64 texts"),
        ('resources = ["a"]\nbind = ["~/x"]\n', "remit.toml:2: `bind` has paths"),
        ('resources = ["a"]\nenv = 3\n', "remit.toml:2: `env` must be a table"),
        ('resources = ["a"]\n[env]\nA = "debug"\n', "remit.toml:3: `env.A` has no value"),
        ('resources = ["a"]\n[env]\nLD_PRELOAD = "=x"\n', "remit.toml:3: `env.LD_PRELOAD` cannot be set"),
        ('resources = ["brave"]\n[env]\nA = "placeholder:brve"\n', "remit.toml:3: `env.A` names `brve`"),
        ('resources = ["a"]\npurpose = "\\u001b[2J"\n', "remit.toml:2: `purpose` must be text"),
    ],
)
def test_what_is_wrong_is_named_with_its_file_and_line(home: Path, text: str, said: str) -> None:
    assert said in refused(home, text).detail


@pytest.mark.parametrize("name", ["hosts", "destination", "inject", "secret", "command", "source", "net"])
def test_a_host_a_position_a_source_and_a_command_cannot_be_said(home: Path, name: str) -> None:
    assert f"`{name}` is not a setting" in refused(home, f'resources = ["a"]\n{name} = "x"\n').detail


def test_a_name_that_may_have_been_meant_is_offered(home: Path) -> None:
    assert refused(home, 'resource = ["a"]\n').help == "did you mean `resources`?"
    text = 'resources = ["brave"]\n[env]\nA = "placeholder:brve"\n'
    assert refused(home, text).help == "did you mean `brave`?"


def test_without_resources_there_is_nothing_to_run_by(home: Path) -> None:
    assert "`resources` is missing" in refused(home, 'purpose = "x"\n').detail


@pytest.mark.attack("LAU-15")
@pytest.mark.parametrize(
    "text",
    ["resources = [", "a = " + "[" * 8_000, "depth = " + "9" * 8_000, 'resources = ["a"]\n\x1b = 1\n', "\0"],
    ids=["cut", "deep", "number", "escape", "zero"],
)
def test_what_is_no_toml_is_refused(home: Path, text: str) -> None:
    assert "cannot be read" in refused(home, text).detail


def test_many_dotted_keys_are_refused_as_unknown(home: Path) -> None:
    assert "`a` is not a setting" in refused(home, 'resources = ["a"]\n' + ".".join("a" * 400) + " = 1\n").detail


@pytest.mark.attack("LAU-15")
def test_a_huge_file_is_refused_before_it_is_read(home: Path) -> None:
    with (home / "shop/remit.toml").open("ab") as file:
        file.truncate(1 << 40)
    with pytest.raises(InvalidRequestError, match=f"more than {MAX_FILE} bytes"):
        found(home)


def test_other_texts_than_utf8_are_refused(home: Path) -> None:
    (home / "shop/remit.toml").write_bytes(b'purpose = "\xff"\n')
    with pytest.raises(InvalidRequestError, match="not UTF-8"):
        found(home)


@pytest.mark.attack("LAU-15")
def test_a_link_a_pipe_and_a_folder_are_no_project(home: Path) -> None:
    path = home / "shop/remit.toml"
    path.rename(home / "other.toml")
    path.symlink_to(home / "other.toml")
    with pytest.raises(InvalidRequestError, match="symbolic link"):
        found(home)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(InvalidRequestError, match="is not a file"):
        found(home)
    path.unlink()
    path.mkdir()
    with pytest.raises(InvalidRequestError, match="is not a file"):
        found(home)


@pytest.mark.attack("LAU-15")
def test_a_file_that_others_can_write_is_refused(home: Path) -> None:
    (home / "shop/remit.toml").chmod(0o646)
    with pytest.raises(InvalidRequestError, match=r"others can write `.*/remit\.toml`"):
        found(home)


@pytest.mark.attack("LAU-15")
def test_a_file_in_a_folder_that_others_can_write_is_refused(home: Path) -> None:
    (home / "shop").chmod(0o1777)
    with pytest.raises(InvalidRequestError, match=r"others can write `.*/shop`"):
        found(home)


def test_a_group_may_write_if_it_is_this_users_own(home: Path) -> None:
    (home / "shop").chmod(0o775)
    assert found(home).read().depth == 1
    if os.getuid() == 0:
        os.chown(home / "shop", 0, 1)
        with pytest.raises(InvalidRequestError, match="others can write"):
            found(home)


@pytest.mark.attack("LAU-15")
@pytest.mark.skipif(os.getuid() != 0, reason="only root gives files away")
def test_a_file_of_somebody_else_is_refused(home: Path) -> None:
    os.chown(home / "shop/remit.toml", 12_345, -1)
    with pytest.raises(InvalidRequestError, match="belongs to somebody else"):
        found(home)
    os.chown(home / "shop/remit.toml", 0, -1)
    os.chown(home / "shop", 12_345, -1)
    with pytest.raises(InvalidRequestError, match="belongs to somebody else"):
        found(home)


def test_a_file_counts_once_it_is_accepted_and_until_it_changes(home: Path) -> None:
    with pytest.raises(InvalidRequestError, match="was not accepted"):
        found(home).accepted()
    keep(home)
    assert found(home).accepted()[0].depth == 1
    (home / "shop/remit.toml").write_text(TEXT + "# more\n")
    with pytest.raises(InvalidRequestError, match="has changed since it was accepted"):
        found(home).accepted()


def test_what_was_accepted_at_one_path_does_not_count_at_another(home: Path) -> None:
    place = keep(home)
    (home / "shop").rename(home / "copy")
    with pytest.raises(InvalidRequestError, match="was not accepted"):
        found(home, "copy").accepted()
    place.rename(kept(home / "state", home / "copy/remit.toml"))
    with pytest.raises(InvalidRequestError, match="was not accepted"):
        found(home, "copy").accepted()


def test_a_bind_that_leads_elsewhere_than_when_it_was_accepted_is_refused(home: Path) -> None:
    (home / "shop/out").mkdir()
    keep(home)
    (home / "shop/out").rmdir()
    (home / ".ssh").mkdir()
    (home / "shop/out").symlink_to(home / ".ssh")
    with pytest.raises(InvalidRequestError, match=r"`out:rw` of .* leads to `.*/\.ssh`"):
        found(home).accepted()


def test_a_record_that_others_could_write_or_that_is_damaged_is_not_believed(home: Path) -> None:
    place = keep(home)
    place.chmod(0o644)
    with pytest.raises(InvalidRequestError, match="others can"):
        found(home)
    place.chmod(0o600)
    place.write_bytes(b"{")
    with pytest.raises(InvalidRequestError, match="damaged"):
        found(home)
