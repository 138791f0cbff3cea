from __future__ import annotations

import io
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from remit.cli import render
from remit.errors import AttenuationError
from remit.sdk.verbs import Report

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
Capture = pytest.CaptureFixture[str]


def test_what_an_agent_wrote_does_not_drive_the_terminal(capsys: Capture) -> None:
    render.said("purpose \x1b[2J\x07 \u202egnihton\r\n")
    assert capsys.readouterr().out == "purpose \\x1b[2J\\x07 \\u202egnihton\\x0d\\x0a\n"


def test_control_characters_are_shown_in_errors_too(capsys: Capture) -> None:
    render.complain(AttenuationError("wider\x1b[31m", help="do\nthis", offending=[{"a": "\x1b"}], enough={"b": 1}))
    assert capsys.readouterr().err.splitlines() == [
        "error: wider\\x1b[31m",
        '  too wide: {"a": "\\u001b"}',
        '  enough: {"b": 1}',
        "help: do\\x0athis",
    ]


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "expired"), (0, "expired"), (59, "59s left"), (61, "1m 01s left"), (3_600, "1h 00m left")],
)
def test_the_time_left_is_short(seconds: int, shown: str) -> None:
    assert render.left((NOW + timedelta(seconds=seconds)).isoformat(), NOW) == shown


def test_values_are_lined_up(capsys: Capture) -> None:
    render.lines({"a": None, "long": True, "map": {"x": 1}})
    assert capsys.readouterr().out == 'a     -\nlong  yes\nmap   {"x": 1}\n'


def test_json_is_one_line(capsys: Capture) -> None:
    render.answer(True, {"b": "é\n", "a": 1})
    assert capsys.readouterr().out == '{"a":1,"b":"é\\n"}\n'


def test_a_report_says_what_can_still_act(capsys: Capture) -> None:
    outstanding = [{"lease": "lse_1", "kind": "aws", "expires_at": "2026-01-01T13:00:00Z"}]
    render.ended(Report("partial", 2, outstanding, 1), as_json=False)
    assert capsys.readouterr().out.splitlines() == [
        "partial: 2 revoked",
        "  outstanding: lse_1 (aws) until 2026-01-01T13:00:00Z",
        "  left to clean up: 1 (nothing of it can act)",
    ]


def test_a_detail_is_one_line() -> None:
    detail = {"type": "http", "resource": "s", "actions": ["GET"], "paths": ["/a", "/b"], "args": {"query.q": "any"}}
    assert render.detail_line({**detail, "uses": 3}) == 's · GET · /a /b · args {"query.q":"any"} · uses 3'


def test_markup_in_a_table_is_text(capsys: Capture) -> None:
    render.table(("a",), [("[red]x[/red]",)])
    assert "[red]x[/red]" in capsys.readouterr().out


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def narrow(monkeypatch: pytest.MonkeyPatch, columns: Sequence[str], *rows: Sequence[object], width: int = 80) -> str:
    """Draw a table on a terminal."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stdout", terminal)
    monkeypatch.setenv("COLUMNS", str(width))
    render.table(columns, rows)
    return re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue())


APPROVAL, UNTIL = "apr_t1QTf8Kq0yq8m3sVZr1n0T", "2026-11-26T15:59:45.123456Z"
ASKED = ("approval", "state", "for", "purpose", "exceeds", "who decides", "until")


@pytest.mark.parametrize("width", [60, 80, 100, 120, 200])
def test_ids_and_times_are_whole_on_a_terminal_of_any_width(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    purpose, exceeds = "a long purpose that wraps " * 3, "pay · GET POST · /v1/refunds/**"
    row = (APPROVAL, "pending", "delegate", purpose, exceeds, "unix://vm#1000", UNTIL)
    drawn = narrow(monkeypatch, ASKED, row, row, width=width)
    words = drawn.split()
    assert words.count(APPROVAL) == words.count(UNTIL) == words.count("unix://vm#1000") == 2
    assert words.count("wraps") == 6
    assert "…" not in drawn


def test_what_is_no_word_wraps_in_its_column(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = narrow(monkeypatch, ("id", "text", "end"), (APPROVAL, "words " * 20, UNTIL))
    assert drawn.split()[:3] == ["id", "text", "end"]
    assert all(len(line) <= 80 for line in drawn.splitlines())
    assert drawn.splitlines()[2].strip().startswith("words words")


def test_a_table_that_nobody_looks_at_is_one_line_a_row(capsys: Capture) -> None:
    render.table(("id", "text"), [(APPROVAL, "words " * 60)])
    assert len(capsys.readouterr().out.splitlines()) == 2


def test_an_empty_table_is_its_header(capsys: Capture) -> None:
    render.table(("id", "text"), [])
    assert capsys.readouterr().out.split() == ["id", "text"]


def test_long_work_shows_a_bar_on_a_terminal_and_leaves_stdout_alone(
    monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    assert list(render.progress(iter(range(3)), 3, "verifying")) == [0, 1, 2]
    with render.waiting("revoking \x1b[2J"):
        pass
    assert "\x1b[2J" not in terminal.getvalue()
    assert capsys.readouterr().out == ""


def test_without_a_terminal_nothing_is_drawn(capsys: Capture) -> None:
    assert list(render.progress(iter(range(3)), None, "verifying")) == [0, 1, 2]
    with render.waiting("revoking"):
        pass
    assert capsys.readouterr().err == ""
