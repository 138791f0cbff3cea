"""Sockets that listen, and what a process is before it serves on them."""

from __future__ import annotations

import json
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from remit.config.settings import Places
from remit.config.values import Address
from remit.errors import UnavailableError
from remit.process import kernel
from remit.stores import private

BACKLOG = 1_024  # who connects while a worker is started again waits there


def bind_unix(path: Path, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """Return a listening socket at ``path``, mode 0600; a stale one is replaced, as the state's lock is ours."""
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, kind)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
    except OSError as error:
        sock.close()
        raise UnavailableError(f"the socket `{path.name}` cannot be made", help="is its path too long?") from error
    finally:
        os.umask(before)
    if kind == socket.SOCK_STREAM:  # the other kind is for hand-overs
        kernel.refuse_descriptors(sock)
    sock.listen(BACKLOG)
    return sock


def bind_tcp(address: Address, setting: str) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
    except OSError as error:
        sock.close()
        raise UnavailableError(f"{address} is in use", help=f'set `{setting}` to another, or to "off"') from error
    sock.listen(BACKLOG)
    return sock


@contextmanager
def noted(where: Places) -> Iterator[None]:
    """Say in the state where we listen for the operator, until the block ends. The state's lock is ours."""
    private.make_file(where.note)
    where.note.write_text(json.dumps({"control": str(where.control), "pid": os.getpid()}), "utf-8")
    try:
        yield
    finally:
        where.note.unlink(missing_ok=True)


def harden() -> None:
    """Keep others out of our memory and of what we make, whatever the umask was; take all descriptors we may have."""
    os.umask(0o077)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    kernel.prctl(kernel.PR_SET_DUMPABLE, 0)
