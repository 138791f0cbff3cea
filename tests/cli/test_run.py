from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from remit.cli.entry import run
from remit.run.sandbox import Bind
from remit.run.spec import LaunchSpec
from tests.sdk.plane import Served


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> list[LaunchSpec]:
    """Collect what the launcher is asked for, in its place."""
    specs: list[LaunchSpec] = []

    def main(spec: LaunchSpec, *_: object) -> int:
        specs.append(spec)
        return 7

    monkeypatch.setattr("remit.run.launcher.main", main)
    monkeypatch.setattr("remit.compose.embedded.ensure", lambda *_: None)
    return specs


def request(spec: LaunchSpec) -> dict[str, Any]:
    return dict(spec.request)


@pytest.mark.usefixtures("plane")
def test_outside_a_run_a_task_is_opened_for_the_command(launched: list[LaunchSpec]) -> None:
    code = run(
        ["run", "-p", "summary", "-r", "search:paths=/v1/a", "--depth", "1", "--fan-out", "2", "--", "sh", "-c", "x"]
    )
    assert code == 7
    [spec] = launched
    asked = request(spec)["open"]
    assert spec.command == ("sh", "-c", "x")
    assert (asked["purpose"], asked["depth"], asked["fan_out"], asked["exercise"]) == ("summary", 1, 2, True)
    assert asked["authorization_details"][0]["paths"] == ["/v1/a"]


@pytest.mark.usefixtures("plane")
def test_who_may_be_a_child_is_passed_on(launched: list[LaunchSpec]) -> None:
    run(
        [
            "run",
            "-r",
            "search",
            "--delegate-to",
            "spiffe://prod.test/*",
            "--attested-only",
            "--no-exercise",
            "--",
            "true",
        ]
    )
    run(["run", "-r", "search", "--", "true"])
    first, second = (request(spec)["open"] for spec in launched)
    assert (first["delegates"], first["unattested"], first["exercise"]) == (["spiffe://prod.test/*"], False, False)
    assert ("delegates" in second, second["unattested"], second["exercise"]) == (False, True, True)


@pytest.mark.usefixtures("plane")
def test_a_purpose_that_is_not_said_names_the_program_and_not_its_arguments(launched: list[LaunchSpec]) -> None:
    run(["run", "-r", "search", "--", "/usr/bin/agent", "--key", "sk-oops"])
    run(["run", "-r", "search", "--", "./ag\nent\udcff"])
    assert [request(spec)["open"]["purpose"] for spec in launched] == ["run agent", "run ag\\x0aent\\udcff"]


@pytest.mark.usefixtures("plane")
def test_a_task_lives_no_longer_than_is_said(launched: list[LaunchSpec]) -> None:
    run(["run", "-r", "search", "--ttl", "5m", "--", "true"])
    run(["run", "-r", "search", "--", "true"])
    assert [request(spec)["open"]["ttl"] for spec in launched] == [300, 3_600]


@pytest.mark.usefixtures("plane")
def test_a_grant_is_used_as_it_is(launched: list[LaunchSpec]) -> None:
    run(["run", "-g", "grt_1", "--", "true"])
    assert request(launched[0]) == {"grant": "grt_1"}


@pytest.mark.usefixtures("plane")
def test_a_grant_with_resources_is_delegated_from(launched: list[LaunchSpec]) -> None:
    run(["open", "t", "-r", "search", "--depth", "1", "--fan-out", "1"])
    run(["run", "-g", "grt_1", "-r", "search:uses=3", "--label", "reader", "--", "true"])
    asked = request(launched[0])["delegate"]
    assert (asked["parent"], asked["label"], asked["authorization_details"][0]["uses"]) == ("grt_1", "reader", 3)


@pytest.mark.usefixtures("plane")
@pytest.mark.parametrize(("said", "asked"), [("8h", None), ("5m", 300)])
def test_a_child_that_may_last_longer_than_its_parent_ends_with_it(
    launched: list[LaunchSpec], said: str, asked: int | None
) -> None:
    run(["open", "t", "-r", "search", "--depth", "1", "--fan-out", "1", "--ttl", "1h"])
    run(["run", "-g", "grt_1", "-r", "search", "--ttl", said, "--", "true"])
    assert request(launched[0])["delegate"].get("ttl") == asked


