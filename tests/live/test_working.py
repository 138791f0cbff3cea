"""A human who has logged in works: tasks and runs are theirs, and what proves it is nowhere but in their own file."""

from __future__ import annotations

import json
import shlex
import stat
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.live import idp
from tests.live.deployment import POLICY
from tests.live.fleet import SEARCH
from tests.live.idp import Provider
from tests.live.terminal import COMMAND, PATIENCE, Terminal, configure
from tests.support.postgres_server import free_port

REVOKED = "https://schemas.openid.net/secevent/caep/event-type/session-revoked"
REMIT = shlex.join(COMMAND)

pytestmark = pytest.mark.live


@dataclass
class ConsentPage:
    """A terminal beside a running broker, and every token that its login has had."""

    terminal: Terminal
    up: subprocess.Popen[str]
    provider: Provider
    api: str
    seen: set[str]

    def remember(self) -> dict[str, Any]:
        """Look into the session file; return what it holds."""
        kept: dict[str, Any] = json.loads((self.terminal.state / "session").read_text())
        self.seen |= {kept["claims_token"], kept["refresh_token"]}
        return kept

    def told(self, *arguments: str) -> Any:
        """Run a command, and remember the tokens before and after it."""
        found = self.terminal.told(*arguments)
        self.remember()
        return found

    def canaries(self) -> list[bytes]:
        """Return what must not be anywhere: of each token the part that nobody else could have made up."""
        return [token.rpartition(".")[2].encode() for token in self.seen]

    def leaks(self, raw: bytes) -> bool:
        """Whether a token is in ``raw``."""
        return any(canary in raw for canary in self.canaries())


@contextmanager
def consent_page(home: Path, *more: str) -> Iterator[ConsentPage]:
    """Start an identity provider and a broker that believes it, with one resource; ``more`` is said of its humans."""
    policies = home / "policies"
    policies.mkdir(mode=0o700)
    (policies / "all.cedar").write_text(POLICY)
    with idp.served() as provider:
        known = ["[[humans]]", f'issuer = "{provider.issuer}"', 'groups_claim = "groups"', *more]
        secret = home / "secret"
        secret.touch(0o600)
        secret.write_text(idp.SECRET)
        humans = [*known, 'client_id = "remit"', 'scopes = ["openid", "groups"]']
        humans += [*known, 'client_id = "remit-web"', f'client_secret_file = "{secret}"']
        listen = ["[listen]", f'api = "127.0.0.1:{free_port()}"', f'gateway = "127.0.0.1:{free_port()}"']
        configure(home, [*listen, "[policy]", f'directory = "{policies}"', *humans])
        terminal = Terminal(home, provider.issuer, work=home / "project")
        (home / "project").mkdir()
        up = terminal.start("up", "--json")
        try:
            assert up.stdout is not None
            line = up.stdout.readline()
            assert line, up.communicate(timeout=PATIENCE)
            transport = httpx.HTTPTransport(uds=json.loads(line)["control"])
            target = {"kind": "http", "destination": "http://127.0.0.1:1", "bound": [SEARCH], "settings": {}}
            with httpx.Client(transport=transport, base_url="http://control") as control:
                put = control.put("/v1/resources/search", json={**target, "secret": "k-0123456789abcdef"})
                assert put.is_success, put.text
            yield ConsentPage(terminal, up, provider, json.loads(line)["api"], set())
        finally:
            up.terminate()
            up.communicate(timeout=PATIENCE)


@pytest.fixture(scope="module")
def at(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ConsentPage]:
    """A human, logged in."""
    with consent_page(tmp_path_factory.mktemp("home")) as found:
        found.told("login")
        yield found


def test_the_broker_says_where_to_log_in(at: ConsentPage) -> None:
    shown = at.told("whoami")
    assert (shown["issuer"], shown["sub"], shown["renewable"]) == (at.terminal.issuer, "alice", True)
    assert shown["groups"] == ["analysts", "on-call"]
    assert stat.S_IMODE((at.terminal.state / "session").stat().st_mode) == 0o600


def test_every_task_is_opened_by_an_id_token_of_its_own(at: ConsentPage) -> None:
    before = at.remember()
    opened = [at.told("open", f"work {n}", "-r", "search", "--depth", "1", "--fan-out", "1") for n in range(2)]
    after = at.remember()
    assert before["claims_token"] != after["claims_token"]
    for one in opened:
        shown = at.told("show", one["task"])
        assert shown["subject"]["sub"] == f"{at.terminal.issuer}#alice"
    child = at.told("delegate", "part", "-g", opened[0]["grant"], "-r", "search")
    assert child["task"] == opened[0]["task"]
    code, out, err = at.terminal.run("run", "-g", opened[1]["grant"], "--", "sh", "-c", "echo $REMIT_GRANT")
    assert (code, out.strip()) == (0, opened[1]["grant"]), err
    owned = at.told("open", "mine", "-r", "search", "--as-owner")
    assert at.told("show", owned["task"])["subject"]["sub"].startswith("unix://")


