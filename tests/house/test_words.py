"""What no file in the repository may say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
TEXT = {".py", ".md", ".toml", ".json", ".sql", ".txt", ".lock", ".sh", ".html", ".css", ""}
MACHINE_PATHS = re.compile(r"/" + r"(?:work|root)/|/tmp/" + r"plan\b")
DOWNLOAD_HOSTS = re.compile(
    r"pypi\." + r"org|pythonhosted\." + r"org|registry\.npmjs\." + r"org|deb\.debian\." + r"org"
)
CONFLICTS = re.compile(r"^(<{7} |>{7} |={7}$)", re.MULTILINE)
LIVE_KEYS = re.compile(r"\b(?:AKIA[0-9A-Z]{16}|ghp_[A-Za-z0-9]{36}|sk_live_[A-Za-z0-9]{24,})\b")


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True)
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return [ROOT / name for name in names if Path(name).suffix in TEXT and (ROOT / name).is_file()]


def _saying(pattern: re.Pattern[str]) -> list[str]:
    texts = ((path, path.read_text(encoding="utf-8", errors="replace")) for path in _tracked())
    return [f"{path.relative_to(ROOT)}: {hit.group()}" for path, text in texts for hit in pattern.finditer(text)]


def test_no_file_names_a_path_of_one_machine() -> None:
    assert _saying(MACHINE_PATHS) == []


def test_no_file_names_a_download_host() -> None:
    assert _saying(DOWNLOAD_HOSTS) == []


def test_no_file_holds_a_conflict() -> None:
    assert _saying(CONFLICTS) == []


def test_no_file_holds_something_shaped_like_a_live_key() -> None:
    assert _saying(LIVE_KEYS) == []


def test_source_has_no_open_todo_without_an_issue() -> None:
    assert [hit for hit in _saying(re.compile(r"(?:TODO|FIXME|XXX)\b(?!\(#\d+\))")) if hit.startswith("src/")] == []
