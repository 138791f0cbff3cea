"""A port below 1024 in the network of a run, bound from outside: nothing in the run has the capability to.

bubblewrap leaves the user namespace that owns the network, and whoever made a namespace may act in it
(user_namespaces(7), "Capabilities"). So a child of the launcher goes there, binds, and passes the socket back.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import socket

from remit.errors import UnavailableError
from remit.run import mounted
from remit.run.inside import BACKLOG

LOWEST = 1024  # that anybody may bind
_NS_GET_USERNS = 0xB701  # ioctl_nsfs(2)
_NEW_USER, _NEW_NET = 0x10000000, 0x40000000


def is_one(port: object) -> bool:
    return isinstance(port, int) and 0 < port < LOWEST


def bind(pid: int, port: int) -> int:
    """Return a socket that listens on 127.0.0.1 in the network of a process. UnavailableError if it cannot be."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = os.fork()
        if not child:
            _there(theirs, pid, port)
        theirs.close()
        descriptors = socket.recv_fds(ours, 1, 1)[1]
        os.waitpid(child, 0)
    if not descriptors:
        raise UnavailableError(f"port {port} of the run could not be bound")
    return descriptors[0]


def _there(answer: socket.socket, pid: int, port: int) -> None:
    """Bind and answer, as a process of its own; it ends here."""
    try:
        network = os.open(mounted.shown(pid) / "ns/net", os.O_RDONLY)
        owner, libc = fcntl.ioctl(network, _NS_GET_USERNS), ctypes.CDLL(None)
        if not libc.setns(owner, _NEW_USER) and not libc.setns(network, _NEW_NET):
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", port))
            sock.listen(BACKLOG)
            socket.send_fds(answer, [b"\0"], [sock.fileno()])
    finally:
        os._exit(0)
