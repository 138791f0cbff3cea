"""Policies on the command line: scripts as in ``test_scripts``, on a broker that decides by ``policies/main.cedar``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from remit.cli.entry import run
from remit.compose.app import build
from remit.compose.policy import PolicyDirectory
from remit.web.authentication import SocketAuth
from remit.web.listen import serve
from tests.broker.world import OPERATOR
from tests.cli.test_scripts import Step, obey, plain, steps
from tests.sdk.plane import Served, _unix

SCRIPTS = sorted((Path(__file__).parent / "scripts" / "policies").glob("*.txt"))
_FILE = re.compile(r"(^-- .+? --\n.*?^-- end --\n)", re.MULTILINE | re.DOTALL)
_VERSION = re.compile(r"cedar-[0-9a-f]{16}")


@pytest.fixture
def plane_with_policies(plane: Served, monkeypatch: pytest.MonkeyPatch) -> Served:
    """Serve a broker that decides by the policies in the directory that tests stand in."""
    directory = Path.cwd() / "policies"
    directory.mkdir(mode=0o755)
    (directory / "main.cedar").write_text('@id("all")\npermit (principal, action, resource);\n')
    policies = PolicyDirectory(directory)
    policies.broker = plane.broker
    plane.call(plane.broker.policy.reload(OPERATOR, policies.decide, "first"))
    plane.deps = replace(plane.deps, policies=policies)
    path = plane.directory / "policies.sock"
    plane.listeners.append(plane.call(serve(build(plane.deps), _unix(path), SocketAuth(OPERATOR, plane.base))))
    monkeypatch.setenv("REMIT_SOCKET", str(path))
    config = plane.directory / "config" / "remit" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text(f'[policy]\ndirectory = "{directory}"\n')
    monkeypatch.setenv("XDG_CONFIG_HOME", str(plane.directory / "config"))
    return plane


def put(body: str) -> Iterator[Step]:
    """Yield a script's commands, and write each of its files when the commands before it are done."""
    for part in _FILE.split(body):
        if part.startswith("-- "):
            head, _, content = part.partition("\n")
            path = Path(head.removeprefix("-- ").removesuffix(" --"))
            path.parent.mkdir(exist_ok=True)
            path.write_text(content.removesuffix("-- end --\n"), "utf-8")
        else:
            yield from steps(part)


def shown(text: str) -> list[str]:
    """Return printed lines without what differs from place to place."""
    return [_VERSION.sub("VERSION", line.replace(str(Path.cwd()), "HERE")) for line in plain(text)]


@pytest.mark.usefixtures("plane_with_policies")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs_as_written(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for step in put(script.read_text("utf-8")):
        printed, code = obey(step, monkeypatch)
        where = f"{script.name}: {' '.join(step.command)}"
        assert (where, shown(printed)) == (where, [line.rstrip() for line in step.expected if line.strip()])
        assert (where, code) == (where, step.code)


def test_issuers_are_those_of_the_configuration_and_resources_are_asked_of_a_broker_that_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    directory = tmp_path / "policies"
    directory.mkdir(mode=0o755)
    resource = 'resource == Resource::"payroll"'
    text = f'@id("a") permit (principal in Group::"https://idp.test#temps", action, {resource});'
    (directory / "main.cedar").write_text(text)
    monkeypatch.setenv("REMIT_SOCKET", str(tmp_path / "nowhere.sock"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    config = tmp_path / "remit" / "config.toml"
    config.parent.mkdir()
    for written, warned in (
        ('[[humans]]\nissuer = "https://idp.test"\nclient_id = "a"\n', False),
        ('[[humans]]\nissuer = "https://other.test"\nclient_id = "a"\n', True),
        ("humans = 7\n", False),
        ("nonsense = [", False),
    ):
        config.write_text(written)
        assert run(["policy", "check", str(directory)]) == 0
        printed = capsys.readouterr().out
        assert ("`https://idp.test` is no issuer of `[[humans]]`" in printed) is warned
        assert "note: resources were not looked up: no broker lists them here" in printed


def test_there_are_scripts() -> None:
    assert {path.stem for path in SCRIPTS} == {"check", "test", "explain", "reload"}
