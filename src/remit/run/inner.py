"""The launcher's end of the channel to the first process inside (``inside.py``)."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress

from remit.run import inside
from remit.run.handover import MAX_DESCRIPTORS, Message

CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
Ancillary = Sequence[tuple[int, int, bytes]]


class Inner:
    """The first process inside; ``pid`` is its number here, told by the kernel, and ``process`` what we started."""

    def __init__(self, sock: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self.sock, self.process = sock, process
        self.pid = 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def hello(self) -> bool:
        """Wait until the process inside speaks; False when it never will."""
        heard = self._receive()
        for level, kind, data in heard[1] if heard else ():
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                self.pid = CREDENTIALS.unpack(data)[0]
        return self.pid > 0

    def order(self, listeners: object, keep: Sequence[int], tty: Sequence[int]) -> list[int]:
        """Have listeners bound and descriptors 0-2 put in place; return the listening descriptors, terminal last."""
        self._send({"listeners": listeners, "keep": list(keep), "tty": list(tty)}, keep)
        heard = self._receive()
        found = array.array("i")
        for level, kind, data in heard[1] if heard else ():
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                found.frombytes(data[: len(data) - len(data) % found.itemsize])
        for descriptor in found:
            os.set_inheritable(descriptor, False)
        return list(found)

    def go(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Have the process inside become the command."""
        self._send({"command": list(command), "environment": dict(environment)})

    def failure(self) -> int | None:
        """Wait until the command runs; return the errno when it could not be executed."""
        heard = self._receive()
        failed = heard[0].get("failed") if heard else None
        return failed if isinstance(failed, int) else None

    def _send(self, message: Mapping[str, object], descriptors: Sequence[int] = ()) -> None:
        with suppress(ConnectionError):  # it has gone; the next receive says so
            inside.send(self.sock, message, list(descriptors))

    def _receive(self) -> tuple[Message, Ancillary] | None:
        room = socket.CMSG_SPACE(CREDENTIALS.size) + socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
        try:
            head, ancillary, _, _ = self.sock.recvmsg(4, room)
            head += inside.read(self.sock, 4 - len(head))
            return json.loads(inside.read(self.sock, struct.unpack("!I", head)[0])), ancillary
        except ConnectionError:
            return None
