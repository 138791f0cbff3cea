"""Pages hold together: links resolve, Python parses, shell blocks name commands that exist."""

from __future__ import annotations

import ast
import json
import re
import tomllib
from pathlib import Path

import pytest

from tests.docs.test_reference import COMMANDS

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\[[^\]]*\]\(([^)#\s]+)(?:#[^)]*)?\)")


def _id(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _blocks(path: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(path.read_text(encoding="utf-8")) if kind == language]


@pytest.mark.parametrize("path", PAGES, ids=_id)
def test_every_link_leads_to_a_page(path: Path) -> None:
    links = [link for link in LINK.findall(path.read_text(encoding="utf-8")) if "://" not in link]
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.mark.parametrize("path", PAGES, ids=_id)
def test_every_block_of_code_parses(path: Path) -> None:
    for block in _blocks(path, "python"):
        ast.parse(block)
    for block in _blocks(path, "json"):
        json.loads(block)
    for block in _blocks(path, "toml"):
        tomllib.loads(block)


@pytest.mark.parametrize("path", PAGES, ids=_id)
def test_every_remit_command_in_a_shell_block_exists(path: Path) -> None:
    for block in _blocks(path, "sh"):
        for words in re.findall(r"(?:^|[\s|(])remit ((?:[a-z]+ ?){1,2})", block, re.MULTILINE):
            first, *rest = words.split()
            assert f"remit {first}" in COMMANDS or (rest and f"remit {first} {rest[0]}" in COMMANDS), words


@pytest.mark.parametrize("path", PAGES, ids=_id)
def test_every_page_has_one_title(path: Path) -> None:
    text = re.sub(FENCE, "", path.read_text(encoding="utf-8"))
    assert len(re.findall(r"^# ", text, re.MULTILINE)) == 1


def test_the_index_of_decisions_has_each_in_order() -> None:
    place = ROOT / "docs" / "decisions"
    there = sorted(path.name for path in place.glob("[0-9]*.md"))
    assert LINK.findall((place / "README.md").read_text(encoding="utf-8")) == there
    titles = {name: (place / name).read_text(encoding="utf-8").split("\n", 1)[0] for name in there}
    assert [name for name, title in titles.items() if not title.startswith(f"# {name[:4]} ")] == []
