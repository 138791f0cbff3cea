from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from remit.cli.entry import run
from remit.compose import systemd
from remit.errors import NotFoundError, UnavailableError

SYSTEMCTL = """#!/bin/sh
echo "$@" >> "$0.told"
case "$*" in *is-active*) echo active;; *"$FAILS"*) echo "no bus" >&2; exit 1;; esac
"""


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put a systemctl of our own on the path; return what it was told."""
    made = tmp_path / "bin" / "systemctl"
    made.parent.mkdir()
    made.write_text(SYSTEMCTL)
    made.chmod(0o755)
    monkeypatch.setenv("PATH", f"{made.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("FAILS", "never")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return made.with_name("systemctl.told")


def test_the_unit_runs_the_broker_of_this_state() -> None:
    text = systemd.unit(Path("/opt/my tools/100%/$x/remit"), {"REMIT_STATE_DIR": '/srv/a"b', "HOME": "/root", "A": "b"})
    lines = text.splitlines()
    assert 'ExecStart="/opt/my tools/100%%/$$x/remit" up' in lines
    assert 'Environment="REMIT_STATE_DIR=/srv/a\\"b"' in lines
    assert {"Type=notify", "NotifyAccess=main", "UMask=0077", "WantedBy=default.target"} <= set(lines)
    assert "HOME" not in text


def test_a_service_is_installed_and_taken_away(
    systemctl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unit = tmp_path / "config" / "systemd" / "user" / "remit.service"
    assert run(["service", "status"]) == 0
    assert capsys.readouterr().out.split() == ["unit", "-", "state", "-"]
    assert run(["service", "install"]) == 0
    assert unit.read_text() == systemd.unit(Path(sys.executable).with_name("remit"), os.environ)
    assert systemctl.read_text().splitlines() == ["--user daemon-reload", "--user enable --now remit.service"]
    capsys.readouterr()
    assert run(["service", "status"]) == 0
    assert capsys.readouterr().out.split() == ["unit", str(unit), "state", "active"]
    assert run(["service", "uninstall"]) == 0
    assert not unit.exists()
    with pytest.raises(NotFoundError):
        systemd.uninstall(os.environ)


@pytest.mark.usefixtures("systemctl")
def test_what_systemd_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "enable")
    with pytest.raises(UnavailableError, match=r"enable --now remit\.service` failed: no bus"):
        systemd.install(Path("/usr/bin/remit"), os.environ)
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(UnavailableError, match="no systemd here"):
        systemd.state()


@pytest.mark.slow
@pytest.mark.parametrize("abstract", [False, True])
def test_systemd_is_told_when_the_broker_serves(environ: dict[str, str], tmp_path: Path, abstract: bool) -> None:  # noqa: FBT001 - a parameter
    name = f"@remit-{os.getpid()}" if abstract else str(tmp_path / "notify")
    remit = Path(sys.executable).with_name("remit")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        told.bind(name.replace("@", "\0"))
        told.settimeout(30)
        broker = subprocess.Popen([remit, "up", "--json"], env=environ | {"NOTIFY_SOCKET": name}, stdout=-3)
        assert told.recv(100) == b"READY=1"
        done = subprocess.run([remit, "tree"], env=environ, capture_output=True, text=True, check=False)
        assert done.stdout.strip() == "no task is open"
        broker.send_signal(signal.SIGTERM)
        assert broker.wait(20) == 0