def test_a_run_is_the_humans_and_cannot_reach_the_login(at: ConsentPage) -> None:
    session = at.terminal.state / "session"
    inside = (
        f"cat {session} && exit 9; ls -a {at.terminal.state} 2>/dev/null | grep -q session && exit 8; "
        f"{REMIT} whoami 2>whoami.err && exit 7; env; cat whoami.err; {REMIT} show $REMIT_GRANT"
    )
    code, out, err = at.terminal.run("run", "-p", "look", "-r", "search", "--", "sh", "-c", inside)
    at.remember()
    assert code == 0, (out, err)
    assert f"{at.terminal.issuer}#alice" in out
    assert "a run has no login" in out
    assert not at.leaks((out + err).encode())


def test_nothing_of_a_login_is_in_arguments_or_environments(at: ConsentPage) -> None:
    before = at.remember()
    wait = ["run", "-p", "wait", "-r", "search", "--", "sh", "-c", "echo ready; read line"]
    with subprocess.Popen(
        [*COMMAND, *wait], cwd=at.terminal.work, env=at.terminal.environ(),
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        assert at.remember()["refresh_token"] != before["refresh_token"]  # the first ID token may be the login's own
        seen = [
            raw for path in Path("/proc").glob("[0-9]*") for raw in (_read(path / "cmdline"), _read(path / "environ"))
        ]
        assert any(b"echo ready" in raw for raw in seen)
        assert not any(at.leaks(raw) for raw in seen)
        process.communicate(b"\n", timeout=PATIENCE)


def test_nothing_of_a_login_is_in_the_state_the_log_or_the_audit(at: ConsentPage) -> None:
    at.told("open", "look", "-r", "search")
    assert at.terminal.run("open", "look", "-r", "nowhere")[0] == 1
    at.remember()
    assert len(at.seen) > 2
    kept = [path for path in at.terminal.state.rglob("*") if path.is_file() and path.name != "session"]
    assert {"remit.db", "log"} <= {path.name for path in kept}
    assert [path for path in kept if at.leaks(path.read_bytes())] == []
    code, out, err = at.terminal.run("audit", "tail", "-n", "100", "--json")
    assert code == 0
    assert f"{at.terminal.issuer}#alice" in out
    assert not at.leaks((out + err).encode())


def test_after_logging_out_nobody_is_logged_in_and_the_refresh_token_is_spent(tmp_path: Path) -> None:
    with consent_page(tmp_path) as found:
        found.told("login")
        kept = found.remember()
        task = found.told("open", "look", "-r", "search")["task"]
        kept = found.remember()
        assert found.terminal.told("logout")["revoked"]
        assert not (found.terminal.state / "session").exists()
        refused = httpx.post(
            f"{found.terminal.issuer}/token",
            data={"grant_type": "refresh_token", "refresh_token": kept["refresh_token"], "client_id": "remit"},
        )
        assert refused.json()["error"] == "invalid_grant"
        assert not found.terminal.told("show", task)["closed"]  # a logout here is no signal of the issuer
        owned = found.terminal.told("open", "look", "-r", "search")
        assert found.terminal.told("show", owned["task"])["subject"]["sub"].startswith("unix://")


def test_a_run_of_a_human_whose_session_ends_can_do_nothing_any_more(tmp_path: Path) -> None:
    asks = (
        "import os, urllib.error, urllib.request\n"
        "def ask():\n"
        "    try: return urllib.request.urlopen(os.environ['REMIT_GATEWAY'] + '/search/v1/items', timeout=10).status\n"
        "    except urllib.error.HTTPError as error: return error.code\n"
        "    except OSError as error: return type(error).__name__\n"
        "print(ask(), flush=True); input(); print(ask(), flush=True)\n"
    )
    with consent_page(tmp_path) as found:
        found.told("login")
        with subprocess.Popen(
            [*COMMAND, "run", "-q", "-r", "search", "--", "python3", "-c", asks],
            cwd=found.terminal.work, env=found.terminal.environ(),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            assert process.stdout.readline() == b"502\n"  # the upstream is not there, but the gateway let it through
            user = {"format": "iss_sub", "iss": found.terminal.issuer, "sub": "alice"}
            event = found.provider.event("remit", {REVOKED: {}}, sub_id=user)
            headers = {"content-type": "application/secevent+jwt"}
            answer = httpx.post(f"{found.api}/v1/signals/events", content=event, headers=headers)
            assert answer.status_code == 202, answer.text
            out, _ = process.communicate(b"\n", timeout=PATIENCE)
            assert out.strip() == b"403"
        refused = found.terminal.run("open", "look", "-r", "search")
        assert refused[0] == 1
        assert "ended this login" in refused[2]
        assert "log in again" in refused[2]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
