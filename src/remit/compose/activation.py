"""What systemd passes to a broker that it starts, and is told by it: sd_listen_fds(3), sd_notify(3).

It has bound the listeners, and keeps them: who connects while no broker serves waits there.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, MutableMapping

from remit.compose import workers
from remit.config.settings import Settings
from remit.errors import UnavailableError
from remit.process import kernel

CONTROL = "control"  # the operator's
FIRST = 3  # the number of the first descriptor that is passed
VARIABLES = ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES")
ANEW = "`remit service install` writes its units anew"


def addresses(settings: Settings) -> Mapping[str, tuple[str, int] | str]:
    """Return where a broker listens, by the names of its listeners: a path, or an address with its port."""
    tls = None if settings.tls is None else settings.tls.listen
    ports = {workers.API: settings.api, workers.GATEWAY: settings.gateway, workers.TLS: tls}
    found = {name: address for name, address in ports.items() if address is not None}
    return {CONTROL: str(settings.places.control), **found}


def passed(environ: MutableMapping[str, str], settings: Settings) -> Mapping[str, socket.socket]:
    """Return the listeners that are passed to this process, by name; nobody is told of them once more.

    UnavailableError for one that is not where the broker is to listen.
    """
    pid, count, names = (environ.pop(name, "") for name in VARIABLES)
    if pid != str(os.getpid()):
        return {}
    found, due = dict[str, socket.socket](), addresses(settings)
    if count != str(len(names.split(":"))):
        raise UnavailableError("systemd passes listeners without their names", help=ANEW)
    for descriptor, name in enumerate(names.split(":"), FIRST):
        sock = socket.socket(fileno=descriptor)
        sock.set_inheritable(False)
        where = sock.getsockname()
        there = where if isinstance(where, str) else where[:2]
        listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        if not listens or name in found or there != due.get(name):
            raise UnavailableError(f"systemd passes `{there}` as `{name}`, and that is no listener of ours", help=ANEW)
        if sock.family == socket.AF_UNIX:
            kernel.refuse_descriptors(sock)
        found[name] = sock
    return found


def tell(said: str) -> None:
    """Tell systemd, if it started us and asked to be told (``NOTIFY_SOCKET``)."""
    told = os.environ.get("NOTIFY_SOCKET")
    if told:
        address = f"\0{told[1:]}" if told.startswith("@") else told
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(said.encode("ascii"), address)
