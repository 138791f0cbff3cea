from __future__ import annotations

import json

import pytest

from remit.cli.entry import run
from tests.sdk.plane import Served

Capture = pytest.CaptureFixture[str]
IDS = ["3fA", "3fB", "3fC", "9a1", "9a2", "9a3"]


@pytest.fixture
def tasks(plane: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """Open two tasks, of three grants and a lease."""
    monkeypatch.setattr(plane.world, "ids", iter(IDS))
    assert run(["open", "first", "-r", "search", "--depth", "1", "--fan-out", "1"]) == 0
    assert run(["delegate", "-g", "grt_3fB", "-r", "search"]) == 0
    assert run(["open", "second", "-r", "warehouse"]) == 0
    assert run(["issue", "-g", "grt_9a2", "warehouse"]) == 0
    return plane


@pytest.mark.usefixtures("tasks")
def test_how_an_id_begins_stands_for_it_where_it_names_one(capsys: Capture) -> None:
    for short, whole in [("3fA", "task_3fA"), ("grt_9a", "grt_9a2"), ("lse_9a", "lse_9a3"), ("grt_3fC", "grt_3fC")]:
        capsys.readouterr()
        assert run(["show", short]) == 0
        assert f"  {whole}\n" in capsys.readouterr().out
    assert run(["revoke", "3fC"]) == 0
    assert run(["renew", "9a", "--ttl", "1m"]) == 0
    assert run(["renew", "task_9a", "--ttl", "1h"]) == 0
    assert run(["close", "9a"]) == 0
    assert run(["explain", "-g", "3fB", "GET", "/search/v1/search"]) == 0


@pytest.mark.usefixtures("tasks")
def test_how_several_ids_begin_names_none_and_ends_nothing(capsys: Capture) -> None:
    capsys.readouterr()
    assert run(["revoke", "3f"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert told[0] == "error: 3 ids begin with `3f`"
    assert told[1] == "help: task_3fA (first), grt_3fB (-), grt_3fC (-)"
    assert run(["show", "grt_3fB", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["revoked"] is False


@pytest.mark.usefixtures("tasks")
@pytest.mark.parametrize("text", ["", "9", "grt_", "lse_9", "zz"])
def test_what_begins_no_id_or_is_hardly_anything_names_none(text: str, capsys: Capture) -> None:
    assert run(["revoke", text]) == 1
    assert capsys.readouterr().err.startswith("error: ")
    assert run(["show", "task_9a1"]) == 0


@pytest.mark.usefixtures("tasks")
def test_what_begins_no_id_is_named_as_that(capsys: Capture) -> None:
    capsys.readouterr()
    assert run(["delegate", "-g", "zz", "-r", "search"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "error: there is no `zz`, or you may not know of it",
        "help: see `remit tree`",
    ]
