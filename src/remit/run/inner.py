"""The launcher's end of the channel to the first process inside (``inside.py``)."""

from __future__ import annotations

import array
import json
import os
import socket
import struct
from collections.abc import Mapping, Sequence

from remit.run.handover import MAX_DESCRIPTORS, Message

CREDENTIALS = struct.Struct("3i")  # pid, uid, gid
Ancillary = Sequence[tuple[int, int, bytes]]


class Inner:
    """Talks to the first process inside; ``pid`` is its number here, told by the kernel."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.pid = 0
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)

    def hello(self) -> bool:
        """Wait until the process inside speaks; False when it never will."""
        heard = self._receive()
        if heard is None:
            return False
        for level, kind, data in heard[1]:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_CREDENTIALS):
                self.pid = CREDENTIALS.unpack(data)[0]
        return self.pid > 0

    def order(self, listeners: object, keep: Sequence[int], tty: Sequence[int]) -> list[int]:
        """Have listeners bound and descriptors 0-2 put in place; return the listening descriptors, terminal last."""
        self._send({"listeners": listeners, "keep": list(keep), "tty": list(tty)}, keep)
        heard = self._receive()
        return [] if heard is None else _rights(heard[1])

    def go(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        """Have the process inside become the command."""
        self._send({"command": list(command), "environment": dict(environment)})

    def failure(self) -> int | None:
        """Wait until the command runs; return the errno when it could not be executed."""
        heard = self._receive()
        failed = heard[0].get("failed") if heard else None
        return failed if isinstance(failed, int) else None

    def _send(self, message: Mapping[str, object], descriptors: Sequence[int] = ()) -> None:
        data = json.dumps(message).encode()
        packet = struct.pack("!I", len(data)) + data
        rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        try:
            sent = self.sock.sendmsg([packet], rights)
            self.sock.sendall(packet[sent:])
        except ConnectionError:  # it has gone; the next receive says so
            return

    def _receive(self) -> tuple[Message, Ancillary] | None:
        room = socket.CMSG_SPACE(CREDENTIALS.size) + socket.CMSG_SPACE(MAX_DESCRIPTORS * 4)
        try:
            head, ancillary, _, _ = self.sock.recvmsg(4, room)
            head += self._exactly(4 - len(head)) if head else b""
            if len(head) < 4:  # noqa: PLR2004 - the length of a length
                return None
            return json.loads(self._exactly(struct.unpack("!I", head)[0])), ancillary
        except ConnectionError:
            return None

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            part = self.sock.recv(size - len(data))
            if not part:
                raise ConnectionResetError
            data += part
        return data


def _rights(ancillary: Ancillary) -> list[int]:
    found = array.array("i")
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    for descriptor in found:
        os.set_inheritable(descriptor, False)
    return list(found)
