"""Where the broker is, and as whom this process speaks to it.

``REMIT_SOCKET`` and ``REMIT_GRANT`` are set in a run: then the socket is the run's own channel. Outside a run the
operator's control socket is where the broker of the state noted it, or where this environment would have it put.
Nothing here is a secret.
"""

from __future__ import annotations

import json
import os
import re
import socket
import stat
import struct
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from remit.errors import InvalidRequestError, UnavailableError

NO_BROKER = "`remit up` starts one; or name another with REMIT_SOCKET"
ELSEWHERE = (
    "commands work on the broker's own host, as its own user; "
    "from elsewhere use its OAuth endpoints over TLS, with a token"
)
_URL = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
ANSWER = 1.0  # seconds that a broker has to take a connection
MOST = 4_096  # bytes of a note
_PEER = struct.Struct("3i")  # pid, uid, gid: unix(7)
GATEWAY = "http://127.0.0.1:8471"


@dataclass(frozen=True, slots=True)
class Place:
    """A broker's socket; ``grant`` is the run's own grant, or None outside a run."""

    socket: Path
    grant: str | None = None
    gateway: str | None = None

    @property
    def in_run(self) -> bool:
        """Whether identity is the channel, so that no token is needed."""
        return self.grant is not None

    def check(self) -> None:
        """Raise UnavailableError when there is no socket; httpcore would leave one of its own open in trying."""
        if not self.socket.exists():
            raise UnavailableError("no broker answers", help=NO_BROKER)


def find(environ: Mapping[str, str]) -> Place:
    """Return the place that an environment names, or raise InvalidRequestError: a URL is not one."""
    named, gateway = environ.get("REMIT_SOCKET"), environ.get("REMIT_GATEWAY")
    path = Path(named.removeprefix("unix://")) if named else control(environ)
    if named and _URL.match(named.removeprefix("unix://")):
        raise InvalidRequestError("REMIT_SOCKET names a socket of this host, not a URL", help=ELSEWHERE)
    return Place(path, environ.get("REMIT_GRANT") or None, plain(gateway) if gateway else None)


def plain(gateway: str) -> str:
    """Return the gateway's base URL without the grant that it names."""
    return gateway.partition("/@")[0]


def control(environ: Mapping[str, str]) -> Path:
    """Return the operator's control socket: that of the broker that serves the state, else where one would listen.

    MCP hosts, cron, services and sudo drop or change XDG_RUNTIME_DIR, so a broker notes in the state where it listens.
    """
    return _noted(state(environ) / "broker") or by_default(environ)


def answered(path: Path) -> tuple[int, int] | None:
    """Return the pid and the uid of who listens on a socket (SO_PEERCRED); None: nobody does."""
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        probe.settimeout(ANSWER)
        probe.connect(str(path))
        pid, uid, _ = _PEER.unpack(probe.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size))
        return int(pid), int(uid)
    return None


def _noted(note: Path) -> Path | None:
    """Return what a broker's note names, if the note is ours alone and the very process that wrote it listens there."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        handle = os.open(note, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as file:
            found, told = os.fstat(handle), json.loads(file.read(MOST))
        ours = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o077
        if ours and answered(Path(told["control"])) == (told["pid"], os.geteuid()):
            return Path(told["control"])
    return None


def by_default(environ: Mapping[str, str]) -> Path:
    """Return where a broker that is started in an environment listens for its operator."""
    own, shared = environ.get("REMIT_STATE_DIR"), environ.get("XDG_RUNTIME_DIR")
    if shared and not own:
        return Path(shared) / "remit" / "control.sock"
    return state(environ) / "run" / "control.sock"


def state(environ: Mapping[str, str]) -> Path:
    """Return the directory of the broker's state."""
    own = environ.get("REMIT_STATE_DIR")
    if own:
        return Path(own).absolute()
    home = Path(environ.get("HOME", "/"))
    return (Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "remit").absolute()
