from __future__ import annotations

import pytest

from remit.cli.entry import run
from tests.sdk.plane import Served

ADD = ["resource", "add", "search", "https://api.search.example", "-b", "actions=GET,paths=/v9/**,args=any"]


def paths(plane: Served) -> tuple[str, ...]:
    """Return what the resource is bounded to."""
    return plane.broker._registry.resource("search").bound[0].texts("paths")


def test_a_resource_that_is_there_is_replaced_when_that_is_said(
    plane: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    before = paths(plane)
    assert run(ADD) == 1
    assert capsys.readouterr().err.startswith("error: `search` is there already, for https://api.search.example\n")
    assert paths(plane) == before
    assert run([*ADD, "--replace"]) == 0
    assert capsys.readouterr().out == "`search` is replaced\n"
    assert paths(plane) == ("/v9/**",)