def test_in_a_run_the_runs_own_grant_and_channel_are_used(
    plane: Served, launched: list[LaunchSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(["open", "t", "-r", "search", "--depth", "1", "--fan-out", "1"])
    place = plane.channel("grt_1")
    monkeypatch.setenv("REMIT_SOCKET", str(place.socket))
    monkeypatch.setenv("REMIT_GRANT", "grt_1")
    run(["run", "-r", "search:paths=/v1/a", "--", "true"])
    run(["run", "--", "true"])
    assert request(launched[0])["delegate"]["parent"] == "grt_1"
    assert request(launched[1]) == {"grant": "grt_1"}
    assert {spec.socket for spec in launched} == {place.socket}
    assert launched[0].hidden == ()


def test_what_belongs_to_remit_is_hidden_from_the_run(plane: Served, launched: list[LaunchSpec]) -> None:
    run(["run", "-g", "grt_1", "--", "true"])
    state = plane.directory / "state"
    assert {state, state / "run"} <= set(launched[0].hidden)
    assert launched[0].socket == state / "run" / "control.sock"


def test_a_key_a_witness_and_policies_in_places_of_their_own_are_kept_apart(
    plane: Served, launched: list[LaunchSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(plane.directory))
    config = plane.directory / "remit/config.toml"
    config.parent.mkdir()
    policies = '[policy]\ndirectory = "/etc/remit/policies"\n'
    config.write_text(f'[keys]\nkek = "/keys/kek"\n[audit]\nwitness = "/far/witness"\n{policies}')
    run(["run", "-g", "grt_1", "--", "true"])
    apart = {config, Path("/keys/kek"), Path("/far/witness"), Path("/etc/remit/policies")}
    assert apart <= set(launched[0].apart)


@pytest.mark.usefixtures("plane")
def test_paths_and_variables_are_passed_on(launched: list[LaunchSpec]) -> None:
    run(["run", "-g", "grt_1", "--bind", "/data:rw", "--bind", "/with:colon", "-e", "A=1", "-e", "B", "--", "true"])
    [spec] = launched
    assert spec.binds == (Bind(PurePosixPath("/data"), writable=True), Bind(PurePosixPath("/with:colon")))
    assert spec.env == ("A=1", "B")
    assert spec.cwd == Path.cwd()


@pytest.mark.usefixtures("plane")
def test_less_isolation_is_asked_for_by_name(launched: list[LaunchSpec]) -> None:
    run(["run", "-g", "grt_1", "--net", "host", "--", "true"])
    run(["run", "-g", "grt_1", "--unsandboxed", "-q", "--", "true"])
    assert [(spec.host_net, spec.unsandboxed, spec.quiet) for spec in launched] == [
        (True, False, False),
        (False, True, True),
    ]


@pytest.mark.usefixtures("plane")
def test_what_a_run_may_fill_and_begin_is_passed_on(launched: list[LaunchSpec]) -> None:
    assert run(["run", "-g", "grt_1", "--tmpfs", "512M", "--processes", "64", "--memory=4G", "--nest", "sh"]) == 7
    assert run(["run", "-g", "grt_1", "--", "sh"]) == 7
    assert [(spec.room, spec.processes, spec.memory, spec.nest) for spec in launched] == [
        (512 << 20, 64, 4 << 30, True),
        (2 << 30, 4_096, None, False),
    ]


@pytest.mark.parametrize("size", ["512", "0M", "-1M", "2T", "1.5G", "m", "9999999G"])
def test_a_size_that_is_none_is_a_misuse(size: str, launched: list[LaunchSpec]) -> None:
    assert run(["run", "-g", "grt_1", f"--tmpfs={size}", "--", "sh"]) == 2
    assert run(["run", "-g", "grt_1", f"--memory={size}", "--", "sh"]) == 2
    assert run(["run", "-g", "grt_1", "--processes", "0", "--", "sh"]) == 2
    assert launched == []


def test_the_commands_own_options_are_its_own(launched: list[LaunchSpec]) -> None:
    run(["run", "-g", "grt_1", "ls", "--json", "-r", "x"])
    assert launched[0].command == ("ls", "--json", "-r", "x")


@pytest.mark.usefixtures("plane")
def test_a_run_of_nothing_is_a_misuse(launched: list[LaunchSpec], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["run", "--", "true"]) == 2
    assert "say what is granted" in capsys.readouterr().err
    assert run(["run", "-g", "grt_1"]) == 2
    assert launched == []
