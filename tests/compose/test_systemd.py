from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from remit.cli.entry import run
from remit.compose import systemd
from remit.config.settings import load, places, read
from remit.errors import NotFoundError, UnavailableError
from remit.stores import private

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


def test_the_units_run_the_broker_of_this_state() -> None:
    environ = {"REMIT_STATE_DIR": '/srv/100%/a"b', "HOME": "/root", "A": "b"}
    made = systemd.units(Path("/opt/my tools/100%/$x/remit"), read(places(environ), {}), environ)
    assert list(made) == ["remit.socket", "remit-api.socket", "remit-gateway.socket", "remit.service"]
    text = made["remit.service"]
    lines = text.splitlines()
    assert "Sockets=remit.socket remit-api.socket remit-gateway.socket" in lines
    assert 'ExecStart="/opt/my tools/100%%/$$x/remit" up' in lines
    assert 'Environment="REMIT_STATE_DIR=/srv/100%%/a\\"b"' in lines
    assert {"Type=notify", "NotifyAccess=main", "UMask=0077", "WantedBy=default.target"} <= set(lines)
    assert "HOME" not in text
    control, api = (made[name].splitlines() for name in ("remit.socket", "remit-api.socket"))
    assert {'ListenStream=/srv/100%%/a"b/run/control.sock', "FileDescriptorName=control", "SocketMode=0600"} <= set(
        control
    )
    assert {"ListenStream=127.0.0.1:8470", "FileDescriptorName=api", "Service=remit.service"} <= set(api)
    usual = systemd.units(Path("/usr/bin/remit"), read(places({"XDG_RUNTIME_DIR": "/run/user/7"}), {}), {})
    assert "ListenStream=%t/remit/control.sock" in usual["remit.socket"].splitlines()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="there is no systemd here")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    environ = {"REMIT_STATE_DIR": str(tmp_path / "my state")}
    made = systemd.units(Path(sys.executable).with_name("remit"), read(places(environ), {}), environ)
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    where = {"XDG_RUNTIME_DIR": str(tmp_path), "PATH": os.environ["PATH"], "HOME": str(tmp_path)}
    command = ["systemd-analyze", "--user", "--recursive-errors=no", "verify", *(str(tmp_path / name) for name in made)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=where)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_service_is_installed_and_taken_away(
    systemctl: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    there = tmp_path / "config" / "systemd" / "user"
    unit, sockets = there / "remit.service", "remit.socket remit-api.socket remit-gateway.socket"
    assert run(["service", "status"]) == 0
    assert capsys.readouterr().out.split() == ["unit", "-", "state", "-"]
    assert run(["service", "install"]) == 0
    wanted = systemd.units(Path(sys.executable).with_name("remit"), load(os.environ), os.environ)
    assert {path.name: path.read_text() for path in there.iterdir()} == wanted
    assert systemctl.read_text().splitlines() == [
        "--user daemon-reload",
        f"--user enable --now {sockets} remit.service",
    ]
    (there / "remit-tls.socket").touch()  # of what was configured then
    assert run(["service", "install"]) == 0
    assert "--user disable --now remit.service remit.socket remit-api.socket" in systemctl.read_text()
    assert {path.name for path in there.iterdir()} == wanted.keys()
    capsys.readouterr()
    assert run(["service", "status"]) == 0
    assert capsys.readouterr().out.split() == ["unit", str(unit), "state", "active"]
    assert run(["service", "uninstall"]) == 0
    assert list(there.iterdir()) == []
    with pytest.raises(NotFoundError):
        systemd.uninstall(os.environ)


@pytest.mark.usefixtures("systemctl")
def test_no_service_takes_the_sockets_of_a_broker_that_serves(
    environ: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    where = places(environ)
    private.make_directory(where.state)
    where.database.touch(0o600)
    held = private.hold(where.database)
    monkeypatch.setattr(systemd, "IDLE", 0.0)
    with pytest.raises(UnavailableError, match=f"process {os.getpid()}") as raised:
        systemd.install(Path("/usr/bin/remit"), load(environ), environ)
    assert "remit down" in (raised.value.help or "")
    assert not systemd.folder(environ).exists()
    private.release([held])


@pytest.mark.usefixtures("systemctl")
def test_what_systemd_refuses_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAILS", "enable")
    with pytest.raises(UnavailableError, match=r"enable --now remit\.socket .*` failed: no bus"):
        systemd.install(Path("/usr/bin/remit"), load(os.environ), os.environ)
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
        assert told.recv(100) == b"STOPPING=1"
        assert broker.wait(20) == 0
