"""A project as it is found, changed and put back: whatever it holds, no key that is moved stays, and undo is exact."""

from __future__ import annotations

import json
import tempfile
import tomllib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit import catalog
from remit.config.backups import Backups
from remit.config.brokering import changed, difference, fetching, masked, moved, project_text, survey
from remit.config.folder import Folder
from remit.keys.file import FileSealer

NAMES = ("openai", "anthropic", "brave", "tavily", "github", "stripe", "exa")
LINES = st.one_of(
    st.sampled_from(["", "# a remark", "LOG_LEVEL=debug", "export A='b c'", "EMPTY=", 'B="c" # d', "PASSWORD=hunter2"]),
    st.from_regex(r"[A-Z]{1,4}=[a-z ]{0,9}", fullmatch=True),
)
SEALER = FileSealer(b"k" * 32)


def key(provider: str, random: bytes) -> str:
    return catalog.placeholder(catalog.load()[provider], random)


@st.composite
def projects(draw: st.DrawFn) -> tuple[dict[str, str], list[str]]:
    """Return the files of a project, and the keys in them: one a provider."""
    keys = {name: key(name, draw(st.binary(min_size=16, max_size=16))) for name in NAMES}
    lines = draw(st.lists(LINES, max_size=6))
    served = draw(st.sets(st.sampled_from(NAMES)))
    for name in draw(st.sets(st.sampled_from(NAMES))):
        variable, quote = catalog.load()[name].variables[0], draw(st.sampled_from(["", '"', "'"]))
        lines.insert(draw(st.integers(0, len(lines))), f"{variable}={quote}{keys[name]}{quote}")
    servers = {
        f"s{number}": {"command": "npx", "args": ["-y", name], "env": {catalog.load()[name].variables[-1]: keys[name]}}
        for number, name in enumerate(sorted(served))
    }
    end = draw(st.sampled_from(["\n", "\r\n"]))
    text = json.dumps({"mcpServers": servers}, indent=draw(st.sampled_from([None, 2])))
    return {".env": end.join([*lines, ""]), ".mcp.json": text}, list(keys.values())


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@settings(max_examples=60)
@given(projects())
def test_no_key_stays_in_a_file_or_is_shown_and_undo_is_exact(project: tuple[dict[str, str], list[str]]) -> None:
    files, keys = project
    with tempfile.TemporaryDirectory() as place:
        for name in ("project", "home", "state"):
            Path(place, name).mkdir()
        here, home = Folder(Path(place, "project")), Folder(Path(place, "home"))
        for name, text in files.items():
            (here.path / name).write_bytes(text.encode())
        before = contents(here.path)
        found = survey(here, home, {}, user=False)
        whose = moved(found, {each: each for each in NAMES})
        change = list(changed(found, whose))
        shown = "\n".join(line for file in change for line in difference(found, file))
        backups = Backups(Path(place, "state"), SEALER)
        backups.keep(str(here.path), change)
        for file in change:
            here.replace(file.name, file.before, file.after, file.mode)
        after = contents(here.path)
        assert not any(each in shown for each in keys)
        assert not any(each.encode() in content for each in keys for content in after.values())
        assert {len(each) for each in after.values()} != {0}
        made = project_text(found, whose)
        assert made is None or set(tomllib.loads(made)["resources"]) == {each.resource for each in whose.values()}
        assert all(why == "" for _, why in backups.undo(here, home))
        assert contents(here.path) == before
        assert json.loads(after[".mcp.json"]).keys() == json.loads(before[".mcp.json"]).keys()


def test_what_looks_like_a_secret_is_shown_by_its_form_alone() -> None:
    text = 'A=0123456789abcdefghij0123 B=postgresql://me:pw@db/x C=plain-words-of-some-length "p\\"w"'
    assert masked(text, ['p"w']) == (
        'A=… (24 characters) B=postgresql://me:…@db/x C=plain-words-of-some-length "… (3 characters)"'
    )


def test_what_a_project_uses_without_a_key_is_known(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"dependencies": {"openai": "6"}}')
    (tmp_path / ".env.example").write_text("TAVILY_API_KEY=\n")
    found = survey(Folder(tmp_path), Folder(tmp_path), {}, user=True)
    assert (found.used, found.keys) == ({"openai": "package.json", "tavily": ".env.example"}, ())
    assert project_text(found, {}) is None
    assert list(fetching(found, {})) == []


def test_one_key_of_two_files_is_one_resource(tmp_path: Path) -> None:
    same = key("brave", b"x" * 16)
    (tmp_path / ".env").write_text(f"BRAVE_API_KEY={same}\n")
    server = {"command": "uvx", "args": [], "env": {"BRAVE_API_KEY": same}}
    (tmp_path / ".mcp.json").write_text(json.dumps({"mcpServers": {"s": server}}))
    found = survey(Folder(tmp_path), Folder(tmp_path), {}, user=True)
    whose = moved(found, {"brave": "brave"})
    assert [file.name for file in changed(found, whose)] == [".env", ".mcp.json"]
    assert len(list(fetching(found, whose))) == 1


@pytest.mark.attack("LAU-17")
def test_thousands_of_names_take_no_time_and_are_not_all_read(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f".env.{number}").write_text(f"OPENAI_API_KEY={key('openai', b'x' * 16)}\n")
    assert len(survey(Folder(tmp_path), Folder(tmp_path), {}, user=True).files) == 32
