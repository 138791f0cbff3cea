"""Hosts that a run reaches itself, as commands and a project's file ask for them."""

from __future__ import annotations

from pathlib import Path

import pytest

from remit.cli.entry import run
from remit.run.spec import LaunchSpec
from tests.cli.test_run import launched, request
from tests.sdk.plane import Served

__all__ = ["launched"]


@pytest.fixture
def files(plane: Served) -> Served:
    assert run(["resource", "add", "files", "egress:*.files.test,index.test"]) == 0
    assert run(["resource", "add", "more", "egress:more.test", "--bound", "hosts=more.test"]) == 0
    return plane


def hosts(spec: LaunchSpec) -> list[tuple[str, list[str]]]:
    [asked] = [value for name, value in request(spec).items() if name in {"open", "delegate"}]
    return [(each["resource"], each["hosts"]) for each in asked["authorization_details"] if "hosts" in each]


def test_a_resource_is_bounded_by_all_its_hosts_unless_more_is_said(files: Served) -> None:
    registry = files.broker._registry
    assert registry.resource("files").bound[0].texts("hosts") == ("*.files.test", "index.test")
    assert run(["resource", "add", "odd", "egress:index.test", "--bound", "hosts=other.test"]) == 1
    assert run(["resource", "add", "odd", "egress:Index.test"]) == 1
    assert run(["resource", "add", "odd", "egress:"]) == 1
    assert "odd" not in registry.bounds()


def test_no_other_resource_goes_without_a_bound(plane: Served, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["resource", "add", "odd", "https://api.search.example"]) == 2
    assert "with --bound" in capsys.readouterr().err
    assert "odd" not in plane.broker._registry.bounds()


@pytest.mark.usefixtures("files")
def test_each_host_is_asked_for_from_the_resource_that_has_it(launched: list[LaunchSpec]) -> None:
    words = ["--egress", "a.files.test", "--egress", "more.test", "--egress", "index.test"]
    assert run(["run", *words, "--", "true"]) == 7
    assert run(["run", "-r", "search", *words[:2], "--", "true"]) == 7
    first, second = launched
    assert hosts(first) == [("files", ["a.files.test", "index.test"]), ("more", ["more.test"])]
    assert hosts(second) == [("files", ["a.files.test"])]
    assert len(request(second)["open"]["authorization_details"]) == 2


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("host", ["files.test", "other.test", "*.other.test"])
def test_a_host_that_no_resource_has_is_refused(
    launched: list[LaunchSpec], host: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["run", "--egress", host, "--", "true"]) == 1
    assert f"nothing that is there lets `{host}` through" in capsys.readouterr().err
    assert launched == []


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize("host", ["*.test", "A.files.test", "127.0.0.1", "index.test:443", "https://index.test", ""])
def test_what_is_no_host_is_refused(launched: list[LaunchSpec], host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "--egress", host, "--", "true"]) == 1
    assert "`--egress` must hold hosts by name" in capsys.readouterr().err
    assert launched == []


def test_a_projects_file_asks_for_hosts_and_an_option_stands_in_their_place(
    files: Served, launched: list[LaunchSpec], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(files.directory))
    (Path.cwd() / "remit.toml").write_text('resources = ["search"]\negress = ["index.test"]\n')
    assert run(["allow", "--yes"]) == 0
    assert "  reaches itself index.test: a way out for whatever it knows\n" in capsys.readouterr().out
    assert run(["run", "--", "true"]) == 7
    assert run(["run", "--egress", "more.test", "--", "true"]) == 7
    assert [hosts(spec) for spec in launched] == [[("files", ["index.test"])], [("more", ["more.test"])]]
    assert all(len(request(spec)["open"]["authorization_details"]) == 2 for spec in launched)
