from __future__ import annotations

import io

import pytest

from remit.cli.entry import run
from remit.cli.resource import read_secret
from tests.sdk.plane import Served


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("given", "kept"), [("sk-1\n", "sk-1"), ("sk-1\r\n", "sk-1"), ("sk-1", "sk-1"), ("a\n\n", "a\n")]
)
def test_one_newline_at_the_end_is_no_part_of_a_secret(monkeypatch: pytest.MonkeyPatch, given: str, kept: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(given))
    assert read_secret("search") == kept


def test_at_a_terminal_it_is_asked_for_without_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", Terminal())
    monkeypatch.setattr("getpass.getpass", lambda prompt: f"typed after {prompt}")
    assert read_secret("search\x1b[2J") == "typed after secret of search[2J: "


def test_a_secret_is_stored_and_printed_nowhere(
    plane: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("sk-seeded-canary\n"))
    assert run(["secret", "set", "search"]) == 0
    assert plane.call(plane.broker._registry.secret("search")).reveal() == "sk-seeded-canary"
    printed = capsys.readouterr()
    assert "canary" not in printed.out + printed.err


def test_a_secret_that_is_refused_is_printed_nowhere(
    plane: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plane.base
    monkeypatch.setattr("sys.stdin", io.StringIO("sk-canary" * 2_000))
    assert run(["secret", "set", "search"]) == 1
    printed = capsys.readouterr()
    assert "canary" not in printed.out + printed.err
