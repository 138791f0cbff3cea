from __future__ import annotations

import pytest

from remit.cli.entry import run
from tests.cli.test_approval import Terminal
from tests.sdk.plane import Served

ADD = ["resource", "add", "search", "https://api.search.example", "-b", "actions=GET,paths=/v9/**,args=any"]


def paths(plane: Served) -> tuple[str, ...]:
    """Return what the resource is bounded to."""
    return plane.broker._registry.resource("search").bound[0].texts("paths")


@pytest.mark.parametrize(("typed", "code"), [("n\n", 1), ("\n", 1), ("y\n", 0)])
def test_on_a_terminal_a_resource_that_is_there_is_replaced_when_that_is_meant(
    plane: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, code: int
) -> None:
    monkeypatch.setattr("sys.stdin", Terminal(typed))
    assert run(ADD) == code
    assert "`search` is there already, for https://api.search.example" in capsys.readouterr().err
    assert (paths(plane) == ("/v9/**",)) == (code == 0)


def test_a_script_replaces_it_and_is_told_so(plane: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(ADD) == 0
    assert capsys.readouterr().out == "`search` is replaced\n"
    assert paths(plane) == ("/v9/**",)
