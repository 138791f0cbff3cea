"""Scripts of the command line: each file in ``scripts`` is a conversation with a broker of its own.

``$ remit …`` is a command; what follows is all it prints, stderr after stdout. ``< text`` before a command is its
stdin, ``? n`` after its output its exit code (0 unless said). ``-- name --`` at the end of a file starts a file that
the script finds in its directory. ``TIME`` stands for an instant or what is left of it, ``TYPES`` for all detail types.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from remit.cli.entry import run
from remit.core.scope import TYPES

SCRIPTS = sorted((Path(__file__).parent / "scripts").glob("*.txt"))
_FILE = re.compile(r"^-- (.+) --$", re.MULTILINE)
_TIME = re.compile(
    r"\d{4}-\d\d-\d\dT[0-9:.]+Z?|\b\d+m \d\ds left|\b\d+s left|\b\d+h \d\dm left|(?<=ends in  )\d+ s|\b\d{3} s\b"
)
_EXPIRES = re.compile(r'("expires_in":)\d+')


@dataclass
class Step:
    """One command of a script and what is expected of it."""

    line: int
    command: list[str]
    stdin: str
    expected: list[str] = field(default_factory=list)
    code: int = 0


def steps(text: str) -> Iterator[Step]:
    """Read the commands of a script."""
    stdin, found = "", list[Step]()
    for number, line in enumerate(text.splitlines(), 1):
        match line[:2]:
            case "# ":
                continue
            case "< ":
                stdin += line[2:] + "\n"
            case "$ ":
                found.append(Step(number, shlex.split(line[2:]), stdin))
                stdin = ""
            case "? ":
                found[-1].code = int(line[2:])
            case _ if found:
                found[-1].expected.append(line)
    yield from found


def obey(step: Step, monkeypatch: pytest.MonkeyPatch) -> tuple[str, int]:
    """Run one command; return what it printed and its exit code."""
    assert step.command[0] == "remit"
    out, err = io.StringIO(), io.StringIO()
    monkeypatch.setattr("sys.stdin", io.StringIO(step.stdin))
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run(step.command[1:])
    return out.getvalue() + err.getvalue(), code


def plain(text: str) -> list[str]:
    """Return printed lines with their times, and the white space at their ends, taken out."""
    timed = _EXPIRES.sub(r'\1"TIME"', _TIME.sub("TIME", text)).replace(", ".join(sorted(TYPES)), "TYPES")
    return [line.rstrip() for line in timed.splitlines() if line.strip()]


@pytest.mark.usefixtures("plane")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs_as_written(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body, *files = _FILE.split(script.read_text("utf-8"))
    for name, content in zip(files[::2], files[1::2], strict=True):
        Path(name).write_text(content.lstrip("\n"), "utf-8")
    for step in steps(body):
        printed, code = obey(step, monkeypatch)
        where = f"{script.name}:{step.line}"
        assert (where, plain(printed)) == (where, [line.rstrip() for line in step.expected if line.strip()])
        assert (where, code) == (where, step.code)


def test_there_are_scripts() -> None:
    assert len(SCRIPTS) >= 6
