"""Where the broker is, and as whom this process speaks to it.

``REMIT_SOCKET`` and ``REMIT_GRANT`` are set in a run: then the socket is the run's own channel. Outside a run the
operator's control socket is looked up where ``remit up`` puts it. Nothing here is a secret.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from remit.errors import InvalidRequestError, UnavailableError

NO_BROKER = "`remit up` starts one, and `remit run` one that ends when idle; or name another with REMIT_SOCKET"
ELSEWHERE = (
    "commands work on the broker's own host, as its own user; "
    "from elsewhere use its OAuth endpoints over TLS, with a token"
)
_URL = re.compile(r"[a-z][a-z0-9+.-]+:", re.IGNORECASE)
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
    """Return the path of the operator's control socket."""
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
