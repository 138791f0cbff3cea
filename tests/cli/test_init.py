"""``remit init``: what it finds, asks, stores and changes, and ``--undo``. The broker is one in this process."""

from __future__ import annotations

import io
import json
import os
import stat
import threading
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from remit import catalog
from remit.cli.entry import run
from remit.core.secret import Secret
from remit.keys.file import load_kek
from remit.ports import Resource
from remit.sdk import verbs
from tests.broker.world import OPERATOR, details
from tests.sdk.plane import Served

OPENAI = "sk-proj-" + "aB3d_eF6-gH9" * 12
BRAVE = "BSA" + "kL2mN5pQ8rS1-tU4" * 2
GITHUB = "ghp_" + "aB3deF6gH" * 4
BOTH = ("--confirm", "api.openai.com", "--confirm", "api.search.brave.com")
ENV = f"""\
# what the shop needs
export OPENAI_API_KEY="{OPENAI}"  # ours
LOG_LEVEL=debug
STRIPE_SECRET_KEY=${{STRIPE_SECRET_KEY}}
MY_LLM={OPENAI}
"""
MCP = f"""\
{{
  "mcpServers": {{
    "brave": {{
      "command": "npx",
      "args": ["-y", "@brave/brave-search-mcp-server"],
      "env": {{ "BRAVE_API_KEY": "{BRAVE}", "DEBUG": "1" }}
    }}
  }}
}}
"""
CODEX = f"""\
[mcp_servers.github]
command = "github-mcp-server"
env = {{ GITHUB_PERSONAL_ACCESS_TOKEN = "{GITHUB}" }}
"""


