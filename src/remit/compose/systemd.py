"""The broker as a service of its user's systemd: its units.

Systemd binds what the broker listens on and passes it on (``activation.py``): it starts the broker for who connects,
and whoever connects while one is started again waits.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from remit.compose import activation
from remit.compose.up import outwait
from remit.config.settings import Settings
from remit.config.values import Address
from remit.errors import NotFoundError, UnavailableError
from remit.process import owner
from remit.stores import private

NAME = "remit.service"
PATIENCE = 60  # seconds that systemctl has
IDLE = 8.0  # seconds for a broker that some command started to end
WHERE = ("REMIT_STATE_DIR", "XDG_CONFIG_HOME", "XDG_STATE_HOME")  # which broker it is
UNIT = """\
[Unit]
Description=remit: credentials for the task at hand

[Service]
Type=notify
NotifyAccess=main
ExecStart={command} up
ExecReload=/bin/kill -HUP $MAINPID
Sockets={sockets}
Restart=on-failure
RestartSec=1
UMask=0077
{environment}
[Install]
WantedBy=default.target
Also={sockets}
"""
SOCKET = """\
[Unit]
Description=remit: {what}

[Socket]
ListenStream={where}
FileDescriptorName={name}
Service={service}
SocketMode=0600
DirectoryMode=0700
RemoveOnStop=yes

[Install]
WantedBy=sockets.target
"""


def folder(environ: Mapping[str, str]) -> Path:
    """Return where units of the user are."""
    own = environ.get("XDG_CONFIG_HOME")
    return (Path(own) if own else Path(environ.get("HOME", "/")) / ".config") / "systemd" / "user"


def units(command: Path, settings: Settings, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the units of a broker of the state that an environment names, by their names: the service is the last.

    What systemd calls ``%t`` is XDG_RUNTIME_DIR, which is its own to say.
    """
    found = dict[str, str]()
    for name, address in activation.addresses(settings).items():
        where = address if isinstance(address, str) else str(Address(address))
        escaped = where.replace("%", "%%")
        if name == activation.CONTROL and not environ.get("REMIT_STATE_DIR"):
            escaped = f"%t/remit/{settings.places.control.name}"
        unit = "remit.socket" if name == activation.CONTROL else f"remit-{name}.socket"
        found[unit] = SOCKET.format(what=f"the listener `{name}`", where=escaped, name=name, service=NAME)
    named = [f"Environment={_quoted(f'{name}={environ[name]}')}\n" for name in WHERE if environ.get(name)]
    start = _quoted(str(command)).replace("$", "$$")
    found[NAME] = UNIT.format(command=start, environment="".join(named), sockets=" ".join(found))
    return found


def _quoted(text: str) -> str:
    """Quote a word of a unit (systemd.syntax(7), systemd.unit(5))."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") + '"'


def install(command: Path, settings: Settings, environ: Mapping[str, str]) -> Path:
    """Write the units, and have systemd start them now and at each login; return where they are.

    UnavailableError where it cannot, and while another broker serves the state: systemd would take its socket away.
    """
    where, wanted = settings.places, units(command, settings, environ)
    if _known(environ):
        uninstall(environ)
    outwait(where.lock, IDLE)
    serving = owner.holder(where.database, private.holder(where.lock))
    if serving is not None:
        raise UnavailableError(f"a broker serves this state: process {serving}", help="end it first: `remit down`")
    there = folder(environ)
    try:
        there.mkdir(parents=True, exist_ok=True)
        for name, text in wanted.items():
            (there / name).write_text(text, "utf-8")
    except OSError as error:
        raise UnavailableError(f"`{there}` cannot be written: {error.strerror}") from error
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", *wanted)
    return there


def uninstall(environ: Mapping[str, str]) -> Path:
    """Have systemd stop the service and its listeners, and take the units away; return where they were."""
    known, there = _known(environ), folder(environ)
    if not known:
        raise NotFoundError(f"there is no `{there / NAME}`", help="`remit service install` makes it")
    _systemctl("disable", "--now", *(unit.name for unit in known))
    for unit in known:
        unit.unlink()
    _systemctl("daemon-reload")
    return there


def _known(environ: Mapping[str, str]) -> list[Path]:
    """Return our units that are there, the service before its sockets, which would start it again."""
    there = folder(environ)
    return [*there.glob(NAME), *sorted(there.glob("remit.socket")), *sorted(there.glob("remit-*.socket"))]


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
