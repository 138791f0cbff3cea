"""The broker as a service of its user's systemd: the unit, and telling systemd that it serves (sd_notify(3))."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from collections.abc import Mapping
from pathlib import Path

from remit.errors import NotFoundError, UnavailableError

NAME = "remit.service"
PATIENCE = 60  # seconds that systemctl has
WHERE = ("REMIT_STATE_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME")  # which broker it is
UNIT = """\
[Unit]
Description=remit: credentials for the task at hand

[Service]
Type=notify
NotifyAccess=main
ExecStart={command} up
Restart=on-failure
RestartSec=1
UMask=0077
{environment}
[Install]
WantedBy=default.target
"""


def path(environ: Mapping[str, str]) -> Path:
    """Return where a unit of the user is."""
    own = environ.get("XDG_CONFIG_HOME")
    return (Path(own) if own else Path(environ.get("HOME", "/")) / ".config") / "systemd" / "user" / NAME


def unit(command: Path, environ: Mapping[str, str]) -> str:
    """Return the unit of a broker of the state that an environment names; XDG_RUNTIME_DIR is systemd's to say."""
    named = [f"Environment={_quoted(f'{name}={environ[name]}')}\n" for name in WHERE if environ.get(name)]
    return UNIT.format(command=_quoted(str(command)).replace("$", "$$"), environment="".join(named))


def _quoted(text: str) -> str:
    """Quote a word of a unit (systemd.syntax(7), systemd.unit(5))."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def install(command: Path, environ: Mapping[str, str]) -> Path:
    """Write the unit, and have systemd start it now and at each login; UnavailableError where it cannot."""
    where = path(environ)
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        where.write_text(unit(command, environ), "utf-8")
    except OSError as error:
        raise UnavailableError(f"`{where}` cannot be written: {error.strerror}") from error
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", NAME)
    return where


def uninstall(environ: Mapping[str, str]) -> Path:
    """Have systemd stop the service, and take the unit away."""
    where = path(environ)
    if not where.exists():
        raise NotFoundError(f"there is no `{where}`", help="`remit service install` makes it")
    _systemctl("disable", "--now", NAME)
    where.unlink()
    _systemctl("daemon-reload")
    return where


def state() -> str:
    """Return what systemd says of the service: active, inactive, failed."""
    return _systemctl("is-active", NAME, fails=True)


def _systemctl(*words: str, fails: bool = False) -> str:
    found = shutil.which("systemctl")
    if found is None:
        raise UnavailableError("there is no systemd here", help="have what starts your services run `remit up`")
    command = [found, "--user", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
    if done.returncode and not fails:
        said = (done.stderr.strip().splitlines() or ["it did not say why"])[-1]
        raise UnavailableError(f"`systemctl --user {' '.join(words)}` failed: {said}", help="say it by hand to see why")
    return done.stdout.strip() or "unknown"


def tell(said: str) -> None:
    """Tell systemd, if it started us and asked to be told (``NOTIFY_SOCKET``)."""
    told = os.environ.get("NOTIFY_SOCKET")
    if told:
        address = f"\0{told[1:]}" if told.startswith("@") else told
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(said.encode("ascii"), address)
