from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.live import idp
from tests.live.idp import Provider
from tests.live.terminal import PATIENCE, Terminal

pytestmark = pytest.mark.live

WHO = ("--client-id", "remit")


@pytest.fixture(scope="module")
def provider() -> Iterator[Provider]:
    """Serve a real identity provider."""
    with idp.served() as found:
        yield found


@pytest.fixture
def terminal(tmp_path: Path, provider: Provider) -> Terminal:
    """Sit at a terminal of one's own."""
    return Terminal(tmp_path, provider.issuer)


def test_a_human_logs_in_by_browser_and_out_again(terminal: Terminal, provider: Provider) -> None:
    shown = terminal.told("login", "--issuer", provider.issuer, *WHO)
    assert (shown["issuer"], shown["sub"], shown["renewable"]) == (provider.issuer, "alice", True)
    assert shown["acr"] == "urn:test:password"
    assert terminal.told("whoami") == shown
    assert stat.S_IMODE((terminal.state / "session").stat().st_mode) == 0o600
    ended = terminal.told("logout")
    assert ended["revoked"]
    assert ended["page"].startswith(f"{provider.issuer}/session/end?")
    assert terminal.run("whoami")[0] == 1


def test_a_human_logs_in_by_a_code_in_a_browser_elsewhere(terminal: Terminal, provider: Provider) -> None:
    with terminal.start("login", "--issuer", provider.issuer, *WHO, "--device", "--json") as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        found = re.search(r"http://\S+", line)
        assert found is not None, line
        terminal.browser().visit(found[0])
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
    assert terminal.told("whoami")["sub"] == "alice"
    assert "alice" in out


def test_a_human_who_refuses_is_not_logged_in(terminal: Terminal, provider: Provider) -> None:
    terminal.consent = False
    code, _, err = terminal.run("login", "--issuer", provider.issuer, *WHO)
    assert code == 1
    assert "the issuer refused" in err
    assert terminal.run("whoami")[0] == 1


def test_an_issuer_that_is_away_is_said(terminal: Terminal) -> None:
    code, _, err = terminal.run("login", "--issuer", "http://127.0.0.1:9", *WHO)
    assert code == 1
    assert "the issuer does not answer" in err