@pytest.fixture
def project(plane: Served, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Stand in a project with keys, of a user who has a state, and no key in the environment."""
    home, work = plane.directory / "home", Path.cwd()
    (home / ".codex").mkdir(parents=True)
    (home / ".codex/config.toml").write_text(CODEX)
    for name in [name for name in os.environ if name.endswith(("_KEY", "_TOKEN"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    (plane.directory / "state").mkdir(mode=0o700)
    load_kek(plane.directory / "state/kek", create=True)
    (work / ".env").write_text(ENV)
    (work / ".env").chmod(0o640)
    (work / ".mcp.json").write_text(MCP)
    return work


def told(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert run(["init", *arguments, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    capsys.readouterr()
    assert run(["init", *arguments]) == 1
    return capsys.readouterr().err


def files(project: Path) -> dict[str, tuple[str, int]]:
    """Return all files of a project and of the home, with their modes."""
    found = [path for top in (project, project.parent / "home") for path in top.rglob("*") if path.is_file()]
    return {str(path.relative_to(project.parent)): (path.read_text(), path.stat().st_mode & 0o777) for path in found}


def stored(plane: Served, name: str) -> str | None:
    """Return the key that the broker has for a resource."""
    if name not in {each.name for each in plane.call(plane.broker.resources())}:
        return None
    secret = plane.call(plane.broker.credential(name, plane.call(plane.broker.target(name)).version))
    return None if secret is None else secret.reveal()


def add(plane: Served, name: str, provider: str, key: str | None = None) -> None:
    bound = details({"type": "http", "resource": name, "actions": ["GET"], "paths": ["/**"]})
    there = Resource(name, "http", "http://127.0.0.1:9", bound, None, {"provider": provider})
    plane.call(plane.broker.put_resource(OPERATOR, there, None if key is None else Secret(key)))


def types(monkeypatch: pytest.MonkeyPatch, answers: str) -> None:
    """Sit at a terminal, and type."""
    typed = io.StringIO(answers)
    monkeypatch.setattr(typed, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdin", typed)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)


def test_what_is_found_is_told_without_any_key(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(project)
    document = told(capsys, "--dry-run")
    found = [tuple(key.get(name) for name in ("variable", "where", "provider", "host")) for key in document["keys"]]
    assert found == [
        ("OPENAI_API_KEY", ".env:2", "openai", "api.openai.com"),
        ("MY_LLM", ".env:5", "openai", "api.openai.com"),
        ("BRAVE_API_KEY", ".mcp.json:6", "brave", "api.search.brave.com"),
        ("GITHUB_PERSONAL_ACCESS_TOKEN", "~/.codex/config.toml:3", "github", None),
    ]
    assert document["keys"][0]["key"] == f"sk-proj-… ({len(OPENAI)} characters)"
    assert "--user" in document["keys"][3]["why"]
    assert document["changed"] is False
    assert not any(key in json.dumps(document) for key in (OPENAI, BRAVE, GITHUB))
    assert files(project) == before


def test_keys_go_to_the_store_and_files_name_placeholders(
    project: Path, plane: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(project)
    assert run(["init", *BOTH]) == 0
    said, after = capsys.readouterr(), files(project)
    assert not any(
        key in text for key in (OPENAI, BRAVE) for text in (said.out, said.err, *(t for t, _ in after.values()))
    )
    assert GITHUB not in said.out + said.err
    brokered = ENV.replace(f'"{OPENAI}"', "${OPENAI_API_KEY}").replace(OPENAI, "${MY_LLM}")
    assert after["work/.env"] == (brokered, 0o640)
    server = json.loads(after["work/.mcp.json"][0])["mcpServers"]["brave"]
    assert server["command"] == "remit"
    assert server["args"][:6] == ["run", "--ttl", "7d", "-r", "brave", "-e"]
    made = tomllib.loads(after["work/remit.toml"][0])
    assert made["resources"] == ["openai", "brave"]
    assert (made["depth"], made["fan_out"], made["env"]) == (1, 1, {"MY_LLM": "placeholder:openai"})
    assert (stored(plane, "openai"), stored(plane, "brave"), stored(plane, "github")) == (OPENAI, BRAVE, None)
    assert after["home/.codex/config.toml"] == before["home/.codex/config.toml"]
    assert "https://platform.openai.com/api-keys" in said.out
    assert "-export OPENAI_API_KEY=" in said.out


def test_the_file_that_is_made_counts_once_it_is_allowed(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", *BOTH]) == 0
    assert run(["run", "--", "true"]) == 1
    assert "was not accepted" in capsys.readouterr().err
    assert run(["allow", "--yes"]) == 0
    assert "has MY_LLM = the placeholder of `openai`" in capsys.readouterr().out
    assert (project / "remit.toml").stat().st_mode & 0o022 == 0


def test_undo_puts_everything_back_exactly(project: Path, plane: Served, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(project)
    assert run(["init", "--user", *BOTH, "--confirm", "api.github.com"]) == 0
    assert GITHUB not in "".join(text for text, _ in files(project).values())
    assert run(["init", "--undo"]) == 0
    assert files(project) == before
    assert stored(plane, "openai") == OPENAI
    assert told(capsys, "--undo") == {"files": []}


def test_a_file_that_has_changed_since_is_not_put_back_and_its_backup_stays(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(project)
    assert run(["init", *BOTH]) == 0
    brokered = (project / ".env").read_text()
    (project / ".env").write_text(brokered + "MORE=1\n")
    assert "`.env` was not put back: it has changed since" in refused(capsys, "--undo")
    assert (project / ".env").read_text() == brokered + "MORE=1\n"
    assert (project / ".mcp.json").read_text() == MCP
    assert not (project / "remit.toml").exists()
    (project / ".env").write_text(brokered)
    assert run(["init", "--undo"]) == 0
    assert files(project) == before


@pytest.mark.attack("LAU-17")
def test_backups_are_sealed_and_our_own(project: Path) -> None:
    assert run(["init", *BOTH]) == 0
    kept = list((project.parent / "state/init").iterdir())
    assert [stat.S_IMODE(path.stat().st_mode) for path in (*kept, kept[0].parent)] == [0o600, 0o700]
    assert not any(key.encode() in path.read_bytes() for key in (OPENAI, BRAVE) for path in kept)


def test_only_keys_of_confirmed_hosts_are_moved(project: Path, plane: Served) -> None:
    assert run(["init", "--confirm", "api.search.brave.com"]) == 0
    assert (project / ".env").read_text() == ENV
    assert (stored(plane, "openai"), stored(plane, "brave")) == (None, BRAVE)


def test_a_host_that_no_key_goes_to_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(project)
    assert "no key that was found goes to `evil.example`" in refused(capsys, "--confirm", "evil.example")
    assert files(project) == before


def test_without_a_terminal_nothing_moves(project: Path, plane: Served, capsys: pytest.CaptureFixture[str]) -> None:
    before = files(project)
    assert "there is nobody to ask" in refused(capsys)
    assert (files(project), stored(plane, "openai")) == (before, None)


def test_at_a_terminal_a_human_is_asked_for_each_host_and_for_the_files(
    project: Path, plane: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files(project)
    types(monkeypatch, "n\ny\nn\n")
    assert run(["init"]) == 130
    assert files(project) == before
    types(monkeypatch, "n\ny\ny\ny\n")
    assert run(["init"]) == 0
    out = capsys.readouterr().out
    assert "Move OPENAI_API_KEY of .env:2 to https://api.openai.com, as `openai`?" in out
    assert out.rstrip().endswith(f"accepted: {project}/remit.toml")
    assert (stored(plane, "openai"), stored(plane, "brave")) == (None, BRAVE)
    assert (project / ".env").read_text() == ENV


@pytest.mark.usefixtures("project")
def test_a_resource_that_waits_for_its_key_gets_it_where_its_operator_said(
    plane: Served, capsys: pytest.CaptureFixture[str]
) -> None:
    add(plane, "openai", "openai")
    assert told(capsys, "--dry-run")["keys"][0]["host"] == "127.0.0.1:9"
    assert "goes to `api.openai.com`" in refused(capsys, "--confirm", "api.openai.com")
    assert run(["init", "--confirm", "127.0.0.1:9"]) == 0
    assert stored(plane, "openai") == OPENAI
    assert plane.call(plane.broker.resource("openai")).destination == "http://127.0.0.1:9"


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
def test_a_resource_that_has_another_key_is_left_alone(project: Path, plane: Served, provider: str) -> None:
    add(plane, "openai", provider, "another-key-0123456789")
    assert run(["init", "--confirm", "api.openai.com"]) == 0
    assert (stored(plane, "openai"), stored(plane, "openai-2")) == ("another-key-0123456789", OPENAI)
    assert tomllib.loads((project / "remit.toml").read_text())["resources"] == ["openai-2"]


def test_a_key_that_was_moved_before_is_the_same_resource(project: Path, plane: Served) -> None:
    assert run(["init", *BOTH]) == 0
    assert run(["init", "--undo"]) == 0
    (project.parent / "other").mkdir()
    (project.parent / "other/.env").write_text(f"OPENAI_API_KEY={OPENAI}\n")
    assert run(["init", "../other", "--confirm", "api.openai.com"]) == 0
    assert tomllib.loads((project.parent / "other/remit.toml").read_text())["resources"] == ["openai"]
    assert run(["init", *BOTH]) == 0
    assert stored(plane, "openai-2") is None
    assert OPENAI not in (project / ".env").read_text()


def test_of_two_keys_of_one_provider_one_is_moved(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = OPENAI[::-1].replace("-jorp-ks", "") + "zz"
    (project / ".env.local").write_text(f"OPENAI_API_KEY=sk-proj-{other}\n")
    [found] = [key for key in told(capsys, "--dry-run")["keys"] if key["where"] == ".env.local:1"]
    assert "another key of OpenAI is found before it" in found["why"]
    assert run(["init", "--confirm", "api.openai.com"]) == 0
    assert other in (project / ".env.local").read_text()


def test_what_the_environment_has_is_moved_where_the_project_uses_it(
    project: Path, plane: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-api03-" + "aB3d" * 12)
    monkeypatch.setenv("GITHUB_TOKEN", GITHUB)
    (project / "requirements.txt").write_text("anthropic\ncohere\n")
    found = {key["variable"]: key for key in told(capsys, "--dry-run")["keys"] if key["where"] == "the environment"}
    assert found["ANTHROPIC_API_KEY"]["host"] == "api.anthropic.com"
    assert "nothing here is known to use it" in found["GITHUB_TOKEN"]["why"]
    assert run(["init", "--confirm", "api.anthropic.com"]) == 0
    out = capsys.readouterr().out
    assert "requirements.txt uses Cohere: no key of it was found" in out
    assert "ANTHROPIC_API_KEY is in your environment still" in out
    assert stored(plane, "anthropic") == os.environ["ANTHROPIC_API_KEY"]


def test_a_project_file_that_is_there_is_left(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "remit.toml").write_text('resources = ["a"]\n')
    assert run(["init", *BOTH]) == 0
    out = capsys.readouterr().out
    assert "remit.toml is there already, and was left" in out
    assert '  resources = ["openai", "brave"]' in out
    assert (project / "remit.toml").read_text() == 'resources = ["a"]\n'


def test_a_provider_of_the_operators_own_counts(
    project: Path, plane: Served, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalog, "_known", dict(catalog.load()))  # this process goes on without it
    own = project.parent / "home/.config/remit/providers.toml"
    own.parent.mkdir(parents=True)
    own.write_text(
        '[acme-init]\ntitle = "Acme"\nkey = { header = "X-Key" }\nshape = "acme_<hex:40>"\n'
        'destination = "https://api.acme-init.test"\nvariables = ["ACME_INIT_KEY"]\n'
    )
    (project / ".env").write_text(f"ACME_INIT_KEY=acme_{'0a' * 20}\n")
    assert told(capsys, "--confirm", "api.acme-init.test")["changed"] is True
    assert stored(plane, "acme-init") == f"acme_{'0a' * 20}"


def test_a_file_that_cannot_be_changed_stops_no_other(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = f'mcp_servers.github = {{ command = "x", env = {{ GITHUB_TOKEN = "{GITHUB}" }} }}\n'
    (project / ".codex").mkdir()
    (project / ".codex/config.toml").write_text(odd)
    [found] = [key for key in told(capsys, "--dry-run")["keys"] if key["where"].startswith(".codex")]
    assert "in a way that init cannot change" in found["why"]
    assert run(["init", *BOTH]) == 0
    assert (project / ".codex/config.toml").read_text() == odd


def test_for_keys_of_the_home_alone_no_project_file_is_made(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / ".env").unlink()
    (project / ".mcp.json").unlink()
    assert run(["init", "--user", "--confirm", "api.github.com"]) == 0
    assert "changed: ~/.codex/config.toml;" in capsys.readouterr().out
    assert list(project.iterdir()) == []


@pytest.mark.usefixtures("project")
def test_a_server_that_is_fetched_when_it_starts_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["init", *BOTH]) == 0
    assert "`brave` is started by `npx`, which fetches what it runs" in capsys.readouterr().out


# -- hostile projects ------------------------------------------------------------------------------------------------


@pytest.mark.attack("LAU-17")
@pytest.mark.parametrize("name", [".env", ".mcp.json", ".vscode/mcp.json", "package.json", "remit.toml"])
def test_a_link_in_a_project_leads_nowhere(project: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    outside = project.parent / "outside"
    outside.mkdir()
    (outside / "mcp.json").write_text(MCP.replace("BRAVE_API_KEY", "TAVILY_API_KEY"))
    (outside / "file").write_text(f"OPENAI_API_KEY={GITHUB}\n")
    at = project / name
    at.unlink(missing_ok=True)
    if name == ".vscode/mcp.json":
        at.parent.symlink_to(outside)
    else:
        at.symlink_to(outside / "file")
    before = {path.name: path.read_text() for path in outside.iterdir()}
    document = told(capsys, "--dry-run")
    assert not any(key["where"].startswith(f"{name}:") for key in document["keys"])
    unread = [each["where"] for each in document["not_read"]]
    assert (name in unread) is (name not in {"package.json", "remit.toml"})
    run(["init", *BOTH])
    assert {path.name: path.read_text() for path in outside.iterdir()} == before


@pytest.mark.attack("LAU-17")
def test_names_in_files_drive_no_terminal(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = {"command": "x\x1b[2J", "args": [], "env": {"BRAVE_API_KEY": BRAVE, "\x1b]0;": "1"}}
    (project / ".mcp.json").write_text(json.dumps({"mcpServers": {"\x1b[31m\u202e": server}}))
    assert run(["init", *BOTH]) == 0
    told_here = capsys.readouterr()
    assert not {"\x1b", "\u202e"} & set(told_here.out + told_here.err)


@pytest.mark.attack("LAU-17")
def test_a_file_chooses_no_host(project: Path, plane: Served, capsys: pytest.CaptureFixture[str]) -> None:
    (project / ".env").write_text(
        f"OPENAI_API_KEY={OPENAI}\nOPENAI_BASE_URL=https://evil.example/v1\nFIRECRAWL_API_KEY={GITHUB}\n"
    )
    document = told(capsys, *BOTH)
    assert {key.get("host") for key in document["keys"]} == {"api.openai.com", "api.search.brave.com", None}
    assert plane.call(plane.broker.resource("openai")).destination == "https://api.openai.com"
    assert GITHUB in (project / ".env").read_text()


def test_a_run_and_a_home_have_no_init(
    project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "your home is no project" in refused(capsys, str(project.parent))
    assert "is no folder" in refused(capsys, str(project / ".env"))
    monkeypatch.setenv("REMIT_GRANT", "grt_1")
    assert "a run moves no keys" in refused(capsys, *BOTH)


# -- crashes ---------------------------------------------------------------------------------------------------------


class Crash(BaseException):
    """What no handler takes."""


def die_at(patch: pytest.MonkeyPatch, step: int) -> None:
    """Die at the given step of those that leave something on the disk, or tell the broker something."""
    left, main = [step], threading.get_ident()

    def counted(work: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **named: Any) -> Any:
            if threading.get_ident() == main:
                left[0] -= 1
                if left[0] <= 0:  # and nothing is cleaned up
                    raise Crash
            return work(*arguments, **named)

        return called

    for owner, names in (
        (os, ("rename", "replace", "unlink", "fsync")),
        (verbs, ("put_resource", "put_secret")),
    ):
        for name in names:
            patch.setattr(owner, name, counted(getattr(owner, name)))


@pytest.mark.parametrize("command", [("init", *BOTH), ("init", "--undo")])
def test_a_crash_at_any_step_loses_no_key(project: Path, plane: Served, command: tuple[str, ...]) -> None:
    before, undo = files(project), "--undo" in command
    for step in range(1, 99):
        assert not undo or run(["init", *BOTH]) == 0
        try:
            with pytest.MonkeyPatch.context() as patch:
                die_at(patch, step)
                done = run(command) == 0
        except Crash:
            done = False
        now = "".join(text for text, _ in files(project).values())
        known = [stored(plane, f"{name}{number}") for name in ("openai", "brave") for number in ("", "-2")]
        assert all(key in now or key in known for key in (OPENAI, BRAVE))
        assert run(["init", "--undo"]) == 0
        left = {name: about for name, about in files(project).items() if not name.endswith(".remit~")}
        assert left == before
        assert not undo or files(project) == before
        if done:
            break
    assert 5 < step < 98
