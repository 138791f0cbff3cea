"""The environment of a broker: what is on a list. Whatever else is in it steers libraries and the loader.

So ``SSLKEYLOGFILE`` has the keys of connections written down, ``OPENSSL_CONF`` loads code, ``PGSERVICE`` and the like
name another server. A process that has begun has them already: it is begun anew.
"""

from __future__ import annotations

import os
import sys

PASSED_ON = frozenset(
    {"HOME", "LANG", "PATH", "REMIT_STATE_DIR", "TZ", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "XDG_STATE_HOME"}
)
# What an operator may say besides: how file names are written, whose certificates are trusted, and what its systemd
# passes on, and where that is told that it serves.
OPERATOR = PASSED_ON | {
    *("LC_ALL", "LC_CTYPE", "SSL_CERT_DIR", "SSL_CERT_FILE"),
    *("LISTEN_FDNAMES", "LISTEN_FDS", "LISTEN_PID", "NOTIFY_SOCKET"),
}


def begin_anew() -> None:
    """Begin this process anew with what an operator may say in its environment, unless it has nothing else."""
    if os.environ.keys() <= OPERATOR:
        return
    kept = {name: value for name, value in os.environ.items() if name in OPERATOR}
    os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], kept)  # noqa: S606 - ourselves
