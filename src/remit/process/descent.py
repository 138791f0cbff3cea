"""Whether a peer is one of our own processes: such a one has no business with the operator's socket."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from pathlib import Path

_CREDENTIALS = struct.Struct("3i")  # pid, uid, gid: unix(7)


def peer(sock: socket.socket) -> tuple[int, int]:
    """Return the pid and the uid of the process at the other end of a unix socket (SO_PEERCRED)."""
    pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return int(pid), int(uid)


def descends(pid: int, ancestor: int) -> bool:
    """Return whether a process is another, or descends from it; one of which this cannot be told does.

    ``pid`` is that of SO_PEERCRED: 0 for a process of a pid namespace that is not ours, nor beneath ours.
    """
    line = _line(pid)
    return ancestor in line or line[-1] != 0 or pid == 0 or line != _line(pid)


def parent(pid: int) -> int:
    """Return the parent of a process, 0 above the first; OSError where it cannot be looked up."""
    stat = Path(f"/proc/{pid}/stat").read_bytes()
    return int(stat.rpartition(b")")[2].split()[1])


def _line(pid: int) -> tuple[int, ...]:
    """Return a process and its ancestors, and 0 at the end unless one could not be looked up."""
    line = [pid]
    with suppress(OSError):
        while line[-1] > 0:
            line.append(parent(line[-1]))
    return tuple(line)
