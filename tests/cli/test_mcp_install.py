"""``remit mcp install``: what it shows, asks, changes and takes back."""

from __future__ import annotations

import io
import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from remit.cli.entry import run
from remit.keys.file import load_kek
from tests.sdk.plane import Served

CLAUDE = """\
{
  "numStartups": 7,
  "mcpServers": {
    "github": {"type": "stdio", "command": "github-mcp-server", "args": ["stdio"], "env": {}}
  }
}
"""
OURS = {"type": "stdio", "command": "remit", "args": ["mcp", "serve"]}


@pytest.fixture
def home(plane: Served, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Be a user who has a state, and Claude Code."""
    found = plane.directory / "home"
    found.mkdir()
    monkeypatch.setenv("HOME", str(found))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(found / ".config"))
    (plane.directory / "state").mkdir(mode=0o700)
    load_kek(plane.directory / "state/kek", create=True)
    (found / ".claude.json").write_text(CLAUDE)
    (found / ".claude.json").chmod(0o640)
    return found


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert run(["mcp", "install", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out or "null")


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(["mcp", "install", *arguments]) != 0
    return capsys.readouterr().err


def test_the_server_is_added_shown_and_taken_back(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = home / ".claude.json"
    done = told(capsys, "claude-code", "--yes")
    assert done["changed"]
    assert any(line.startswith("+") and "remit" in line for line in done["changes"])
    assert json.loads(file.read_text())["mcpServers"]["remit"] == OURS
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert told(capsys, "claude-code", "--yes")["changed"] is False
    assert told(capsys, "claude-code", "--undo")["files"] == [{"file": "~/.claude.json", "restored": True}]
    assert file.read_text() == CLAUDE
    assert told(capsys, "claude-code", "--undo")["files"] == []


def test_a_server_that_is_there_is_started_by_remit(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "claude-code", "--server", "github", "-r", "search:paths=/v1/**", "--yes")
    servers = json.loads((home / ".claude.json").read_text())["mcpServers"]
    assert servers.keys() == {"github"}
    words = ["run", "--ttl", "7d", "-r", "search:paths=/v1/**", "--", "github-mcp-server", "stdio"]
    assert (servers["github"]["command"], servers["github"]["args"]) == ("remit", words)


def test_a_server_whose_tools_are_named_is_wrapped(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["claude-code", "-s", "github", "-t", "look", "-r", "search", "--yes"]
    assert "remit resource add github mcp+stdio:github" in refused(capsys, *words)
    assert run(["resource", "add", "github", "mcp+stdio:github"]) == 0
    told(capsys, *words)
    server = json.loads((home / ".claude.json").read_text())["mcpServers"]["github"]
    wrap = ["mcp", "wrap", "-s", "github", "--ttl", "7d", "-t", "look", "-r", "search"]
    assert (server["command"], server["args"]) == ("remit", [*wrap, "--", "github-mcp-server", "stdio"])


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("env", [{"PYTHONPATH": "./evil"}, {"PATH": "./bin"}, {"REMIT_SOCKET": "./s"}], ids=str)
def test_a_projects_server_that_would_steer_remit_is_left(
    capsys: pytest.CaptureFixture[str], env: dict[str, str]
) -> None:
    Path(".cursor").mkdir()
    text = json.dumps({"mcpServers": {"github": {"command": "x", "env": env}}})
    Path(".cursor/mcp.json").write_text(text)
    told = refused(capsys, "cursor", "--project", "-s", "github", "-r", "search", "--yes")
    assert f"`.cursor/mcp.json` was left: `github`: `{next(iter(env))}`" in told
    assert Path(".cursor/mcp.json").read_text() == text


@pytest.mark.usefixtures("home")
def test_in_a_project_the_file_and_its_folder_are_made(capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "vs-code", "--project", "--yes")
    assert json.loads(Path(".vscode/mcp.json").read_text()) == {"servers": {"remit": OURS}}
    told(capsys, "vs-code", "--project", "--undo")
    assert not Path(".vscode/mcp.json").exists()


def test_what_one_client_was_given_is_taken_back_alone(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "claude-code", "--yes")
    told(capsys, "cursor", "--project", "--yes")
    told(capsys, "cursor", "--project", "--undo")
    assert not Path(".cursor/mcp.json").exists()
    assert "remit" in json.loads((home / ".claude.json").read_text())["mcpServers"]


def test_of_a_file_that_its_client_has_written_since_the_change_alone_is_taken_back(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = home / ".claude.json"
    told(capsys, "claude-code", "--yes")
    told(capsys, "claude-code", "-s", "github", "-r", "search", "--yes")
    document = json.loads(file.read_text())
    file.write_text(json.dumps({"new": True, **document, "numStartups": 8}))
    told(capsys, "claude-code", "--undo")
    expected = {**json.loads(CLAUDE), "new": True, "numStartups": 8}
    assert json.loads(file.read_text()) == expected
    assert told(capsys, "claude-code", "--undo")["files"] == []


@pytest.mark.parametrize("text", ['{"mcpServers": {"remit": {"command": "remit", "args": ["other"]}}}', "{", "{}"])
def test_what_is_not_as_it_was_made_is_left(home: Path, capsys: pytest.CaptureFixture[str], text: str) -> None:
    told(capsys, "claude-code", "--yes")
    (home / ".claude.json").write_text(text)
    assert "has changed since" in refused(capsys, "claude-code", "--undo")
    assert (home / ".claude.json").read_text() == text


@pytest.mark.parametrize("words", [["--dry-run"], []])
def test_nothing_changes_unasked(home: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    capsys.readouterr()
    code = run(["mcp", "install", "claude-code", *words])
    assert code == (0 if words else 1)
    assert "remit" in capsys.readouterr().out
    assert (home / ".claude.json").read_text() == CLAUDE


@pytest.mark.parametrize(("answer", "changed"), [("y\n", True), ("n\n", False)])
def test_a_human_is_asked(home: Path, monkeypatch: pytest.MonkeyPatch, answer: str, *, changed: bool) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(answer))
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    run(["mcp", "install", "claude-code"])
    assert ((home / ".claude.json").read_text() != CLAUDE) is changed


def test_the_list_says_which_clients_are_found(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / ".codex").mkdir()
    found = {(each["client"], each["file"]): each["found"] for each in told(capsys, "--list")["clients"]}
    assert len({name for name, _ in found}) == 16
    assert {key for key, there in found.items() if there} == {
        ("claude-code", "~/.claude.json"),
        ("codex", "~/.codex/config.toml"),
    }


def test_a_client_that_is_not_installed_gets_no_file(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "start it once" in refused(capsys, "windsurf", "--yes")
    assert not (home / ".codeium").exists()


@pytest.mark.usefixtures("home")
def test_a_link_leads_nowhere(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    Path(".cursor").symlink_to(tmp_path / "elsewhere")
    assert run(["mcp", "install", "cursor", "--project", "--yes"]) != 0
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert capsys.readouterr().err


def test_a_run_installs_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("REMIT_GRANT", "grt_x")
    assert "outside of" in refused(capsys, "claude-code", "--yes")
    assert (home / ".claude.json").read_text() == CLAUDE


@pytest.mark.usefixtures("home")
def test_backups_are_sealed_and_our_own(plane: Served, capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "claude-code", "--yes")
    [kept] = (plane.directory / "state" / "mcp").iterdir()
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert b"numStartups" not in kept.read_bytes()
    assert not (plane.directory / "state" / "init").exists()
    assert os.environ["HOME"]


REMOTE = '{"mcpServers": {"forge": {"url": "https://forge.example/mcp", "headers": {"Authorization": "Bearer old"}}}}'
ADD = ["resource", "add", "forge", "mcp+https://forge.example/mcp"]


def test_a_server_at_a_url_is_reached_through_the_gateway_once_it_has_the_key(
    home: Path, plane: Served, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = home / ".claude.json"
    file.write_text(REMOTE)
    assert "remit resource add forge mcp+https://forge.example/mcp" in refused(
        capsys, "claude-code", "-s", "forge", "--yes"
    )
    assert run(ADD) == 0
    assert "remit secret set forge" in refused(capsys, "claude-code", "-s", "forge", "--yes")
    assert file.read_text() == REMOTE
    monkeypatch.setattr("sys.stdin", io.StringIO("new-key-0123456789"))
    assert run(["secret", "set", "forge"]) == 0
    assert told(capsys, "claude-code", "-s", "forge", "--yes")["changed"]
    assert json.loads(file.read_text()) == {"mcpServers": {"forge": {"url": f"{plane.base}/forge"}}}
    told(capsys, "claude-code", "--undo")
    assert file.read_text() == REMOTE


def test_what_a_server_reaches_is_said_for_one_that_is_started_alone(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--resource" in refused(capsys, "claude-code", "-s", "github", "--yes")
    assert "--resource" in refused(capsys, "claude-code", "-r", "search", "--yes")
    assert (home / ".claude.json").read_text() == CLAUDE
